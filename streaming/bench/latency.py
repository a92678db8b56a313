"""``lhm-live bench latency``: how old the picture is when a real browser shows it, by time codes in its corner."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import av
import numpy as np
import typer
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from lhm_runtime.avatar import save_avatar
from lhm_runtime.errors import BackendError
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming.app import WEB, create_app
from streaming.avatar_store import AvatarFacts, AvatarStore, write_facts
from streaming.bench.chromium import Page, open_page
from streaming.bench.machine import this_machine
from streaming.config import Log, load_config
from streaming.encoder import Codec
from streaming.film import draw, plan_film
from streaming.logs import configure_logging
from streaming.services import Services
from streaming.settings import NewSession
from streaming.time_code import PERIOD_MS, draw_time_code, pack_time_code
from streaming.video_input import VideoInput

Browser = Literal["chromium"]

_CAMERA_SIZE: Final = (640, 480)
_CAMERA_FPS: Final = 30
_CAMERA_FRAMES: Final = 300
_CODE_STEP_MS: Final = 50
_WARM_UP_S: Final = 5.0
_GAUSSIANS: Final = 40_000

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
"""The page's corner read by other code than the page's own, which follows clients/web/src/live/probe.ts."""


def latency(
    browser: Annotated[Browser, typer.Option(help="Which browser.")] = "chromium",  # noqa: ARG001 - one so far
    codec: Annotated[Codec, typer.Option(help="What is encoded.")] = "h264",
    size: Annotated[int, typer.Option(min=128, max=2048, help="Width and height of the picture; even.")] = 512,
    fps: Annotated[int, typer.Option(min=1, max=60, help="Pictures a second.")] = 30,
    camera: Annotated[
        Path | None, typer.Option(help="A video that plays as the camera; the built-in person waves where left out.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Measured each, after five that are not.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Serve, open the page in a real headless browser with a fake camera, and time pictures on their way.

    draw to display: from when the server draws a picture to when the browser hands it to the screen. camera to
    display: from when the browser's camera gave a frame to when the avatar that follows it is there, with the server
    tracking. Browsers draw 60 times a second, so that each figure is rounded up to 17 ms.

    \b
    [bold]Examples[/bold]
      lhm-live bench latency
      lhm-live bench latency --codec vp8 --size 720 --json
      lhm-live bench latency --camera me.mp4
    """
    configure_logging(Log(level="warning"))  # standard output is for the report
    report = asyncio.run(measure(codec, size, fps, camera, seconds))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


async def measure(codec: Codec, size: int, fps: int, camera: Path | None, seconds: float) -> dict[str, Any]:
    """Everything the command prints."""
    if not (WEB / "index.html").is_file():
        raise BackendError("the page is not built on this machine: run make web")
    with tempfile.TemporaryDirectory(prefix="lhm-live-bench-") as name:
        folder = Path(name)
        film = folder / "camera.mjpeg"
        await asyncio.to_thread(_film_camera, camera, film)
        async with _served(folder, codec) as (address, services):
            wishes = {
                "draw_to_display": NewSession(avatar="builtin", source="replay", replay="wave"),
                "camera_to_display": NewSession(avatar="builtin", source="webcam"),
            }
            found = {}
            for title, wish in wishes.items():
                live = await services.sessions.start(
                    wish.model_copy(update={"probe": True, "width": size, "height": size, "fps": fps})
                )
                async with open_page(f"{address}/#session={live.id}", camera=film) as page:
                    found[title] = await _time(page, "glass" if wish.source == "webcam" else "draw", size, seconds)
                with contextlib.suppress(Exception):
                    await services.sessions.end(live.id, "measured")
    return {
        "machine": asdict(this_machine()),
        "stream": {"codec": codec, "size": size, "fps": fps, "camera": "builtin" if camera is None else camera.name},
        **found,
    }


