"""Samples of kind 1: the points that a tracker saw.

After the header (header.py) come u16 width and u16 height of the picture, then each part whose bit is set in
``parts``, in the order of the bits:

    bit  part        content
    0    body        33 world points, 3 x f32
    1    body image  33 image points, 2 x f16; 33 visibilities, f16
    2    left hand   21 world points, 3 x f32; 21 image points, 2 x f16
    3    right hand  as the left one
    4    face        478 image points, 2 x f16
    5    expression  52 blendshape scores, f16
    6    head        T_camera_face, 4 x 4 f32 by rows

Points, scores and matrix mean what they mean in ``Landmarks``, except that image points are fractions of width and
height, so that half precision holds them to 1/2000 of the picture. A sample without parts says that nobody is seen.
All parts together are 3,368 bytes, all but the face's points 1,456. The web client writes the same format
(clients/web/src/wire/landmark_sample.ts); tests of both read the same bytes.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.types import MAX_IMAGE_SIDE, Landmarks
from streaming.errors import ProtocolError
from streaming.wire.header import HEADER_BYTES, KIND_LANDMARKS, Bytes, Header, pack_header
from streaming.wire.limits import MAX_FRACTION, MAX_HEAD_CM, MAX_REACH_M, complain

_SIZE = struct.Struct("<HH")
_BODY, _BODY_IMAGE, _LEFT_HAND, _RIGHT_HAND, _FACE, _EXPRESSION, _HEAD = (1 << bit for bit in range(7))


@dataclass(frozen=True, slots=True)
class _Field:
    part: int
    shape: tuple[int, ...]
    number: str
    lowest: float
    highest: float


def _world(part: int, points: int) -> _Field:
    return _Field(part, (points, 3), "<f4", -MAX_REACH_M, MAX_REACH_M)


def _image(part: int, points: int) -> _Field:
    return _Field(part, (points, 2), "<f2", -MAX_FRACTION, MAX_FRACTION)


def _scores(part: int, count: int) -> _Field:
    return _Field(part, (count,), "<f2", 0.0, 1.0)


_FIELDS: Final = {
    "body_world": _world(_BODY, 33),
    "body_image": _image(_BODY_IMAGE, 33),
    "body_visibility": _scores(_BODY_IMAGE, 33),
    "left_hand_world": _world(_LEFT_HAND, 21),
    "left_hand_image": _image(_LEFT_HAND, 21),
    "right_hand_world": _world(_RIGHT_HAND, 21),
    "right_hand_image": _image(_RIGHT_HAND, 21),
    "face_image": _image(_FACE, 478),
    "face_blendshapes": _scores(_EXPRESSION, 52),
    "T_camera_face": _Field(_HEAD, (4, 4), "<f4", -MAX_HEAD_CM, MAX_HEAD_CM),
}
"""The arrays of Landmarks, in the order of the wire."""

FIELD_SHAPES: Final = {name: field.shape for name, field in _FIELDS.items()}
"""The arrays that a sample may hold, and their shapes."""


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkSample:
    """What one message of kind 1 says."""

    sequence: int
    """Number of the sample, counted up by its sender modulo 2**32."""
    landmarks: Landmarks
    """Its ``timestamp_s`` is on the sender's clock."""


def encode_landmarks(sample: LandmarkSample) -> bytes:
    """The bytes of one sample.

    Raises:
        InvalidInputError: a number that is not finite or beyond the limits of the format, a picture size or sequence
            outside its range, or half a part: body_image without body_visibility, a hand with one kind of points.
    """
    arrays = wire_arrays(sample.landmarks)
    parts = 0
    payload = bytearray(_SIZE.pack(*sample.landmarks.image_size))
    for name, values in arrays.items():
        parts |= _FIELDS[name].part
        payload += values.astype(_FIELDS[name].number).tobytes()
    return pack_header(KIND_LANDMARKS, parts, sample.sequence, sample.landmarks.timestamp_s) + bytes(payload)


def wire_arrays(landmarks: Landmarks) -> dict[str, np.ndarray]:
    """The arrays that there are as the wire has them, image points as fractions; raises as ``encode_landmarks``."""
    size = np.array(landmarks.image_size, np.float32)
    if fault := _fault_of_size(landmarks.image_size):
        raise InvalidInputError(fault)
    found = {name: getattr(landmarks, name) for name in _FIELDS}
    arrays = {
        name: array / size if name.endswith("_image") else array for name, array in found.items() if array is not None
    }
    if fault := _fault_of_arrays(arrays):
        raise InvalidInputError(fault)
    return arrays


def read_landmarks(header: Header, data: Bytes) -> LandmarkSample:
    """The sample in a message whose header is ``header``.

    Raises:
        ProtocolError: anything but exactly one well-formed sample of finite numbers within the limits.
    """
    if header.parts >= 2 * _HEAD:
        raise ProtocolError(f"landmark sample with unknown parts {header.parts:#06x}")
    sent = {name: field for name, field in _FIELDS.items() if header.parts & field.part}
    offset = HEADER_BYTES + _SIZE.size
    expected = offset + sum(math.prod(field.shape) * int(field.number[2]) for field in sent.values())
    if len(data) != expected:
        raise ProtocolError(f"landmark sample of {len(data)} bytes, one with parts {header.parts:#06x} has {expected}")
    width, height = _SIZE.unpack_from(data, HEADER_BYTES)
    arrays = {}
    for name, field in sent.items():
        values = np.frombuffer(data, field.number, math.prod(field.shape), offset)
        offset += values.nbytes
        arrays[name] = values.reshape(field.shape).astype(np.float32)
    return build_landmarks(header.sequence, header.captured_ms, (width, height), arrays)


def build_landmarks(
    sequence: int, captured_ms: float, image_size: tuple[int, int], arrays: Mapping[str, np.ndarray]
) -> LandmarkSample:
    """A sample of arrays as the wire has them, in their shapes; raises ProtocolError for what they may not be."""
    if fault := _fault_of_size(image_size) or _fault_of_arrays(arrays):
        raise ProtocolError(fault)
    size = np.array(image_size, np.float32)
    own = {
        name: values.astype(np.float32) * size if name.endswith("_image") else values.astype(np.float32)
        for name, values in arrays.items()
    }
    return LandmarkSample(sequence, Landmarks(timestamp_s=captured_ms / 1e3, image_size=image_size, **own))


def _fault_of_size(image_size: tuple[int, int]) -> str | None:
    width, height = image_size
    if 1 <= width <= MAX_IMAGE_SIDE and 1 <= height <= MAX_IMAGE_SIDE:
        return None
    return f"picture of {width}x{height}, expected sides of 1 to {MAX_IMAGE_SIDE} pixels"


def _fault_of_arrays(arrays: Mapping[str, np.ndarray]) -> str | None:
    for name, values in arrays.items():
        field = _FIELDS[name]
        if fault := complain(name, values, field.lowest, field.highest):
            return fault
    sent = {_FIELDS[name].part for name in arrays}
    for name, field in _FIELDS.items():
        if field.part in sent and name not in arrays:
            return f"{name} is missing beside the array it is sent with"
    return None
