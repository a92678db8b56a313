"""The poses of a session into a file, beside the film of it; lhm_runtime/motion/takes.py says what is in it."""

import asyncio
import queue
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from structlog.stdlib import get_logger

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.takes import (
    MAGIC,
    MAX_TAKE_BYTES,
    MAX_TICKS,
    Scene,
    format_pose,
    format_poses,
    format_scene,
)
from lhm_runtime.types import SmplxPose
from streaming import metrics
from streaming.encoder import EncodedFrame
from streaming.hub import PacketHub
from streaming.recording import Room, part_of
from streaming.renderer import Moment, RenderThread
from streaming.threads import attend_thread

_WRITE_EVERY_S: Final = 1.0
_QUEUE_POSES: Final = 240
_BLOCK_POSES: Final = 240
"""Written at once at most: a backlog may come in less than a second."""
_WAITING_POSES: Final = 240
"""Poses kept until the film's first picture is known."""

_Drawn = tuple[Moment, SmplxPose]

_log = get_logger(__name__)


@asynccontextmanager
async def take_beside(
    path: Path, hub: PacketHub, renderer: RenderThread, fps: int, room: Room | None = None
) -> AsyncIterator[None]:
    """Write each pose ``renderer`` draws into ``path`` while a film of ``hub``'s packets is begun and made inside.

    Time 0 of the take is the film's first picture: the first pose is the one this shows, and every picture of the film
    has its pose at the same tick. Poses drawn before it are left out. Every second what has come is on the disk, in a
    hidden file beside ``path`` until the end. Where the disk is too slow poses are left out, where there is no room or
    it cannot be written the take ends; that is logged, and the film goes on.
    """
    drawn: queue.SimpleQueue[_Drawn | int | None] = queue.SimpleQueue()

    def take(moment: Moment, pose: SmplxPose) -> None:
        if drawn.qsize() >= _QUEUE_POSES:
            metrics.FRAMES_DROPPED.labels("disk_behind").inc()
        else:
            drawn.put((moment, pose))

    def begin(frame: EncodedFrame) -> None:
        drawn.put(frame.packet.pts or 0)
        end_tap()

    async def write() -> None:
        try:
            writer = _TakeWriter(path, renderer.size, fps, room)
            await attend_thread("take", lambda: writer.work(drawn), lambda: drawn.put(None))
        except (OSError, InvalidInputError) as error:
            _log.warning("no take beside the film", path=str(path), reason=str(error))
        finally:
            end_telling()

    end_tap = hub.tap(begin)
    end_telling = renderer.tell(take)
    writing = asyncio.create_task(write(), name=f"take {path.stem}")
    try:
        yield
    finally:
        end_tap()
        drawn.put(None)
        await asyncio.wait([writing])


class _TakeWriter:
    """One take's file; for one thread."""

    def __init__(self, path: Path, size: tuple[int, int], fps: int, room: Room | None) -> None:
        self._path, self._size, self._fps, self._room = path, size, fps, room
        self._begun_at: int | None = None
        self._tick = -1
        self._scene: Scene | None = None
        self._shown: tuple[object, object] | None = None
        self._poses: list[bytes] = []
        self._written = 0

    def work(self, drawn: "queue.SimpleQueue[_Drawn | int | None]") -> None:
        """Write until told None; raises OSError."""
        part = part_of(self._path)
        waiting: deque[_Drawn] = deque(maxlen=_WAITING_POSES)
        with part.open("xb") as file:
            try:
                due = time.monotonic() + _WRITE_EVERY_S
                while (item := drawn.get()) is not None:
                    if isinstance(item, int):
                        self._begun_at = item
                        going = self._write(file, MAGIC) and all(self._add(file, *told) for told in waiting)
                        waiting.clear()
                    elif self._begun_at is None:
                        waiting.append(item)
                        continue
                    else:
                        going = self._add(file, *item)
                    if going and time.monotonic() >= due:
                        going, due = self._flush(file), time.monotonic() + _WRITE_EVERY_S
                    if not going:
                        _log.warning("the take ends before its film: no room is left", path=str(self._path))
                        break
                self._flush(file)
            finally:
                with suppress(OSError):  # of a full disk, and told already; what is on it counts
                    file.close()
                if self._written > len(MAGIC):
                    part.replace(self._path)
                else:
                    part.unlink()

    def _add(self, file: BinaryIO, moment: Moment, pose: SmplxPose) -> bool:
        tick = moment.pts - (self._begun_at or 0)
        if tick <= self._tick or tick < 0:
            return True
        if tick > MAX_TICKS:
            return False
        if self._shown != (moment.settings, moment.performer):
            self._shown = (moment.settings, moment.performer)
            scene = self._describe(moment)
            if scene != self._scene:
                self._scene = scene
                if not (self._flush(file) and self._write(file, format_scene(scene))):
                    return False
        self._tick = tick
        expression = np.zeros(len(moment.performer.avatar.expression_names), np.float32)
        given = pose.expression[: len(expression)]
        expression[: len(given)] = given
        self._poses.append(format_pose(tick, replace(pose, expression=expression)))
        return len(self._poses) < _BLOCK_POSES or self._flush(file)

    def _describe(self, moment: Moment) -> Scene:
        settings, performer = moment.settings, moment.performer
        return Scene(
            avatar=performer.avatar_id,
            expression_names=performer.avatar.expression_names,
            width=self._size[0],
            height=self._size[1],
            fps=self._fps,
            framing=settings.framing,
            background=settings.background,
            mirror=settings.mirror,
            yaw=settings.yaw,
            pitch=settings.pitch,
        )

    def _flush(self, file: BinaryIO) -> bool:
        poses, self._poses = self._poses, []
        return not poses or self._write(file, format_poses(poses))

    def _write(self, file: BinaryIO, data: bytes) -> bool:
        """Whether there was room for it."""
        if self._written + len(data) > MAX_TAKE_BYTES or not (self._room is None or self._room(len(data))):
            return False
        file.write(data)
        file.flush()
        self._written += len(data)
        return True
