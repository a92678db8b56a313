"""Two times drawn into a corner of the picture, so that whoever shows it can tell how old it is (``?probe=1``).

The first 8 rows of the frame as it is encoded hold 32 cells of 4 x 8 pixels from the left edge on, luma 235 for one and
16 for zero, lowest bit first, on neutral chroma. In a stacked frame they are in the colour half.

    bits  0 to 13  when the picture was drawn: milliseconds of the server's wall clock (Unix time) modulo 16383
    bits 14 to 27  capture time of the landmarks it shows: milliseconds on their sender's clock modulo 16383,
                   or 16383 when nothing drove it
    bits 28 to 31  0b1010 xor the seven nibbles before, which neither a black nor a white corner fulfils

Where the server tracks a camera, whose frames come without a capture time, it puts there the 14 bits of the draw time
it reads in the camera's own corner: a test camera draws a code as well. clients/web/src/probe.ts reads all this.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import UInt8

from lhm_runtime.errors import InvalidInputError

WIDTH: Final = 128
HEIGHT: Final = 8
PERIOD_MS: Final = 16_383
"""Times are told apart within this long."""

_BITS = 32
_CELL = WIDTH // _BITS
_ONE, _ZERO, _NEUTRAL = 235, 16, 128
_STAMP_BITS = 14
_NONE = (1 << _STAMP_BITS) - 1
_CHECK = 0b1010


@dataclass(frozen=True, slots=True)
class TimeCode:
    """What a corner says, modulo PERIOD_MS."""

    drawn_ms: int
    captured_ms: int | None


def pack_time_code(drawn_ms: float, captured_ms: float | None) -> int:
    """The 32 bits for two finite times in milliseconds, of any length."""
    captured = _NONE if captured_ms is None else _stamp(captured_ms)
    stamps = _stamp(drawn_ms) | captured << _STAMP_BITS
    return stamps | _check(stamps) << 2 * _STAMP_BITS


def unpack_time_code(code: int) -> TimeCode | None:
    """What 32 bits say; None when they are no time code."""
    stamps = code & (1 << 2 * _STAMP_BITS) - 1
    drawn, captured = stamps & _NONE, stamps >> _STAMP_BITS
    if code >> 2 * _STAMP_BITS != _check(stamps) or drawn == _NONE:
        return None
    return TimeCode(drawn, None if captured == _NONE else captured)


def elapsed_ms(now_ms: float, stamp_ms: int) -> float:
    """Milliseconds from a stamp to now, from -PERIOD_MS / 8 (clocks that disagree) up to the rest of the period."""
    early = PERIOD_MS / 8
    return (now_ms - stamp_ms + early) % PERIOD_MS - early


def draw_time_code(i420: UInt8[np.ndarray, "rows w"], code: int) -> None:
    """Write 32 bits into a picture in place.

    Args:
        i420: the three planes one after the other, as PyAV lays out yuv420p: rows = 3/2 of the height.
        code: what ``pack_time_code`` gave.

    Raises:
        InvalidInputError: the picture is smaller than WIDTH x HEIGHT.
    """
    rows, width = i420.shape
    height = rows * 2 // 3
    if width < WIDTH or height < HEIGHT:
        raise InvalidInputError(f"a time code needs {WIDTH}x{HEIGHT} pixels, the picture has {width}x{height}")
    bits = code >> np.arange(_BITS) & 1
    i420[:HEIGHT, :WIDTH] = np.repeat(np.where(bits, _ONE, _ZERO), _CELL)
    chroma = i420[height:].reshape(2, height // 2, width // 2)
    chroma[:, : HEIGHT // 2, : WIDTH // 2] = _NEUTRAL


def read_time_code(luma: UInt8[np.ndarray, "h w"]) -> TimeCode | None:
    """What the corner of a decoded picture says; None when there is no readable code in it."""
    if luma.shape[0] < HEIGHT or luma.shape[1] < WIDTH:
        return None
    cells = luma[2 : HEIGHT - 2, :WIDTH].reshape(HEIGHT - 4, _BITS, _CELL)[..., 1:-1].mean((0, 2))
    code = int(((cells > (_ONE + _ZERO) / 2).astype(np.uint64) << np.arange(_BITS, dtype=np.uint64)).sum())
    return unpack_time_code(code)


def _stamp(time_ms: float) -> int:
    return int(time_ms % PERIOD_MS) % PERIOD_MS  # the rest of what is just below 0 is rounded up to the period


def _check(stamps: int) -> int:
    check = _CHECK
    for shift in range(0, 2 * _STAMP_BITS, 4):
        check ^= stamps >> shift & 0xF
    return check
