"""A gateway: the ordinary server, except that what concerns a session is passed on to the seat that has it.

The gate has looked at who comes before anything here runs. The seat is told what the caller may do by a token of its
own, so that it looks again, and ends connections when the caller's time is over.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import httpx
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from structlog.stdlib import get_logger
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from streaming import api
from streaming.access import allows
from streaming.app import create_app
from streaming.avatar_store import AvatarStore
from streaming.cluster.keeper import Keeper
from streaming.cluster.placement import LOCAL, Placement
from streaming.cluster.records import Records
from streaming.cluster.seat import Seat
from streaming.config import Config
from streaming.errors import RefusedError
from streaming.gate import FORBIDDEN
from streaming.services import Given, Here
from streaming.settings import NewSession
from streaming.signaling import GATEWAY
from streaming.socket_ends import GOODBYE_S, close_socket

_TOLD: Final = ("content-type", "if-match", "if-none-match", "accept", "accept-encoding")
"""Headers of a request that the seat is told; the rest is between the caller and the gate."""
_DROPPED: Final = {"connection", "date", "keep-alive", "server", "trailer", "transfer-encoding", "upgrade"}
_DROPPED_FROM_GATE: Final = {"content-security-policy", "x-content-type-options", "referrer-policy", "set-cookie"}
"""Headers of an answer that this gateway's own gate adds."""
_ANSWER_S: Final = 20.0
_OPEN_S: Final = 3.0
_AGAIN_S: Final = 0.1
_TRIES: Final = 50
_ENDED, _RESTARTING, _TRY_LATER, _UNKNOWN = 1001, 1012, 1013, 4404

_Result = TypeVar("_Result")

_log = get_logger(__name__)


def create_gateway(config: Config, cluster: str) -> FastAPI:
    """The application of a gateway to the Ray cluster at an address, or placement.LOCAL.

    Raises:
        InvalidInputError: as ``create_app``, or cluster.storage cannot be opened.
    """
    records = Records(config.cluster.storage or config.storage.data)
    keeper = Keeper(config, Placement(config, cluster), records)
    avatars = AvatarStore(config.storage.data / "avatars", config.cluster.storage)
    http = httpx.AsyncClient(trust_env=False, timeout=_ANSWER_S)
    app = create_app(config, avatars=avatars, front=_routes(keeper, http))
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with http, keeper, inner(app):
            yield
            if cluster == LOCAL:
                _log.info("stopping", cluster="this machine's, with all of its sessions")

    app.router.lifespan_context = lifespan
    return app


def _routes(keeper: Keeper, http: httpx.AsyncClient) -> APIRouter:
    """What the ordinary routes do with sessions of their own, done with those of the cluster."""
    router = APIRouter(include_in_schema=False)

    @router.get("/api/state")
    async def state(here: Here, grant: Given) -> api.State:
        own = await api.state(here, grant)
        seen = [session for session in keeper.sessions if allows(grant, "view", session.id)]
        return own.model_copy(update={"sessions": seen})

    @router.post("/api/sessions", status_code=201)
    async def start_session(wish: NewSession, response: Response) -> api.Started:
        session = await keeper.start(wish)
        response.headers["Location"] = f"/api/sessions/{session}"
        return api.Started(id=session)

    @router.post("/api/sessions/{session}/links", status_code=201)
    async def make_link(session: str, here: Here, grant: Given, wish: api.LinkWish | None = None) -> api.ViewerLink:
        await keeper.find(session)
        return api.sign_link(session, here, grant, wish)

    async def pass_on(session: str, request: Request, grant: Given) -> Response:
        return await _pass_on(keeper, http, session, request, grant)

    for path, methods in (
        ("/api/sessions/{session}", ["GET", "PATCH", "DELETE"]),
        ("/api/sessions/{session}/avatar", ["GET"]),
        ("/api/sessions/{session}/recording", ["POST", "DELETE"]),
        ("/api/sessions/{session}/relay", ["GET"]),
        ("/api/sessions/{session}/relay/viewers", ["POST"]),
        ("/api/sessions/{session}/relay/viewers/{viewer}", ["PUT", "DELETE"]),
        *((f"/{kind}/{{session}}", ["OPTIONS", "POST"]) for kind in ("whep", "whip")),
        *((f"/{kind}/{{session}}/{{peer}}", ["PATCH", "DELETE"]) for kind in ("whep", "whip")),
    ):
        router.add_api_route(path, pass_on, methods=methods, response_model=None)

    async def pass_on_socket(socket: WebSocket, session: str, grant: Given) -> None:
        await _pass_on_socket(keeper, socket, session, grant)

    for path in ("/v1/signal/{session}", "/v1/pose/{session}", "/v1/poses/{session}"):
        router.add_api_websocket_route(path, pass_on_socket)
    return router


