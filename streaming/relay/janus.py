"""A session's packets to a streaming mountpoint of Janus, and viewers' way to it.

Pictures and sound go there as plain RTP, cut once, whoever watches; Janus sends them on. The mountpoint is made when
the stream begins and removed when it ends. Viewers' offers and answers pass through here (it is Janus 1.1 that makes
the offer), so that nobody but us need reach Janus' API, and nobody watches whom this server does not let in.
"""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import MediaStreamError
from structlog.stdlib import get_logger

from lhm_runtime.errors import BackendError
from streaming.audio import AudioTrack
from streaming.encoder import Codec
from streaming.errors import RefusedError
from streaming.hub import PacketTrack
from streaming.relay.janus_session import JanusSession, Message, open_janus
from streaming.relay.rtp import RtpStream, open_stream
from streaming.relay.settings import JanusRelay
from streaming.relay.together import until_one_ends
from streaming.relay.tracks import Tracks

_VIDEO_TYPE, _AUDIO_TYPE = 96, 111
_FMTP: Final[dict[Codec, str]] = {"h264": "profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1"}
_DESCRIPTION: Final = "lhm-live"
_ABANDONED_MS: Final = 60_000
"""Nothing came for so long: whoever fed it has crashed."""
_REPORT_S: Final = 0.5
_ANSWER_S: Final = 15.0

_log = get_logger(__name__)


class Mountpoint:
    """One stream in Janus, and those who watch it there."""

    def __init__(self, janus: JanusSession, relay: JanusRelay) -> None:
        self._janus, self._relay = janus, relay
        self._id, self._pin = secrets.randbits(50), secrets.token_hex(16)
        self._viewers: dict[str, int] = {}
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def viewers(self) -> int:
        """How many watch through this server; others that know its Janus are not counted."""
        return len(self._viewers)

    async def create(self, handle: int) -> dict[str, tuple[str, tuple[int, int]]]:
        """Make it; host (an IP address) and ports (RTP, RTCP) by kind of medium.

        Raises:
            BackendError: Janus refuses.
        """
        host = await _address(self._relay.media_host or urlsplit(self._relay.url).hostname or "")
        # what comes from this machine alone is listened to there alone
        iface = {"iface": host} if ipaddress.ip_address(host).is_loopback else {}
        media: list[Message] = [
            {"type": "video", "mid": "v", "pt": _VIDEO_TYPE, "codec": self._relay.codec, "port": 0, "rtcpport": 0},
            {"type": "audio", "mid": "a", "pt": _AUDIO_TYPE, "codec": "opus", "port": 0, "rtcpport": 0},
        ]
        if self._relay.codec in _FMTP:
            media[0]["fmtp"] = _FMTP[self._relay.codec]
        said, _ = await self._janus.send(
            handle,
            {
                "request": "create",
                "type": "rtp",
                "id": self._id,
                "description": _DESCRIPTION,
                "pin": self._pin,
                "secret": _secret_of(self._relay),
                "playoutdelay_ext": True,
                "media": [{**medium, **iface} for medium in media],
                **_admin(self._relay),
            },
        )
        return {port["type"]: (host, (port["port"], port["rtcp_port"])) for port in said["stream"]["ports"]}

    async def remove(self, handle: int) -> None:
        """Remove it; its viewers are sent away by Janus."""
        for timer in self._ends.values():
            timer.cancel()
        for task in self._leaving:
            task.cancel()
        body = {"request": "destroy", "id": self._id, "secret": _secret_of(self._relay)}
        with contextlib.suppress(BackendError):  # it has gone with Janus
            await self._janus.send(handle, body)

    async def invite(self, lasts_s: float | None = None) -> tuple[str, str]:
        """A viewer's id, and Janus' SDP offer for them; they are sent away after ``lasts_s``, or without an answer.

        Raises:
            RefusedError: as many watch as may.
            BackendError: Janus refuses.
        """
        if len(self._viewers) >= self._relay.max_viewers:
            raise RefusedError(503, "full", f"{len(self._viewers)} watch by this relay, the limit (its max_viewers)")
        viewer = secrets.token_urlsafe(12)
        handle = await self._janus.attach(lambda: self._dismiss_soon(viewer))
        self._viewers[viewer] = handle
        self._end_after(viewer, _ANSWER_S if lasts_s is None else min(lasts_s, _ANSWER_S))
        try:
            _, jsep = await self._janus.send(handle, {"request": "watch", "id": self._id, "pin": self._pin})
        except BackendError:
            self._dismiss_soon(viewer)
            raise
        return viewer, str(jsep.get("sdp", ""))

    async def accept(self, viewer: str, answer: str, lasts_s: float | None = None) -> None:
        """Take in a viewer's SDP answer; Janus sends from then on.

        Raises:
            RefusedError: no such viewer.
            BackendError: Janus refuses.
        """
        handle = self._handle(viewer)
        # before the first packet, or browsers buffer it; not in "streams", where Janus 1.1 takes no notice of it
        await self._janus.send(handle, {"request": "configure", "mid": "v", "min_delay": 0, "max_delay": 0})
        await self._janus.send(handle, {"request": "start"}, {"type": "answer", "sdp": answer})
        if timer := self._ends.pop(viewer, None):
            timer.cancel()
        if lasts_s is not None:
            self._end_after(viewer, lasts_s)

    async def dismiss(self, viewer: str) -> None:
        """Send a viewer away; raises RefusedError where there is none."""
        handle = self._handle(viewer)
        del self._viewers[viewer]
        if timer := self._ends.pop(viewer, None):
            timer.cancel()
        with contextlib.suppress(BackendError):
            await self._janus.detach(handle)

    def _handle(self, viewer: str) -> int:
        handle = self._viewers.get(viewer)
        if handle is None:
            raise RefusedError(404, "unknown_peer", "there is no such viewer; it may have left")
        return handle

    def _end_after(self, viewer: str, seconds: float) -> None:
        self._ends[viewer] = asyncio.get_running_loop().call_later(seconds, self._dismiss_soon, viewer)

    def _dismiss_soon(self, viewer: str) -> None:
        if viewer in self._viewers:
            task = asyncio.create_task(self.dismiss(viewer), name="a viewer leaves Janus")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


