"""Watch a session without a screen: ``python -m lhm_live_client.viewer http://localhost:8080 SESSION --frames out``.

The latency is read off the picture: the server draws a time code into it (``probe``), which is its own clock, so it
means something on one machine or with clocks that are in step.

A viewer whose picture stops comes back by itself: a cluster's sessions begin again elsewhere when a machine is lost.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import secrets
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

_PERIOD_MS, _CELLS = 16_383, 32
_PATIENCE_S = 30.0
"""So long it tries to come back; a cluster that is not full needs a few seconds."""
_SILENT_S, _FIRST_S, _ANSWER_S = 2.0, 10.0, 15.0
"""So long the next picture, the first one and an answer are waited for."""
_LEAST_WAIT_S, _MOST_WAIT_S = 0.2, 5.0

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_log = logging.getLogger(__name__)


class _LostError(Exception):
    """There is no picture now; there may be one later."""

    def __init__(self, why: str, after_s: float = 0.0, *, is_reached: bool = True) -> None:
        super().__init__(why)
        self.after_s, self.is_reached = after_s, is_reached


@dataclass
class Watched:
    """What was seen."""

    frames: int = 0
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)
    draw_to_decoded_ms: list[float] = field(default_factory=list)
    """From the server's drawing to the decoded picture; empty without time codes."""
    capture_to_decoded_ms: list[float] = field(default_factory=list)
    """The same from the capture time of what drove it, on the sender's clock."""
    breaks_s: list[float] = field(default_factory=list)
    """From the last picture of a connection to the first of the next one, for each time that it came back."""

    def __str__(self) -> str:
        line = f"{self.frames} pictures of {self.size[0]}x{self.size[1]} in {self.seconds:.1f} s"
        for what, values in (("drawn", self.draw_to_decoded_ms), ("captured", self.capture_to_decoded_ms)):
            if values:
                p50, p95 = statistics.median(values), float(np.percentile(values, 95))
                line += f"\n{what} to decoded: {p50:.0f} ms p50, {p95:.0f} ms p95 ({len(values)} pictures)"
        if self.breaks_s:
            line += f"\ncame back {len(self.breaks_s)} times; the longest break was {max(self.breaks_s):.1f} s"
        return line


async def watch(
    address: str,
    session: str,
    *,
    seconds: float,
    frames: Path | None = None,
    every: int = 1,
    token: str | None = None,
    patience_s: float = _PATIENCE_S,
    seen: Watched | None = None,
) -> Watched:
    """Watch ``session`` of the server at ``address``; every so many pictures become a PNG in the folder ``frames``.

    Latency is measured with a ``token`` that may also drive; with one to watch only, where somebody else asked for time
    codes. When the picture stops it connects again, for as long as ``patience_s``; the log says so. What was seen goes
    into ``seen`` as it comes.

    Raises:
        PermissionError: the token is for something else.
        ConnectionError: no such session, or no longer; no server; a token that is none; no picture for ``patience_s``.
    """
    seen = Watched() if seen is None else seen
    began: float | None = None
    last, tries = time.monotonic(), 0
    while began is None or time.monotonic() - began < seconds:
        try:
            async with contextlib.aclosing(_connect(address, session, token)) as pictures:
                async for frame in pictures:
                    now = time.monotonic()
                    if began is None:
                        began = now
                    elif tries:
                        seen.breaks_s.append(now - last)
                    last, tries, seen.seconds = now, 0, now - began
                    _note(seen, frame)
                    if frames is not None and (seen.frames - 1) % every == 0:
                        await asyncio.to_thread(_save, frame, frames / f"{seen.frames:05d}.png")
                    if seen.seconds >= seconds:
                        break
        except _LostError as lost:
            wait_s = max(lost.after_s, _backoff_s(tries))
            tries += 1
            if (began is None and not lost.is_reached) or time.monotonic() + wait_s - last > patience_s:
                raise ConnectionError(f"no picture within {patience_s:g} s: {lost}") from lost
            _log.warning("%s; connecting again in %.1f s (try %d)", lost, wait_s, tries)
            await asyncio.sleep(wait_s)
    seen.seconds = time.monotonic() - began
    if tries:  # it was away when the time was over
        seen.breaks_s.append(time.monotonic() - last)
    return seen


def _backoff_s(tries: int) -> float:
    """Longer each time, and not the same for all who lost the same session."""
    longest_s: float = min(_LEAST_WAIT_S * 2**tries, _MOST_WAIT_S)
    return longest_s * secrets.SystemRandom().uniform(0.5, 1.0)


