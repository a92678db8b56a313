"""Landmarks as bytes, the same over every transport: bytes in, Landmarks or ProtocolError out. No socket here.

One sample is one moment of one person. Little endian, without padding:

    u16 magic "LL" | u8 version | u8 kind | u16 parts | u32 sequence | f64 capture time | u16 width | u16 height
    then each part whose bit is set in ``parts``, in the order of the bits:

    bit  part        content
    0    body        33 world points, 3 x f32
    1    body image  33 image points, 2 x f16; 33 visibilities, f16
    2    left hand   21 world points, 3 x f32; 21 image points, 2 x f16
    3    right hand  as the left one
    4    face        478 image points, 2 x f16
    5    expression  52 blendshape scores, f16
    6    head        T_camera_face, 4 x 4 f32 by rows

Points, scores and matrix mean what they mean in ``Landmarks``, except that image points are fractions of width and
height, so that half precision holds them to 1/2000 of the picture. Capture time is in milliseconds on the sender's
clock. A sample without parts says that nobody is seen. All parts together are 3,368 bytes, all but the face's points
1,456. The web client writes the same format (clients/web/src/landmark_sample.ts); tests of both read the same bytes.
"""

import math
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.types import MAX_IMAGE_SIDE, Landmarks
from streaming.errors import ProtocolError

VERSION: Final = 1
KIND_LANDMARKS: Final = 1
MAX_SAMPLE_BYTES: Final = 3368
"""Length of a sample with all its parts; transports may refuse anything longer unread."""

MAX_REACH_M: Final = 100.0
"""World points beyond this are nobody's."""
MAX_FRACTION: Final = 100.0
"""Image points further out than this many pictures are no tracker's."""
MAX_HEAD_CM: Final = 1e5
"""Largest number in the pose of a face, centimetres."""

_MAGIC = b"LL"
_HEADER = struct.Struct("<2sBBHIdHH")
_SEQUENCE_SPAN = 1 << 32
_BODY, _BODY_IMAGE, _LEFT_HAND, _RIGHT_HAND, _FACE, _EXPRESSION, _HEAD = (1 << bit for bit in range(7))

_WORLD, _IMAGE, _SCORES = ("<f4", MAX_REACH_M), ("<f2", MAX_FRACTION), ("<f2", 1.0)
_ARRAYS: Final = {
    "body_world": (_BODY, (33, 3), *_WORLD),
    "body_image": (_BODY_IMAGE, (33, 2), *_IMAGE),
    "body_visibility": (_BODY_IMAGE, (33,), *_SCORES),
    "left_hand_world": (_LEFT_HAND, (21, 3), *_WORLD),
    "left_hand_image": (_LEFT_HAND, (21, 2), *_IMAGE),
    "right_hand_world": (_RIGHT_HAND, (21, 3), *_WORLD),
    "right_hand_image": (_RIGHT_HAND, (21, 2), *_IMAGE),
    "face_image": (_FACE, (478, 2), *_IMAGE),
    "face_blendshapes": (_EXPRESSION, (52,), *_SCORES),
    "T_camera_face": (_HEAD, (4, 4), "<f4", MAX_HEAD_CM),
}
"""Part, shape, number format and limit of each field of Landmarks, in the order of the wire."""


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkSample:
    """What one message says."""

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
    landmarks = sample.landmarks
    width, height = landmarks.image_size
    if not 0 <= sample.sequence < _SEQUENCE_SPAN:
        raise InvalidInputError(f"sequence is {sample.sequence}, expected 0 to 2**32 - 1")
    if not (1 <= width <= MAX_IMAGE_SIDE and 1 <= height <= MAX_IMAGE_SIDE):
        raise InvalidInputError(f"image_size is {width}x{height}, expected sides of 1 to {MAX_IMAGE_SIDE} pixels")
    if not math.isfinite(landmarks.timestamp_s):
        raise InvalidInputError(f"timestamp_s is {landmarks.timestamp_s}, expected a finite number of seconds")
    parts = 0
    missing: list[tuple[int, str]] = []
    payload = bytearray()
    for name, (part, _, number, limit) in _ARRAYS.items():
        array = getattr(landmarks, name)
        if array is None:
            missing.append((part, name))
            continue
        parts |= part
        values = array / np.array([width, height], np.float32) if name.endswith("_image") else array
        if complaint := _complaint(name, values, limit):
            raise InvalidInputError(complaint)
        payload += values.astype(number).tobytes()
    for part, name in missing:
        if parts & part:
            raise InvalidInputError(f"{name} is missing beside the array it is sent with")
    header = _HEADER.pack(
        _MAGIC, VERSION, KIND_LANDMARKS, parts, sample.sequence, landmarks.timestamp_s * 1e3, width, height
    )
    return header + bytes(payload)


