"""A recorded motion, over and over."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import wave
from lhm_runtime.motion.sequences import MotionSequence, load_motion
from lhm_runtime.types import SmplxPose
from streaming.sources import Sample

BUILTIN_REPLAYS = ("wave",)
"""Motions that need no file."""

_WAVE_S, _WAVE_FPS = 4.0, 60.0
_SUFFIXES = {".npz", ".bvh"}


class ReplaySource:
    """Plays a motion at its own pace; a late reader gets the frame that is due, not those it missed."""

    def __init__(self, motion: MotionSequence, fps: float) -> None:
        """Play ``motion``, whose expressions are the avatar's already, at most ``fps`` frames a second."""
        self._motion = motion
        self._times = motion.timestamps_s - motion.timestamps_s[0]
        count = len(motion)
        step_s = float(np.median(np.diff(self._times))) if count > 1 else 1.0
        self._length_s = float(self._times[-1]) + step_s
        self._pause_s = max(step_s, 1 / fps)

    async def __aenter__(self) -> "ReplaySource":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to close."""

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """Each frame when it is due, for ever."""
        start = time.monotonic()
        due = start
        while True:
            now = time.monotonic()
            elapsed = now - start
            index = int(np.searchsorted(self._times, elapsed % self._length_s, side="right")) - 1
            pose = self._motion.pose(max(index, 0))
            yield Sample(SmplxPose(pose.rotvec, pose.transl, pose.expression, elapsed), None)
            due = max(due + self._pause_s, now)
            await asyncio.sleep(due - time.monotonic())


def list_replays(folder: Path | None) -> list[str]:
    """Names of what ``open_replay`` plays."""
    found = [] if folder is None else sorted(path.name for path in folder.iterdir() if _is_motion(path))
    return [*BUILTIN_REPLAYS, *found]


def open_replay(name: str, folder: Path | None, expression_names: Sequence[str]) -> MotionSequence:
    """The motion called ``name``, for a face with these coefficients; takes a while, so call it off the loop.

    Raises:
        InvalidInputError: ``list_replays`` has no such name.
        MotionFileError: the file is unusable.
    """
    known = list_replays(folder)
    if name not in known:
        raise InvalidInputError(f"there is no replay {name!r}; known: {', '.join(known)}")
    if name == "wave":
        return wave(_WAVE_S, _WAVE_FPS, expression_names)
    if folder is None:
        raise InvalidInputError(f"there is no folder to play {name!r} from")
    return load_motion(folder / name).with_expressions(expression_names)


def _is_motion(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES or (path.is_dir() and any(path.glob("**/*.json")))
