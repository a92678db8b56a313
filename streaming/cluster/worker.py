"""A seat: a Ray actor that runs the ordinary server for one session at a time.

Beside the server's own routes it answers gateways at ``/seat``, by a secret that it makes at its start and tells
whoever asks through Ray: who may use the Ray cluster may run anything on it anyway.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import threading
import time
from hmac import compare_digest
from typing import Any, Final

import uvicorn
from pydantic import SecretStr, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from structlog.stdlib import get_logger

from streaming.api import SessionSummary
from streaming.app import create_app
from streaming.avatar_store import AvatarStore
from streaming.cluster.records import Record, Records
from streaming.cluster.seat import PATH, Address, Order, SeatState
from streaming.config import Config
from streaming.errors import RefusedError
from streaming.gate import error_answer
from streaming.logs import configure_logging
from streaming.services import Services
from streaming.session import Session
from streaming.signaling import MAX_MESSAGE_BYTES

MOVED: Final = "moved"
"""Reason of a ``bye`` after which a page comes back at once."""

_SAVE_S: Final = 0.25
_CLAIM_S: Final = 1.0
"""How often it looks whether it still holds its session."""
_START_S: Final = 30.0
_LEAVE_S: Final = 20.0
"""So long a seat that is told to end waits for its session to begin elsewhere."""
_FOLLOW_S: Final = 2.0
"""So long pictures of a session that has moved go on, until its viewers have followed it."""
_RETRY_AFTER_S: Final = 5
_UNCOUNTED: Final = 1_000_000_000
"""A minute: gateways have counted already, and all that comes is from them."""

_log = get_logger(__name__)


class Worker:
    """The actor; Ray makes it anew, by the same arguments, when its process has ended."""

    def __init__(self, name: str, sections: dict[str, Any], host: str) -> None:
        """Start the server.

        Args:
            name: of the seat.
            sections: the settings, by section.
            host: address of this node, to listen on.
        """
        config = Config(**sections)
        configure_logging(config.log)
        self._socket = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        port = self._socket.getsockname()[1]
        self._address = Address(
            f"http://{f'[{host}]' if ':' in host else host}:{port}", secrets.token_urlsafe(48), os.getpid()
        )
        self._holder = _Holder(name, config, self._address.secret)
        self._ready = threading.Event()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self._holder.leave())
        threading.Thread(target=self._serve, name="server", daemon=True).start()
        if not self._ready.wait(_START_S):
            raise TimeoutError(f"the server of seat {name} did not start within {_START_S:g} s")

    def address(self) -> Address:
        """Where it listens."""
        return self._address

    def _serve(self) -> None:
        """Never returns: a seat whose server has ended is none, and Ray starts another."""
        try:
            asyncio.run(self._holder.serve(self._socket, self._ready))
        except BaseException as error:  # noqa: BLE001 - of a thread nobody else would hear
            _log.error("the server of a seat ended", exc_info=error)
        os._exit(1)


class _Holder:
    """The session of a seat, and the server around it."""

    def __init__(self, name: str, config: Config, secret: str) -> None:
        self._name, self._secret = name, secret
        self._records = Records(config.cluster.storage or config.storage.data)
        self._films = config.storage.data / "recordings"
        avatars = AvatarStore(config.storage.data / "avatars", config.cluster.storage)
        self._app = create_app(_settings_of_seat(config, name, secret), avatars=avatars)
        self._order: Order | None = None
        self._beginning = asyncio.Lock()
        self._saved: Record | None = None
        self._leaving_since: float | None = None

    async def serve(self, listening: socket.socket, ready: threading.Event) -> None:
        """Until the process ends."""
        settings = uvicorn.Config(
            self._front,
            interface="asgi3",
            lifespan="on",
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,
            server_header=False,
        )
        server = uvicorn.Server(settings)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listening]), name="serve")
            while not server.started:
                await asyncio.sleep(0.01)
            ready.set()
            tasks.create_task(self._keep(), name="keep the record")
            tasks.create_task(self._watch_claim(), name="watch the claim")

    def leave(self) -> None:
        """End as soon as the session has begun elsewhere: gateways see that it wants to."""
        self._leaving_since = self._leaving_since or time.monotonic()

    async def _front(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH:
            request = Request(scope, receive)
            await (await self._answer(request))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not compare_digest(given.encode(), self._secret.encode()):
            return error_answer(RefusedError(401, "bad_token", "this is for gateways only"))
        try:
            match request.method:
                case "GET":
                    pass
                case "PUT":
                    await self._begin(Order.model_validate_json(await request.body()))
                case "DELETE":
                    await self._retire()
                case other:
                    return error_answer(RefusedError(405, "http_405", f"{other} is not for a seat"))
        except RefusedError as refusal:
            return error_answer(refusal)
        except ValidationError as error:
            return error_answer(RefusedError(422, "invalid", str(error)))
        return JSONResponse(self._state().model_dump(mode="json"))

    @property
    def _services(self) -> Services:
        services = self._app.state.services
        if not isinstance(services, Services):
            raise RefusedError(503, "not_running", "the seat is starting or stopping")
        return services

    @property
    def _session(self) -> Session | None:
        return next(iter(self._services.sessions.all), None)

    def _state(self) -> SeatState:
        session = self._session
        summary = None
        if session is not None:
            told = session.state
            summary = SessionSummary(
                id=told.id, avatar=told.avatar, source=told.source, viewers=told.viewers, fps=told.fps
            )
        generation = 0 if self._order is None else self._order.generation
        leaving = self._leaving_since is not None
        return SeatState(session=summary, generation=generation, leaving=leaving, clock_s=time.time())

    async def _begin(self, order: Order) -> None:
        async with self._beginning:
            if self._session is not None or self._order is not None or self._leaving_since is not None:
                raise RefusedError(409, "occupied", f"seat {self._name} is taken")
            try:
                found = await asyncio.to_thread(self._records.read, order.session)
            except OSError as error:
                raise RefusedError(
                    503, "no_storage", f"the shared storage cannot be read: {error}", retry_after_s=_RETRY_AFTER_S
                ) from error
            if found is not None and found.generation >= order.generation:
                raise RefusedError(409, "taken", f"session {order.session} has begun elsewhere, in {found.seat}")
            await self._services.sessions.start(order.wish, order.session)
            self._order, self._saved = order, None
            _log.info("seated", session=order.session, seat=self._name, generation=order.generation)
            await self._save()

    async def _retire(self) -> None:
        order, self._order = self._order, None
        if order is not None and self._session is not None:
            sessions = self._services.sessions
            sessions.tell(order.session, {"type": "bye", "reason": MOVED})
            until = time.monotonic() + _FOLLOW_S
            while (session := self._session) is not None and session.state.viewers and time.monotonic() < until:
                await asyncio.sleep(0.05)
            if self._session is not None:
                await sessions.end(order.session, MOVED)

    async def _keep(self) -> None:
        """Write what the session is whenever that has changed; end what is to end."""
        while True:
            await asyncio.sleep(_SAVE_S)
            if self._order is not None:
                if self._session is None:
                    await self._forget(self._order)
                else:
                    await self._save()
            since = self._leaving_since
            empty = self._order is None and self._session is None
            if since is not None and (empty or time.monotonic() - since > _LEAVE_S):
                _log.info("seat leaves", seat=self._name)
                os._exit(0)

    async def _save(self) -> None:
        order, session = self._order, self._session
        if order is None or session is None:
            return
        settings = session.settings.model_dump(exclude={"framing"})
        record = Record(wish=session.wish.model_copy(update=settings), generation=order.generation, seat=self._name)
        if record == self._saved:
            return
        with contextlib.suppress(OSError):  # tried again; meanwhile the session goes on
            if not await self._is_claimed(order):
                await asyncio.to_thread(self._records.write, order.session, record)
                self._saved = record

    async def _forget(self, order: Order) -> None:
        """The session has ended by itself, or somebody ended it."""
        with contextlib.suppress(OSError):
            if not await self._is_claimed(order):
                await asyncio.to_thread(self._records.remove, order.session)
            self._order = None

    async def _watch_claim(self) -> None:
        """Let go of a session that has begun elsewhere, because nothing was heard of this seat for a while."""
        while True:
            await asyncio.sleep(_CLAIM_S)
            order = self._order
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._services.recordings.hand_over, self._films)
                if order is not None and await self._is_claimed(order) and self._order is order:
                    _log.warning("replaced", session=order.session, seat=self._name, generation=order.generation)
                    await self._retire()

    async def _is_claimed(self, order: Order) -> bool:
        """Whether another seat holds the session."""
        found = await asyncio.to_thread(self._records.read, order.session)
        if found is None or found.seat == self._name:
            return False
        return found.generation > order.generation or (found.generation == order.generation and self._saved is not None)


def _settings_of_seat(config: Config, name: str, secret: str) -> Config:
    """The settings of a server that gateways alone reach, for one session."""
    server = config.server.model_copy(
        update={"host": "127.0.0.1", "port": 0, "max_sessions": 1, "tls_cert": None, "tls_key": None, "origins": ()}
    )
    often = {f"{what}_per_minute": _UNCOUNTED for what in ("starts", "uploads", "offers", "failures")}
    access = config.access.model_copy(
        update={"required": "always", "secret": SecretStr(secret), "secret_file": None, **often}
    )
    storage = config.storage.model_copy(update={"data": config.storage.data / "seats" / name})
    return config.model_copy(update={"server": server, "access": access, "storage": storage})
