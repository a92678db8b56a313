"""Frames out of a video file or a camera, upright and with the times at which they were taken."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from jaxtyping import UInt8

from lhm_runtime.errors import BackendError, FileFormatError, InvalidInputError

_CAMERA_OPTIONS = {"framerate": "30", "video_size": "1280x720"}


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """One picture."""

    index: int
    """0 for the first."""
    timestamp_s: float
    """Since the first frame, by the file's or camera's clock; what a damaged file says may repeat or run backwards."""
    rgb: UInt8[np.ndarray, "h w 3"]
    """Upright: turned as the file's metadata asks, as phones write it."""


class VideoInput:
    """An open video; iterate once over its frames, and ``close`` it or use it in a ``with`` block."""

    def __init__(self, source: str) -> None:
        """Open a file, a camera by number ("0") or a camera device ("/dev/video0").

        Raises:
            FileFormatError: no video, or none that FFmpeg can read.
            BackendError: no such camera, or it cannot be used.
            InvalidInputError: no such file.
        """
        self.is_camera = source.isdecimal() or source.startswith("/dev/video")
        self._name = source
        self._container = _open_camera(source) if self.is_camera else _open_file(Path(source))
        if not self._container.streams.video:
            self._container.close()
            raise FileFormatError(f"{source} holds no video")
        self._stream = self._container.streams.video[0]

    @property
    def length(self) -> int | None:
        """How many frames the file says it has; None where it does not say."""
        return self._stream.frames or None

    @property
    def fps(self) -> float:
        """Mean frame rate as the file says, 30 where it does not."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate else 30.0

    def __iter__(self) -> Iterator[VideoFrame]:
        """Each frame.

        Raises:
            FileFormatError: the file is damaged; the message says after which frame. Those before were fine.
            BackendError: the camera fails, for example because it was unplugged.
        """
        index, start_s, timestamp_s = 0, 0.0, 0.0
        frames = self._container.decode(self._stream)
        while True:
            try:
                frame = next(frames)
                rgb = _upright(frame)
            except StopIteration:
                break
            except (av.FFmpegError, ValueError) as error:
                raise self._broken(index, timestamp_s, error) from error
            # raw streams carry no times
            time_s = start_s + index / self.fps if frame.pts is None else frame.time
            if index == 0:
                start_s = time_s
            timestamp_s = time_s - start_s
            yield VideoFrame(index, timestamp_s, rgb)
            index += 1
        if index == 0:
            raise FileFormatError(f"{self._name} holds no frame that can be decoded")
        if self.length is not None and index < 0.98 * self.length and not self.is_camera:
            raise FileFormatError(
                f"{self._name} ends after frame {index - 1} ({timestamp_s:.2f} s) but should have {self.length} "
                "frames: it is damaged or cut off"
            )

    def close(self) -> None:
        """Release the file or the camera; safe to call again."""
        self._container.close()

    def __enter__(self) -> "VideoInput":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _broken(self, index: int, timestamp_s: float, error: Exception) -> FileFormatError | BackendError:
        reason = getattr(error, "strerror", None) or str(error)
        where = f"after frame {index - 1} ({timestamp_s:.2f} s)" if index else "at its first frame"
        if self.is_camera:
            return BackendError(f"the camera {self._name} failed {where}: {reason}")
        return FileFormatError(f"{self._name} is damaged {where}: {reason}")


def _open_file(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise InvalidInputError(f"{path} is no file; name a video, or a camera as 0 or /dev/video0")
    try:
        return av.open(path)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileFormatError(f"{path} is no video that FFmpeg can read: {reason}") from error


def _open_camera(source: str) -> av.container.InputContainer:
    if not sys.platform.startswith("linux"):
        raise BackendError("cameras are read through Video4Linux, which this system has not; record a clip instead")
    device = Path(f"/dev/video{source}" if source.isdecimal() else source)
    if not device.exists():
        there = ", ".join(str(path) for path in sorted(Path("/dev").glob("video*")))
        raise BackendError(f"there is no camera {device}; cameras here: {there or 'none'}")
    reasons = []
    for options in (_CAMERA_OPTIONS, {}):  # not every camera has that size
        try:
            return av.open(str(device), format="v4l2", options=options)
        except (av.FFmpegError, ValueError) as error:
            reasons.append(getattr(error, "strerror", None) or str(error))
    raise BackendError(
        f"the camera {device} cannot be opened: {reasons[-1]}; another program may be using it, or you may have to be "
        "in the group video"
    )


def _upright(frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarters))
