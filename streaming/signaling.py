"""How peers find a session: WHEP for viewers, WHIP for a camera, a websocket for the page.

WHIP is RFC 9725, WHEP draft-ietf-wish-whep. Both exchange one offer and one answer over HTTP; the answer holds all of
the server's addresses, later ones of the peer come by PATCH. ICE servers, where there are any, come as Link headers.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response, WebSocket, WebSocketDisconnect
from structlog.stdlib import get_logger

from streaming.access import Grant, require
from streaming.api import for_browsers, refusals
from streaming.config import IceServer
from streaming.encoder import Codec
from streaming.errors import RefusedError
from streaming.gate import FORBIDDEN
from streaming.peer import MAX_SDP_BYTES, Message, Peer, Role
from streaming.services import Given, Here, Services
from streaming.turn import ice_servers

SDP: Final = "application/sdp"
TRICKLE: Final = "application/trickle-ice-sdpfrag"

_SDP_IN: Final = {"requestBody": {"required": True, "content": {SDP: {"schema": {"type": "string"}}}}}
_TRICKLE_IN: Final = {"requestBody": {"required": True, "content": {TRICKLE: {"schema": {"type": "string"}}}}}
_HEADERS: Final = {
    "Location": "The connection: PATCH adds addresses, DELETE ends it",
    "ETag": "Of its ICE session, for If-Match",
    "Accept-Patch": TRICKLE,
    "Link": "An ICE server, as RFC 9725 4.6 writes it; as often as there are any",
}
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    201: {
        "description": "The answer",
        "content": {SDP: {"schema": {"type": "string"}}},
        "headers": {name: {"description": what, "schema": {"type": "string"}} for name, what in _HEADERS.items()},
    },
    **refusals(400, 404, 406, 413, 415, 503),
}

MAX_MESSAGE_BYTES: Final = 128 * 1024
"""Of one websocket message; the server refuses larger ones unread."""

_UNSENT: Final = 64
"""Messages that a page may be behind before it counts as gone."""
_UNKNOWN, _TRY_LATER = 4404, 1013
_CUT_OFF: Final = {1005, 1006, 1012}
"""Codes of connections that were lost (uvicorn says 1005), or whose server stops; pages say others."""
_GOODBYE_S: Final = 1.0

GATEWAY: Final = "lhm-live-gateway"
"""Header of a gateway that speaks for a page (cluster/gateway.py)."""
_OUTLIVE_S: Final = 20.0
"""So long a page's pictures go on without the gateway that it came by."""

_log = get_logger(__name__)


router = APIRouter(tags=["signalling"])


@router.post("/whep/{session}", status_code=201, response_class=Response, responses=_ANSWER, openapi_extra=_SDP_IN)
async def watch(
    session: str,
    request: Request,
    here: Here,
    grant: Given,
    alpha: Annotated[bool | None, Query(description="Stacked frames, whatever the background")] = None,
    codec: Annotated[Codec | None, Query(description="Only this one")] = None,
) -> Response:
    """Watch a session (WHEP): an SDP offer in, the answer out, the connection's address in Location."""
    return await _exchange(here, session, "view", request, "whep", grant, stacked=alpha, codec=codec)


@router.post(
    "/whip/{session}",
    status_code=201,
    response_class=Response,
    responses={**_ANSWER, **refusals(409)},
    openapi_extra=_SDP_IN,
)
async def drive(session: str, request: Request, here: Here, grant: Given) -> Response:
    """Drive a session whose source is ``webcam``, or is merged with one, with a camera's video (WHIP)."""
    if not here.sessions.get(session).takes_video:
        raise RefusedError(409, "other_source", "this session is not driven by video; start one with source webcam")
    return await _exchange(here, session, "drive", request, "whip", grant)


@router.options("/whep/{session}", status_code=204, response_class=Response, responses=refusals(404))
@router.options("/whip/{session}", status_code=204, response_class=Response, responses=refusals(404))
async def ask(session: str, here: Here) -> Response:
    """What may be posted here, and which ICE servers there are."""
    here.sessions.get(session)
    response = Response(status_code=204, headers={"Accept-Post": SDP, "Allow": "OPTIONS, POST"})
    _add_links(response, ice_servers(here.config.rtc))
    return response


