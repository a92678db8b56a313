"""One peer connection to a session: a viewer, or whoever drives and watches."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from aiortc import RTCDataChannel, RTCIceServer, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.sdp import SessionDescription, candidate_from_sdp
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from structlog.stdlib import get_logger

from streaming import metrics
from streaming.audio import MOST_PLAYER_S, AudioTrack, Microphone
from streaming.encoder import Codec
from streaming.errors import ConnectError, RefusedError
from streaming.hub import PacketTrack
from streaming.lowlatency import connected, make_peer_connection, prefer_codec, prefer_opus, watch_peer
from streaming.packet_receiver import receive_packets
from streaming.session import Session
from streaming.settings import SettingsChange
from streaming.sources.messages import Sender

Role = Literal["view", "drive"]
Message = dict[str, Any]

MAX_SDP_BYTES = 64 * 1024
_MAX_CONTROL_BYTES = 4096
_MOST_BUFFERED_BYTES = 64 * 1024
_COMPLAIN_EVERY_S = 1.0
_SILENCE_S = 10.0
_LATEST_MS = 1e14

_log = get_logger(__name__)


class Report(BaseModel):
    """What a viewer measured."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    fps: float = Field(default=0.0, ge=0, le=1000)
    glass_to_glass_ms: float | None = Field(default=None, ge=-1000, le=60_000)
    draw_to_display_ms: float | None = Field(default=None, ge=-1000, le=60_000)
    bitrate_bps: float = Field(default=0.0, ge=0)
    dropped: float = Field(default=0, ge=0)
    sound_lag_ms: float | None = Field(default=None, ge=-60_000, le=60_000)
    """How much longer it holds sound than pictures."""
    width: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)