async def _pass_on(keeper: Keeper, http: httpx.AsyncClient, session: str, request: Request, grant: Given) -> Response:
    """A request and its answer; while the session begins again elsewhere it is asked again."""
    body = await request.body()
    headers = {name: value for name in _TOLD if (value := request.headers.get(name)) is not None}
    for _ in range(_TRIES):
        seat = await keeper.find(session)
        url = httpx.URL(seat.address.url, path=request.url.path, query=request.url.query.encode())
        asked = http.build_request(
            request.method, url, content=body, headers={**headers, "Authorization": f"Bearer {seat.token(grant)}"}
        )
        try:
            answer = await _unless_lost(seat, http.send(asked, stream=True))
        except (httpx.HTTPError, ConnectionError):
            keeper.report(seat)
            await asyncio.sleep(_AGAIN_S)
            continue
        try:
            content = b"".join([chunk async for chunk in answer.aiter_raw()])
        except httpx.HTTPError as error:
            raise RefusedError(503, "moving", f"session {session} was cut off: {error!r}; try again") from error
        finally:
            await answer.aclose()
        if answer.status_code == 404 and _code(content) == "unknown_session" and keeper.is_expected(session, seat):
            await asyncio.sleep(_AGAIN_S)
            continue
        if request.method == "DELETE" and request.url.path == f"/api/sessions/{session}" and answer.is_success:
            await keeper.forget(session, seat)
        passed = Response(content, answer.status_code)
        for name, value in answer.headers.multi_items():
            if name.lower() not in _DROPPED | _DROPPED_FROM_GATE | {"content-length"}:
                passed.headers.append(name, value)
        return passed
    raise RefusedError(503, "moving", f"session {session} begins again on another machine; try again")


async def _pass_on_socket(keeper: Keeper, socket: WebSocket, session: str, grant: Given) -> None:
    """Messages both ways, until one side has had enough or the seat is lost: who comes back finds the next one."""
    await socket.accept()
    try:
        seat, onward = await _reach(keeper, socket, session, grant)
    except RefusedError as refusal:
        await close_socket(socket, {404: _UNKNOWN, 403: FORBIDDEN}.get(refusal.status, _TRY_LATER), refusal)
        return
    ways = {
        asyncio.create_task(_send_on(socket, onward), name="pass messages on"),
        asyncio.create_task(_bring_back(socket, onward), name="bring messages back"),
        asyncio.create_task(seat.lost.wait(), name="watch the seat"),
    }
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(GOODBYE_S):
                await onward.close()
    code = onward.close_code
    if seat.lost.is_set() or code in {None, 1006, 1011} or (code == _ENDED and keeper.is_expected(session, seat)):
        keeper.report(seat)
        code = _RESTARTING
    await close_socket(socket, code or _RESTARTING, None, onward.close_reason)


async def _reach(keeper: Keeper, socket: WebSocket, session: str, grant: Given) -> tuple[Seat, ClientConnection]:
    query = f"?{socket.url.query}" if socket.url.query else ""
    for _ in range(_TRIES):
        seat = await keeper.find(session)
        try:
            onward = await connect(
                f"ws{seat.address.url.removeprefix('http')}{socket.url.path}{query}",
                additional_headers={"Authorization": f"Bearer {seat.token(grant)}", GATEWAY: "1"},
                compression=None,
                proxy=None,
                open_timeout=_OPEN_S,
                ping_interval=None,
                max_size=None,
            )
        except (OSError, InvalidHandshake, ConnectionClosed):
            keeper.report(seat)
            await asyncio.sleep(_AGAIN_S)
        else:
            return seat, onward
    raise RefusedError(503, "moving", f"session {session} begins again on another machine; try again")


async def _send_on(socket: WebSocket, onward: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed, WebSocketDisconnect):
        while True:
            event = await socket.receive()
            if event["type"] == "websocket.disconnect":
                if event.get("code") == _RESTARTING:  # this gateway stops; the page is well
                    await onward.close(_RESTARTING)
                return
            text, data = event.get("text"), event.get("bytes")
            await onward.send(text if text is not None else data or b"")


async def _bring_back(socket: WebSocket, onward: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed, WebSocketDisconnect, RuntimeError):
        async for message in onward:
            if isinstance(message, str):
                await socket.send_text(message)
            else:
                await socket.send_bytes(message)


async def _unless_lost(seat: Seat, asking: Coroutine[Any, Any, _Result]) -> _Result:
    """What is asked of a seat; raises ConnectionError where the seat is lost meanwhile."""
    asked, lost = asyncio.create_task(asking), asyncio.create_task(seat.lost.wait())
    try:
        await asyncio.wait({asked, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise ConnectionError(f"seat {seat.name} is lost")
        return asked.result()
    finally:
        lost.cancel()
        if not asked.done():
            asked.cancel()


def _code(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""
