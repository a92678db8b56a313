"""A camera's video over WebRTC, tracked here: MediaPipe runs in a process of its own."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from lhm_runtime.errors import BackendError
from lhm_runtime.motion.tracker import MIN_FRAME_SIDE, Mode
from lhm_runtime.motion.tracker_worker import TrackerWorker
from lhm_runtime.types import Landmarks
from streaming import metrics
from streaming.latest import Latest
from streaming.sources import Sample
from streaming.time_code import read_time_code


class WebcamSource:
    """Tracks whichever track was attached last; without one it waits."""

    def __init__(self, mode: Mode = "auto") -> None:
        self._mode: Mode = mode
        self._frames: Latest[av.VideoFrame] = Latest()
        self._seen: Latest[Landmarks] = Latest()
        self._codes: dict[float, int] = {}
        self._track: MediaStreamTrack | None = None

    async def __aenter__(self) -> "WebcamSource":
        loop = asyncio.get_running_loop()
        self._worker = TrackerWorker(
            self._mode, on_landmarks=lambda landmarks: self._seen.put_threadsafe(landmarks, loop)
        )
        self._converter = ThreadPoolExecutor(1, "webcam-frames")
        self._submitting = asyncio.create_task(self._submit(), name="submit webcam frames")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._submitting.cancel()
        await asyncio.wait([self._submitting])
        self._converter.shutdown(wait=False)
        await asyncio.to_thread(self._worker.close)

    async def feed(self, track: MediaStreamTrack) -> None:
        """Read ``track`` until it ends; one that is attached later takes over, and this one is read on in vain.

        A track that nobody reads would pile up its frames.
        """
        self._track = track
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if track is self._track and isinstance(frame, av.VideoFrame):
                before = self._frames.replaced
                self._frames.put(frame)
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
            code = self._codes.pop(landmarks.timestamp_s, None)
            yield Sample(landmarks, None if code is None else float(code))

    async def _submit(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frame = await self._frames.get()
            if min(frame.width, frame.height) < MIN_FRAME_SIDE:
                continue
            rgb, code = await loop.run_in_executor(self._converter, _convert, frame)
            timestamp_s = float(frame.time) if frame.time is not None else loop.time()
            if code is not None:
                if len(self._codes) > 64:  # overtaken frames never come back for theirs
                    self._codes.clear()
                self._codes[timestamp_s] = code
            self._worker.submit(rgb, timestamp_s)


def _convert(frame: av.VideoFrame) -> tuple[np.ndarray, int | None]:
    """RGB, upright, and the draw time in the corner, if a test camera put one there."""
    planar = frame if frame.format.name == "yuv420p" else frame.reformat(format="yuv420p")
    code = read_time_code(planar.to_ndarray()[: frame.height, : frame.width])
    return frame.to_ndarray(format="rgb24"), None if code is None else code.drawn_ms