class Peer:
    """A connection to a session, from its offer to its end."""

    def __init__(
        self,
        session: Session,
        role: Role,
        *,
        codecs: Sequence[Codec],
        stacked: bool | None = None,
        ice_servers: Sequence[RTCIceServer] = (),
        connect_timeout_s: float = 15.0,
        send_signal: Callable[[Message], None] | None = None,
        may_change: bool = True,
        lasts_s: float | None = None,
    ) -> None:
        """A connection that waits for its offer.

        Args:
            session: what is watched or driven.
            role: viewers' samples and video are ignored.
            codecs: in order of preference.
            stacked: None: as the session's background asks.
            ice_servers: STUN and TURN; none where empty.
            connect_timeout_s: then a connection that does not stand is given up.
            send_signal: sends over the peer's websocket, if it has one.
            may_change: whether its control messages are followed.
            lasts_s: then it is sent away; None: never.
        """
        self.id = secrets.token_urlsafe(12)
        self.session, self.role = session, role
        self.closed = asyncio.Event()
        self.on_closed: Callable[[], None] = lambda: None
        self._codecs, self._stacked, self._timeout_s = codecs, stacked, connect_timeout_s
        self._send_signal, self._may_change, self._lasts_s = send_signal, may_change, lasts_s
        self._connection = make_peer_connection(ice_servers)
        self._control: RTCDataChannel | None = None
        self._video: PacketTrack | None = None
        self._sound: AudioTrack | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._offered = False
        self._complained_at = 0.0
        self._sender = Sender(lambda complaint: self.complain("bad_sample", complaint))
        self._connection.on("datachannel", self._adopt_channel)
        self._connection.on("track", self._adopt_track)

    async def answer(self, offer: str) -> str:
        """The SDP answer to ``offer``; the connection is then on its way.

        Raises:
            RefusedError: not an offer, nothing in it that can be answered, or the second one.
        """
        if self._offered:
            raise RefusedError(409, "already_offered", "this connection has its offer; open another one")
        self._offered = True
        codec = _choose_codec(offer, self._codecs)
        if codec is not None:
            self._video = self.session.subscribe(codec, stacked=self._stacked)
            transceiver = self._connection.addTransceiver(self._video, direction="sendonly")
            prefer_codec(transceiver, codec)
        if _wants_sound(offer):
            self._sound = self.session.audio.subscribe()
            prefer_opus(self._connection.addTransceiver(self._sound, direction="sendonly"))
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:
            await self.close()
            raise RefusedError(
                400, "bad_offer", f"the offer cannot be answered: {error or type(error).__name__}"
            ) from error
        self._start(self._attend(), "attend peer")
        return str(self._connection.localDescription.sdp)

    async def add_candidate(self, line: str, mid: str | None, line_index: int | None) -> None:
        """Take in an address of the peer, as ``candidate:...``; an empty line ends them.

        Raises:
            RefusedError: not a candidate, or one that belongs to no part of the offer.
        """
        text = line.strip().removeprefix("a=").removeprefix("candidate:")
        try:
            if not text:
                await self._connection.addIceCandidate(None)
                return
            candidate = candidate_from_sdp(text)
            candidate.sdpMid, candidate.sdpMLineIndex = mid, line_index
            await self._connection.addIceCandidate(candidate)
        except Exception as error:
            raise RefusedError(400, "bad_candidate", f"not a usable ICE candidate: {line[:80]!r}") from error

    def tell(self, message: Message) -> None:
        """Send a message by whichever way there is; a peer that does not read misses it."""
        if self._send_signal is not None:
            self._send_signal(message)
            return
        channel = self._control
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount < _MOST_BUFFERED_BYTES:
            channel.send(json.dumps(message))

    def control(self, message: Message) -> None:
        """Act on a message from outside: control, report, ping. What it may not be is answered with an error."""
        fields = {name: value for name, value in message.items() if name != "type"}
        try:
            match message.get("type"):
                case "control" if not self._may_change:
                    self.complain("watching_only", "with this link you may watch, and change nothing")
                case "control":
                    self.session.change(SettingsChange.model_validate(fields))
                case "report":
                    self._note(Report.model_validate(fields))
                case "ping":
                    now_ms = time.time() * 1e3
                    if self._control is not None and isinstance(message.get("t"), (int, float)):
                        if abs(message["t"]) < _LATEST_MS:
                            self._sender.hear_clock(message["t"])
                        self._control.send(json.dumps({"type": "pong", "t": message["t"], "server_t": now_ms}))
                case other:
                    self.complain("unknown_message", f"messages of type {str(other)[:40]!r} are not known here")
        except ValidationError as error:
            fault = error.errors()[0]
            self.complain("bad_message", f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}")

    def complain(self, code: str, message: str) -> None:
        """Tell the peer what was wrong, at most once a second."""
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            self.tell({"type": "error", "code": code, "message": message})

    async def close(self, reason: str | None = None) -> None:
        """End the connection; safe to call again."""
        if self.closed.is_set():
            return
        self.closed.set()
        if reason is not None:
            self.tell({"type": "bye", "reason": reason})
        current = asyncio.current_task()
        for task in self._tasks - {current}:
            task.cancel()
        for track in (self._video, self._sound):  # aiortc ends only those that it began to send
            if track is not None:
                track.stop()
        await self._connection.close()
        self.on_closed()

    async def _attend(self) -> None:
        """Wait for the connection, then for its end."""
        reason = "the connection is closed"
        try:
            await connected(self._connection, self._timeout_s)
            async with asyncio.timeout(self._lasts_s):
                reason = await watch_peer(self._connection, _SILENCE_S)
        except TimeoutError:
            reason = "the link that let you in has expired"
            self.tell({"type": "error", "code": "token_expired", "message": reason})
        except ConnectError as error:
            reason = str(error)
            self.tell({"type": "error", "code": "no_connection", "message": reason})
        finally:
            _log.info("peer left", session=self.session.id, peer=self.id, role=self.role, reason=reason)
            await self.close()

    def _adopt_channel(self, channel: RTCDataChannel) -> None:
        if channel.label == "pose" and self.role == "drive":
            channel.on("message", self._receive_sample)
        elif channel.label == "control":
            self._control = channel
            channel.on("message", self._receive_control)

    def _receive_sample(self, message: bytes | str) -> None:
        self.session.messages.receive(message, self._sender)

    def _receive_control(self, text: bytes | str) -> None:
        if len(text) > _MAX_CONTROL_BYTES:
            self.complain("bad_message", f"message of {len(text)} bytes, at most {_MAX_CONTROL_BYTES} are read")
            return
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict):
            self.control(message)
        else:
            self.complain("bad_message", "not a JSON object")

    def _adopt_track(self, track: MediaStreamTrack) -> None:
        if self.role != "drive":
            read = _ignore(track)
        elif track.kind == "video":
            read = self.session.feed(track)
        else:
            read = self._hear(track)
        self._start(read, f"read {track.kind}")

    async def _hear(self, track: MediaStreamTrack) -> None:
        """Pass on what is spoken into ``track`` until it ends; of several the one that began last is heard."""
        microphone = Microphone(self.session.audio)
        if self._sound is not None:
            self._sound.own.add(microphone)
        receivers: list[RTCRtpReceiver] = self._connection.getReceivers()
        receive_packets(next(receiver for receiver in receivers if receiver.track is track), microphone)
        try:
            await _ignore(track)
        finally:
            microphone.close()

    def _note(self, report: Report) -> None:
        if report.sound_lag_ms is not None and self._sound is not None:
            self._sound.player_s = min(max(report.sound_lag_ms / 1e3, 0.0), MOST_PLAYER_S)
        if report.glass_to_glass_ms is not None:
            metrics.GLASS_TO_GLASS_SECONDS.observe(max(report.glass_to_glass_ms, 0.0) / 1e3)
        if report.dropped:
            metrics.FRAMES_DROPPED.labels("browser").inc(report.dropped)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _ignore(track: MediaStreamTrack) -> None:
    """Read what nobody asked for, or it would pile up."""
    with contextlib.suppress(MediaStreamError):
        while True:
            await track.recv()


def _choose_codec(offer: str, codecs: Sequence[Codec]) -> Codec | None:
    """What to send to whoever made this offer; None when its first video is only theirs.

    Raises:
        RefusedError: not SDP, nothing to send or receive in it, or no codec in common.
    """
    try:
        description = SessionDescription.parse(offer)
        videos = [media for media in description.media if media.kind == "video"]
    except Exception as error:
        raise RefusedError(400, "bad_offer", "the offer is not SDP as browsers make it") from error
    if not description.media:
        raise RefusedError(400, "bad_offer", "the offer has no media in it")
    if not videos or videos[0].direction == "sendonly":
        return None
    known = {codec.name.lower() for codec in videos[0].rtp.codecs}
    for codec in codecs:
        if codec in known:
            return codec
    raise RefusedError(
        406,
        "no_common_codec",
        f"the offer decodes {', '.join(sorted(known)) or 'nothing'}; sent is {' or '.join(codecs)}",
    )


def _wants_sound(offer: str) -> bool:
    """Whether its first audio is to be received, and understands Opus."""
    sounds = [media for media in SessionDescription.parse(offer).media if media.kind == "audio"]
    return (
        bool(sounds)
        and sounds[0].direction in {"recvonly", "sendrecv"}
        and any(codec.name.lower() == "opus" for codec in sounds[0].rtp.codecs)
    )