async def _connect(address: str, session: str, token: str | None) -> AsyncGenerator[Any, None]:
    """The pictures of one connection; raises _LostError when there are no more."""
    viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    tracks: list[MediaStreamTrack] = []
    farewells: list[str] = []
    within_s = _FIRST_S

    def hear(text: str) -> None:
        match json.loads(text):
            case {"type": "bye", "reason": str(reason)}:
                farewells.append(reason)

    viewer.on("track", tracks.append)
    viewer.createDataChannel("control").on("message", hear)
    try:
        viewer.addTransceiver("video", direction="recvonly")
        await viewer.setLocalDescription(await viewer.createOffer())
        offer = viewer.localDescription.sdp.encode()
        answer = await asyncio.to_thread(_call, address, "POST", f"/whep/{session}", offer, "application/sdp", token)
        await viewer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        change = json.dumps({"probe": True}).encode()
        with contextlib.suppress(PermissionError, ConnectionError, _LostError):
            await asyncio.to_thread(
                _call, address, "PATCH", f"/api/sessions/{session}", change, "application/json", token
            )
        while True:
            async with asyncio.timeout(within_s):
                frame = await tracks[0].recv()
            yield frame
            within_s = _SILENT_S
            if farewells:  # of a session that has moved: pictures go on here until everybody has followed
                raise _LostError(f"the server said goodbye: {farewells[-1]}")
    except TimeoutError as error:
        raise _LostError(f"no picture for {within_s:g} s") from error
    except MediaStreamError as error:
        raise _LostError("the server has closed the connection") from error
    finally:
        await viewer.close()


def _note(seen: Watched, frame: Any) -> None:
    now_ms = time.time() * 1e3
    seen.frames, seen.size = seen.frames + 1, (frame.width, frame.height)
    drawn_ms, captured_ms = read_time_code(frame.to_ndarray(format="gray"))
    if drawn_ms is not None:
        seen.draw_to_decoded_ms.append(_elapsed_ms(now_ms, drawn_ms))
    if captured_ms is not None:
        seen.capture_to_decoded_ms.append(_elapsed_ms(now_ms, captured_ms))


def read_time_code(gray: np.ndarray) -> tuple[int | None, int | None]:
    """When a picture was drawn and what drove it captured, milliseconds modulo 16383; None where it does not say.

    The corner has 32 cells of 4 x 8 pixels, lowest bit first: 14 bits each, then a check of 4 (streaming/time_code.py).
    """
    if gray.shape[1] < 4 * _CELLS:
        return None, None
    cells = gray[2:6, : 4 * _CELLS].reshape(4, _CELLS, 4)[:, :, 1:3].mean(axis=(0, 2))
    code = sum(1 << bit for bit, level in enumerate(cells) if level > 126)
    check = 0b1010
    for nibble in range(7):
        check ^= code >> 4 * nibble & 15
    drawn, captured = code & 16_383, code >> 14 & 16_383
    if code >> 28 != check or drawn == 16_383:
        return None, None
    return drawn, None if captured == 16_383 else captured


def _elapsed_ms(now_ms: float, stamp_ms: int) -> float:
    elapsed = (now_ms - stamp_ms) % _PERIOD_MS
    return elapsed if elapsed < _PERIOD_MS / 2 else elapsed - _PERIOD_MS


def _save(frame: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_image().save(path)


def _call(address: str, method: str, path: str, body: bytes, content: str, token: str | None) -> str:
    headers = {"Content-Type": content, **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(address.rstrip("/") + path, body, headers, method=method)  # noqa: S310
    try:
        with _direct.open(request, timeout=_ANSWER_S) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as refusal:
        said = f"{method} {path}: {refusal.read().decode(errors='replace')[:400]}"
        if refusal.code in {429, 502, 503, 504}:
            after = refusal.headers.get("Retry-After") or ""
            raise _LostError(said, float(after) if after.isdecimal() else 0.0) from refusal
        raise (PermissionError if refusal.code == 403 else ConnectionError)(said) from refusal
    except (OSError, HTTPException) as error:
        raise _LostError(f"{address} does not answer: {error}", is_reached=False) from error


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Watch a session of an lhm-live server; print what came and how late.")
    parser.add_argument("address", help="http://HOST:8080")
    parser.add_argument("session")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--frames", type=Path, help="folder to write pictures to")
    parser.add_argument("--every", type=int, default=30, help="which pictures: every so many-th (30)")
    parser.add_argument("--token", help="where the server asks for one: lhm-live token --role drive")
    parser.add_argument(
        "--patience", type=float, default=_PATIENCE_S, help=f"seconds to try to come back ({_PATIENCE_S:g})"
    )
    given = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    try:
        seen = asyncio.run(
            watch(
                given.address,
                given.session,
                seconds=given.seconds,
                frames=given.frames,
                every=max(given.every, 1),
                token=given.token,
                patience_s=given.patience,
            )
        )
    except OSError as error:
        sys.exit(f"error: {error}")
    print(seen)  # noqa: T201


if __name__ == "__main__":
    main()
