"""The driver's microphone on its way to whoever listens: Opus packets as they came, held back until the avatar moves.

    Microphone (one a track that comes in) -> AudioHub -> AudioTrack (one a listener), taps (recordings)

Sound takes a shorter way than motion, which has to be seen, solved, drawn and encoded. So each packet leaves when the
picture leaves that shows the same moment: later than it came by what the avatar takes, less what the listener's player
holds sound longer than pictures. Pictures never wait for sound. When that delay changes, packets leave a little closer
together or further apart, at most 2 %, which players even out by stretching; none is cut, repeated or decoded.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from streaming import metrics

RATE_HZ: Final = 48_000
"""The RTP clock of Opus, whatever was sampled (RFC 7587, 4.1)."""

PLAYER_S: Final = 0.08
"""How much longer a browser holds sound than pictures where it does not say: measured in Chromium."""
MOST_PLAYER_S: Final = 0.5
MOST_DELAY_S: Final = 1.0

_PAUSE_S: Final = 1.0
"""After this silence a microphone begins anew; discontinuous Opus sends a packet every 0.4 s."""
_JUMP_S: Final = 2.0
_LATE_S: Final = 0.3
"""What comes so much later than its fellows is stale; unless all do, from now on."""
_DRIFT: Final = 2e-4
"""How much slower than ours the sender's clock may be."""
_STRETCH: Final = 0.02
_GAP_S: Final = 0.1
_BURST: Final = RATE_HZ // 2
_QUEUE_PACKETS: Final = 200
_WEIGHT: Final = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class AudioPacket:
    """One Opus packet."""

    payload: bytes
    pts: int
    """Of its first sample, in ticks of RATE_HZ: as the sender counts, without jitter."""
    samples: int
    """How many ticks it lasts."""
    began_s: float
    """When its first sample was spoken, on the event loop's clock, as far as can be told from when it came."""


def count_samples(payload: bytes) -> int:
    """How long an Opus packet lasts in ticks of RATE_HZ (RFC 6716, 3.1 and 3.2); 0 where it is none."""
    if not payload:
        return 0
    config, code = payload[0] >> 3, payload[0] & 3
    if config < 12:  # SILK
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:  # both
        frame = (480, 960)[config & 1]
    else:  # CELT
        frame = (120, 240, 480, 960)[config & 3]
    if code == 3 and len(payload) < 2:
        return 0
    frames = (1, 2, 2, payload[1] & 63 if code == 3 else 0)[code]
    return frames * frame if frames * frame <= 5760 else 0  # at most 120 ms


class Microphone:
    """A track of a driver's; ``receive`` takes its packets in."""

    def __init__(self, hub: "AudioHub") -> None:
        self._hub = hub
        self._pts: int | None = None
        self._timestamp = 0
        self._base_s: float | None = None
        self._heard_at = -_PAUSE_S
        self._late_since: float | None = None
        self._allowed = float(_BURST)

    def receive(self, payload: bytes, timestamp: int) -> None:
        """Take in an RTP packet's payload; what cannot be used is dropped and counted.

        Args:
            payload: one Opus packet.
            timestamp: the RTP header's.
        """
        samples, now = count_samples(payload), self._hub.now()
        if not samples:
            metrics.FRAMES_DROPPED.labels("sound_malformed").inc()
            return
        silence_s, self._heard_at = now - self._heard_at, now
        self._allowed = min(self._allowed + silence_s * RATE_HZ, float(_BURST))
        if silence_s >= _PAUSE_S:
            self._base_s = None
            self._hub.give_floor(self)
        pts = self._count(timestamp, samples, now)
        if pts is None:
            metrics.FRAMES_DROPPED.labels("sound_out_of_order").inc()
            return
        if self._is_stale(pts, samples, now):
            metrics.FRAMES_DROPPED.labels("sound_late").inc()
            return
        if samples > self._allowed:
            metrics.FRAMES_DROPPED.labels("sound_too_fast").inc()
            return
        self._allowed -= samples
        self._hub.publish(AudioPacket(payload, pts, samples, pts / RATE_HZ + (self._base_s or 0.0)), self)

    def close(self) -> None:
        """The track has ended."""
        self._hub.take_floor(self)

    def _count(self, timestamp: int, samples: int, now: float) -> int | None:
        """The packet's pts; None where a later one has come."""
        step = (timestamp - self._timestamp + (1 << 31)) % (1 << 32) - (1 << 31)
        if self._pts is None or abs(step) > _JUMP_S * RATE_HZ:  # another clock
            self._pts, self._base_s = round(now * RATE_HZ) - samples, None
        elif step <= 0:
            return None
        else:
            self._pts += step
        self._timestamp = timestamp
        return self._pts

    def _is_stale(self, pts: int, samples: int, now: float) -> bool:
        """Keep ``_base_s``, our time at pts 0, by the packets that came quickest."""
        base_s = now - (pts + samples) / RATE_HZ
        if self._base_s is None or base_s <= self._base_s:
            self._base_s, self._late_since = base_s, None
            return False
        if base_s - self._base_s > _LATE_S:
            self._late_since = now if self._late_since is None else self._late_since
            if now - self._late_since < _PAUSE_S:
                return True
            self._base_s = base_s  # the way has become longer
        self._late_since = None
        self._base_s += min(base_s - self._base_s, _DRIFT * samples / RATE_HZ)
        return False


