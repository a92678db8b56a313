"""The packets viewers get, into a file, without encoding them again."""

import queue
import secrets
from collections.abc import Callable
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

PART: Final = ".part"
"""Before the suffix of a file that is being written."""

Room = Callable[[int], bool]
"""Whether so many more bytes may be written; asked from a thread."""

_QUEUE_PACKETS: Final = 120
# what was written up to a crash plays: a fragment a second, and at the end an ordinary file of them
_CRASH_SAFE: Final = {"movflags": "hybrid_fragmented", "frag_duration": "1000000", "flush_packets": "1"}


async def record(hub: PacketHub, path: Path, room: Room | None = None) -> None:
    """Write ``hub``'s packets into ``path`` until cancelled, or no room is left; the file is then whole and playable.

    A disk too slow for the stream loses pictures from there to a keyframe; neither loop nor viewers wait for it. After
    a crash the beginning is in a hidden file beside ``path`` (see ``part_of``), up to its last second, and plays.

    Args:
        hub: running, and fed with pictures.
        path: ends in ``SUFFIXES[codec]``; an older file stays until this one is complete, and if nothing came.
        room: ends the recording when it says no; None: there is always room.

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
            "record", lambda: _write(path, frames, room, hub.encoder.codec, hub.encoder.size, hub.encoder.fps), dismiss
        )
    except (av.FFmpegError, OSError) as error:
        raise BackendError(f"{path} cannot be written: {error.strerror or error}") from error


def part_of(path: Path) -> Path:
    """A free name beside ``path`` for what is not complete yet."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}{PART}{path.suffix}")


def _write(
    path: Path,
    frames: "queue.SimpleQueue[EncodedFrame | None]",
    room: Room | None,
    codec: Codec,
    size: tuple[int, int],
    fps: float,
) -> None:
    part = part_of(path)
    part.touch()  # now, so that a folder that cannot be written to is known at once
    try:
        # FFmpeg crashes over an MP4 of this kind that holds nothing, so there is none before the first packet
        first = frames.get()
        if first is None or (room is not None and not room(first.packet.size)):
            return
        with av.open(part, "w", options=_CRASH_SAFE if path.suffix == ".mp4" else {}) as container:
            stream = container.add_mux_stream(
                codec, rate=Fraction(fps).limit_denominator(1001), width=size[0], height=size[1]
            )
            if not isinstance(stream, VideoStream):
                raise BackendError(f"FFmpeg has no video stream of {codec}")
            stream.time_base = Fraction(1, CLOCK_HZ)
            frame: EncodedFrame | None = first
            while frame is not None:
                # the viewers' packets stay as they are: muxing changes a packet's times and its stream
                packet = av.Packet(bytes(frame.packet))
                packet.pts = packet.dts = (frame.packet.pts or 0) - (first.packet.pts or 0)
                packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, CLOCK_HZ), frame.keyframe, stream
                container.mux(packet)
                frame = frames.get()
                if frame is not None and room is not None and not room(frame.packet.size):
                    break
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
