"""``lhm-live demo --check``: a viewer by WHEP that sees whether a live avatar arrives, and keeps what it saw."""

import asyncio
import json
import shutil
import statistics
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from rich.console import Console

from lhm_runtime.errors import BackendError
from streaming.lowlatency import connected, make_peer_connection
from streaming.picture_files import write_sheet
from streaming.time_code import elapsed_ms, read_time_code

_SIZE: Final = (480, 640)
_TIMED_FRAMES: Final = 90
_FILM_S: Final = 8.0
_SHEET_PICTURES: Final = 8
_PATIENCE_S: Final = 15.0
_LEAST_FPS: Final = 5.0
_LEAST_MOTION: Final = 1.0
"""Of 255: how much pictures half a wave apart differ at least, on average."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def watch_demo(address: str, avatar: str, film: Path) -> None:
    """Start a session, watch it as any viewer would, record it, and print what came of it.

    Args:
        address: of the server.
        avatar: whom to watch.
        film: where to write what the server recorded (.mp4); a sheet of what arrived is written beside it (.png).

    Raises:
        BackendError: no picture came, too few, or they stood still.
    """
    width, height = _SIZE
    wish = {"avatar": avatar, "source": "replay", "replay": "wave", "width": width, "height": height, "probe": True}
    session = (await _call(address, "POST", "/api/sessions", wish))["id"]
    viewer = make_peer_connection()
    tracks: list[MediaStreamTrack] = []
    viewer.on("track", tracks.append)
    try:
        await _connect(viewer, address, session)
        latencies_ms = await _time_pictures(tracks[0])
        await _call(address, "PATCH", f"/api/sessions/{session}", {"probe": False})
        await _call(address, "POST", f"/api/sessions/{session}/recording")
        seen = await _see(tracks[0], _FILM_S)
        recording = await _call(address, "DELETE", f"/api/sessions/{session}/recording")
    finally:
        await viewer.close()
    _require_motion(seen)
    sheet = film.with_suffix(".png")
    step = len(seen) // _SHEET_PICTURES
    write_sheet(sheet, seen[::step][:_SHEET_PICTURES], columns=_SHEET_PICTURES)
    await asyncio.to_thread(_download, address + recording["url"], film)
    await _call(address, "DELETE", recording["url"])
    p50, p95 = statistics.median(latencies_ms), float(np.percentile(latencies_ms, 95))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{len(seen)} pictures of {width}x{height} in {_FILM_S:g} s arrived by WebRTC, and they move")
    console.print(f"latency: server's drawing to decoded picture {p50:.0f} ms p50, {p95:.0f} ms p95, on this machine")
    console.print(f"wrote {film}: what the server recorded; {sheet}: what arrived", markup=False)


async def _connect(viewer: RTCPeerConnection, address: str, session: str) -> None:
    viewer.addTransceiver("video", direction="recvonly")
    await viewer.setLocalDescription(await viewer.createOffer())
    answer = await _call(address, "POST", f"/whep/{session}", str(viewer.localDescription.sdp))
    await viewer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await connected(viewer, _PATIENCE_S)


async def _time_pictures(track: MediaStreamTrack) -> list[float]:
    """Milliseconds from drawing to here, of pictures with a time code."""
    found: list[float] = []
    for _ in range(_TIMED_FRAMES):
        frame = await _receive(track)
        now_ms = time.time() * 1e3
        code = read_time_code(frame.to_ndarray(format="gray"))
        if code is not None:
            found.append(elapsed_ms(now_ms, code.drawn_ms))
    if len(found) < _TIMED_FRAMES // 2:
        raise BackendError(f"{len(found)} of {_TIMED_FRAMES} pictures had a time code that could be read")
    return found


async def _see(track: MediaStreamTrack, seconds: float) -> list[np.ndarray]:
    """What arrives in the next seconds, RGB."""
    until = time.monotonic() + seconds
    seen: list[np.ndarray] = []
    while time.monotonic() < until:
        seen.append((await _receive(track)).to_ndarray(format="rgb24"))
    if len(seen) < _LEAST_FPS * seconds:
        raise BackendError(f"{len(seen)} pictures arrived in {seconds:g} s; a live avatar has 30 a second")
    return seen


async def _receive(track: MediaStreamTrack) -> av.VideoFrame:
    """The next picture, enlarged where a slow machine was sent the smaller quality."""
    try:
        frame = await asyncio.wait_for(track.recv(), _PATIENCE_S)
    except TimeoutError as error:
        raise BackendError(f"no picture arrived within {_PATIENCE_S:g} s") from error
    if not isinstance(frame, av.VideoFrame):
        raise BackendError(f"a {type(frame).__name__} arrived instead of a picture")
    return frame if (frame.width, frame.height) == _SIZE else frame.reformat(*_SIZE)


def _require_motion(seen: list[np.ndarray]) -> None:
    first = seen[0].astype(np.int16)
    most = max(float(np.abs(picture - first).mean()) for picture in seen[:: max(len(seen) // 40, 1)])
    if most < _LEAST_MOTION:
        raise BackendError(
            f"the pictures stand still: they differ by {most:.2f} of 255, a waving person by more than 1"
        )


async def _call(address: str, method: str, path: str, body: dict[str, Any] | str | None = None) -> Any:
    """What the server answers: JSON decoded, anything else as text."""
    return await asyncio.to_thread(_ask, address, method, path, body)


def _ask(address: str, method: str, path: str, body: dict[str, Any] | str | None) -> Any:
    is_offer = isinstance(body, str)
    data = body.encode() if isinstance(body, str) else json.dumps(body or {}).encode()
    content = {"Content-Type": "application/sdp" if is_offer else "application/json"}
    request = urllib.request.Request(address + path, data, content, method=method)  # noqa: S310 - our own server
    try:
        with _direct.open(request, timeout=_PATIENCE_S) as response:
            text = response.read().decode()
            return json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
    except urllib.error.HTTPError as refusal:
        raise BackendError(f"{method} {path} was refused: {refusal.read().decode(errors='replace')[:400]}") from refusal
    except OSError as error:
        raise BackendError(f"{method} {path}: the server does not answer ({error})") from error


def _download(url: str, path: Path) -> None:
    with _direct.open(url, timeout=_PATIENCE_S) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)