def decode_landmarks(data: bytes | bytearray | memoryview) -> LandmarkSample:
    """The sample in one message from outside.

    Raises:
        ProtocolError: anything but exactly one well-formed sample of finite numbers within the limits.
    """
    parts, sequence, capture_ms, image_size = _read_header(data)
    sent = {name: spec for name, spec in _ARRAYS.items() if parts & spec[0]}
    expected = _HEADER.size + sum(math.prod(shape) * int(number[2]) for _, shape, number, _ in sent.values())
    if len(data) != expected:
        raise ProtocolError(f"landmark sample of {len(data)} bytes, one with parts {parts:#06x} has {expected}")
    offset = _HEADER.size
    arrays: dict[str, np.ndarray] = {}
    for name, (_, shape, number, limit) in sent.items():
        values = np.frombuffer(data, number, math.prod(shape), offset).reshape(shape).astype(np.float32)
        offset += values.size * int(number[2])
        if complaint := _complaint(name, values, limit):
            raise ProtocolError(complaint)
        arrays[name] = values * np.array(image_size, np.float32) if name.endswith("_image") else values
    return LandmarkSample(sequence, Landmarks(timestamp_s=capture_ms / 1e3, image_size=image_size, **arrays))


def is_newer(sequence: int, last: int) -> bool:
    """Whether a sample comes after the ``last`` one, across the wrap at 2**32 (serial numbers of RFC 1982)."""
    return 0 < (sequence - last) % _SEQUENCE_SPAN < _SEQUENCE_SPAN // 2


def _read_header(data: bytes | bytearray | memoryview) -> tuple[int, int, float, tuple[int, int]]:
    """Parts, sequence, capture time in ms, and picture size."""
    if len(data) < _HEADER.size:
        raise ProtocolError(f"message of {len(data)} bytes, a landmark sample has at least {_HEADER.size}")
    magic, version, kind, parts, sequence, capture_ms, width, height = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ProtocolError(f"message starts with {magic!r}, a landmark sample with {_MAGIC!r}")
    if version != VERSION:
        raise ProtocolError(f"landmark sample of version {version}, this server reads version {VERSION}")
    if kind != KIND_LANDMARKS:
        raise ProtocolError(f"sample of kind {kind}, expected {KIND_LANDMARKS} (landmarks)")
    if parts >= 2 * _HEAD:
        raise ProtocolError(f"landmark sample with unknown parts {parts:#06x}")
    if not (1 <= width <= MAX_IMAGE_SIDE and 1 <= height <= MAX_IMAGE_SIDE):
        raise ProtocolError(f"picture of {width}x{height}, expected sides of 1 to {MAX_IMAGE_SIDE} pixels")
    if not math.isfinite(capture_ms):
        raise ProtocolError(f"capture time is {capture_ms}, expected a finite number of milliseconds")
    return parts, sequence, capture_ms, (width, height)


def _complaint(name: str, values: Float32[np.ndarray, "..."], limit: float) -> str | None:
    """What is wrong with the first number that the format does not allow."""
    lowest = 0.0 if name in {"body_visibility", "face_blendshapes"} else -limit
    bad = ~((values >= lowest) & (values <= limit))  # NaN compares false
    if not bad.any():
        return None
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{name}{list(index)} is {values[index]:g} on the wire, expected a number from {lowest:g} to {limit:g}"