@router.patch(
    "/whep/{session}/{peer}",
    status_code=204,
    response_class=Response,
    responses=refusals(400, 404, 412, 413, 415, 422, 428),
    openapi_extra=_TRICKLE_IN,
)
@router.patch(
    "/whip/{session}/{peer}",
    status_code=204,
    response_class=Response,
    responses=refusals(400, 404, 412, 413, 415, 422, 428),
    openapi_extra=_TRICKLE_IN,
)
async def trickle(
    session: str,
    peer: str,
    request: Request,
    here: Here,
    content_type: Annotated[str, Header()] = "",
    if_match: Annotated[str, Header(description="The ETag of the answer")] = "",
) -> Response:
    """Add addresses of the peer, as ICE trickle fragments."""
    found = here.sessions.peer(session, peer)
    _require_type(content_type, TRICKLE)
    match if_match.strip():
        case "":
            raise RefusedError(428, "if_match_missing", f"say by If-Match for which ICE session: {_etag(found)}")
        case "*":
            raise RefusedError(
                422, "no_ice_restart", "ICE is not restarted here; DELETE this connection and POST again"
            )
        case other if other != _etag(found):
            raise RefusedError(412, "other_ice_session", f"If-Match is {other[:64]}, the ICE session is {_etag(found)}")
    mid: str | None = None
    for line in (await _read_text(request)).splitlines():
        if line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:").strip()
        elif line.startswith("a=candidate:"):
            await found.add_candidate(line, mid, None if mid else 0)
        elif line.startswith("a=end-of-candidates"):
            await found.add_candidate("", mid, None)
    return Response(status_code=204)


@router.delete("/whep/{session}/{peer}", status_code=200, response_class=Response, responses=refusals(404))
@router.delete("/whip/{session}/{peer}", status_code=200, response_class=Response, responses=refusals(404))
async def leave(session: str, peer: str, here: Here) -> Response:
    """End the connection."""
    await here.sessions.peer(session, peer).close()
    return Response(status_code=200)


@router.websocket("/v1/signal/{session}")
async def signal(
    socket: WebSocket,
    session: str,
    here: Here,
    grant: Given,
    role: Role = "view",
    alpha: bool = False,
    codec: Codec | None = None,
) -> None:
    """The page's way: JSON messages as described in docs; one offer a connection."""
    await socket.accept()
    page = _Page(socket)
    try:
        require(grant, role, session)
        peer = here.sessions.connect(
            session, role, codec=codec, stacked=True if alpha else None, send_signal=page.send, grant=grant
        )
    except RefusedError as refusal:
        await socket.send_json(_error(refusal))
        await socket.close({404: _UNKNOWN, 403: FORBIDDEN}.get(refusal.status, _TRY_LATER), refusal.code)
        return
    page.send({"type": "ice", "servers": [for_browsers(server) for server in ice_servers(here.config.rtc)]})
    page.send({"type": "state", **peer.session.state.model_dump()})
    try:
        await page.talk(peer)
        if page.cut_off and GATEWAY in socket.headers:  # the page may be well, and comes by another gateway
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OUTLIVE_S):
                    await peer.closed.wait()
    finally:
        await peer.close()
        await page.close()


