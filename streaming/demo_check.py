"""``lhm-live demo --check``: a viewer by WHEP that sees whether a live avatar arrives, and keeps what it saw."""

import asyncio
import shutil
import statistics
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Final

import av
import numpy as np
from aiortc.mediastreams import MediaStreamTrack
from rich.console import Console

from lhm_runtime.errors import BackendError
from streaming.picture_files import write_sheet
from streaming.time_code import elapsed_ms, read_time_code
from streaming.watching import PATIENCE_S, call_server, next_picture, watch

_SIZE: Final = (480, 640)
_TIMED_FRAMES: Final = 90
_FILM_S: Final = 8.0
_SHEET_PICTURES: Final = 8
_LEAST_FPS: Final = 5.0
_LEAST_MOTION: Final = 1.0
"""Of 255: how much pictures half a wave apart differ at least, on average."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def watch_demo(address: str, avatar: str, film: Path, token: str | None = None) -> None:
    """Start a session, watch it as any viewer would, record it, and print what came of it.

    Args:
        address: of the server.
        avatar: whom to watch.
        film: where to write what the server recorded (.mp4); a sheet of what arrived is written beside it (.png).
        token: an admin's, where the server wants one.

    Raises:
        BackendError: too few pictures came, or they stood still.
        ConnectError: none came.
        RefusedError: the server refused.
    """
    width, height = _SIZE
    wish = {"avatar": avatar, "source": "replay", "replay": "wave", "width": width, "height": height, "probe": True}
    ask = partial(call_server, address, token=token)
    session = (await ask("POST", "/api/sessions", wish))["id"]
    async with watch(address, session, token) as track:
        latencies_ms = await _time_pictures(track)
        await ask("PATCH", f"/api/sessions/{session}", {"probe": False})
        await ask("POST", f"/api/sessions/{session}/recording")
        seen = await _see(track, _FILM_S)
        recording = await ask("DELETE", f"/api/sessions/{session}/recording")
    _require_motion(seen)
    sheet = film.with_suffix(".png")
    step = len(seen) // _SHEET_PICTURES
    write_sheet(sheet, seen[::step][:_SHEET_PICTURES], columns=_SHEET_PICTURES)
    await asyncio.to_thread(_download, address + recording["url"], film, token)
    await ask("DELETE", recording["url"])
    p50, p95 = statistics.median(latencies_ms), float(np.percentile(latencies_ms, 95))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{len(seen)} pictures of {width}x{height} in {_FILM_S:g} s arrived by WebRTC, and they move")
    console.print(f"latency: server's drawing to decoded picture {p50:.0f} ms p50, {p95:.0f} ms p95, on this machine")
    console.print(f"wrote {film}: what the server recorded; {sheet}: what arrived", markup=False)


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
    frame = await next_picture(track)
    return frame if (frame.width, frame.height) == _SIZE else frame.reformat(*_SIZE)


def _require_motion(seen: list[np.ndarray]) -> None:
    first = seen[0].astype(np.int16)
    most = max(float(np.abs(picture - first).mean()) for picture in seen[:: max(len(seen) // 40, 1)])
    if most < _LEAST_MOTION:
        raise BackendError(
            f"the pictures stand still: they differ by {most:.2f} of 255, a waving person by more than 1"
        )


def _download(url: str, path: Path, token: str | None) -> None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    with _direct.open(request, timeout=PATIENCE_S) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)
