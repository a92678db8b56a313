"""Samples of kind 2: how the bones of a rig are turned.

After the header (header.py) comes one u8, whose bones and axes these are (0 SMPL-X, 1 VRM 1.0, 2 VRM 0.x, 3 Unity and
VMC), then each part whose bit is set in ``parts``, in the order of the bits:

    bit  part         content
    0    rotvec       u64 joints; for each one that is set, axis times angle in radians, 3 x f32
    1    quaternions  u64 joints; for each one that is set, wxyz, 4 x f32
    2    quaternions  as bit 1, in f16; at most one of the three is set
    3    root         where the hips are, metres, 3 x f32; for SMPL-X the pose's ``transl``
    4    expression   52 scores, f16, in MediaPipe's order
    5    face shapes  u8 count; for each one u8 length, its name in UTF-8, score, f16

Joint k of ``joints`` is bit k, in SMPL-X's order, hands included; VRM's 55 bones are the same ones by other names. Each
rotation is that of a bone in its parent, relative to the rig's T-pose (SMPL-X: to the zero pose); bones left out are at
rest. A sample without bones moves the face alone, and one without any part says that nobody is there. A whole body
with hands and an expression is 583 bytes with bit 2, 1,023 with bit 1, 803 with bit 0.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Float32

from lhm_runtime.body.joints import JOINT_NAMES, NUM_JOINTS
from lhm_runtime.body.rotations import quat_wxyz_to_rotvec, rotvec_to_quat_wxyz
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.bone_names import vrm_bones
from lhm_runtime.motion.landmark_points import BLENDSHAPE_NAMES
from lhm_runtime.motion.retargeting import BoneRotations, Convention
from streaming.errors import ProtocolError
from streaming.wire.header import HEADER_BYTES, KIND_ROTATIONS, Bytes, Header, pack_header
from streaming.wire.limits import (
    MAX_NAME_BYTES,
    MAX_REACH_M,
    MAX_ROTVEC,
    MAX_SAMPLE_BYTES,
    MAX_SHAPES,
    UNIT_RANGE,
    complain,
)

Form = Literal["rotvec", "quat_f32", "quat_f16"]
"""How rotations are written."""

CONVENTIONS: Final[tuple[Convention, ...]] = ("smplx", "vrm1", "vrm0", "unity")
"""In the order of their numbers on the wire."""

BONE_NAMES: Final[Mapping[Convention, tuple[str, ...]]] = {
    "smplx": JOINT_NAMES,
    "vrm1": vrm_bones(vrm1=True),
    "vrm0": vrm_bones(vrm1=False),
    "unity": vrm_bones(vrm1=False),
}
"""The 55 bones of each convention, in SMPL-X's order."""

_ROTVEC, _QUAT_F32, _QUAT_F16, _ROOT, _EXPRESSION, _SHAPES = (1 << bit for bit in range(6))
_FORMS: Final[dict[Form, tuple[int, str, int]]] = {
    "rotvec": (_ROTVEC, "<f4", 3),
    "quat_f32": (_QUAT_F32, "<f4", 4),
    "quat_f16": (_QUAT_F16, "<f2", 4),
}
"""Part, number format, numbers a joint."""

_JOINTS_BY_NAME: Final = {
    convention: {name.lower(): joint for joint, name in enumerate(names)} for convention, names in BONE_NAMES.items()
}


@dataclass(frozen=True, slots=True, eq=False)
class BoneSample:
    """What one message of kind 2 says."""

    sequence: int
    """Number of the sample, counted up by its sender modulo 2**32."""
    bones: BoneRotations
    """Bones in SMPL-X's order by the names of BONE_NAMES, unit quaternions; ``timestamp_s`` on the sender's clock."""


