"""``lhm-live bench audio``: whether a viewer hears a clap when the avatar claps, and what sound costs the pictures."""

import asyncio
import contextlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console

from lhm_runtime.errors import BackendError
from streaming.app import WEB
from streaming.bench.chromium import Page, open_page
from streaming.bench.clapper import PERIOD_S, clapping
from streaming.bench.latency import serve_builtin
from streaming.bench.machine import this_machine
from streaming.bench.probe_page import KEEP_CONNECTIONS
from streaming.config import Log
from streaming.logs import configure_logging
from streaming.settings import NewSession, SettingsChange

_WARM_UP_S: Final = 6.0
_LISTEN: Final = """(() => {
  const video = document.getElementById('video'), W = 64, H = 64
  const pen = new OffscreenCanvas(W, H).getContext('2d', { willReadFrequently: true })
  const clap = window.clap = { frames: [], clicks: [], lagMs: 0 }
  const next = () => video.requestVideoFrameCallback(() => {
    next()
    const now = performance.now()
    // not the corner, where the time code is
    pen.drawImage(video, 0, video.videoHeight / 8, video.videoWidth, video.videoHeight * 7 / 8, 0, 0, W, H)
    const { data } = pen.getImageData(0, 0, W, H)
    const green = new Uint8Array(W * H).map((_, i) => data[4 * i + 1])
    if (clap.last) clap.frames.push([now, green.reduce((sum, value, i) => sum + Math.abs(value - clap.last[i]), 0)])
    clap.last = green
  })
  next()
  const connection = window.benchConnections.find(({ connectionState }) => connectionState === 'connected')
  setInterval(async () => {
    for (const entry of (await connection.getStats()).values()) {
      if (entry.type === 'media-playout' && entry.totalSamplesCount)
        clap.lagMs = 1000 * entry.totalPlayoutDelay / entry.totalSamplesCount
      if (entry.type === 'inbound-rtp' && entry.kind === 'audio') clap.player = entry
    }
  }, 500)
  const { track } = connection.getReceivers().find(({ track }) => track.kind === 'audio')
  const reader = new MediaStreamTrackProcessor({ track }).readable.getReader()
  ;(async () => {
    let quietSince = 0
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return
      const now = performance.now(), samples = new Float32Array(value.numberOfFrames)
      value.copyTo(samples, { planeIndex: 0, format: 'f32-planar' })
      const at = samples.findIndex((sample) => Math.abs(sample) > 0.15)
      if (at >= 0 && now - quietSince > 300) clap.clicks.push(now + 1000 * at / value.sampleRate + clap.lagMs)
      if (at >= 0) quietSince = now
      value.close()
    }
  })()
})()"""
"""When the picture changed and by how much, and when clicks came out of the player."""


