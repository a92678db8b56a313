"""How often whoever drives a session is heard, for people who wonder why nothing moves."""

import asyncio
from collections.abc import Callable
from typing import Final

_LOOK_S: Final = 1.0
_NEWS: Final = 0.2
"""A rate that differs by no more than this share is the same."""


class Heard:
    """Counts samples; ``watch`` makes a rate of them."""

    def __init__(self) -> None:
        self.rate_hz = 0.0
        """Samples a second of late."""
        self._count = 0

    def count(self) -> None:
        """One has come."""
        self._count += 1

    def forget(self) -> None:
        """Somebody else drives from now on."""
        self._count, self.rate_hz = 0, 0.0

    async def watch(self, tell: Callable[[], None]) -> None:
        """Look every second, until cancelled; ``tell`` is called when the rate has become another."""
        clock = asyncio.get_running_loop().time
        looked_at = clock()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = clock()
            rate_hz = round(self._count / (now - looked_at), 1)
            self._count, looked_at = 0, now
            if abs(rate_hz - self.rate_hz) > _NEWS * self.rate_hz or (rate_hz > 0) != (self.rate_hz > 0):
                self.rate_hz = rate_hz
                tell()
