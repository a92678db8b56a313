"""Fuzz everything that reads bytes from outside; each parser answers with what can be used or with its own error.

    python tools/fuzz_protocol.py -max_total_time=600      by coverage, where atheris is installed: libFuzzer's options
    python tools/fuzz_protocol.py -max_total_time=60       by hypothesis elsewhere: only this option

The first byte of an input chooses the parser. Seeds are the golden samples, and for the others what a sender sends.
"""

import json
import math
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Final

try:
    import atheris
except ImportError:
    atheris = None

with (
    atheris.instrument_imports(
        include=[
            "lhm_runtime.motion.retargeting",
            "lhm_runtime.motion.takes",
            "streaming.osc",
            "streaming.protocol",
            "streaming.rigs",
            "streaming.sources.facemocap",
            "streaming.sources.vmc",
            "streaming.time_code",
            "streaming.wire",
        ]
    )
    if atheris is not None
    else nullcontext()
):
    from lhm_runtime.motion.retargeting import BoneRotations, Retargeter
    from lhm_runtime.motion.takes import MAGIC, Scene, format_pose, format_poses, format_scene, parse_take
    from streaming.errors import ProtocolError
    from streaming.osc import MAX_PACKET_BYTES, OscMessage, decode_packet, encode_bundles, encode_message
    from streaming.protocol import (
        MAX_TEXT_BYTES,
        BoneSample,
        LandmarkSample,
        encode_bones,
        encode_landmarks,
        format_sample,
        parse_sample,
    )
    from streaming.rigs import read_meta
    from streaming.sources.facemocap import read_face
    from streaming.sources.vmc import MAX_SHAPES, VmcReader
    from streaming.time_code import HEIGHT, PERIOD_MS, WIDTH, draw_time_code, pack_time_code, read_time_code

import numpy as np

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.sequences import motion_of_take

GOLDEN: Final = Path(__file__).parents[1] / "tests" / "streaming" / "golden"
MAX_BYTES: Final = 5000
_REST_JOINTS = BodyModel.default().rest_joints()
_BLOCK = struct.Struct("<4sII")


def try_sample(data: bytes) -> None:
    """A message over any transport, as bytes and as text."""
    for packet in (data, data.decode(errors="replace")):
        try:
            sample = parse_sample(packet)
        except ProtocolError as error:
            str(error).encode()  # it can be told
            continue
        _require_sample(sample)


def try_osc(data: bytes) -> None:
    """One UDP packet."""
    try:
        messages = decode_packet(data)
    except ProtocolError as error:
        str(error).encode()
        return
    _require(sum(len(message.arguments) for message in messages) <= MAX_PACKET_BYTES, messages)
    plain = [message for message in messages if all(map(_is_plain, message.arguments))]
    written = encode_bundles(encode_message(message.address, *message.arguments) for message in plain)
    again = [message for packet in written for message in decode_packet(packet)]
    _require(len(again) == len(plain) and all(map(_are_same, again, plain)), messages)


def try_vmc(data: bytes) -> None:
    """A few packets of VTuber software, one after the other: the byte before each is its length by four."""
    reader, now_s = VmcReader(), 100.0
    while data:
        packet, data = data[1 : 1 + 4 * data[0]], data[1 + 4 * data[0] :]
        now_s += 0.001 if len(packet) % 8 else 0.02
        try:
            bones = reader.read(packet, now_s)
        except ProtocolError:
            continue
        if bones is not None:
            _require(len(bones.blendshape_names) <= MAX_SHAPES, bones)
            _require_pose(bones)


def try_face(data: bytes) -> None:
    """A phone's packet."""
    try:
        face = read_face(data, 1.0)
    except ProtocolError as error:
        str(error).encode()
        return
    _require(face.blendshape_values is not None and face.blendshape_values.min() >= 0, face)
    _require_pose(face)


def try_meta(data: bytes) -> None:
    """A rig's description, and what it makes of a pose."""
    try:
        meta = read_meta(data)
    except ProtocolError as error:
        str(error).encode()
        return
    if meta.neutral is not None:
        turned = meta.correct(meta.neutral)
        # T-pose itself is at rest; up to float32
        _require(np.abs(np.abs(turned.quat_wxyz[:, 0]) - 1).max(initial=0) < 1e-4, turned)
        _require_pose(turned)