def encode_bones(sample: BoneSample, form: Form = "quat_f16") -> bytes:
    """The bytes of one sample, rotations written in ``form``; half precision turns no bone by more than 0.06 degrees.

    Raises:
        InvalidInputError: bones that the convention does not know, or twice the same, a number that is not finite or
            beyond the limits of the format, a name that is too long, too many of them.
    """
    bones = sample.bones
    joints, quat_wxyz, shapes = wire_bones(bones)
    parts, payload = 0, bytearray([CONVENTIONS.index(bones.convention)])
    if joints:
        part, number, _ = _FORMS[form]
        parts |= part
        payload += struct.pack("<Q", sum(1 << joint for joint in joints))
        values = quat_wxyz_to_rotvec(quat_wxyz) if form == "rotvec" else quat_wxyz
        payload += values.astype(number).tobytes()
    if bones.root_transl is not None:
        parts |= _ROOT
        payload += bones.root_transl.astype("<f4").tobytes()
    named = _pack_shapes(shapes)
    scores = {name: shapes[name] for name in BLENDSHAPE_NAMES if name in shapes}
    if scores and len(_pack_shapes(scores)) > 2 * len(BLENDSHAPE_NAMES):
        parts |= _EXPRESSION
        payload += np.array([shapes.get(name, 0.0) for name in BLENDSHAPE_NAMES], "<f2").tobytes()
        named = _pack_shapes({name: value for name, value in shapes.items() if name not in scores})
    if named:
        parts |= _SHAPES
        payload += named
    message = pack_header(KIND_ROTATIONS, parts, sample.sequence, bones.timestamp_s) + bytes(payload)
    if len(message) > MAX_SAMPLE_BYTES:
        raise InvalidInputError(f"sample of {len(message)} bytes, at most {MAX_SAMPLE_BYTES} can be sent")
    return message


def wire_bones(bones: BoneRotations) -> tuple[list[int], Float32[np.ndarray, "n 4"], dict[str, float]]:
    """Joints in order, their unit quaternions, and face shapes by name; raises as ``encode_bones``."""
    by_name = dict(zip(bones.names, bones.quat_wxyz, strict=True))
    if len(by_name) != len(bones.names):
        raise InvalidInputError(f"bones repeat a name: {', '.join(bones.names)}")
    values = [] if bones.blendshape_values is None else bones.blendshape_values.tolist()
    shapes = dict(zip(bones.blendshape_names, values, strict=True))
    try:
        built = build_bones(0, 0.0, bones.convention, by_name, bones.root_transl, shapes).bones
    except ProtocolError as error:
        raise InvalidInputError(str(error)) from error
    joints = [_JOINTS_BY_NAME[bones.convention][name.lower()] for name in built.names]
    return joints, built.quat_wxyz, shapes


def read_bones(header: Header, data: Bytes) -> BoneSample:
    """The sample in a message whose header is ``header``.

    Raises:
        ProtocolError: anything but exactly one well-formed sample of finite numbers within the limits.
    """
    if header.parts >= 2 * _SHAPES:
        raise ProtocolError(f"bone sample with unknown parts {header.parts:#06x}")
    forms = [form for form, (part, _, _) in _FORMS.items() if header.parts & part]
    if len(forms) > 1:
        raise ProtocolError(f"bone sample with rotations as {' and '.join(forms)}, expected one of them")
    cursor = _Cursor(data, HEADER_BYTES)
    number = cursor.byte("convention")
    if number >= len(CONVENTIONS):
        raise ProtocolError(f"convention {number}, known are 0 to {len(CONVENTIONS) - 1}")
    convention = CONVENTIONS[number]
    rotations = _read_rotations(cursor, convention, forms[0]) if forms else {}
    root = cursor.numbers("root", "<f4", 3) if header.parts & _ROOT else None
    shapes: dict[str, float] = {}
    if header.parts & _EXPRESSION:
        scores = cursor.numbers("expression", "<f2", len(BLENDSHAPE_NAMES))
        shapes = dict(zip(BLENDSHAPE_NAMES, scores.tolist(), strict=True))
    if header.parts & _SHAPES:
        _read_shapes(cursor, shapes)
    cursor.end()
    return build_bones(header.sequence, header.captured_ms, convention, rotations, root, shapes)


