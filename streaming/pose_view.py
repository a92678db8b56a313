"""Viewers that draw a session's avatar themselves: its file, and a websocket that brings the poses.

Only where the session shares its avatar. Over the websocket the server says JSON, ``scene``, whenever avatar, camera or
background change, and else packets of pose_packet.py; the viewer says, every few packets, how many it has had:
``{"type": "ack", "received": 160}``. The close code says why: 1001 the session has ended, 1009 a message too long, 4401
no token or a void one, 4403 its role does not cover this, 4404 no such session, 4408 the avatar is not shared, or no
longer, 4429 too many connections.
"""

import asyncio
import contextlib
import gzip
import hashlib
import json
from typing import Any, Final

from fastapi import APIRouter, Request, Response, WebSocket, WebSocketDisconnect
from structlog.stdlib import get_logger

from streaming.api import refusals
from streaming.errors import RefusedError
from streaming.gate import UNAUTHORIZED
from streaming.pose_feed import PoseViewer
from streaming.services import Given, Here, Services
from streaming.session import Session
from streaming.socket_ends import close_socket, until_first

ENDED, TOO_LONG, UNKNOWN, NOT_SHARED, FULL = 1001, 1009, 4404, 4408, 4429
"""Close codes; those from 4000 on are ours (RFC 6455, 7.4.2)."""

_MAX_ACK_CHARS: Final = 256

_log = get_logger(__name__)

router = APIRouter()


@router.get(
    "/api/sessions/{session}/avatar",
    tags=["sessions"],
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **refusals(403, 404)},
)
async def download_avatar(session: str, request: Request, here: Here) -> Response:
    """The avatar for browsers that draw it (docs/client_rendering.md); only where the session shares it."""
    shown = here.sessions.get(session)
    _require_sharing(shown)
    packed = await shown.poses.pack(shown.avatar)
    headers = {
        "ETag": f'W/"{hashlib.sha256(packed).hexdigest()[:32]}"',
        "Cache-Control": "private, no-cache",
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        packed = await asyncio.to_thread(gzip.decompress, packed)
    return Response(packed, headers=headers, media_type="application/octet-stream")


@router.websocket("/v1/poses/{session}")
async def show_poses(socket: WebSocket, session: str, here: Here, grant: Given) -> None:
    """Send the poses of a session to somebody who draws it, as long as the token lasts."""
    await socket.accept()
    try:
        shown = here.sessions.get(session)
        _require_sharing(shown)
        _require_room(here)
    except RefusedError as refusal:
        await close_socket(socket, {404: UNKNOWN, 403: NOT_SHARED}.get(refusal.status, FULL), refusal)
        return
    viewer = shown.poses.join()
    try:
        code, reason = await _attend(socket, shown, viewer, grant.lasts_s)
    finally:
        shown.poses.leave(viewer)
        _log.info("drawing viewer left", session=session, replaced=viewer.replaced)
    await close_socket(socket, code, reason)


async def _attend(
    socket: WebSocket, session: Session, viewer: PoseViewer, lasts_s: float | None
) -> tuple[int, RefusedError | None]:
    """Send until one side has had enough; the close code, and why."""
    reading = asyncio.create_task(_read(socket, viewer), name="read acknowledgements")
    ways: set[asyncio.Task[Any]] = {
        reading,
        asyncio.create_task(_send(socket, viewer), name="send poses"),
        asyncio.create_task(session.ended.wait(), name="watch session"),
        asyncio.create_task(viewer.dismissed.wait(), name="watch sharing"),
    }
    done = await until_first(ways, lasts_s)
    if session.ended.is_set():
        return ENDED, RefusedError(404, "session_ended", f"session {session.id} has ended")
    if viewer.dismissed.is_set():
        return NOT_SHARED, RefusedError(403, "not_shared", "the avatar is not given away any more")
    if not done:
        return UNAUTHORIZED, RefusedError(401, "token_expired", "this link has expired; ask for a new one")
    for way in done:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it has gone
            way.result()
    return reading.result() if reading in done and reading.exception() is None else (1000, None)


async def _send(socket: WebSocket, viewer: PoseViewer) -> None:
    while True:
        scene, packet = await viewer.next()
        if scene is not None:
            await socket.send_json(scene)
        if packet is not None:
            await socket.send_bytes(packet)


async def _read(socket: WebSocket, viewer: PoseViewer) -> tuple[int, RefusedError | None]:
    while True:
        event = await socket.receive()
        if event["type"] == "websocket.disconnect":
            return 1000, None
        text = event.get("text") or ""
        if len(text) > _MAX_ACK_CHARS or event.get("bytes"):
            return TOO_LONG, RefusedError(413, "too_large", f"viewers say at most {_MAX_ACK_CHARS} characters, in JSON")
        try:
            received = json.loads(text)["received"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # of a later version, perhaps
        if isinstance(received, int):
            viewer.acknowledge(received)


def _require_sharing(session: Session) -> None:
    if not session.wish.share_avatar:
        raise RefusedError(
            403, "not_shared", "the avatar of this session is not given away: its owner can allow it (share_avatar)"
        )


def _require_room(here: Services) -> None:
    drawing = sum(len(session.poses.viewers) for session in here.sessions.all)
    most = here.config.server.max_pose_viewers
    if drawing >= most:
        raise RefusedError(503, "full", f"{drawing} viewers draw avatars here, the limit (server.max_pose_viewers)")