def try_time_code(data: bytes) -> None:
    """The corner of any picture, and the code of any two times."""
    corner = np.frombuffer(data[16:].ljust(WIDTH * HEIGHT, b"\x10")[: WIDTH * HEIGHT], np.uint8).reshape(HEIGHT, WIDTH)
    codes = [read_time_code(corner)]
    drawn_ms, captured_ms = struct.unpack("<2d", data[:16].ljust(16, b"\0"))
    if math.isfinite(drawn_ms) and math.isfinite(captured_ms):
        picture = np.zeros((HEIGHT * 3 // 2, WIDTH), np.uint8)
        draw_time_code(picture, pack_time_code(drawn_ms, captured_ms))
        codes.append(read_time_code(picture[:HEIGHT]))
        _require(codes[1] is not None and codes[1].captured_ms is not None, codes[1])
    for code in codes:
        _require(code is None or (0 <= code.drawn_ms < PERIOD_MS and 0 <= (code.captured_ms or 0) < PERIOD_MS), code)


def try_take(data: bytes) -> None:
    """A take as it is, and with its checksums made right: they keep out accidents, not mischief."""
    for content in (data, _mend_checksums(data)):
        try:
            take = parse_take(content)
        except InvalidInputError as error:
            str(error).encode()
            continue
        motion = motion_of_take(take).with_expressions(("jawOpen",))
        _require(len(take.timestamps_s) * 676 < len(content) and len(motion) == len(take.timestamps_s), take)
        _require(take.scene_index.min() >= 0 and take.scene_index.max() < len(take.scenes), take)


PARSERS: Final[tuple[Callable[[bytes], None], ...]] = (
    try_sample,
    try_osc,
    try_vmc,
    try_face,
    try_meta,
    try_time_code,
    try_take,
)


def try_input(data: bytes) -> None:
    """One input; its first byte chooses the parser."""
    if data:
        PARSERS[data[0] % len(PARSERS)](data[1:])


def seeds() -> list[bytes]:
    """Inputs to start from: at least one for each parser that it takes, and all golden samples, broken ones too."""
    golden = sorted(path for path in GOLDEN.rglob("*.*") if path.suffix in {".bin", ".json"})
    messages = [
        encode_message("/VMC/Ext/OK", 1),
        *(
            encode_message("/VMC/Ext/Bone/Pos", name, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
            for name in ("Hips", "Head", "LeftUpperArm")
        ),
        encode_message("/VMC/Ext/Root/Pos", "root", *(0.0,) * 6, 1.0),
        encode_message("/VMC/Ext/Blend/Val", "A", 0.5),
        encode_message("/VMC/Ext/Blend/Apply"),
    ]
    frame = b"".join(bytes([len(message) // 4]) + message for message in messages)
    face = b"jawOpen-50|mouthSmile_L&30|trackingStatus-1|=head#1,2,3,0,0,0|rightEye#1,2,3|leftEye#1,2,3|"
    neutral = {"LeftUpperArm": [0.7, 0, 0, 0.7], "Hips": [0, 0.1, 0]}
    meta = {"version": 1, "skeleton": "unity", "rate_hz": 60, "units": "m", "neutral": neutral}
    scene = Scene("me", ("jawOpen",), 64, 64, 30, "full", "E9ECEF", mirror=False, yaw=0.0, pitch=0.0)
    scenes = (format_scene(scene), format_scene(Scene(**{**asdict(scene), "expression_names": ("smile", "jawOpen")})))
    take = MAGIC
    for tick, (block, names) in enumerate(zip(scenes, (("jawOpen",), ("smile", "jawOpen")), strict=True)):
        take += block + format_poses([format_pose(3000 * tick, relaxed_pose(names))])
    inputs = [(try_sample, path.read_bytes()) for path in golden]
    inputs += [
        *((try_osc, packet) for packet in encode_bundles(messages)),
        (try_vmc, frame + frame),
        (try_face, face),
        (try_meta, json.dumps(meta).encode()),
        (try_meta, json.dumps({"version": 1, "skeleton": "smplx", "neutral": {JOINT_NAMES[16]: [0, 0, 1.2]}}).encode()),
        (try_time_code, struct.pack("<2d", 1.7e12, 12.5) + bytes(16)),
        (try_take, take),
    ]
    return [bytes([PARSERS.index(parser)]) + data for parser, data in inputs]


def fuzz_by_coverage(options: list[str]) -> None:
    """Until libFuzzer has had enough."""
    with tempfile.TemporaryDirectory() as corpus:
        for index, seed in enumerate(seeds()):
            (Path(corpus) / f"{index:04}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, f"-max_len={MAX_BYTES}", "-timeout=10", corpus], try_input)
        atheris.Fuzz()


def fuzz_by_chance(seconds: float) -> int:
    """Damage seeds for so long; how many inputs were tried."""
    from hypothesis import HealthCheck, Phase, given, settings  # noqa: PLC0415 - not where there is atheris
    from hypothesis import strategies as st  # noqa: PLC0415

    tried, until = 0, time.monotonic() + seconds
    place = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 4), st.binary(max_size=8))

    @settings(
        max_examples=100,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(seeds()), st.lists(place, max_size=6))
    def damage(seed: bytes, damages: list[tuple[float, int, bytes]]) -> None:
        nonlocal tried
        if time.monotonic() > until:
            return
        tried += 1
        data = bytearray(seed)
        for where, removed, put in damages:
            at = 1 + int(where * len(data))
            data[at : at + removed] = put
        try_input(bytes(data[:MAX_BYTES]))

    while time.monotonic() < until:
        damage()
    return tried


def _require_sample(sample: LandmarkSample | BoneSample) -> None:
    """Raise unless a sample can be drawn and sent on, and is then the same."""
    if isinstance(sample, BoneSample):
        bones = sample.bones
        _require(np.allclose(np.linalg.norm(bones.quat_wxyz, axis=1), 1, atol=1e-5), bones)
        _require_pose(bones)
        if sum(len(name.encode()) + 3 for name in bones.blendshape_names) < 2000:  # JSON may hold more than bytes can
            again = parse_sample(encode_bones(sample, "quat_f32"))
            _require(again.sequence == sample.sequence and again.bones.names == bones.names, bones)
    else:
        again = parse_sample(encode_landmarks(sample))
        _require(again.landmarks.image_size == sample.landmarks.image_size, sample.landmarks)
    _require(len(format_sample(sample).encode()) <= MAX_TEXT_BYTES, sample)


def _require_pose(bones: BoneRotations) -> None:
    pose = Retargeter(_REST_JOINTS, ("jawOpen",)).to_pose(bones)
    _require(np.isfinite(pose.rotvec).all() and np.isfinite(pose.transl).all(), bones)


def _require(holds: object, what: object) -> None:
    if not holds:
        raise AssertionError(what)


def _is_plain(value: object) -> bool:
    """Whether it is written as it was read."""
    if isinstance(value, bool):
        return False
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 31) or isinstance(value, float)


def _are_same(one: OscMessage, other: OscMessage) -> bool:
    def close(a: object, b: object) -> bool:
        return a == b or (
            isinstance(a, float)
            and isinstance(b, float)
            and (math.isnan(a) or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-37))
        )

    return one.address == other.address and all(map(close, one.arguments, other.arguments))


def _mend_checksums(data: bytes) -> bytes:
    mended, at = bytearray(data), len(MAGIC)
    while at + _BLOCK.size <= len(mended):
        kind, length, _ = _BLOCK.unpack_from(mended, at)
        start, end = at + _BLOCK.size, at + _BLOCK.size + length
        if end > len(mended):
            break
        _BLOCK.pack_into(mended, at, kind, length, zlib.crc32(mended[start:end]))
        at = end
    return bytes(mended)


def main() -> None:
    """Fuzz as the options say."""
    if atheris is not None:
        fuzz_by_coverage(sys.argv[1:])
        return
    seconds = 60.0
    for option in sys.argv[1:]:
        name, _, value = option.partition("=")
        if name != "-max_total_time" or not value.isdigit():
            sys.exit(f"error: {option} needs atheris; without it only -max_total_time=SECONDS is known")
        seconds = float(value)
    print(f"{fuzz_by_chance(seconds)} inputs in {seconds:g} s, no finding")


if __name__ == "__main__":
    main()
