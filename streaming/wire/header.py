"""The first 18 bytes of every binary sample."""

import math
import struct
from dataclasses import dataclass
from typing import Final

from lhm_runtime.errors import InvalidInputError
from streaming.errors import ProtocolError

VERSION: Final = 1
KIND_LANDMARKS: Final = 1
KIND_ROTATIONS: Final = 2
MAX_SEQUENCE: Final = (1 << 32) - 1

_MAGIC = b"LL"
_HEADER = struct.Struct("<2sBBHId")
HEADER_BYTES: Final = _HEADER.size

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Header:
    """What every sample says first."""

    kind: int
    parts: int
    """A bit for each part that follows."""
    sequence: int
    captured_ms: float


def pack_header(kind: int, parts: int, sequence: int, timestamp_s: float) -> bytes:
    """The bytes; raises InvalidInputError for a sequence or time that cannot be sent."""
    if not 0 <= sequence <= MAX_SEQUENCE:
        raise InvalidInputError(f"sequence is {sequence}, expected 0 to {MAX_SEQUENCE}")
    if not math.isfinite(timestamp_s * 1e3):
        raise InvalidInputError(f"timestamp_s is {timestamp_s}, expected a finite number of seconds")
    return _HEADER.pack(_MAGIC, VERSION, kind, parts, sequence, timestamp_s * 1e3)


def read_header(data: Bytes) -> Header:
    """The header of a message; raises ProtocolError where there is none that can be read."""
    if len(data) < HEADER_BYTES:
        raise ProtocolError(f"message of {len(data)} bytes, a sample has at least {HEADER_BYTES}")
    magic, version, kind, parts, sequence, captured_ms = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ProtocolError(f"message starts with {magic!r}, a sample with {_MAGIC!r}")
    if version != VERSION:
        raise ProtocolError(f"sample of version {version}, this server reads version {VERSION}")
    if not math.isfinite(captured_ms):
        raise ProtocolError(f"capture time is {captured_ms}, expected a finite number of milliseconds")
    return Header(kind, parts, sequence, captured_ms)


def is_newer(sequence: int, last: int) -> bool:
    """Whether a sample comes after the ``last`` one, across the wrap at 2**32 (serial numbers of RFC 1982)."""
    return 0 < (sequence - last) % (MAX_SEQUENCE + 1) <= MAX_SEQUENCE // 2
