"""The packets viewers get, pictures and sound, into a file, without encoding them again."""

import queue
import secrets
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from lhm_runtime.errors import BackendError
from streaming import metrics
from streaming.audio import RATE_HZ, AudioHub, AudioPacket
from streaming.encoder import CLOCK_HZ, Codec, EncodedFrame, EncoderThread
from streaming.hub import PacketHub
from streaming.threads import attend_thread

SUFFIXES: Final[dict[Codec, str]] = {"h264": ".mp4", "vp8": ".webm"}
"""Which file holds which codec."""

PART: Final = ".part"
"""Before the suffix of a file that is being written."""

Room = Callable[[int], bool]
"""Whether so many more bytes may be written; asked from a thread."""

_Item = EncodedFrame | tuple[AudioPacket, float]
"""A picture; or sound, and when it began on the clock that pictures are counted by, seconds."""

_QUEUE_PACKETS: Final = 240
_SILENCE_S: Final = 0.4
"""So long sound is waited for before the film goes on in silence: it comes behind the pictures, and may be late."""
_SLACK: Final = RATE_HZ // 50
"""How far sound may drift from the pictures, in samples, before it is moved by whole packets."""
_SILENCES: Final = ((960, b"\xfc\xff\xfe"), (120, b"\xe4\xff\xfe"))
"""Opus packets of silence, 20 and 2.5 ms (RFC 6716, 3.1: CELT, stereo), by samples."""
# what was written up to a crash plays: a fragment a second, and at the end an ordinary file of them
_CRASH_SAFE: Final = {"movflags": "hybrid_fragmented", "frag_duration": "1000000", "flush_packets": "1"}


async def record(hub: PacketHub, path: Path, room: Room | None = None, audio: AudioHub | None = None) -> None:
    """Write ``hub``'s packets into ``path`` until cancelled, or no room is left; the file is then whole and playable.

    Sound lies where the pictures are of the same moment. Its track goes through the whole film, so that a microphone
    may come and go: where there is none it is silent.

    A disk too slow for the stream loses pictures from there to a keyframe; neither loop nor viewers wait for it. After
    a crash the beginning is in a hidden file beside ``path`` (see ``part_of``), up to its last second, and plays.

    Args:
        hub: running, and fed with pictures.
        path: ends in ``SUFFIXES[codec]``; an older file stays until this one is complete, and if nothing came.
        room: ends the recording when it says no; None: there is always room.
        audio: what is heard, on the clock by which ``hub`` counts pictures; None: a film without a sound track.

    Raises:
        BackendError: the file cannot be written.
    """
    if path.suffix != SUFFIXES[hub.encoder.codec]:
        raise BackendError(
            f"{path.name} cannot hold {hub.encoder.codec}; name it *{SUFFIXES[hub.encoder.codec]}",
        )
    items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
    lossy = False

    def take(frame: EncodedFrame) -> None:
        nonlocal lossy
        full = items.qsize() >= _QUEUE_PACKETS
        if lossy and not full and not frame.keyframe:
            hub.request_keyframe("recording")
        lossy = full or (lossy and not frame.keyframe)
        if lossy:
            metrics.FRAMES_DROPPED.labels("disk_behind").inc()
        else:
            items.put(frame)

    def hear(packet: AudioPacket) -> None:
        if audio is not None and items.qsize() < _QUEUE_PACKETS:
            items.put((packet, packet.began_s + audio.pose_s))

    end = hub.tap(take)
    end_sound = None if audio is None else audio.tap(hear)

    def dismiss() -> None:
        end()
        if end_sound is not None:
            end_sound()
        items.put(None)

    try:
        await attend_thread(
            "record", lambda: _write(path, items, room, hub.encoder, has_sound=audio is not None), dismiss
        )
    except (av.FFmpegError, OSError) as error:
        raise BackendError(f"{path} cannot be written: {error.strerror or error}") from error