class AudioHub:
    """One session's sound. Belongs to one event loop."""

    def __init__(self, *, is_open: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        """``now``: seconds on the event loop's clock."""
        self.now = now
        self.is_open = is_open
        """Whether the microphone is passed on."""
        self.pose_s = 0.0
        """From when the driver was seen to when the picture of it was begun, of late."""
        self.picture_s = 0.0
        """From then to when the picture left."""
        self.listeners: set[AudioTrack] = set()
        self._taps: list[Callable[[AudioPacket], None]] = []
        self._speaker: Microphone | None = None
        self._measured = False

    @property
    def delay_s(self) -> float:
        """From when the driver was seen to when the picture of it left."""
        return min(self.pose_s + self.picture_s, MOST_DELAY_S)

    def note_delay(self, pose_s: float, picture_s: float) -> None:
        """One more measurement of ``pose_s`` and ``picture_s``."""
        pose_s, picture_s = (min(max(seconds, 0.0), MOST_DELAY_S) for seconds in (pose_s, picture_s))
        weight = _WEIGHT if self._measured else 1.0
        self._measured = True
        self.pose_s += weight * (pose_s - self.pose_s)
        self.picture_s += weight * (picture_s - self.picture_s)

    def forget_delay(self) -> None:
        """Somebody else drives from now on; sound is not held back for who does not say when they were seen."""
        self.pose_s = self.picture_s = 0.0
        self._measured = False

    def subscribe(self) -> "AudioTrack":
        """A track for one listener's peer connection."""
        return AudioTrack(self)

    def tap(self, take: Callable[[AudioPacket], None]) -> Callable[[], None]:
        """Hand every packet to ``take`` as well, at once; returns what ends that."""
        self._taps.append(take)
        return lambda: self._taps.remove(take)

    def give_floor(self, microphone: Microphone) -> None:
        """``microphone`` begins to speak: it alone is heard."""
        self._speaker = microphone

    def take_floor(self, microphone: Microphone) -> None:
        """``microphone`` has gone."""
        if self._speaker is microphone:
            self._speaker = None

    def publish(self, packet: AudioPacket, microphone: Microphone) -> None:
        """Hand a packet to everyone but who spoke it."""
        self._speaker = self._speaker or microphone
        if not self.is_open or microphone is not self._speaker:
            return
        for track in list(self.listeners):
            if microphone not in track.own:
                track.push(packet)
        for take in list(self._taps):
            take(packet)

    def join(self, track: "AudioTrack") -> None:
        """Count ``track`` among the listeners; AudioTrack calls this."""
        self.listeners.add(track)

    def leave(self, track: "AudioTrack") -> None:
        """Forget ``track``; AudioTrack calls this."""
        self.listeners.discard(track)


class AudioTrack(MediaStreamTrack):
    """What one listener hears: aiortc sends the packets that it brings as they are."""

    kind = "audio"

    def __init__(self, hub: AudioHub) -> None:
        super().__init__()
        self.player_s = PLAYER_S
        """How much longer this listener's player holds sound than pictures."""
        self.own: set[Microphone] = set()
        """The listener's own microphones, which are not played back."""
        self._hub = hub
        self._queue: asyncio.Queue[AudioPacket | None] = asyncio.Queue()
        self._delay_s = 0.0
        self._ended_s = 0.0
        self._last_pts = -1

    async def recv(self) -> "av.Packet[Any]":
        """The next packet, when its time has come; MediaStreamError after the last."""
        if self.readyState != "live":
            raise MediaStreamError
        self._hub.join(self)
        while True:
            packet = await self._queue.get()
            if packet is None:
                raise MediaStreamError
            if packet.pts > self._last_pts:  # microphones that take turns overlap
                break
        await asyncio.sleep(packet.began_s + self._follow(packet) - self._hub.now())
        self._last_pts = packet.pts
        taken = av.Packet(packet.payload)
        taken.pts, taken.time_base = packet.pts, Fraction(1, RATE_HZ)
        return taken

    def push(self, packet: AudioPacket) -> None:
        """Take in a packet; only the hub calls this."""
        if self._queue.qsize() >= _QUEUE_PACKETS:
            metrics.FRAMES_DROPPED.labels("listener_behind").inc(self._queue.qsize())
            while not self._queue.empty():
                self._queue.get_nowait()
        self._queue.put_nowait(packet)

    def stop(self) -> None:
        """Leave the hub; aiortc calls this when the connection closes."""
        if self.readyState == "live":
            self._hub.leave(self)
            self._queue.put_nowait(None)
        super().stop()

    def _follow(self, packet: AudioPacket) -> float:
        """How long after it was spoken ``packet`` leaves: after a pause what is right, else nearly as before."""
        wanted_s = max(self._hub.delay_s - self.player_s, 0.0)
        lasts_s = packet.samples / RATE_HZ
        most_s = _STRETCH * lasts_s if packet.began_s - self._ended_s < _GAP_S else MOST_DELAY_S
        self._delay_s += min(max(wanted_s - self._delay_s, -most_s), most_s)
        self._ended_s = packet.began_s + lasts_s
        return self._delay_s
