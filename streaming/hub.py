"""One encoder's packets to every viewer of one quality, and the viewers' wishes back to the encoder.

Nothing queues: a viewer that falls four packets behind loses them all and starts again on a keyframe. Whoever needs a
keyframe, and however many do, one is made for all, at most every 300 ms.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import av
import numpy as np
from aiortc.codecs.h264 import H264Encoder
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from streaming import metrics
from streaming.encoder import START_BPS, EncodedFrame, EncoderThread
from streaming.viewer_rate import ViewerRate

QUEUE_PACKETS: Final = 4
KEYFRAME_INTERVAL_S: Final = 0.3

_PACKET_BYTES: Final = 1300
_RETRANSMITTED_SHARE: Final = 0.25
"""Of the bitrate, for repeating lost packets: more would answer congestion with congestion."""
_REPEAT_S: Final = 0.15
_HISTORY: Final = 256
_RECENT: Final = 0.05
"""Weight of the last of many."""


class SharedPacket:
    """One encoded picture on its way to everybody."""

    __slots__ = ("_payloads", "frame")

    def __init__(self, frame: EncodedFrame) -> None:
        self.frame = frame
        self._payloads: Sequence[bytes] | None = None

    @property
    def payloads(self) -> Sequence[bytes]:
        """What RTP packets of H.264 carry of it (RFC 6184), cut once for all viewers."""
        if self._payloads is None:
            self._payloads = H264Encoder().pack(self.frame.packet)[0]
        return self._payloads


class PacketTrack(MediaStreamTrack):
    """One viewer's track: packet_sender.py sends what it brings, lowlatency.py brings it the viewer's feedback.

    The viewer counts from the first read, that is from when the connection stands.
    """

    kind = "video"

    def __init__(self, hub: "PacketHub") -> None:
        super().__init__()
        self.hub = hub
        self.rate = ViewerRate(START_BPS)
        self.overflows = 0
        """How often the viewer fell behind and lost its queue."""
        self._next_hub: PacketHub | None = None
        self._queue: asyncio.Queue[tuple[SharedPacket, int] | None] = asyncio.Queue()
        self._reading = False
        self._needs_keyframe = True
        self._last_pts = -1
        self._repeatable_bytes = 20.0 * _PACKET_BYTES
        self._budgeted_at = hub.now()
        self._repeated_at: dict[int, float] = {}

    async def recv(self) -> "av.Packet[Any]":
        """The next packet by itself, for readers that are no connection; see next_packet."""
        shared, pts = await self.next_packet()
        packet = shared.frame.packet
        return packet if packet.pts == pts else _with_pts(packet, pts)

    async def next_packet(self) -> tuple[SharedPacket, int]:
        """The next packet and its pts for this viewer, the first one a keyframe; MediaStreamError after the last."""
        if self.readyState != "live":
            raise MediaStreamError
        if not self._reading:
            self._reading = True
            metrics.VIEWERS.inc()
            self.hub.join(self)
            self.hub.request_keyframe("join")
        item = await self._queue.get()
        if item is None:
            raise MediaStreamError
        return item

    def stop(self) -> None:
        """Leave the hub; aiortc calls this when the connection closes."""
        if self.readyState == "live":
            if self._reading:
                metrics.VIEWERS.dec()
            self.hub.leave(self)
            if self._next_hub is not None:
                self._next_hub.leave(self)
            self._queue.put_nowait(None)
        super().stop()

    def move_to(self, hub: "PacketHub") -> None:
        """Go over to another quality on its next keyframe; until then the old one goes on."""
        if self.readyState != "live" or not self._reading or hub in {self.hub, self._next_hub}:
            return
        if self._next_hub is not None:
            self._next_hub.leave(self)
        self._next_hub = hub
        hub.join(self)
        hub.request_keyframe("move")

    @property
    def moving(self) -> bool:
        """Whether a keyframe of another quality is awaited."""
        return self._next_hub is not None

    def push(self, shared: SharedPacket, hub: "PacketHub") -> None:
        """Take in a packet of ``hub``; only hubs call this."""
        frame = shared.frame
        if hub is self._next_hub and frame.keyframe:
            self.hub.leave(self)
            self.hub, self._next_hub = hub, None
            self._needs_keyframe = True
        if hub is not self.hub:
            return
        if self._needs_keyframe and not frame.keyframe:
            return
        if self._queue.qsize() >= QUEUE_PACKETS:
            self._overflow(hub)
            return
        self._needs_keyframe = False
        # where both qualities encoded this picture: receivers join packets of one timestamp into one frame
        self._last_pts = max(frame.packet.pts or 0, self._last_pts + 1)
        self._queue.put_nowait((shared, self._last_pts))

    def _overflow(self, hub: "PacketHub") -> None:
        metrics.FRAMES_DROPPED.labels("viewer_behind").inc(self._queue.qsize() + 1)
        while not self._queue.empty():
            self._queue.get_nowait()
        self.overflows += 1
        self._needs_keyframe = True
        hub.request_keyframe("overflow")

    def on_keyframe_request(self, reason: str) -> None:
        """The viewer lost a picture (PLI) or cannot start (FIR)."""
        self.hub.request_keyframe(reason)

    def on_bitrate_estimate(self, bps: float) -> None:
        """The viewer's REMB report."""
        self.rate.on_estimate(bps, self.hub.sent_bps, self.hub.target_bps, self.hub.now())
        self.hub.adapt()

    def on_loss(self, fraction: float) -> None:
        """The viewer's receiver report: share of packets lost, 0 to 1."""
        self.rate.on_loss(fraction)
        self.hub.adapt()

    def may_repeat(self, sequence_number: int) -> bool:
        """Whether a packet reported lost is sent again: not twice in 150 ms, and within a quarter of the bitrate."""
        now = self.hub.now()
        refill_bps = self.hub.target_bps * _RETRANSMITTED_SHARE
        full = max(20.0 * _PACKET_BYTES, 0.3 * refill_bps / 8)
        self._repeatable_bytes = min(full, self._repeatable_bytes + refill_bps / 8 * (now - self._budgeted_at))
        self._budgeted_at = now
        if now - self._repeated_at.get(sequence_number, -_REPEAT_S) < _REPEAT_S:
            return False
        if self._repeatable_bytes < _PACKET_BYTES:
            return False
        if len(self._repeated_at) >= _HISTORY:
            self._repeated_at.clear()
        self._repeated_at[sequence_number] = now
        self._repeatable_bytes -= _PACKET_BYTES
        return True