async def _time(page: Page, kind: str, size: int, seconds: float) -> dict[str, Any]:
    await page.wait_for("document.getElementById('video')?.videoWidth > 0", 40.0)
    await page.evaluate(f"{_MEASURE}([{size}, {PERIOD_MS}, {_CAMERA_FRAMES * _CODE_STEP_MS}])")
    await page.wait_for(f"bench.{kind}.length > 5", 40.0)
    await asyncio.sleep(_WARM_UP_S)
    await page.evaluate("bench.draw.length = bench.glass.length = bench.frames = bench.unread = 0")
    await asyncio.sleep(seconds)
    bench = await page.evaluate("bench")
    times = np.array(bench[kind], float)
    if len(times) == 0:
        raise BackendError(f"no time code was read in {bench['frames']} pictures; the page says {page.console[-3:]}")
    return {
        "p50_ms": round(float(np.percentile(times, 50)), 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1),
        "pictures": len(times),
        "pictures_per_second": round(bench["frames"] / seconds, 1),
        "unread": bench["unread"],
    }


@asynccontextmanager
async def _served(folder: Path, codec: Codec) -> AsyncIterator[tuple[str, Services]]:
    """A server of its own, with the built-in person."""
    store = AvatarStore(folder / "avatars")
    person = await asyncio.to_thread(build_person, _GAUSSIANS)
    save_avatar(person, store.avatar_path("builtin"))
    facts = AvatarFacts("Built-in", person.metadata.reconstructor, person.metadata.created_at)
    write_facts(store.facts_path("builtin"), facts)
    config = load_config(storage={"data": folder}, video={"codecs": [codec]}, log={"level": "error"})
    app: FastAPI = create_app(config)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="websockets-sansio"))
    serving = asyncio.create_task(server.serve(), name="serve")
    while not server.started:
        if serving.done():
            raise BackendError("the server did not start")
        await asyncio.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app.state.services
    finally:
        server.should_exit = True
        await serving


def _film_camera(video: Path | None, path: Path) -> None:
    """A camera's pictures with a time code in each corner, which tells them apart."""
    width, height = _CAMERA_SIZE
    with av.open(path, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=_CAMERA_FPS, options={"q:v": "2"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for index, rgb in enumerate(_take(_wave() if video is None else _play(video))):
            frame = av.VideoFrame.from_ndarray(_fit(rgb), format="rgb24")
            planes = frame.reformat(width, height, format="yuvj420p").to_ndarray()
            draw_time_code(planes, pack_time_code(index * _CODE_STEP_MS, None))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuvj420p")))
        container.mux(stream.encode())


def _take(pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for _, picture in zip(range(_CAMERA_FRAMES), pictures, strict=False):
        yield picture


def _wave() -> Iterator[np.ndarray]:
    film = plan_film(build_person(), "wave", size=_CAMERA_SIZE, fps=float(_CAMERA_FPS))
    with Renderer(film.avatar) as renderer:
        for _ in range(-(-_CAMERA_FRAMES // len(film))):
            yield from draw(film, renderer, "rgb", background=(0.8, 0.82, 0.85))


def _play(video: Path) -> Iterator[np.ndarray]:
    with VideoInput(str(video)) as opened:
        for frame in opened:
            yield frame.rgb


def _fit(rgb: np.ndarray) -> np.ndarray:
    """The middle of a picture, in the camera's shape."""
    height, width = rgb.shape[:2]
    wanted = _CAMERA_SIZE[0] / _CAMERA_SIZE[1]
    w, h = min(width, round(height * wanted)), min(height, round(width / wanted))
    top, left = (height - h) // 2, (width - w) // 2
    return np.ascontiguousarray(rgb[top : top + h, left : left + w])


def _print(report: dict[str, Any]) -> None:
    stream, console = report["stream"], Console()
    table = Table(title=f"{stream['codec']}, {stream['size']}x{stream['size']}, {stream['fps']} fps, Chromium")
    for title in ("way", "p50 ms", "p95 ms", "pictures a second"):
        table.add_column(title, justify="left" if title == "way" else "right")
    for way in ("draw_to_display", "camera_to_display"):
        row = report[way]
        table.add_row(way.replace("_", " "), f"{row['p50_ms']}", f"{row['p95_ms']}", f"{row['pictures_per_second']}")
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), style="dim")
