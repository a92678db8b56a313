"""What numbers and messages from outside may be."""

import math
from typing import Final

import numpy as np
from jaxtyping import Float

MAX_SAMPLE_BYTES: Final = 4096
"""Of a binary sample; transports may refuse anything longer unread."""
MAX_TEXT_BYTES: Final = 32 * 1024
"""The same for JSON, in UTF-8."""
MAX_RATE_HZ: Final = 240.0
"""Samples a second that one sender may go on sending; those beyond are not looked at."""

MAX_REACH_M: Final = 100.0
"""World points and roots beyond this are nobody's."""
MAX_FRACTION: Final = 100.0
"""Image points further out than this many pictures are no tracker's."""
MAX_HEAD_CM: Final = 1e5
"""Largest number in the pose of a face, centimetres."""
MAX_ROTVEC: Final = 100.0
"""Largest number in a rotation vector, radians."""
UNIT_RANGE: Final = (0.5, 2.0)
"""Lengths of quaternions that are taken for unit ones, and made so."""
MAX_SHAPES: Final = 128
"""Face shapes in a sample."""
MAX_NAME_BYTES: Final = 64
"""Length of the name of one, in UTF-8."""


def complain(name: str, values: Float[np.ndarray, "..."], lowest: float, highest: float) -> str | None:
    """What is wrong with the first number that is not from ``lowest`` to ``highest``; None where all are."""
    bad = ~((values >= lowest) & (values <= highest))  # NaN compares false
    if not bad.any():
        return None
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{name}{list(index)} is {values[index]:g} on the wire, expected a number from {lowest:g} to {highest:g}"


class Allowance:
    """How often a sender may be heard: ``rate_hz`` on average, more for a moment (a token bucket)."""

    def __init__(self, rate_hz: float = MAX_RATE_HZ, burst: int = 60) -> None:
        self._rate_hz, self._burst = rate_hz, float(burst)
        self._left, self._at_s = float(burst), -math.inf

    def take(self, now_s: float) -> bool:
        """Whether a message that comes at ``now_s`` of any steady clock is within the allowance."""
        self._left = min(self._left + max(now_s - self._at_s, 0.0) * self._rate_hz, self._burst)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
