"""``lhm-live bench latency``: how old the picture is when a real browser shows it, by time codes in its corner."""

import asyncio
import contextlib
import json
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import av
import numpy as np
import typer
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from lhm_runtime.avatar import save_avatar
from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming import metrics
from streaming.app import WEB, create_app
from streaming.avatar_store import AvatarFacts, AvatarStore, write_facts
from streaming.bench.audience import find_janus, run_janus
from streaming.bench.chromium import Page, open_page
from streaming.bench.cpu_split import read_cpu_clock
from streaming.bench.machine import this_machine
from streaming.bench.probe_page import (
    KEEP_CONNECTIONS,
    browser_parts,
    read_codes,
    read_counters,
    restart_reading,
    start_reading,
)
from streaming.bench.stock_server import stock_server
from streaming.config import MAX_SIDE, Log, load_config
from streaming.encoder import Codec
from streaming.film import draw, plan_film
from streaming.logs import configure_logging
from streaming.relay.relaying import Relaying
from streaming.services import Services
from streaming.settings import NewSession
from streaming.time_code import draw_time_code, pack_time_code
from streaming.video_input import VideoInput

Browser = Literal["chromium"]
Way = Literal["draw_to_display", "camera_to_display"]

_CAMERA_SIZE: Final = (640, 480)
_CAMERA_FPS: Final = 30
_CAMERA_FRAMES: Final = 300
_CODE_STEP_MS: Final = 50
_WARM_UP_S: Final = 5.0
_GAUSSIANS: Final = 40_000
_RELAY: Final = "hall"
_SERVERS: Final = ("ours", "janus", "stock")
_SIDES = re.compile(r"(\d+)(?:x(\d+))?")
_STAGES: Final = ("arrival_to_landmarks", "convert", "track", "solve", "render", "encode")

_Entered = TypeVar("_Entered")


@dataclass(frozen=True, slots=True)
class _Stream:
    codec: Codec
    width: int
    height: int
    fps: int


