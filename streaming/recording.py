"""The packets viewers get, into a file, without encoding them again."""

import queue
import secrets
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.video.stream import VideoStream

from lhm_runtime.errors import BackendError
from streaming import metrics
from streaming.encoder import CLOCK_HZ, Codec, EncodedFrame
from streaming.hub import PacketHub
from streaming.threads import attend_thread

SUFFIXES: Final[dict[Codec, str]] = {"h264": ".mp4", "vp8": ".webm"}
"""Which file holds which codec."""

_QUEUE_PACKETS: Final = 120


async def record(hub: PacketHub, path: Path) -> None:
    """Write ``hub``'s packets into ``path`` until cancelled; the file is then whole and playable.

    A disk too slow for the stream loses pictures from there to a keyframe; neither loop nor viewers wait for it.

    Args:
        hub: running, and fed with pictures.
        path: ends in ``SUFFIXES[codec]``; an older file stays until this one is complete, and if nothing came.

    Raises:
        BackendError: the file cannot be written.
    """
    if path.suffix != SUFFIXES[hub.encoder.codec]:
        raise BackendError(
            f"{path.name} cannot hold {hub.encoder.codec}; name it *{SUFFIXES[hub.encoder.codec]}",
        )
    frames: queue.SimpleQueue[EncodedFrame | None] = queue.SimpleQueue()
    lossy = False

    def take(frame: EncodedFrame) -> None:
        nonlocal lossy
        full = frames.qsize() >= _QUEUE_PACKETS
        if lossy and not full and not frame.keyframe:
            hub.request_keyframe("recording")
        lossy = full or (lossy and not frame.keyframe)
        if lossy:
            metrics.FRAMES_DROPPED.labels("disk_behind").inc()
        else:
            frames.put(frame)

    end = hub.tap(take)

    def dismiss() -> None:
        end()
        frames.put(None)

    try:
        await attend_thread(
            "record", lambda: _write(path, frames, hub.encoder.codec, hub.encoder.size, hub.encoder.fps), dismiss
        )
    except (av.FFmpegError, OSError) as error:
        raise BackendError(f"{path} cannot be written: {error.strerror or error}") from error


def _write(
    path: Path, frames: "queue.SimpleQueue[EncodedFrame | None]", codec: Codec, size: tuple[int, int], fps: float
) -> None:
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    first_pts: int | None = None
    try:
        with av.open(part, "w") as container:
            stream = container.add_mux_stream(
                codec, rate=Fraction(fps).limit_denominator(1001), width=size[0], height=size[1]
            )
            if not isinstance(stream, VideoStream):
                raise BackendError(f"FFmpeg has no video stream of {codec}")
            stream.time_base = Fraction(1, CLOCK_HZ)
            container.start_encoding()  # now, so that a folder that cannot be written to is known at once
            while (frame := frames.get()) is not None:
                # the viewers' packets stay as they are: muxing changes a packet's times and its stream
                packet = av.Packet(bytes(frame.packet))
                pts = frame.packet.pts or 0
                first_pts = pts if first_pts is None else first_pts
                packet.pts = packet.dts = pts - first_pts
                packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, CLOCK_HZ), frame.keyframe, stream
                container.mux(packet)
        if first_pts is not None:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
