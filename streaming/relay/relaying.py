"""One session's way to one relay: begun, watched, and begun anew for as long as it is wanted."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from aiortc import RTCIceServer
from structlog.stdlib import get_logger

from lhm_runtime.errors import LhmLiveError
from streaming.errors import RefusedError
from streaming.relay.janus import Mountpoint, publish_to_janus
from streaming.relay.settings import JanusRelay, Relay
from streaming.relay.tracks import subscribe
from streaming.relay.whip import publish_by_whip
from streaming.session import Session

State = Literal["connecting", "live", "waiting"]

_FIRST_WAIT_S: Final = 0.25
_LONGEST_WAIT_S: Final = {"janus": 1.0, "whip": 5.0}
"""A Janus is ours; other people's servers are spared."""
_STEADY_S: Final = 10.0
"""After so long a relay counts as one that works, and is sought again at once."""

_log = get_logger(__name__)


class Relaying:
    """``run`` it in a task; cancelled, it takes its leave of the relay."""

    def __init__(
        self, session: Session, name: str, relay: Relay, ice_servers: Callable[[], Sequence[RTCIceServer]]
    ) -> None:
        self.name, self.relay = name, relay
        self.state: State = "connecting"
        self.problem: str | None = None
        """Why it was not live the last time, for people."""
        self.mountpoint: Mountpoint | None = None
        """Where people watch while it is live, where the relay is a Janus."""
        self._session, self._ice_servers = session, ice_servers
        self._live_at: float | None = None

    async def run(self) -> None:
        """Publish until cancelled, or the session ends; whatever happens to the relay is tried again."""
        wait_s, told = _FIRST_WAIT_S, None
        while not self._session.ended.is_set():
            self.state, self._live_at = "connecting", None
            try:
                await self._publish()
            except LhmLiveError as error:
                self.problem = str(error)
            except Exception as error:  # noqa: BLE001 - a relay of another make may say anything; the session goes on
                self.problem = f"an internal error ({type(error).__name__})"
                _log.exception("relaying failed", session=self._session.id, relay=self.name)
            if self._session.ended.is_set():
                return
            self.state = "waiting"
            if self._was_steady():
                wait_s = _FIRST_WAIT_S
            if self.problem != told or self._live_at is not None:  # not the same every second
                _log.warning("relay lost", session=self._session.id, relay=self.name, reason=self.problem)
            told = self.problem
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S[self.relay.kind])

    async def _publish(self) -> None:
        tracks = subscribe(self._session, self.relay)
        try:
            if isinstance(self.relay, JanusRelay):
                await publish_to_janus(self.relay, tracks, self._on_mountpoint)
            else:
                url = self.relay.url.replace("{session}", self._session.id)
                await publish_by_whip(url, self.relay, tracks, self._ice_servers(), self._on_live)
        finally:
            tracks.stop()

    def _was_steady(self) -> bool:
        return self._live_at is not None and asyncio.get_running_loop().time() - self._live_at > _STEADY_S

    def _on_mountpoint(self, mountpoint: Mountpoint | None) -> None:
        self.mountpoint = mountpoint
        if mountpoint is not None:
            self._on_live()

    def _on_live(self) -> None:
        self.state, self.problem = "live", None
        self._live_at = asyncio.get_running_loop().time()
        _log.info("relay is live", session=self._session.id, relay=self.name)


class Relayings:
    """Which sessions are relayed, and whereto."""

    def __init__(self, relays: Mapping[str, Relay], ice_servers: Callable[[], Sequence[RTCIceServer]]) -> None:
        """``relays`` by name; ``ice_servers`` are asked for anew for each connection."""
        self._relays, self._ice_servers = relays, ice_servers
        self._running: dict[str, tuple[Relaying, asyncio.Task[None]]] = {}

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._running

    def check(self, name: str | None) -> None:
        """Raise RefusedError unless it is None or a relay of the settings."""
        if name not in {None, *self._relays}:
            known = ", ".join(self._relays) or "none (relay of the settings)"
            raise RefusedError(422, "unknown_relay", f"there is no relay {name!r}; known: {known}")

    def begin(self, session: Session) -> None:
        """Relay a session as its wish says, if it does."""
        name = session.wish.relay
        if name is None:
            return
        relaying = Relaying(session, name, self._relays[name], self._ice_servers)
        task = asyncio.create_task(relaying.run(), name=f"relay {session.id} to {name}")
        self._running[session.id] = (relaying, task)

    async def end(self, session_id: str) -> None:
        """Take leave of a session's relay, if it has one."""
        if found := self._running.pop(session_id, None):
            found[1].cancel()
            await asyncio.wait([found[1]])

    def get(self, session: Session) -> Relaying:
        """A session's way to its relay; raises RefusedError where there is none."""
        if session.id not in self._running:
            raise RefusedError(404, "not_relayed", f"session {session.id} is not relayed")
        return self._running[session.id][0]