def latency(
    browser: Annotated[Browser, typer.Option(help="Which browser.")] = "chromium",  # noqa: ARG001 - one so far
    codec: Annotated[Codec, typer.Option(help="What is encoded.")] = "h264",
    size: Annotated[str, typer.Option(help="Of the picture: its side, or WIDTHxHEIGHT; even.")] = "512",
    fps: Annotated[int, typer.Option(min=1, max=60, help="Pictures a second.")] = 30,
    camera: Annotated[
        Path | None, typer.Option(help="A video that plays as the camera; the built-in person waves where left out.")
    ] = None,
    way: Annotated[Way | None, typer.Option(help="Measure only this way.")] = None,
    stock: Annotated[bool, typer.Option(help="Measure a plain aiortc server beside ours.")] = True,
    janus: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Settings of a Janus (deploy/janus): measure its viewers, too."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Ours and the plain one in turn; medians count.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Measured each, after five that are not.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Serve, open the page in a real headless browser with a fake camera, and time pictures on their way.

    draw to display: from when the server has drawn a picture to when the browser hands it to the screen, with a
    recorded motion as the driver. camera to display: from when the browser's camera gave a frame to when the avatar
    that follows it is there, with the server tracking. Browsers draw 60 times a second, so that each figure is rounded
    up to 17 ms. Everything runs on this machine, the browser too: the report says who used the processors. With
    --janus the first way is taken a second time by a relay; this machine needs an address other than 127.0.0.1.

    \b
    [bold]Examples[/bold]
      lhm-live bench latency
      lhm-live bench latency --camera me.mp4 --json
      lhm-live bench latency --way draw_to_display --fps 60
      lhm-live bench latency --way draw_to_display --no-stock --janus deploy/janus
      lhm-live bench latency --size 720x1280 --codec vp8 --no-stock
    """
    configure_logging(Log(level="warning"))  # standard output is for the report
    width, height = parse_size(size)
    ways: list[Way] = [way] if way else ["draw_to_display", "camera_to_display"]
    if janus is not None:
        find_janus()  # now, not in a minute
    stream = _Stream(codec, width, height, fps)
    report = asyncio.run(measure(stream, camera, ways, seconds, rounds, stock=stock, janus=janus))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def parse_size(text: str) -> tuple[int, int]:
    """``512`` or ``720x1280`` as width and height; raises InvalidInputError for anything else."""
    match = _SIDES.fullmatch(text)
    width, height = (0, 0) if match is None else (int(match[1]), int(match[2] or match[1]))
    if not all(128 <= side <= MAX_SIDE and side % 2 == 0 for side in (width, height)):
        raise InvalidInputError(f"size is {text!r}, expected 512 or 720x1280: even sides from 128 to {MAX_SIDE}")
    return width, height


async def measure(
    stream: _Stream,
    camera: Path | None,
    ways: Sequence[Way],
    seconds: float,
    rounds: int,
    *,
    stock: bool,
    janus: Path | None = None,
) -> dict[str, Any]:
    """Everything the command prints."""
    if not (WEB / "index.html").is_file():
        raise BackendError("the page is not built on this machine: run make web")
    machine = this_machine()
    runs: dict[Way, dict[str, list[dict[str, Any]]]] = {way: {server: [] for server in _SERVERS} for way in ways}
    with tempfile.TemporaryDirectory(prefix="lhm-live-bench-") as name:
        folder = Path(name)
        film = folder / "camera.y4m"
        if "camera_to_display" in ways:
            await asyncio.to_thread(_film_camera, camera, film)
        for _ in range(rounds):
            for way in ways:
                runs[way]["ours"].append(await _measure_ours(stream, way, film, folder, seconds))
                if janus is not None and way == "draw_to_display":
                    runs[way]["janus"].append(await _measure_ours(stream, way, film, folder, seconds, janus))
                if stock:
                    runs[way]["stock"].append(await _measure_stock(stream, way, film, seconds))
    return {
        "machine": asdict(machine),
        "stream": {**asdict(stream), "camera": "builtin" if camera is None else camera.name},
        "rounds": rounds,
        **{way: _summary(found) for way, found in runs.items()},
    }


async def _measure_ours(
    stream: _Stream, way: Way, film: Path, folder: Path, seconds: float, janus: Path | None = None
) -> dict[str, Any]:
    """Ours; to a viewer by way of a Janus with the settings in ``janus``, where that is given."""
    secret = secrets.token_hex(16)
    async with AsyncExitStack() as stack:
        relay: dict[str, Any] = {}
        if janus is not None:
            relay = {_RELAY: {"kind": "janus", "secret": secret, "codec": stream.codec}}
            await _enter(stack, run_janus(janus, secret))
        address, services = await stack.enter_async_context(serve_builtin(folder, stream.codec, relay))
        wish = NewSession(
            avatar="builtin",
            source="replay" if way == "draw_to_display" else "webcam",
            replay="wave" if way == "draw_to_display" else None,
            probe=True,
            width=stream.width,
            height=stream.height,
            fps=stream.fps,
            relay=_RELAY if janus else None,
        )
        live = await services.sessions.start(wish)
        if janus is not None:
            await _reach(services.sessions.relays.get(live))
        watched = f"view/{live.id}{'' if janus is None else '?via=janus'}"
        url = f"{address}/{watched if way == 'draw_to_display' else f'#session={live.id}'}"
        page = await stack.enter_async_context(open_page(url, camera=_camera(way, film), first=KEEP_CONNECTIONS))
        found = await _time(page, way, stream.width, seconds, server=True)
        with contextlib.suppress(Exception):
            await services.sessions.end(live.id, "measured")
        return found


async def _reach(relaying: Relaying) -> None:
    """Wait until the pictures go there; raises BackendError where they do not."""
    while relaying.state != "live":
        if relaying.state == "waiting":
            raise BackendError(f"the session does not reach its relay: {relaying.problem}")
        await asyncio.sleep(0.05)


async def _measure_stock(stream: _Stream, way: Way, film: Path, seconds: float) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        address = await _enter(stack, stock_server(_GAUSSIANS, (stream.width, stream.height), stream.fps))
        url = f"{address}/?codec={stream.codec}{'&camera' if way == 'camera_to_display' else ''}"
        page = await stack.enter_async_context(open_page(url, camera=_camera(way, film), first=KEEP_CONNECTIONS))
        return await _time(page, way, stream.width, seconds, server=False)


async def _enter(stack: AsyncExitStack, blocking: AbstractContextManager[_Entered]) -> _Entered:
    """Begin and end in other threads what takes its time."""
    entered = await asyncio.to_thread(blocking.__enter__)
    stack.push_async_callback(asyncio.to_thread, blocking.__exit__, None, None, None)
    return entered


def _camera(way: Way, film: Path) -> Path | None:
    return film if way == "camera_to_display" else None


async def _time(page: Page, way: Way, width: int, seconds: float, *, server: bool) -> dict[str, Any]:
    kind = "glass" if way == "camera_to_display" else "draw"
    await page.wait_for("document.getElementById('video')?.videoWidth > 0", 40.0)
    await start_reading(page, width, _CAMERA_FRAMES * _CODE_STEP_MS)
    await page.wait_for(f"bench.{kind}.length > 5", 40.0)
    await asyncio.sleep(_WARM_UP_S)
    counters, stages, cpu = await read_counters(page), _stage_sums(), read_cpu_clock()
    await restart_reading(page)
    await asyncio.sleep(seconds)
    codes = await read_codes(page)
    parts = browser_parts(counters, await read_counters(page))
    shares = read_cpu_clock().shares_since(cpu)
    times = np.array(codes[kind], float)
    if len(times) == 0:
        raise BackendError(f"no time code was read in {codes['frames']} pictures; the page says {page.console[-3:]}")
    means = _stage_means(stages, _stage_sums()) if server else {}
    return {
        "p50_ms": round(float(np.percentile(times, 50)), 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1),
        "mean_ms": round(float(times.mean()), 1),
        "draw_to_display_mean_ms": round(float(np.mean(codes["draw"])), 1),
        "pictures": len(times),
        "pictures_per_second": round(codes["frames"] / seconds, 1),
        "fresh_poses_per_second": round(len(times) / seconds, 1) if kind == "glass" else None,
        "unread": codes["unread"],
        "server_parts_mean_ms": means,
        "browser_parts_mean_ms": parts,
        "cpu_percent_of_a_core": shares,
    }


def _stage_sums() -> dict[str, tuple[float, float]]:
    """Seconds and frames of each stage so far."""
    found: dict[tuple[str, str], float] = {
        (sample.labels["stage"], sample.name.rpartition("_")[2]): sample.value
        for sample in next(iter(metrics.STAGE_SECONDS.collect())).samples
        if "stage" in sample.labels
    }
    return {name: (found.get((name, "sum"), 0.0), found.get((name, "count"), 0.0)) for name in _STAGES}


def _stage_means(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    means = {}
    for name, (seconds, frames) in after.items():
        if frames > before[name][1]:
            means[name] = round(1e3 * (seconds - before[name][0]) / (frames - before[name][1]), 2)
    return means


def _summary(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and how many times longer the plain server takes."""
    summary: dict[str, Any] = {}
    for server, found in runs.items():
        if found:
            keys = ("p50_ms", "p95_ms", "pictures_per_second", "fresh_poses_per_second")
            rows = {key: [run[key] for run in found if run[key] is not None] for key in keys}
            summary[server] = {key: float(np.median(row)) for key, row in rows.items() if row} | {"runs": found}
    for other in {"stock", "janus"} & set(summary):
        for key in ("p50_ms", "p95_ms"):
            summary[f"{other}_to_ours_{key[:3]}"] = round(summary[other][key] / max(summary["ours"][key], 0.1), 2)
    return summary


@asynccontextmanager
async def serve_builtin(
    folder: Path,
    codec: Codec,
    relay: Mapping[str, Any] = {},
) -> AsyncIterator[tuple[str, Services]]:
    """A server of its own, with the built-in person; ``relay`` as in the settings."""
    store = AvatarStore(folder / "avatars")
    person = await asyncio.to_thread(build_person, _GAUSSIANS)
    save_avatar(person, store.avatar_path("builtin"))
    facts = AvatarFacts("Built-in", person.metadata.reconstructor, person.metadata.created_at)
    write_facts(store.facts_path("builtin"), facts)
    config = load_config(storage={"data": folder}, video={"codecs": [codec]}, log={"level": "error"}, relay=dict(relay))
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
    """A camera's pictures with a time code in each corner, which tells them apart, as Chromium's fake camera reads."""
    width, height = _CAMERA_SIZE
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{_CAMERA_FPS}:1 Ip A1:1 C420\n".encode())
        for index, rgb in enumerate(_take(_wave() if video is None else _play(video))):
            frame = av.VideoFrame.from_ndarray(_fit(rgb), format="rgb24")
            planes = frame.reformat(width, height, format="yuv420p", interpolation="AREA").to_ndarray()
            draw_time_code(planes, pack_time_code(index * _CODE_STEP_MS, None))
            file.write(b"FRAME\n" + planes.tobytes())


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
    table = Table(title=f"{stream['codec']}, {stream['width']}x{stream['height']}, {stream['fps']} fps, Chromium")
    for title in ("way", "server", "p50 ms", "p95 ms", "pictures a second"):
        table.add_column(title, justify="left" if title in {"way", "server"} else "right")
    for way in ("draw_to_display", "camera_to_display"):
        for server in _SERVERS:
            row = report.get(way, {}).get(server)
            if row is not None:
                cells = (row["p50_ms"], row["p95_ms"], row["pictures_per_second"])
                table.add_row(way.replace("_", " "), server, *(f"{cell:.1f}" for cell in cells))
    console.print(table)
    for way in ("draw_to_display", "camera_to_display"):
        if way in report:
            last = report[way]["ours"]["runs"][-1]
            parts = {**last["server_parts_mean_ms"], **last["browser_parts_mean_ms"]}
            console.print(f"{way.replace('_', ' ')}, parts in ms: {_list(parts)}")
            console.print(f"  percent of a core: {_list(last['cpu_percent_of_a_core'])}")
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), style="dim")


def _list(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