def build_bones(
    sequence: int,
    captured_ms: float,
    convention: Convention,
    rotations: Mapping[str, np.ndarray],
    root: Float[np.ndarray, " 3"] | None,
    shapes: Mapping[str, float],
) -> BoneSample:
    """A sample of rotations by the names of bones, each a rotvec [3] or a quaternion wxyz [4] of about unit length.

    Raises:
        ProtocolError: an unknown bone or number beyond the limits.
    """
    known = _JOINTS_BY_NAME[convention]
    found: dict[int, np.ndarray] = {}
    for name, values in rotations.items():
        joint = known.get(name.lower())
        if joint is None:
            raise ProtocolError(f"no bone of {convention} is called {name[:MAX_NAME_BYTES]!r}")
        if joint in found:
            raise ProtocolError(f"bone {name!r} is there twice")
        found[joint] = _to_quat(name, values)
    joints = sorted(found)
    if root is not None and (fault := complain("root", root, -MAX_REACH_M, MAX_REACH_M)):
        raise ProtocolError(fault)
    if len(shapes) > MAX_SHAPES:
        raise ProtocolError(f"{len(shapes)} face shapes, at most {MAX_SHAPES} are read")
    for name, value in shapes.items():
        if not (name.isprintable() and 1 <= len(name.encode()) <= MAX_NAME_BYTES):
            raise ProtocolError(
                f"face shape {name[:MAX_NAME_BYTES]!r}: no name of 1 to {MAX_NAME_BYTES} printable bytes"
            )
        if not 0 <= value <= 1:
            raise ProtocolError(f"face shape {name} is {value:g}, expected 0 to 1")
    return BoneSample(
        sequence,
        BoneRotations(
            names=tuple(BONE_NAMES[convention][joint] for joint in joints),
            quat_wxyz=np.array([found[joint] for joint in joints], np.float32).reshape(-1, 4),
            timestamp_s=captured_ms / 1e3,
            convention=convention,
            root_transl=None if root is None else root.astype(np.float32),
            blendshape_names=tuple(shapes),
            blendshape_values=np.array([*shapes.values()], np.float32) if shapes else None,
        ),
    )


def _to_quat(name: str, values: np.ndarray) -> np.ndarray:
    if len(values) == 3:
        if fault := complain(f"rotvec of {name!r}", values, -MAX_ROTVEC, MAX_ROTVEC):
            raise ProtocolError(fault)
        return rotvec_to_quat_wxyz(values.astype(np.float64))
    finite = np.isfinite(values).all()
    length = float(np.linalg.norm(values.astype(np.float64))) if finite else math.nan
    lowest, highest = UNIT_RANGE
    if not lowest <= length <= highest:
        raise ProtocolError(f"quaternion of {name!r} is {values.tolist()}, of length {length:g}; expected 1")
    unit: np.ndarray = values / length
    return unit


def _read_rotations(cursor: "_Cursor", convention: Convention, form: Form) -> dict[str, np.ndarray]:
    _, number, count = _FORMS[form]
    mask = cursor.mask("joints")
    if not 0 < mask < 1 << NUM_JOINTS:
        raise ProtocolError(f"rotations of joints {mask:#x}, expected some of the lowest {NUM_JOINTS} bits")
    names = [name for joint, name in enumerate(BONE_NAMES[convention]) if mask >> joint & 1]
    values = cursor.numbers("rotations", number, count * len(names)).reshape(-1, count)
    return dict(zip(names, values, strict=True))


def _read_shapes(cursor: "_Cursor", shapes: dict[str, float]) -> None:
    count = cursor.byte("count of face shapes")
    if not 1 <= count <= MAX_SHAPES:
        raise ProtocolError(f"{count} face shapes, expected 1 to {MAX_SHAPES}")
    for _ in range(count):
        name = cursor.text("name of a face shape", cursor.byte("length of a name"))
        if name in shapes:
            raise ProtocolError(f"face shape {name!r} is there twice")
        shapes[name] = float(cursor.numbers("score of a face shape", "<f2", 1)[0])


def _pack_shapes(shapes: Mapping[str, float]) -> bytes:
    if not shapes:
        return b""
    packed = bytearray([len(shapes)])
    for name, value in shapes.items():
        text = name.encode()
        packed += bytes([len(text)]) + text + np.array(value, "<f2").tobytes()
    return bytes(packed)


class _Cursor:
    """Reads a message from front to back; what is not there raises ProtocolError."""

    def __init__(self, data: Bytes, offset: int) -> None:
        self._data, self._offset = memoryview(data), offset

    def numbers(self, what: str, number: str, count: int) -> Float32[np.ndarray, " n"]:
        return np.frombuffer(self._take(what, count * int(number[2])), number).astype(np.float32)

    def byte(self, what: str) -> int:
        return int(self._take(what, 1)[0])

    def mask(self, what: str) -> int:
        return int.from_bytes(self._take(what, 8), "little")

    def text(self, what: str, length: int) -> str:
        try:
            return bytes(self._take(what, length)).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{what} is not UTF-8: {error}") from error

    def end(self) -> None:
        """Nothing may follow."""
        if self._offset != len(self._data):
            raise ProtocolError(f"sample of {len(self._data)} bytes, its parts take {self._offset}")

    def _take(self, what: str, count: int) -> memoryview:
        end = self._offset + count
        if end > len(self._data):
            raise ProtocolError(f"sample of {len(self._data)} bytes ends in the midst of its {what}")
        taken, self._offset = self._data[self._offset : end], end
        return taken