def part_of(path: Path) -> Path:
    """A free name beside ``path`` for what is not complete yet."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}{PART}{path.suffix}")


def _write(
    path: Path, items: "queue.SimpleQueue[_Item | None]", room: Room | None, encoder: EncoderThread, *, has_sound: bool
) -> None:
    part = part_of(path)
    part.touch()  # now, so that a folder that cannot be written to is known at once
    try:
        # FFmpeg crashes over an MP4 of this kind that holds nothing, so there is none before the first picture
        item = items.get()
        while isinstance(item, tuple):
            item = items.get()
        if item is None or (room is not None and not room(item.packet.size)):
            return
        with av.open(part, "w", options=_CRASH_SAFE if path.suffix == ".mp4" else {}) as container:
            film = _Film(container, encoder, item, has_sound=has_sound)
            while item is not None:
                film.add(item)
                item = items.get()
                if item is not None and room is not None and not room(_size(item)):
                    break
            film.end()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class _Film:
    """A container that is being filled, from time 0."""

    def __init__(
        self, container: OutputContainer, encoder: EncoderThread, first: EncodedFrame, *, has_sound: bool
    ) -> None:
        self._container = container
        self._first = first.packet.pts or 0
        self._length_s = 0.0
        self._frame_s = 1 / encoder.fps
        pictures = container.add_mux_stream(
            encoder.codec,
            rate=Fraction(encoder.fps).limit_denominator(1001),
            width=encoder.size[0],
            height=encoder.size[1],
        )
        if not isinstance(pictures, VideoStream):
            raise BackendError(f"FFmpeg has no video stream of {encoder.codec}")
        self._pictures = pictures
        self._pictures.time_base = Fraction(1, CLOCK_HZ)
        # nothing is encoded: this is how PyAV makes the header that a sound track of Opus needs
        self._sound = container.add_stream("libopus", rate=RATE_HZ, layout="stereo") if has_sound else None
        self._samples = 0
        """That the sound track is long."""

    def add(self, item: _Item) -> None:
        """Append a picture or sound."""
        if isinstance(item, tuple):
            packet, began_s = item
            self._speak(packet, began_s - self._first / CLOCK_HZ)
            return
        pts = (item.packet.pts or 0) - self._first
        self._mux(bytes(item.packet), self._pictures, pts, Fraction(1, CLOCK_HZ), keyframe=item.keyframe)
        self._length_s = pts / CLOCK_HZ + self._frame_s
        self._fall_silent(self._length_s - _SILENCE_S)

    def end(self) -> None:
        """Make pictures and sound of one length."""
        self._fall_silent(self._length_s)

    def _speak(self, packet: AudioPacket, began_s: float) -> None:
        ahead = round(began_s * RATE_HZ) - self._samples
        if ahead < -_SLACK:
            metrics.FRAMES_DROPPED.labels("sound_not_recorded").inc()
            return
        if ahead > _SLACK:
            self._fall_silent(began_s)
        self._append(packet.payload, packet.samples)

    def _fall_silent(self, until_s: float) -> None:
        for samples, silence in _SILENCES:
            while self._samples + samples <= until_s * RATE_HZ:
                self._append(silence, samples)

    def _append(self, payload: bytes, samples: int) -> None:
        if self._sound is not None:
            self._mux(payload, self._sound, self._samples, Fraction(1, RATE_HZ), duration=samples)
        self._samples += samples

    def _mux(
        self,
        data: bytes,
        stream: VideoStream | AudioStream,
        pts: int,
        time_base: Fraction,
        *,
        keyframe: bool = True,
        duration: int = 0,
    ) -> None:
        # the viewers' packets stay as they are: muxing changes a packet's times and its stream
        packet = av.Packet(data)
        packet.pts = packet.dts = pts
        packet.time_base, packet.is_keyframe, packet.stream = time_base, keyframe, stream
        if duration:
            packet.duration = duration
        self._container.mux(packet)


def _size(item: _Item) -> int:
    return len(item[0].payload) if isinstance(item, tuple) else item.packet.size
