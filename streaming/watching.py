"""Watch a server as any viewer would: by WHEP, and by what REST says of a session."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPException
from typing import Any, Final

import av
from aiortc import RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from streaming.errors import ConnectError, RefusedError
from streaming.lowlatency import connected, make_peer_connection

PATIENCE_S: Final = 15.0
"""Without an answer or a picture for longer than this, there is none."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@asynccontextmanager
async def watch(address: str, session: str, token: str | None = None) -> AsyncIterator[MediaStreamTrack]:
    """The video of a session, for ``next_picture``.

    Raises:
        RefusedError: the server does not let us.
        ConnectError: it does not answer, or no media path was found.
    """
    viewer = make_peer_connection()
    tracks: list[MediaStreamTrack] = []
    viewer.on("track", tracks.append)
    try:
        viewer.addTransceiver("video", direction="recvonly")
        await viewer.setLocalDescription(await viewer.createOffer())
        offer = str(viewer.localDescription.sdp)
        answer = await call_server(address, "POST", f"/whep/{session}", offer, token=token)
        await viewer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await connected(viewer, PATIENCE_S)
        yield tracks[0]
    finally:
        await viewer.close()


async def next_picture(track: MediaStreamTrack) -> av.VideoFrame:
    """The next picture of ``watch``; raises ConnectError when none comes."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            frame = await track.recv()
    except TimeoutError as error:
        raise ConnectError(f"no picture arrived within {PATIENCE_S:g} s") from error
    except MediaStreamError as error:
        raise ConnectError("the video has ended") from error
    if not isinstance(frame, av.VideoFrame):
        raise ConnectError(f"a {type(frame).__name__} arrived instead of a picture")
    return frame


async def call_server(
    address: str, method: str, path: str, body: dict[str, Any] | str | None = None, *, token: str | None = None
) -> Any:
    """What a server of ours answers: JSON decoded, anything else as text.

    Args:
        address: http://HOST:PORT.
        method: GET, POST, PATCH or DELETE.
        path: from / on.
        body: JSON, or an SDP offer.
        token: where the server wants one.

    Raises:
        RefusedError: with the server's words.
        ConnectError: it does not answer.
    """
    return await asyncio.to_thread(_ask, address, method, path, body, token)


def _ask(address: str, method: str, path: str, body: dict[str, Any] | str | None, token: str | None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data: bytes | None = None
    if isinstance(body, str):
        data, headers["Content-Type"] = body.encode(), "application/sdp"
    elif body is not None or method != "GET":
        data, headers["Content-Type"] = json.dumps(body or {}).encode(), "application/json"
    request = urllib.request.Request(address + path, data, headers, method=method)  # noqa: S310 - http, by callers
    try:
        with _direct.open(request, timeout=PATIENCE_S) as response:
            text = response.read().decode()
            return json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
    except urllib.error.HTTPError as refusal:
        code, message = _reason(refusal.read())
        raise RefusedError(refusal.code, code, f"{method} {path} was refused: {message}") from refusal
    except (OSError, ValueError, HTTPException) as error:
        raise ConnectError(
            f"{address} does not answer ({getattr(error, 'reason', error)}): is lhm-live serve running there?"
        ) from error


def _reason(body: bytes) -> tuple[str, str]:
    try:
        error = json.loads(body)["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "refused", body.decode(errors="replace")[:400]
