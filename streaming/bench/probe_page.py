"""What a benchmark runs inside a page: reads time codes off the videos and the browser's own counters."""

from typing import Any, Final

from streaming.bench.chromium import Page
from streaming.time_code import PERIOD_MS

KEEP_CONNECTIONS: Final = """{
  const Stock = window.RTCPeerConnection
  window.benchConnections = []
  window.RTCPeerConnection = class extends Stock {
    constructor(...settings) { super(...settings); window.benchConnections.push(this) }
  }
}"""
"""Runs before the page's own scripts, so that ``read_counters`` finds its connections."""

_MEASURE: Final = """(([width, period, loop]) => {
  const W = 128, H = 8, pens = {}
  const read = (video, scale, name) => {
    const pen = pens[name] ??= new OffscreenCanvas(W, H).getContext('2d', { willReadFrequently: true })
    pen.drawImage(video, 0, 0, W * scale, H * scale, 0, 0, W, H)
    const { data } = pen.getImageData(0, 0, W, H)
    let code = 0
    for (let bit = 0; bit < 32; bit++) {
      let sum = 0
      for (let y = 2; y < 6; y++) for (let x = 4 * bit + 1; x < 4 * bit + 3; x++) sum += data[4 * (y * W + x) + 1]
      if (sum / 8 > 127) code |= 1 << bit
    }
    let check = 10
    for (let shift = 0; shift < 28; shift += 4) check ^= (code >>> shift) & 15
    return code >>> 28 === check ? [code & 16383, (code >>> 14) & 16383] : null
  }
  const each = (video, act) => {
    const next = () => video.requestVideoFrameCallback((_, about) => { next(); act(about) })
    next()
  }
  const since = (now, stamp) => (((now - stamp + period / 8) % period) + period) % period - period / 8
  const bench = window.bench = { draw: [], glass: [], frames: 0, unread: 0 }
  const shown = new Map(), main = document.getElementById('video'), self = document.getElementById('self-video')
  if (self) each(self, (about) => {
    const code = read(self, 1, 'self')
    if (code) shown.set(code[0], about.captureTime ?? performance.now())
  })
  let last = -1
  each(main, () => {
    const code = read(main, main.videoWidth / width, 'main'), now = performance.now()
    bench.frames++
    if (!code) { bench.unread++; return }
    bench.draw.push(since(performance.timeOrigin + now, code[0]))
    // the camera's stamps only grow, and never by seconds: anything else is the same again, or misread
    const step = (code[1] - last + loop) % loop
    if (!shown.has(code[1]) || (last >= 0 && !(step > 0 && step < loop / 5))) return
    last = code[1]
    const age = now - shown.get(code[1])
    if (age < 5000) bench.glass.push(age) // else it was shown in the film's pass before, and missed in this one
    else bench.unread++
  })
})"""
"""The corner read by other code than the page's own, which follows clients/web/src/live/probe.ts."""

_COUNTERS: Final = """(async () => {
  const found = {}
  for (const connection of window.benchConnections) {
    if (connection.connectionState !== 'connected') continue
    const report = await connection.getStats()
    for (const entry of report.values()) {
      if (entry.kind !== 'video' || !['inbound-rtp', 'outbound-rtp'].includes(entry.type)) continue
      found[entry.type] = { ...entry, codec: report.get(entry.codecId)?.mimeType }
    }
  }
  return found
})()"""


async def start_reading(page: Page, width: int, loop_ms: int) -> None:
    """Read the codes of every frame shown; ``width``: of the server's pictures, ``loop_ms``: of the camera's codes."""
    await page.evaluate(f"{_MEASURE}([{width}, {PERIOD_MS}, {loop_ms}])")


async def restart_reading(page: Page) -> None:
    """Forget what was read so far."""
    await page.evaluate("bench.draw.length = bench.glass.length = bench.frames = bench.unread = 0")


async def read_codes(page: Page) -> dict[str, Any]:
    """Ages of the frames shown in ms: ``draw`` since drawn, ``glass`` since the camera; ``frames`` and ``unread``."""
    codes: dict[str, Any] = await page.evaluate("bench")
    return codes


async def read_counters(page: Page) -> dict[str, dict[str, Any]]:
    """The browser's statistics (W3C webrtc-stats) of video received and sent: ``inbound-rtp``, ``outbound-rtp``."""
    counters: dict[str, dict[str, Any]] = await page.evaluate(_COUNTERS)
    return counters


def browser_parts(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Mean milliseconds a frame spent inside the browser between two ``read_counters``."""

    def mean(kind: str, seconds: str, count: str) -> float | None:
        one, two = before.get(kind, {}), after.get(kind, {})
        frames = two.get(count, 0) - one.get(count, 0)
        return round(1e3 * (two.get(seconds, 0.0) - one.get(seconds, 0.0)) / frames, 2) if frames else None

    parts = {
        "camera_encode": mean("outbound-rtp", "totalEncodeTime", "framesEncoded"),
        "camera_send_queue": mean("outbound-rtp", "totalPacketSendDelay", "packetsSent"),
        "jitter_buffer": mean("inbound-rtp", "jitterBufferDelay", "jitterBufferEmittedCount"),
        "decode": mean("inbound-rtp", "totalDecodeTime", "framesDecoded"),
    }
    return {name: value for name, value in parts.items() if value is not None}
