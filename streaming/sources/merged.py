"""One driver made of several: the body of one, the face of another, the hands of a third."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal

import numpy as np

from lhm_runtime.body.joints import JAW, JOINT_INDEX, LEFT_HAND, NUM_JOINTS, RIGHT_EYE, RIGHT_HAND
from lhm_runtime.errors import BackendError
from lhm_runtime.types import SmplxPose
from streaming.latest import Latest
from streaming.sources import Sample, Source
from streaming.sources.idle import blend_poses, ease

Part = Literal["body", "head", "face", "hands"]
"""body: with wrists and where it stands; head: neck and head; face: jaw, eyes and expression; hands: the fingers."""

_BLEND_S = 0.6
"""From at rest to a driver that begins, and back when it falls silent."""

_HEAD = [JOINT_INDEX["neck"], JOINT_INDEX["head"]]
_FACE = [*range(JAW.start, RIGHT_EYE.stop)]
_HANDS = [*range(LEFT_HAND.start, RIGHT_HAND.stop)]
JOINTS: Final[Mapping[Part, list[int]]] = {
    "body": sorted({*range(NUM_JOINTS)} - {*_HEAD, *_FACE, *_HANDS}),
    "head": _HEAD,
    "face": _FACE,
    "hands": _HANDS,
}
"""Joints of each part; every joint is in one."""


@dataclass(frozen=True, slots=True, eq=False)
class Driver:
    """Who drives some parts."""

    parts: tuple[Part, ...]
    source: Source
    follow: Callable[[Sample], SmplxPose | None]
    """Makes its samples poses of the avatar; called in a thread."""
    calibrate: Callable[[], None] = lambda: None
    """Has it learn the neutral face of whoever drives."""


@dataclass(slots=True)
class _Heard:
    pose: SmplxPose
    at_s: float
    share: float = 0.0
    """How much of the parts is the driver's by now, 0 to 1."""


class MergedSource:
    """Poses whose parts come from several drivers; a part whose driver is silent is at rest."""

    def __init__(self, drivers: Mapping[str, Driver], at_rest: Callable[[float], SmplxPose], silence_s: float) -> None:
        """Merge ``drivers`` (by any names; no part has two) over the pose ``at_rest`` at a time."""
        self._drivers, self._at_rest, self._silence_s = dict(drivers), at_rest, silence_s
        self._heard: dict[str, _Heard] = {}
        self._merged_at = 0.0
        self._changed: Latest[str] = Latest()
        self._captured_ms: float | None = None
        self._seen_at: float | None = None
        self._leaving = AsyncExitStack()

    async def __aenter__(self) -> "MergedSource":
        """Raises what opening one of the drivers raises; those before it are closed again."""
        async with AsyncExitStack() as stack:
            solving = ThreadPoolExecutor(1, "merge-solve")
            stack.callback(solving.shutdown, wait=False)
            for driver in self._drivers.values():
                await stack.enter_async_context(driver.source)
            self._following = [
                asyncio.create_task(self._follow(name, driver, solving), name=f"follow {name}")
                for name, driver in self._drivers.items()
            ]
            for task in self._following:
                task.add_done_callback(lambda _: self._changed.put(""))
                stack.push_async_callback(asyncio.wait, [task])
                stack.callback(task.cancel)
            self._leaving = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leaving.aclose()

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """A pose whenever one of the drivers moves.

        Raises:
            BackendError: a driver gave up.
        """
        while True:
            await self._changed.get()
            for task in self._following:
                if task.done():
                    task.result()
                    raise BackendError(f"{task.get_name()}: it has ended")
            yield Sample(self._merge(time.monotonic()), self._captured_ms, self._seen_at)

    def calibrate(self) -> None:
        """Have every driver's neutral face learnt."""
        for driver in self._drivers.values():
            driver.calibrate()

    async def _follow(self, name: str, driver: Driver, solving: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        async for sample in driver.source:
            pose = await loop.run_in_executor(solving, driver.follow, sample)
            if pose is None:
                continue
            share = self._heard[name].share if name in self._heard else 0.0
            self._heard[name] = _Heard(pose, time.monotonic(), share)
            self._captured_ms, self._seen_at = sample.captured_ms, sample.seen_at
            self._changed.put(name)

    def _merge(self, now_s: float) -> SmplxPose:
        step = (now_s - self._merged_at) / _BLEND_S
        self._merged_at = now_s
        rest = self._at_rest(now_s)
        rotvec, transl, expression = rest.rotvec.copy(), rest.transl, rest.expression
        for name, heard in self._heard.items():
            speaks = now_s - heard.at_s < self._silence_s
            # what began just now begins at rest, however long nothing was merged
            heard.share = min(max(heard.share + (min(step, 0.1) if speaks else -step), 0.0), 1.0)
            pose = blend_poses(rest, heard.pose, ease(heard.share))
            for part in self._drivers[name].parts:
                rotvec[JOINTS[part]] = pose.rotvec[JOINTS[part]]
                if part == "body":
                    transl = pose.transl
                elif part == "face":
                    expression = pose.expression
        return SmplxPose(rotvec, np.array(transl), np.array(expression), now_s)
