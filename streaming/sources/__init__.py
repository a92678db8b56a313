"""What drives an avatar: async iterators of samples, used inside ``async with``; each module is one kind."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from lhm_runtime.motion.retargeting import BoneRotations
from lhm_runtime.types import Landmarks, SmplxPose

SourceName = Literal["browser", "webcam", "socket", "mqtt", "vmc", "facemocap", "merged", "replay", "idle"]
"""browser: landmarks that the page found; webcam: video that is tracked here; socket: samples over a websocket; mqtt:
a rig behind a broker; vmc: VTuber software; facemocap: a phone's face; merged: parts by several of these, as the
settings say; replay: a recorded motion."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One moment of whoever drives."""

    motion: Landmarks | BoneRotations | SmplxPose
    """Landmarks still need the solver, bones retargeting; poses nothing. Time stamps are the source's."""
    captured_ms: float | None = None
    """When it was seen, on the clock of whoever measures latency (time_code.py); None where nobody does."""
    seen_at: float | None = None
    """When it was seen, on the event loop's clock, for sound to go with it; None: just now, as far as is known."""


class Source(AbstractAsyncContextManager["Source"], Protocol):
    """Opens on entering, closes on leaving; iterating gives the newest sample each time, never an old one."""

    def __aiter__(self) -> AsyncIterator[Sample]:
        """Samples, until the source ends or fails."""
        ...