class _Page:
    """A page at the other end of a websocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._unsent: asyncio.Queue[Message] = asyncio.Queue(_UNSENT)
        self._behind = asyncio.Event()
        self.cut_off = False
        """Whether the connection ended, and not because the page has gone."""

    def send(self, message: Message) -> None:
        """Send when it reads; one that never does is dropped."""
        try:
            self._unsent.put_nowait(message)
        except asyncio.QueueFull:
            self._behind.set()

    async def talk(self, peer: Peer) -> None:
        """Pass messages both ways until one side has gone."""
        ways = {
            asyncio.create_task(self._read(peer), name="read signals"),
            asyncio.create_task(self._write(), name="write signals"),
            asyncio.create_task(self._behind.wait(), name="watch page"),
            asyncio.create_task(peer.closed.wait(), name="watch peer"),
        }
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
            if peer.closed.is_set():
                await self._flush()
        except WebSocketDisconnect:
            pass
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    async def close(self) -> None:
        """End it; one that does not read is not waited for."""
        # RuntimeError: the other side has closed it already
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            async with asyncio.timeout(_GOODBYE_S):
                await self._socket.close()

    async def _read(self, peer: Peer) -> None:
        while True:
            event = await self._socket.receive()
            text = event.get("text")
            self.cut_off = event.get("code") in _CUT_OFF
            if self._socket.client_state.name == "DISCONNECTED":
                return
            try:
                message = json.loads(text) if isinstance(text, str) else None
            except (ValueError, RecursionError):
                message = None
            try:
                await self._act(peer, message)
            except RefusedError as refusal:
                self.send(_error(refusal))

    async def _act(self, peer: Peer, message: object) -> None:
        if not isinstance(message, dict):
            raise RefusedError(400, "bad_message", "not a JSON object")
        match message.get("type"):
            case "offer":
                if not isinstance(message.get("sdp"), str):
                    raise RefusedError(400, "bad_offer", "the offer has no sdp")
                self.send({"type": "answer", "sdp": await peer.answer(message["sdp"])})
            case "candidate":
                candidate = message.get("candidate") or {}
                line, mid, index = (
                    (candidate.get("candidate") or "", candidate.get("sdpMid"), candidate.get("sdpMLineIndex"))
                    if isinstance(candidate, dict)
                    else ("", None, None)
                )
                if not isinstance(line, str):
                    raise RefusedError(400, "bad_candidate", "the candidate is no text")
                await peer.add_candidate(line, mid, index)
            case _:
                peer.control(message)

    async def _write(self) -> None:
        while True:
            await self._socket.send_json(await self._unsent.get())

    async def _flush(self) -> None:
        """What was said at the end, before the socket closes."""
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            async with asyncio.timeout(_GOODBYE_S):
                while not self._unsent.empty():
                    await self._socket.send_json(self._unsent.get_nowait())


async def _exchange(
    here: Services,
    session: str,
    role: Role,
    request: Request,
    kind: str,
    grant: Grant,
    *,
    stacked: bool | None = None,
    codec: Codec | None = None,
) -> Response:
    here.sessions.get(session)
    _require_type(request.headers.get("content-type", ""), SDP)
    offer = await _read_text(request)
    peer = here.sessions.connect(session, role, codec=codec, stacked=stacked, grant=grant)
    try:
        answer = await peer.answer(offer)
    except BaseException:
        await peer.close()
        raise
    headers = {"Location": f"/{kind}/{session}/{peer.id}", "ETag": _etag(peer), "Accept-Patch": TRICKLE}
    response = Response(answer, 201, headers, SDP)
    _add_links(response, ice_servers(here.config.rtc))
    return response


def _etag(peer: Peer) -> str:
    """Names the ICE session, of which a connection has only one."""
    return f'"{peer.id}"'


def _add_links(response: Response, servers: Sequence[IceServer]) -> None:
    """One Link header a STUN or TURN address: RFC 9725, 4.6."""
    for server in servers:
        fields = ['rel="ice-server"']
        if server.username is not None:
            fields.append(f"username={json.dumps(server.username)}")
        if server.credential is not None:
            fields.append(f"credential={json.dumps(server.credential.get_secret_value())}")
            fields.append('credential-type="password"')
        for url in server.urls:
            response.headers.append("Link", "; ".join([f"<{url}>", *fields]))


def _require_type(content_type: str, wanted: str) -> None:
    if content_type.partition(";")[0].strip().lower() != wanted:
        raise RefusedError(415, "wrong_type", f"the body is {content_type or 'of no type'}, expected {wanted}")


async def _read_text(request: Request) -> str:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_SDP_BYTES:
            raise RefusedError(413, "too_large", f"the body is larger than {MAX_SDP_BYTES} bytes")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, "bad_offer", "the body is not text") from error
    return re.sub(r"\r?\n", "\r\n", text)


def _error(refusal: RefusedError) -> Message:
    return {"type": "error", "code": refusal.code, "message": str(refusal)}
