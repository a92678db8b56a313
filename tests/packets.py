"""Packets of the wire format, valid and broken, built by hand; ``python tests/packets.py`` writes those of golden/.

Valid ones: the file says what a sender sends. Broken ones: golden/broken/index.json says what the server answers.
"""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.errors import LhmLiveError
from lhm_runtime.motion.bone_names import vrm_bones
from lhm_runtime.motion.landmark_points import BLENDSHAPE_NAMES
from lhm_runtime.motion.retargeting import BoneRotations, Convention
from streaming.protocol import BoneSample, encode_bones, format_sample, parse_sample

GOLDEN = Path(__file__).parent / "streaming" / "golden"
SEQUENCE, CAPTURED_S = 4_000_000_001, 1_790_000_000.125

Packet = bytes | str


def ramp(count: int, start: int, divisor: float, centre: float) -> np.ndarray:
    """The numbers of golden/README.md."""
    i = np.arange(count) + start
    return ((i * 37 % 101 - centre) / divisor).astype(np.float32)


def bones(
    joints: range, *, convention: Convention = "smplx", root: bool = False, face: tuple[str, ...] = ()
) -> BoneSample:
    """Joints turned by ramps."""
    names = JOINT_NAMES if convention == "smplx" else vrm_bones(vrm1=convention == "vrm1")
    quat = ramp(220, 11, 60, 50).reshape(55, 4)[joints.start : joints.stop].astype(np.float64)
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    return BoneSample(
        SEQUENCE,
        BoneRotations(
            names=tuple(names[joint] for joint in joints),
            quat_wxyz=quat.astype(np.float32),
            timestamp_s=CAPTURED_S,
            convention=convention,
            root_transl=ramp(3, 12, 50, 50) if root else None,
            blendshape_names=face,
            blendshape_values=ramp(len(face), 13, 100, 0) if face else None,
        ),
    )


WHOLE = bones(range(55), root=True, face=BLENDSHAPE_NAMES)
UPPER = bones(range(12, 22), convention="vrm1", face=("happy", "jawOpen", "Augen zu, später"))

VALID: dict[str, Packet] = {
    "bones_nobody.bin": encode_bones(bones(range(0))),
    "bones_face.bin": encode_bones(bones(range(0), face=BLENDSHAPE_NAMES)),
    "bones_root.bin": encode_bones(bones(range(0), root=True)),
    "bones_body_rotvec.bin": encode_bones(bones(range(22), root=True), "rotvec"),
    "bones_body_quat_f32.bin": encode_bones(bones(range(22)), "quat_f32"),
    "bones_unity.bin": encode_bones(bones(range(55), convention="unity")),
    "bones_vrm0.bin": encode_bones(bones(range(55), convention="vrm0"), "quat_f32"),
    "bones_upper.bin": encode_bones(UPPER),
    "bones_whole.bin": encode_bones(WHOLE),
    "bones_nobody.json": format_sample(bones(range(0))),
    "bones_upper.json": format_sample(UPPER),
    "bones_upper_rotvec.json": format_sample(UPPER, "rotvec"),
    "bones_whole.json": format_sample(WHOLE),
    "landmarks_nobody.json": format_sample(parse_sample((GOLDEN / "landmarks_nobody.bin").read_bytes())),
    "landmarks_webcam.json": format_sample(parse_sample((GOLDEN / "landmarks_webcam.bin").read_bytes())),
    "landmarks_everything.json": format_sample(parse_sample((GOLDEN / "landmarks_everything.bin").read_bytes())),
}


def _binary(kind: int, parts: int, body: bytes) -> bytes:
    return struct.pack("<2sBBHId", b"LL", 1, kind, parts, 7, 1000.0) + body


def _pelvis(*numbers: float, form: str = "4f") -> bytes:
    return b"\0" + struct.pack(f"<Q{form}", 1, *numbers)


def _text(**change: object) -> str:
    sample: dict[str, object] = {"version": 1, "kind": "rotations", "sequence": 7, "captured_ms": 1000.0}
    sample |= {"rotvec": {"left_elbow": [0.0, -1.2, 0.0]}, **change}
    return json.dumps({name: value for name, value in sample.items() if value != "left out"}, ensure_ascii=False)


def _landmarks(**change: object) -> str:
    return _text(kind="landmarks", rotvec="left out", **{"image_size": [640, 480], **change})


def _damaged(name: str, change: Callable[[bytes], bytes]) -> bytes:
    return change((GOLDEN / name).read_bytes())


_EVERYTHING = "landmarks_everything.bin"

