"""A camera's video over WebRTC, tracked here: MediaPipe runs in a process of its own."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from lhm_runtime.errors import BackendError
from lhm_runtime.motion.tracker import MIN_FRAME_SIDE, Mode, long_side
from lhm_runtime.motion.tracker_worker import TrackerWorker
from lhm_runtime.types import Landmarks
from streaming import metrics
from streaming.latest import Latest
from streaming.sources import Sample
from streaming.time_code import HEIGHT, WIDTH, read_time_code

_MOST_UNDERWAY = 64


class WebcamSource:
    """Tracks whichever track was attached last; without one it waits.

    It may be entered while it is open, by who takes over from another: it closes when the last one leaves.
    """

    def __init__(self, mode: Mode = "live") -> None:
        """Track as a Tracker in ``mode`` does."""
        self._mode: Mode = mode
        self._frames: Latest[tuple[av.VideoFrame, float]] = Latest()
        self._seen: Latest[Landmarks] = Latest()
        self._underway: dict[float, tuple[float, float, int | None]] = {}
        self._track: MediaStreamTrack | None = None
        self._users = 0

    async def __aenter__(self) -> "WebcamSource":
        if not self._users:
            self._open()
        self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users:
            return
        submitting, worker = self._submitting, self._worker
        submitting.cancel()
        await asyncio.wait([submitting])
        self._converter.shutdown(wait=False)
        await asyncio.to_thread(worker.close)

    async def feed(self, track: MediaStreamTrack) -> None:
        """Read ``track`` until it ends; one that begins later takes over, and this one is read on in vain.

        A track that nobody reads would pile up its frames. Pages offer one before they have a camera.
        """
        silent = True
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if silent:
                self._track, silent = track, False
            if track is self._track and isinstance(frame, av.VideoFrame):
                before = self._frames.replaced
                self._frames.put((frame, time.perf_counter()))
                if self._frames.replaced > before:
                    metrics.FRAMES_DROPPED.labels("webcam_overtaken").inc()

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """What the tracker saw, newest first.

        Raises:
            BackendError: the tracker gave up, or its models are missing.
        """
        while True:
            seen = asyncio.create_task(self._seen.get())
            try:
                await asyncio.wait([seen, self._submitting], return_when=asyncio.FIRST_COMPLETED)
                if self._submitting.done():
                    self._submitting.result()
                    raise BackendError("the webcam's frames are no longer tracked")
                landmarks = seen.result()
            finally:
                seen.cancel()
            arrived_at, submitted_at, code = self._underway.pop(landmarks.timestamp_s, (None, None, None))
            seen_at = None
            if arrived_at is not None and submitted_at is not None:
                now = time.perf_counter()
                seen_at = asyncio.get_running_loop().time() - (now - arrived_at)
                metrics.STAGE_SECONDS.labels("track").observe(now - submitted_at)
                metrics.STAGE_SECONDS.labels("arrival_to_landmarks").observe(now - arrived_at)
            yield Sample(landmarks, None if code is None else float(code), seen_at)

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._worker = TrackerWorker(
            self._mode, on_landmarks=lambda landmarks: self._seen.put_threadsafe(landmarks, loop)
        )
        self._converter = ThreadPoolExecutor(1, "webcam-frames")
        self._submitting = asyncio.create_task(self._submit(), name="submit webcam frames")

    async def _submit(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frame, arrived_at = await self._frames.get()
            if min(frame.width, frame.height) < MIN_FRAME_SIDE:
                continue
            start = time.perf_counter()
            rgb, code = await loop.run_in_executor(self._converter, _convert, frame, long_side(self._mode))
            timestamp_s = float(frame.time) if frame.time is not None else loop.time()
            if len(self._underway) > _MOST_UNDERWAY:  # overtaken frames never come back for theirs
                self._underway.clear()
            submitted_at = time.perf_counter()
            metrics.STAGE_SECONDS.labels("convert").observe(submitted_at - start)
            self._underway[timestamp_s] = (arrived_at, submitted_at, code)
            self._worker.submit(rgb, timestamp_s)


def _convert(frame: av.VideoFrame, side: int) -> tuple[np.ndarray, int | None]:
    """RGB of at most ``side`` pixels, and the draw time in the corner, if a test camera put one there."""
    code = None
    if frame.format.name in {"yuv420p", "yuvj420p"} and min(frame.width, frame.height) >= WIDTH:
        # only the corner: copying all planes would cost a millisecond
        luma = np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(-1, frame.planes[0].line_size)
        code = read_time_code(luma[:HEIGHT, :WIDTH])
    scale = min(side / max(frame.width, frame.height), 1.0)
    size = (max(round(frame.width * scale), MIN_FRAME_SIDE), max(round(frame.height * scale), MIN_FRAME_SIDE))
    rgb = frame.reformat(*size, format="rgb24", interpolation="AREA" if scale < 1 else None)
    return rgb.to_ndarray(), None if code is None else code.drawn_ms
