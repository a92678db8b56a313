"""The qualities of one session: each encoded once, and only while somebody watches it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np

from lhm_runtime.errors import InvalidInputError
from streaming.encoder import CEILING_BPS, START_BPS, Codec, EncoderThread, Preset
from streaming.hub import PacketHub, PacketTrack


@dataclass(frozen=True, slots=True)
class Tier:
    """One quality: viewers whose path carries less than ``min_bps`` go one down."""

    name: str
    min_bps: int
    max_bps: int
    divisor: int = 1
    """The sides of the picture are divided by this."""


TIERS: Final = (Tier("low", 100_000, 500_000, divisor=2), Tier("full", 400_000, CEILING_BPS))
"""Worst first."""


def tiers_up_to(max_bps: int) -> tuple[Tier, ...]:
    """TIERS, the best of them with at most ``max_bps``."""
    return (*TIERS[:-1], replace(TIERS[-1], max_bps=max_bps))


_REVIEW_S: Final = 0.5
_FALL_AFTER_S: Final = 1.0
_RISE_AFTER_S: Final = 5.0
_RISE_MARGIN: Final = 1.5
_MAX_FALLS: Final = 4
_SMALLEST_SIDE: Final = 128


class Ladder:
    """Hubs of falling quality, and the rule which viewer hangs on which."""

    def __init__(
        self,
        width: int,
        height: int,
        fps: float,
        *,
        codec: Codec = "h264",
        tiers: Sequence[Tier] = TIERS,
        preset: Preset = "superfast",
        hardware: bool = True,
        session: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Plan an encoder and a hub per tier, worst first; nothing runs before ``run``."""
        if not tiers or any(low.min_bps >= high.min_bps for low, high in pairwise(tiers)):
            raise InvalidInputError(f"tiers are {[t.name for t in tiers]}, expected at least one, worst first")
        self.wanted: Final = asyncio.Event()
        """Set while anybody watches or records; ``is_set`` may be asked from any thread."""
        self.hubs: Final = tuple(
            PacketHub(
                EncoderThread(
                    *_divided(width, height, tier.divisor),
                    fps,
                    codec=codec,
                    bitrate_bps=max(tier.min_bps, min(START_BPS, tier.max_bps)),
                    ceiling_bps=tier.max_bps,
                    preset=preset,
                    hardware=hardware,
                ),
                name=tier.name,
                session=session,
                min_bps=tier.min_bps,
                max_bps=tier.max_bps,
                now=now,
            )
            for tier in tiers
        )
        for hub in self.hubs:
            hub.on_audience = self._count_audience
        self._since: dict[PacketTrack, tuple[int, float]] = {}
        self._falls: WeakKeyDictionary[PacketTrack, int] = WeakKeyDictionary()

    @property
    def best(self) -> PacketHub:
        """Where viewers start and recordings come from."""
        return self.hubs[-1]

    @property
    def viewers(self) -> int:
        """Viewers on all tiers."""
        return len(set[PacketTrack]().union(*(hub.viewers for hub in self.hubs)))

    def subscribe(self) -> PacketTrack:
        """A track for one viewer's peer connection."""
        return self.best.subscribe()

    def submit(self, i420: np.ndarray, pts: int, *, stamp: float) -> None:
        """Hand in the newest picture, from one thread, to the tiers somebody watches; see EncoderThread.submit."""
        for hub in self.hubs:
            if hub.wanted:
                hub.submit(i420, pts, stamp=stamp)

    async def run(self) -> None:
        """Encode, hand out and move viewers between tiers until cancelled.

        Raises:
            ExceptionGroup: of BackendError, when an encoder failed and no other opens.
        """
        async with asyncio.TaskGroup() as tasks:
            for hub in self.hubs:
                tasks.create_task(hub.run(), name=f"encode {hub.name}")
            tasks.create_task(self._review_often(), name="move viewers between tiers")

    def review(self, now: float) -> None:
        """Move viewers whose path has carried too little for a second, or plenty for five, one tier.

        Who has fallen before waits twice as long for each fall before rising again.
        """
        since = {}
        for index, hub in enumerate(self.hubs):
            for track in list(hub.viewers):
                step = self._step(index, track)
                if track.moving or track.hub is not hub or not step:
                    continue
                last_step, began = self._since.get(track, (0, now))
                began = began if last_step == step else now
                falls = self._falls.get(track, 0)
                patience = _FALL_AFTER_S if step < 0 else _RISE_AFTER_S * 2**falls
                if now - began < patience:
                    since[track] = (step, began)
                    continue
                if step < 0:
                    self._falls[track] = min(falls + 1, _MAX_FALLS)
                track.move_to(self.hubs[index + step])
        self._since = since

    def _step(self, index: int, track: PacketTrack) -> int:
        bps = track.rate.bps
        if index > 0 and bps < self.hubs[index].min_bps:
            return -1
        if index + 1 < len(self.hubs) and bps > _RISE_MARGIN * self.hubs[index + 1].min_bps:
            return 1
        return 0

    async def _review_often(self) -> None:
        while True:
            await asyncio.sleep(_REVIEW_S)
            self.review(self.best.now())

    def _count_audience(self) -> None:
        if any(hub.wanted for hub in self.hubs):
            self.wanted.set()
        else:
            self.wanted.clear()


def _divided(width: int, height: int, divisor: int) -> tuple[int, int]:
    smaller = width // divisor // 2 * 2, height // divisor // 2 * 2
    return smaller if divisor > 1 and min(smaller) >= _SMALLEST_SIDE else (width, height)