BROKEN: dict[str, Packet] = {
    # any binary sample
    "empty.bin": b"",
    "short_header.bin": b"LL\x01\x01" + bytes(13),
    "other_magic.bin": b"XL" + bytes(20),
    "other_version.bin": b"LL\x02" + bytes(20),
    "other_kind.bin": _binary(7, 0, bytes(4)),
    "time_nan.bin": struct.pack("<2sBBHIdB", b"LL", 1, 2, 0, 7, float("nan"), 0),
    "too_long.bin": _binary(2, 8, bytes(4096)),
    # bones
    "bones_unknown_part.bin": _binary(2, 64, b"\0"),
    "bones_two_forms.bin": _binary(2, 3, b"\0"),
    "bones_no_convention.bin": _binary(2, 0, b""),
    "bones_unknown_convention.bin": _binary(2, 0, b"\4"),
    "bones_joint_55.bin": _binary(2, 2, b"\0" + struct.pack("<Q4f", 1 << 55, 1, 0, 0, 0)),
    "bones_no_joint.bin": _binary(2, 2, b"\0" + bytes(8)),
    "bones_cut_mask.bin": _binary(2, 2, b"\0" + bytes(7)),
    "bones_cut_rotation.bin": _binary(2, 2, _pelvis(1, 0, 0, 0)[:-1]),
    "bones_quat_nan.bin": _binary(2, 2, _pelvis(1, 0, float("nan"), 0)),
    "bones_quat_inf_f16.bin": _binary(2, 4, _pelvis(float("inf"), 0, 0, 0, form="4e")),
    "bones_quat_zero.bin": _binary(2, 2, _pelvis(0, 0, 0, 0)),
    "bones_quat_too_long.bin": _binary(2, 2, _pelvis(3, 0, 0, 0)),
    "bones_quat_tiny.bin": _binary(2, 4, _pelvis(6e-8, 0, 0, 0, form="4e")),
    "bones_rotvec_nan.bin": _binary(2, 1, _pelvis(0, float("nan"), 0, form="3f")),
    "bones_rotvec_degrees.bin": _binary(2, 1, _pelvis(0, 180, 0, form="3f")),
    "bones_root_far.bin": _binary(2, 8, b"\0" + struct.pack("<3f", 0, 1e6, 0)),
    "bones_root_nan.bin": _binary(2, 8, b"\0" + struct.pack("<3f", 0, float("nan"), 0)),
    "bones_score_nan.bin": _binary(2, 16, b"\0" + struct.pack("<52e", *[float("nan")] * 52)),
    "bones_score_above_1.bin": _binary(2, 16, b"\0" + struct.pack("<52e", *[2.0] * 52)),
    "bones_no_shape.bin": _binary(2, 32, b"\0\0"),
    "bones_many_shapes.bin": _binary(2, 32, b"\0\xff"),
    "bones_shape_without_name.bin": _binary(2, 32, b"\0\1\0" + struct.pack("<e", 0.5)),
    "bones_shape_long_name.bin": _binary(2, 32, b"\0\1\x41" + b"a" * 65 + struct.pack("<e", 0.5)),
    "bones_shape_cut.bin": _binary(2, 32, b"\0\1\7jaw"),
    "bones_shape_not_utf8.bin": _binary(2, 32, b"\0\1\2\xff\xfe" + struct.pack("<e", 0.5)),
    "bones_shape_twice.bin": _binary(2, 32, b"\0\2" + 2 * (b"\3joy" + struct.pack("<e", 0.5))),
    "bones_shape_negative.bin": _binary(2, 32, b"\0\1\3joy" + struct.pack("<e", -0.5)),
    "bones_longer.bin": _binary(2, 0, b"\0\0"),
    # landmarks
    "landmarks_unknown_part.bin": _damaged(_EVERYTHING, lambda data: data[:4] + b"\xff\0" + data[6:]),
    "landmarks_cut.bin": _damaged(_EVERYTHING, lambda data: data[:-1]),
    "landmarks_longer.bin": _damaged(_EVERYTHING, lambda data: data + b"\0"),
    "landmarks_no_size.bin": _binary(1, 0, b"\0\0"),
    "landmarks_size_0.bin": _binary(1, 0, struct.pack("<HH", 0, 480)),
    "landmarks_size_huge.bin": _binary(1, 0, struct.pack("<HH", 640, 65535)),
    "landmarks_world_nan.bin": _damaged(_EVERYTHING, lambda data: data[:22] + struct.pack("<f", np.nan) + data[26:]),
    "landmarks_world_far.bin": _damaged(_EVERYTHING, lambda data: data[:22] + struct.pack("<f", -101) + data[26:]),
    "landmarks_image_inf.bin": _damaged(_EVERYTHING, lambda data: data[:418] + struct.pack("<e", np.inf) + data[420:]),
    "landmarks_score_above_1.bin": _damaged(
        _EVERYTHING, lambda data: data[:3200] + struct.pack("<e", 1.5) + data[3202:]
    ),
    "landmarks_head_far.bin": _damaged(_EVERYTHING, lambda data: data[:-4] + struct.pack("<f", 2e5)),
    # any JSON
    "no_json.json": '{"version": 1, ',
    "list.json": "[1]",
    "deep.json": "[" * 30_000,
    "nan.json": _text().replace("-1.2", "NaN"),
    "infinity.json": _text().replace("-1.2", "-Infinity"),
    "huge_number.json": _text().replace("-1.2", "-1e999"),
    "endless_digits.json": _text().replace("1000.0", "9" * 5000),
    "too_long.json": _text(rotvec={f"bone{i}": [0, 0, 0] for i in range(2000)}),
    "other_version.json": _text(version=2),
    "version_true.json": _text(version=True),
    "no_version.json": _text(version="left out"),
    "other_kind.json": _text(kind="video"),
    "no_kind.json": _text(kind="left out"),
    "unknown_key.json": _text(qat_wxyz={}),
    "no_sequence.json": _text(sequence="left out"),
    "sequence_negative.json": _text(sequence=-1),
    "sequence_too_large.json": _text(sequence=2**32),
    "sequence_fraction.json": _text(sequence=1.5),
    "sequence_true.json": _text(sequence=True),
    "no_time.json": _text(captured_ms="left out"),
    "time_text.json": _text(captured_ms="now"),
    # bones in JSON
    "bones_unknown_convention.json": _text(convention="fbx"),
    "bones_convention_number.json": _text(convention=["smplx"]),
    "bones_two_forms.json": _text(quat_wxyz={"neck": [1, 0, 0, 0]}),
    "bones_list.json": _text(rotvec=[[0, 0, 0]]),
    "bones_unknown_bone.json": _text(rotvec={"LeftElbow": [0, 0, 0]}),
    "bones_bone_of_vrm.json": _text(convention="vrm1"),
    "bones_twice.json": _text(rotvec={"neck": [0, 0, 0], "Neck": [0, 0, 0]}),
    "bones_rotvec_of_two.json": _text(rotvec={"neck": [0, 0]}),
    "bones_rotvec_text.json": _text(rotvec={"neck": ["0", 0, 0]}),
    "bones_rotvec_null.json": _text(rotvec={"neck": [None, 0, 0]}),
    "bones_rotvec_degrees.json": _text(rotvec={"neck": [0, 180, 0]}),
    "bones_rotvec_true.json": _text(rotvec={"neck": [True, False, False]}),
    "bones_rotvec_ragged.json": _text(rotvec={"neck": [[0], 0, 0]}),
    "bones_rotvec_beyond_64_bits.json": _text(rotvec={"neck": [10**30, 0, 0]}),
    "bones_quat_zero.json": _text(rotvec="left out", quat_wxyz={"neck": [0, 0, 0, 0]}),
    "bones_root_of_two.json": _text(root=[0, 1]),
    "bones_root_far.json": _text(root=[0, 1e6, 0]),
    "bones_shape_above_1.json": _text(expression={"jawOpen": 1.2}),
    "bones_shape_text.json": _text(expression={"jawOpen": "open"}),
    "bones_shape_without_name.json": _text(expression={"": 0.5}),
    "bones_shape_long_name.json": _text(expression={"ä" * 33: 0.5}),
    "bones_shape_half_a_letter.json": _text(expression={"joy": 0.5}).replace("joy", "\\ud800"),
    "bones_shape_unprintable.json": _text(expression={"jaw\n": 0.5}),
    "bones_half_a_letter.json": _text(rotvec={"neck": [0]}).replace("neck", "\\ud800"),
    "bones_many_shapes.json": _text(expression={f"s{i}": 0.5 for i in range(129)}),
    # landmarks in JSON
    "landmarks_no_size.json": _landmarks(image_size="left out"),
    "landmarks_size_fraction.json": _landmarks(image_size=[640.5, 480]),
    "landmarks_size_huge.json": _landmarks(image_size=[640, 100_000]),
    "landmarks_32_points.json": _landmarks(body_world=[[0, 0, 0]] * 32),
    "landmarks_half_a_part.json": _landmarks(left_hand_world=[[0, 0, 0]] * 21),
    "landmarks_world_far.json": _landmarks(body_world=[[0, 0, 1000]] * 33),
    "landmarks_pixels.json": _landmarks(left_hand_world=[[0, 0, 0]] * 21, left_hand_image=[[320, 240]] * 21),
}


def complaint(packet: Packet) -> str:
    """What the server says to a packet; empty where it takes it."""
    try:
        parse_sample(packet)
    except LhmLiveError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _write(path: Path, packet: Packet) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(packet if isinstance(packet, bytes) else packet.encode())


if __name__ == "__main__":
    for name, packet in VALID.items():
        _write(GOLDEN / name, packet)
    for name, packet in BROKEN.items():
        _write(GOLDEN / "broken" / name, packet)
    index = {name: re.sub(r"(no JSON|no UTF-8|not UTF-8): .*", r"\1", complaint(p)) for name, p in BROKEN.items()}
    text = json.dumps(index, indent=1, ensure_ascii=False, sort_keys=True)
    (GOLDEN / "broken" / "index.json").write_text(text + "\n", encoding="utf-8")
