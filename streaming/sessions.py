"""All sessions and peers of one server; what happens to one session happens to no other."""

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiortc import RTCIceServer
from structlog.stdlib import get_logger

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import LhmLiveError
from streaming import metrics
from streaming.access import EVERYTHING, Grant, allows
from streaming.avatar_store import AvatarStore
from streaming.config import Config
from streaming.encoder import Codec
from streaming.errors import RefusedError
from streaming.peer import Message, Peer, Role
from streaming.recording_store import RecordingFacts, RecordingStore
from streaming.relay.relaying import Relayings
from streaming.relay.settings import OFF
from streaming.session import Session
from streaming.settings import NewSession, SessionChange
from streaming.sources.replay import list_replays
from streaming.turn import ice_servers
from streaming.udp import UdpPorts

_SWEEP_S: Final = 2.0
_GRACE_S: Final = 10.0
"""So long a session waits for whoever started it, before it makes room for another one."""
_DRAIN_GRACE_S: Final = 2.0
"""So long a viewer may be away while the server drains."""

STOPS: Final = "the server stops"
"""What viewers are told at the end."""

_log = get_logger(__name__)


class Sessions:
    """Starts, finds and ends sessions; use it in ``async with``, which ends them all."""

    def __init__(self, config: Config, avatars: AvatarStore, recordings: RecordingStore) -> None:
        self._config, self._avatars, self._recordings = config, avatars, recordings
        self._ports = UdpPorts()
        self._recorders: dict[str, asyncio.Task[None]] = {}
        self._sessions: dict[str, Session] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._peers: dict[str, Peer] = {}
        self._alone_since: dict[str, float] = {}
        self.relays = Relayings(config.relay, self._ice_servers)
        self.draining = False
        """Whether no more sessions begin, because the server stops when those that run have ended."""

    async def __aenter__(self) -> "Sessions":
        self._sweeping = asyncio.create_task(self._sweep(), name="end deserted sessions")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sweeping.cancel()
        await asyncio.gather(*(self.end(session_id, STOPS) for session_id in list(self._sessions)))

    @property
    def all(self) -> list[Session]:
        """Those that run."""
        return list(self._sessions.values())

    async def start(self, wish: NewSession, session_id: str | None = None) -> Session:
        """Begin a session; where there are as many as there may be, in place of one that everybody has left.

        ``session_id`` is that of one which ran elsewhere before; a new one where None.

        Raises:
            RefusedError: no such avatar, replay or relay, a damaged avatar, as many sessions as there may be, or the
                server is about to stop.
        """
        if self.draining:
            raise RefusedError(503, "draining", "the server is about to stop and begins no more sessions")
        self._check_source(wish)
        self.relays.check(wish.relay)
        avatar = await self._load_avatar(wish.avatar)
        while len(self._sessions) >= self._config.server.max_sessions:
            await self._make_room()
        session = Session(session_id or secrets.token_hex(4), avatar, wish, self._config, self._ports)
        session.on_state = lambda: self._tell_all(session)
        self._sessions[session.id] = session
        self._alone_since[session.id] = time.monotonic()
        self._tasks[session.id] = asyncio.create_task(self._supervise(session), name=f"session {session.id}")
        metrics.SESSIONS.inc()
        _log.info("session started", session=session.id, avatar=wish.avatar, source=wish.source)
        await asyncio.sleep(0)  # its tasks begin
        self.relays.begin(session)
        return session

    async def change(self, session_id: str, change: SessionChange) -> Session:
        """Change what a session shows, who, or what moves them; its viewers stay.

        Raises:
            RefusedError: no such session, avatar or replay, or the source does not open; nothing has changed then.
        """
        session = self.get(session_id)
        self.relays.check(None if change.relay == OFF else change.relay)
        async with session.recasting:
            wish = change.recast(session.wish)
            if wish != session.wish:
                self._check_source(wish)
                other = wish.avatar != session.wish.avatar
                avatar = await self._load_avatar(wish.avatar) if other else None
                try:
                    await session.recast(wish, avatar)
                except LhmLiveError as error:
                    raise RefusedError(409, "unusable_source", str(error)) from error
                _log.info("session recast", session=session.id, avatar=wish.avatar, source=wish.source)
            session.change(change)
            if change.share_avatar is not None and change.share_avatar != session.wish.share_avatar:
                session.share_avatar(change.share_avatar)
            if change.relay not in {None, session.wish.relay}:
                await self.relays.end(session_id)
                relay = None if change.relay == OFF else change.relay
                session.wish = session.wish.model_copy(update={"relay": relay})
                self.relays.begin(session)
                session.on_state()
        return session

    async def start_recording(self, session_id: str) -> str:
        """Record a session on this machine until it ends or ``stop_recording``; returns the recording's id.

        Raises:
            RefusedError: no such session, it is recorded already, or there is no room.
        """
        session = self.get(session_id)
        if session_id in self._recorders:
            raise RefusedError(409, "recording", f"session {session_id} is being recorded already: {session.recording}")
        path = self._recordings.begin(session.wish.avatar)
        session.recording = path.stem
        self._recorders[session_id] = asyncio.create_task(self._record(session, path), name=f"record {session_id}")
        session.on_state()
        return path.stem

    async def stop_recording(self, session_id: str) -> RecordingFacts:
        """End a recording; it is then complete.

        Raises:
            RefusedError: no such session, or it is not recorded, or nothing was seen of it yet.
        """
        recording, recorder = self.get(session_id).recording, self._recorders.get(session_id)
        if recorder is None or recording is None:
            raise RefusedError(409, "not_recording", f"session {session_id} is not being recorded")
        recorder.cancel()
        await asyncio.wait([recorder])
        return self._recordings.facts(recording)

    def get(self, session_id: str) -> Session:
        """The session; raises RefusedError when there is none."""
        session = self._sessions.get(session_id)
        if session is None:
            raise RefusedError(404, "unknown_session", f"there is no session {session_id[:64]!r}; it may have ended")
        return session

    async def end(self, session_id: str, reason: str) -> None:
        """End a session and tell its peers why; raises RefusedError when there is none."""
        self.get(session_id)
        task = self._tasks[session_id]
        if recorder := self._recorders.get(session_id):
            recorder.cancel()
            await asyncio.wait([recorder])
        await self.relays.end(session_id)
        await self._close_peers(session_id, reason)
        task.cancel()
        await asyncio.wait([task])

    def connect(
        self,
        session_id: str,
        role: Role,
        *,
        codec: Codec | None = None,
        stacked: bool | None = None,
        send_signal: Callable[[Message], None] | None = None,
        grant: Grant = EVERYTHING,
    ) -> Peer:
        """A peer of a session, which waits for its offer, and may do what ``grant`` says until that ends.

        Raises:
            RefusedError: no such session, or as many peers as there may be.
        """
        session = self.get(session_id)
        if len(self._peers) >= self._config.server.max_viewers:
            raise RefusedError(503, "full", f"{len(self._peers)} viewers are here, the limit (server.max_viewers)")
        rtc = self._config.rtc
        peer = Peer(
            session,
            role,
            codecs=(codec,) if codec else self._config.video.codecs,
            stacked=stacked,
            ice_servers=self._ice_servers(),
            may_change=allows(grant, "drive", session_id),
            lasts_s=grant.lasts_s,
            connect_timeout_s=rtc.connect_timeout_s,
            send_signal=send_signal,
        )
        peer.on_closed = lambda: self._forget(peer)
        self._peers[peer.id] = peer
        return peer

    def peer(self, session_id: str, peer_id: str) -> Peer:
        """A peer that is connected; raises RefusedError when there is none."""
        peer = self._peers.get(peer_id)
        if peer is None or peer.session.id != session_id:
            raise RefusedError(404, "unknown_peer", "there is no such connection; it may have ended")
        return peer

    def tell(self, session_id: str, message: Message) -> None:
        """Say something to all peers of a session."""
        for peer in self._peers_of(session_id):
            peer.tell(message)

    async def drain(self, seconds: float) -> None:
        """Begin no more sessions, and end those that run: when their viewers have left, or after ``seconds``."""
        self.draining = True
        _log.info("draining", sessions=len(self._sessions), seconds=seconds)
        news = {
            "type": "error",
            "code": "draining",
            "message": f"The server stops, in {seconds:g} seconds at the latest.",
        }
        for peer in list(self._peers.values()):
            peer.tell(news)
        until = time.monotonic() + seconds
        while self._sessions and time.monotonic() < until:
            for session_id in list(self._sessions):
                alone_s = time.monotonic() - self._alone_since.get(session_id, 0.0)
                if session_id in self._sessions and self._is_deserted(session_id) and alone_s > _DRAIN_GRACE_S:
                    await self.end(session_id, STOPS)
            await asyncio.sleep(_DRAIN_GRACE_S / 10)
        await asyncio.gather(*(self.end(session_id, STOPS) for session_id in list(self._sessions)))

    def _ice_servers(self) -> list[RTCIceServer]:
        return [
            RTCIceServer(
                list(server.urls),
                server.username,
                None if server.credential is None else server.credential.get_secret_value(),
            )
            for server in ice_servers(self._config.rtc)
        ]

    def _check_source(self, wish: NewSession) -> None:
        if wish.source == "mqtt" and wish.rig is None:
            raise RefusedError(422, "unknown_rig", "say which rig is to drive: rig")
        if wish.source == "replay" and wish.replay not in (known := list_replays(self._config.storage.replays)):
            raise RefusedError(422, "unknown_replay", f"there is no replay {wish.replay!r}; known: {', '.join(known)}")

    async def _load_avatar(self, avatar_id: str) -> Avatar:
        try:
            return await asyncio.to_thread(self._avatars.load, avatar_id)
        except RefusedError:
            raise
        except LhmLiveError as error:
            said = str(error).replace(str(self._avatars.avatar_path(avatar_id)), f"the avatar {avatar_id!r}")
            raise RefusedError(409, "unusable_avatar", said) from error

    async def _make_room(self) -> None:
        """End the session that has been deserted longest."""
        deserted = [(self._alone_since[known], known) for known in self._sessions if self._is_deserted(known)]
        if not deserted or time.monotonic() - min(deserted)[0] < _GRACE_S:
            raise RefusedError(
                503, "full", f"{len(self._sessions)} sessions run, which is the limit (server.max_sessions)"
            )
        await self.end(min(deserted)[1], "nobody was connected")

    def _is_deserted(self, session_id: str) -> bool:
        driven = self._sessions[session_id].sender is not None
        drawn = self._sessions[session_id].poses.viewers
        kept = session_id in self._recorders or session_id in self.relays
        return not (driven or drawn or kept or self._peers_of(session_id))

    async def _record(self, session: Session, path: Path) -> None:
        reason = "stopped"
        try:
            async with asyncio.timeout(60 * self._config.storage.recording_minutes):
                await session.record(path, "h264", self._recordings.take)
            reason = "no room is left (storage.recordings_mb)"
        except TimeoutError:
            reason = "it is as long as may be (storage.recording_minutes)"
        except LhmLiveError as error:
            reason = str(error)
            _log.warning("recording failed", session=session.id, reason=reason)
        finally:
            del self._recorders[session.id]
            session.recording = None
            _log.info("recording ended", session=session.id, recording=path.stem, reason=reason)
            session.on_state()
        for peer in self._peers_of(session.id):
            peer.tell({"type": "error", "code": "recording_ended", "message": f"The recording has ended: {reason}"})

    async def _supervise(self, session: Session) -> None:
        try:
            await session.run()
        except asyncio.CancelledError:
            _log.info("session ended", session=session.id)
        except BaseExceptionGroup as failure:
            reason = _reason(failure)
            _log.error("session failed", session=session.id, reason=reason, exc_info=failure)
            for peer in self._peers_of(session.id):
                peer.tell({"type": "error", "code": "session_failed", "message": reason})
            await self._close_peers(session.id, reason)
        finally:
            if recorder := self._recorders.get(session.id):
                recorder.cancel()
            await self.relays.end(session.id)
            metrics.SESSIONS.dec()
            del self._sessions[session.id], self._tasks[session.id]
            self._alone_since.pop(session.id, None)

    async def _sweep(self) -> None:
        """End sessions that nobody is connected to."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for session_id in list(self._sessions):
                if session_id not in self._alone_since:  # ended meanwhile
                    continue
                if not self._is_deserted(session_id):
                    self._alone_since[session_id] = now
                elif now - self._alone_since[session_id] > self._config.server.linger_s:
                    await self.end(session_id, "nobody was connected")

    async def _close_peers(self, session_id: str, reason: str) -> None:
        await asyncio.gather(*(peer.close(reason) for peer in self._peers_of(session_id)))

    def _peers_of(self, session_id: str) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer.session.id == session_id]

    def _forget(self, peer: Peer) -> None:
        self._peers.pop(peer.id, None)
        if peer.session.id in self._sessions:
            self._alone_since[peer.session.id] = time.monotonic()
            self._tell_all(peer.session)

    def _tell_all(self, session: Session) -> None:
        self.tell(session.id, {"type": "state", **session.state.model_dump()})


def _reason(failure: BaseException) -> str:
    """What to tell people of a failure: the first thing that was raised on purpose, or that it was not."""
    leaf = failure
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return (
        str(leaf) if isinstance(leaf, LhmLiveError) else f"an internal error ended the session ({type(leaf).__name__})"
    )
