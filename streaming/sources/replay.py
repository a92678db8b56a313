"""A recorded motion: at any speed, from any place, once or over and over."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

from lhm_runtime.body.rotations import quat_multiply_wxyz, rotvec_to_quat_wxyz
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import wave
from lhm_runtime.motion.sequences import MotionSequence, load_motion
from lhm_runtime.types import SmplxPose
from streaming.sources import Sample
from streaming.sources.idle import blend_poses, ease

BUILTIN_REPLAYS = ("wave",)
"""Motions that need no file."""

_WAVE_S, _WAVE_FPS = 4.0, 60.0
_SUFFIXES = {".npz", ".bvh", ".motion"}
_SEAM_S: Final = 0.35
"""How long it takes to go over to another place of the motion."""
_SEAMLESS_RAD: Final = 0.2
"""Places whose joints differ by no more than this need no way from one to the other."""
_HOLD_S: Final = 0.25
"""A frame that lasts longer is told again, or the avatar would take the silence for the end."""


class ReplaySource:
    """Plays a motion at its own pace; a late reader gets the frame that is due, not those it missed."""

    def __init__(self, motion: MotionSequence, fps: float, *, speed: float = 1.0, loop: bool = True) -> None:
        """Play ``motion``, whose expressions are the avatar's already, at most ``fps`` frames a second."""
        self._motion = motion
        self._times = motion.timestamps_s - motion.timestamps_s[0]
        count = len(motion)
        self._step_s = float(np.median(np.diff(self._times))) if count > 1 else 1.0
        self.length_s = float(self._times[-1]) + self._step_s
        """From the beginning to where it begins again."""
        self._fastest_s = 1 / fps
        self._speed, self._loop = speed, loop
        self._place_s, self._placed_at = 0.0, time.monotonic()
        self._shown: SmplxPose | None = None
        self._seam: tuple[SmplxPose, float] | None = None
        self._changed = asyncio.Event()

    @property
    def place_s(self) -> float:
        """Where in the motion it is, seconds from its beginning."""
        place_s = self._place_s + (time.monotonic() - self._placed_at) * self._speed
        return place_s % self.length_s if self._loop else min(place_s, self.length_s)

    def play(self, *, speed: float, loop: bool) -> None:
        """From here on at ``speed`` (0: stand still), and over and over or to the end."""
        self._move(self.place_s)
        self._speed, self._loop = speed, loop

    def seek(self, place_s: float) -> None:
        """Go on at another place, seconds from the beginning; beyond the end is the end."""
        self._move(min(max(place_s, 0.0), self.length_s))
        self._lead_over(self._place_s)

    async def __aenter__(self) -> "ReplaySource":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to close."""

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """Each frame when it is due; from the end of what is not played again, nothing until that is changed."""
        self._move(0.0)
        start = due = time.monotonic()
        before_s = 0.0
        while True:
            self._changed.clear()
            place_s, now = self.place_s, time.monotonic()
            if place_s >= self.length_s:
                await self._changed.wait()
                continue
            if place_s < before_s:
                self._lead_over(place_s)
            before_s = place_s
            pose = self._frame(place_s)
            if self._seam is not None:
                left, left_at = self._seam
                pose = blend_poses(left, pose, ease((now - left_at) / _SEAM_S))
                if now - left_at >= _SEAM_S:
                    self._seam = None
            self._shown = pose
            yield Sample(SmplxPose(pose.rotvec, pose.transl, pose.expression, now - start), None)
            due = max(due + self._interval_s(), now)
            with suppress(TimeoutError):
                async with asyncio.timeout(due - time.monotonic()):
                    await self._changed.wait()

    def _interval_s(self) -> float:
        """Time from this frame to the next one."""
        if self._seam is not None:
            return self._fastest_s
        step_s = self._step_s / self._speed if self._speed > 0 else _HOLD_S
        return max(min(step_s, _HOLD_S), self._fastest_s)

    def _lead_over(self, place_s: float) -> None:
        """Where the pose at ``place_s`` is far from the one that is shown, go there in a moment instead of at once."""
        if self._shown is not None and _are_apart(self._shown, self._frame(place_s)):
            self._seam = (self._shown, time.monotonic())

    def _frame(self, place_s: float) -> SmplxPose:
        index = int(np.searchsorted(self._times, place_s, side="right")) - 1
        return self._motion.pose(min(max(index, 0), len(self._motion) - 1))

    def _move(self, place_s: float) -> None:
        self._place_s, self._placed_at = place_s, time.monotonic()
        self._changed.set()


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


def _are_apart(here: SmplxPose, there: SmplxPose) -> bool:
    """Whether going from one pose to the other at once would be seen as a jerk."""
    start, end = rotvec_to_quat_wxyz(here.rotvec), rotvec_to_quat_wxyz(there.rotvec)
    turn = quat_multiply_wxyz(start * np.array([1, -1, -1, -1], np.float32), end)
    angles = 2 * np.arctan2(np.linalg.norm(turn[:, 1:], axis=1), np.abs(turn[:, 0]))
    return bool(angles.max() > _SEAMLESS_RAD)


def _is_motion(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES or (path.is_dir() and any(path.glob("**/*.json")))