class PacketHub:
    """One encoder and everyone who is sent its packets. Belongs to one event loop, except ``submit``."""

    def __init__(
        self,
        encoder: EncoderThread,
        *,
        name: str = "full",
        session: str = "",
        min_bps: int = 100_000,
        max_bps: int = 6_000_000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join an encoder that nobody else uses.

        Args:
            encoder: not running yet; ``run`` runs it.
            name: of the quality, for people and metrics.
            session: for metrics.
            min_bps, max_bps: the bitrate stays in between whatever viewers report.
            now: seconds of a steady clock.
        """
        self.name, self.min_bps, self.max_bps, self.now = name, min_bps, max_bps, now
        self.viewers: set[PacketTrack] = set()
        self.keyframe_requests = 0
        """Requests that were passed on to the encoder."""
        self.on_audience: Callable[[], None] = lambda: None
        """Called when the first one comes or the last one goes."""
        self.making_s = 0.0
        """From when a picture is begun to when its packet is handed out, of late."""
        self._encoder = encoder
        self._taps: list[Callable[[EncodedFrame], None]] = []
        self._keyframe_due = False
        self._keyframe_asked_at = -KEYFRAME_INTERVAL_S
        self._sent: deque[tuple[float, int]] = deque()
        self._labels = (session, name)
        self._target = metrics.TARGET_BPS.labels(*self._labels)
        self._target.set(encoder.bitrate_bps)

    @property
    def encoder(self) -> EncoderThread:
        """The encoder of this quality."""
        return self._encoder

    @property
    def wanted(self) -> bool:
        """Whether anybody watches or records; pictures submitted otherwise are wasted work."""
        return bool(self.viewers or self._taps)

    @property
    def target_bps(self) -> int:
        """What the encoder aims at."""
        return self._encoder.bitrate_bps

    @property
    def sent_bps(self) -> float:
        """Bits a second of the last second's packets, for one viewer."""
        return 8.0 * sum(size for sent_at, size in self._sent if self.now() - sent_at <= 1.0)

    async def run(self) -> None:
        """Encode and hand out until cancelled; see EncoderThread.run."""
        try:
            await self._encoder.run(self.publish)
        finally:
            for track in list(self.viewers):
                track.stop()
            metrics.TARGET_BPS.remove(*self._labels)

    def submit(self, i420: np.ndarray, pts: int, *, stamp: float) -> None:
        """Hand in the newest picture, from one thread; see EncoderThread.submit."""
        self._encoder.submit(i420, pts, stamp=stamp)

    def subscribe(self) -> PacketTrack:
        """A track for one viewer's peer connection."""
        return PacketTrack(self)

    def join(self, track: PacketTrack) -> None:
        """Count ``track`` among the viewers; PacketTrack calls this."""
        self._change_audience(lambda: self.viewers.add(track))

    def leave(self, track: PacketTrack) -> None:
        """Forget ``track``; PacketTrack calls this."""
        self._change_audience(lambda: self.viewers.discard(track))
        self.adapt()

    def tap(self, take: Callable[[EncodedFrame], None]) -> Callable[[], None]:
        """Hand every packet to ``take`` as well (a recording), from the next keyframe; returns what ends that."""
        waiting = True

        def pass_on(frame: EncodedFrame) -> None:
            nonlocal waiting
            waiting = waiting and not frame.keyframe
            if not waiting:
                take(frame)

        def end() -> None:
            if pass_on in self._taps:
                self._change_audience(lambda: self._taps.remove(pass_on))

        self._change_audience(lambda: self._taps.append(pass_on))
        self.request_keyframe("recording")
        return end

    def publish(self, frame: EncodedFrame) -> None:
        """Hand a packet to everyone."""
        now = self.now()
        if frame.keyframe:
            self._keyframe_due = False
        elif self._keyframe_due and now - self._keyframe_asked_at >= KEYFRAME_INTERVAL_S:
            self._ask_for_keyframe(now)
        self._sent.append((now, frame.packet.size))
        self.making_s += _RECENT * (time.perf_counter() - frame.stamp - self.making_s)
        while now - self._sent[0][0] > 1.0:
            self._sent.popleft()
        shared = SharedPacket(frame)
        for track in list(self.viewers):
            track.push(shared, self)
        for take in list(self._taps):
            take(frame)

    def request_keyframe(self, reason: str) -> None:
        """Have a keyframe made for everyone, soon: at most one every 300 ms."""
        metrics.KEYFRAME_REQUESTS.labels(reason).inc()
        now = self.now()
        if now - self._keyframe_asked_at >= KEYFRAME_INTERVAL_S:
            self._ask_for_keyframe(now)
        else:
            self._keyframe_due = True

    def adapt(self) -> None:
        """Aim at what the weakest viewer can be sent, within this quality's limits."""
        if not self.viewers:
            return
        wanted = min(track.rate.bps for track in self.viewers)
        bps = int(max(self.min_bps, min(wanted, self.max_bps)))
        if abs(bps - self.target_bps) > 0.02 * self.target_bps:
            self._encoder.set_bitrate(bps)
            self._target.set(bps)

    def _ask_for_keyframe(self, now: float) -> None:
        self._keyframe_due = False
        self._keyframe_asked_at = now
        self.keyframe_requests += 1
        self._encoder.request_keyframe()

    def _change_audience(self, change: Callable[[], None]) -> None:
        wanted = self.wanted
        change()
        if self.wanted != wanted:
            self.on_audience()


def _with_pts(packet: "av.Packet[Any]", pts: int) -> "av.Packet[Any]":
    copy = av.Packet(bytes(packet))
    copy.pts = copy.dts = pts
    copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
    return copy
