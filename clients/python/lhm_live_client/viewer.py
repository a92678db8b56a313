"""Watch a session without a screen: ``python -m lhm_live_client.viewer http://localhost:8080 SESSION --frames out``.

The latency is read off the picture: the server draws a time code into it (``probe``), which is its own clock, so it
means something on one machine or with clocks that are in step.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

_PERIOD_MS, _CELLS, _PATIENCE_S = 16_383, 32, 15.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


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

    def __str__(self) -> str:
        line = f"{self.frames} pictures of {self.size[0]}x{self.size[1]} in {self.seconds:.1f} s"
        for what, values in (("drawn", self.draw_to_decoded_ms), ("captured", self.capture_to_decoded_ms)):
            if values:
                p50, p95 = statistics.median(values), float(np.percentile(values, 95))
                line += f"\n{what} to decoded: {p50:.0f} ms p50, {p95:.0f} ms p95 ({len(values)} pictures)"
        return line


async def watch(
    address: str,
    session: str,
    *,
    seconds: float,
    frames: Path | None = None,
    every: int = 1,
    token: str | None = None,
) -> Watched:
    """Watch ``session`` of the server at ``address``; every so many pictures become a PNG in the folder ``frames``.

    Latency is measured with a ``token`` that may also drive; with one to watch only, where somebody else asked for time
    codes.

    Raises:
        PermissionError: the token is for something else.
        ConnectionError: no such session, no server, a token that is none, or no picture within fifteen seconds.
    """
    viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    tracks: list[MediaStreamTrack] = []
    viewer.on("track", tracks.append)
    seen = Watched()
    try:
        viewer.addTransceiver("video", direction="recvonly")
        await viewer.setLocalDescription(await viewer.createOffer())
        offer = viewer.localDescription.sdp.encode()
        answer = await asyncio.to_thread(_call, address, "POST", f"/whep/{session}", offer, "application/sdp", token)
        await viewer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        change = json.dumps({"probe": True}).encode()
        with contextlib.suppress(PermissionError):
            await asyncio.to_thread(
                _call, address, "PATCH", f"/api/sessions/{session}", change, "application/json", token
            )
        began: float | None = None
        while began is None or time.monotonic() - began < seconds:
            async with asyncio.timeout(_PATIENCE_S):
                frame: Any = await tracks[0].recv()
            now_ms = time.time() * 1e3
            began = time.monotonic() if began is None else began
            seen.frames, seen.size = seen.frames + 1, (frame.width, frame.height)
            drawn_ms, captured_ms = read_time_code(frame.to_ndarray(format="gray"))
            if drawn_ms is not None:
                seen.draw_to_decoded_ms.append(_elapsed_ms(now_ms, drawn_ms))
            if captured_ms is not None:
                seen.capture_to_decoded_ms.append(_elapsed_ms(now_ms, captured_ms))
            if frames is not None and (seen.frames - 1) % every == 0:
                await asyncio.to_thread(_save, frame, frames / f"{seen.frames:05d}.png")
        seen.seconds = time.monotonic() - began
    except TimeoutError as error:
        raise ConnectionError(f"no picture came within {_PATIENCE_S:g} s") from error
    except MediaStreamError as error:
        raise ConnectionError("the session has ended") from error
    finally:
        await viewer.close()
    return seen


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
        with _direct.open(request, timeout=_PATIENCE_S) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as refusal:
        kind = PermissionError if refusal.code == 403 else ConnectionError
        raise kind(f"{method} {path}: {refusal.read().decode(errors='replace')[:400]}") from refusal
    except urllib.error.URLError as error:
        raise ConnectionError(f"{address} does not answer: {error.reason}") from error


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Watch a session of an lhm-live server; print what came and how late.")
    parser.add_argument("address", help="http://HOST:8080")
    parser.add_argument("session")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--frames", type=Path, help="folder to write pictures to")
    parser.add_argument("--every", type=int, default=30, help="which pictures: every so many-th (30)")
    parser.add_argument("--token", help="where the server asks for one: lhm-live token --role drive")
    given = parser.parse_args()
    try:
        seen = asyncio.run(
            watch(
                given.address,
                given.session,
                seconds=given.seconds,
                frames=given.frames,
                every=max(given.every, 1),
                token=given.token,
            )
        )
    except OSError as error:
        sys.exit(f"error: {error}")
    print(seen)  # noqa: T201


if __name__ == "__main__":
    main()