def audio(
    seconds: Annotated[float, typer.Option(min=5, max=600, help="Measured, after some that are not.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a clap in a real headless browser: a driver's arms move and its microphone clicks at the same instants.

    Positive: the click comes after the avatar has gone half the way to its new pose. Draw to display is measured
    without and with sound: sound must not hold pictures back.

    \b
    [bold]Examples[/bold]
      lhm-live bench audio
      lhm-live bench audio --seconds 60 --json
    """
    configure_logging(Log(level="warning"))
    report = asyncio.run(measure(seconds))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    sound, machine = report["sound_after_picture_ms"], report["machine"]
    console = Console()
    console.print(
        f"sound after picture: p50 {sound['p50']} ms, p5 {sound['p5']}, p95 {sound['p95']}; {sound['claps']} claps"
    )
    console.print(f"draw to display: {report['draw_to_display_p50_ms']}")
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()), style="dim")


async def measure(seconds: float) -> dict[str, Any]:
    """Everything the command prints."""
    if not (WEB / "view.html").is_file():
        raise BackendError("the page is not built on this machine: run make web")
    machine = this_machine()
    with tempfile.TemporaryDirectory(prefix="lhm-live-bench-") as folder:
        async with serve_builtin(Path(folder), "h264") as (address, services):
            wish = NewSession(avatar="builtin", source="browser", probe=True, width=512, height=512, fps=30)
            live = await services.sessions.start(wish)
            async with (
                clapping(services, live.id),
                open_page(f"{address}/view/{live.id}?audio=1&probe=1", first=KEEP_CONNECTIONS) as page,
            ):
                await page.wait_for("document.getElementById('video')?.videoWidth > 0", 40.0)
                await asyncio.sleep(_WARM_UP_S)
                silent = await _draw_to_display(page, seconds / 2)
                live.change(SettingsChange(audio=True))
                await asyncio.sleep(_WARM_UP_S)
                await page.evaluate(_LISTEN)
                await asyncio.sleep(_WARM_UP_S)
                before = await page.evaluate("clap.frames.length = clap.clicks.length = 0, clap.player")
                heard = await _draw_to_display(page, seconds)
                found = await page.evaluate(
                    "({ frames: clap.frames, clicks: clap.clicks, lag: clap.lagMs, player: clap.player })"
                )
                hub = live.audio
                held = [round(1e3 * track.player_s, 1) for track in hub.listeners]
            with contextlib.suppress(Exception):
                await services.sessions.end(live.id, "measured")
    skews = compare(np.array(found["frames"], float), np.array(found["clicks"], float))
    if len(skews) == 0:
        raise BackendError(f"{len(found['frames'])} pictures and {len(found['clicks'])} clicks came, but no clap")
    p5, p50, p95 = (round(float(value), 1) for value in np.percentile(skews, [5, 50, 95]))
    return {
        "machine": asdict(machine),
        "sound_after_picture_ms": {"p5": p5, "p50": p50, "p95": p95, "claps": len(skews)},
        "draw_to_display_p50_ms": {"without_sound": silent, "with_sound": heard},
        "avatar_delay_ms": round(1e3 * hub.delay_s, 1),
        "player_says_ms": held,
        "player": _player(before, found["player"]) | {"loudspeaker_ms": round(found["lag"], 1)},
    }


def compare(frames: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """Milliseconds from picture to sound, of every clap that was both seen and heard.

    Args:
        frames: [n, 2] when each picture was shown, ms, and how far it was from the one before.
        clicks: [m] when each click was heard, ms.
    """
    skews = []
    for click in clicks:
        near = frames[abs(frames[:, 0] - click) < 1e3 * PERIOD_S / 2]
        if len(near) < 10 or near[:, 1].max() < 5 * np.median(near[:, 1]) + 1:
            continue
        gone = np.cumsum(np.maximum(near[:, 1] - np.median(near[:, 1]), 0))
        skews.append(click - near[np.searchsorted(gone, gone[-1] / 2), 0])
    return np.array(skews)


def _player(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What the browser says of its sound buffer between two looks (W3C webrtc-stats)."""
    samples = max(after["jitterBufferEmittedCount"] - before["jitterBufferEmittedCount"], 1)
    buffered, target = (
        round(1e3 * (after[name] - before[name]) / samples, 1)
        for name in ("jitterBufferDelay", "jitterBufferTargetDelay")
    )
    concealed = after["concealedSamples"] - before["concealedSamples"]
    return {
        "buffer_ms": buffered,
        "buffer_wanted_ms": target,
        "jitter_ms": round(1e3 * after["jitter"], 1),
        "concealed_percent": round(100 * concealed / samples, 1),
        "packets_lost": after["packetsLost"] - before["packetsLost"],
    }


async def _draw_to_display(page: Page, seconds: float) -> float:
    await page.evaluate("window.seenBefore = lhm.drawToDisplay.length")
    await asyncio.sleep(seconds)
    ages = await page.evaluate("lhm.drawToDisplay.slice(seenBefore)")
    if not ages:
        raise BackendError(f"no time code was read; the page says {page.console[-3:]}")
    return round(float(np.median(ages)), 1)