async def publish_to_janus(relay: JanusRelay, tracks: Tracks, on_live: Callable[[Mountpoint | None], None]) -> None:
    """Feed a mountpoint until the pictures end; ``on_live`` gets it, and None when it is no more.

    Raises:
        BackendError: Janus refuses, cannot be reached, or has gone.
    """
    secret = None if relay.secret is None else relay.secret.get_secret_value()
    async with open_janus(relay.url, secret) as janus:
        handle = await janus.attach()
        await _remove_abandoned(janus, handle, relay)
        mountpoint = Mountpoint(janus, relay)
        ports = await mountpoint.create(handle)
        streams: list[RtpStream] = []
        try:
            streams.append(await open_stream(*ports["video"], _VIDEO_TYPE, tracks.pictures.on_keyframe_request))
            streams.append(await open_stream(*ports["audio"], _AUDIO_TYPE))
            on_live(mountpoint)
            await until_one_ends(
                janus.until_gone(),
                janus.keep_alive(),
                _send_pictures(tracks.pictures, streams[0], relay.codec),
                _send_sound(tracks.sound, streams[1]),
                _report(streams),
            )
        finally:
            on_live(None)
            for stream in streams:
                stream.close()
            await mountpoint.remove(handle)


async def _send_pictures(track: PacketTrack, stream: RtpStream, codec: Codec) -> None:
    own_packing = Vp8Encoder() if codec == "vp8" else None
    with contextlib.suppress(MediaStreamError):
        while True:
            shared, pts = await track.next_packet()
            payloads = shared.payloads if own_packing is None else own_packing.pack(shared.frame.packet)[0]
            stream.send(payloads, pts, marked=True)


async def _send_sound(track: AudioTrack, stream: RtpStream) -> None:
    with contextlib.suppress(MediaStreamError):
        while True:
            packet = await track.recv()
            stream.send([bytes(packet)], packet.pts or 0, marked=False)


async def _report(streams: list[RtpStream]) -> None:
    while True:
        for stream in streams:
            stream.report()
        await asyncio.sleep(_REPORT_S)


async def _remove_abandoned(janus: JanusSession, handle: int, relay: JanusRelay) -> None:
    """What a server that crashed has left there would hold its ports for ever."""
    said, _ = await janus.send(handle, {"request": "list", **_admin(relay)})
    for stream in said["list"]:
        ages: list[int] = [medium.get("age_ms", 0) for medium in stream.get("media", []) if medium["type"] == "video"]
        if stream.get("description") == _DESCRIPTION and ages and min(ages) > _ABANDONED_MS:
            body: dict[str, Any] = {"request": "destroy", "id": stream["id"], "secret": _secret_of(relay)}
            with contextlib.suppress(BackendError):  # another one's
                await janus.send(handle, body)
                _log.info("removed an abandoned mountpoint", mountpoint=stream["id"])


def _admin(relay: JanusRelay) -> Message:
    """What Janus wants of those who make mountpoints; with it they can be kept out of public lists."""
    return {} if relay.admin_key is None else {"admin_key": relay.admin_key.get_secret_value()}


def _secret_of(relay: JanusRelay) -> str:
    """By which servers of ours remove each other's mountpoints, and nobody else."""
    key = relay.admin_key or relay.secret
    return _DESCRIPTION if key is None else key.get_secret_value()


async def _address(host: str) -> str:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise BackendError(f"the relay's host {host!r} has no address: {error}") from error
    return str(found[0][4][0])
