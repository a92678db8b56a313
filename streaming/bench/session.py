"""``lhm-live bench session``: what one live session costs, by stage."""

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Coroutine
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import av
import numpy as np
import typer
from aiortc.mediastreams import MediaStreamTrack
from rich.console import Console
from rich.table import Table

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.errors import BackendError
from lhm_runtime.motion.ideal_landmarks import IdealTracker
from lhm_runtime.motion.procedural import wave
from lhm_runtime.rasterizer import Framing, Renderer, frame_person
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming.bench.cpu_split import children_seconds
from streaming.bench.machine import this_machine
from streaming.config import Log, load_config
from streaming.encoder import Codec
from streaming.film import draw, plan_film
from streaming.hub import PacketTrack
from streaming.logs import configure_logging
from streaming.protocol import LandmarkSample, encode_landmarks
from streaming.session import Session
from streaming.settings import NewSession
from streaming.sources.messages import Sender

Driver = Literal["browser", "webcam", "replay", "idle"]
"""browser: landmarks as bytes, solved and smoothed; webcam: a camera's pictures, tracked here."""

_WARM_UP_S: Final = 3.0
_STAGES: Final = {
    "webcam": "convert",
    "track": "track",
    "solve": "solve and smooth",
    "render": "pose and draw",
    "encode": "encode",
}
_CAMERA_SIZE: Final = (640, 480)
_TASKS: Final = Path("/proc/self/task")
_PATIENCE_S: Final = 60.0


def session(
    driver: Annotated[Driver, typer.Option(help="What moves the avatar.")] = "browser",
    width: Annotated[int, typer.Option(min=64, max=2048, help="Of the picture; even.")] = 512,
    height: Annotated[int, typer.Option(min=64, max=2048, help="Of the picture; even.")] = 512,
    fps: Annotated[int, typer.Option(min=1, max=60, help="Pictures a second, and samples.")] = 30,
    codec: Annotated[Codec, typer.Option(help="What is encoded.")] = "h264",
    framing: Annotated[Framing, typer.Option(help="How much of the person is seen.")] = "full",
    gaussians: Annotated[int, typer.Option(min=10_000, max=160_000, help="Of the built-in person.")] = 40_000,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Measured, after three that are not.")] = 10.0,
    alpha: Annotated[bool, typer.Option("--alpha", help="The viewer gets alpha stacked below, as OBS does.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run one session with one viewer in this process and print CPU milliseconds a picture, by thread.

    Everything is there but the network: packets are handed to the viewer and dropped, a camera's pictures come decoded.

    \b
    [bold]Examples[/bold]
      lhm-live bench session
      lhm-live bench session --fps 60 --driver replay --json
      lhm-live bench session --width 720 --height 1280
      lhm-live bench session --alpha
    """
    wish = NewSession(
        avatar="builtin",
        source=driver,
        replay="wave" if driver == "replay" else None,
        width=width,
        height=height,
        fps=fps,
        framing=framing,
    )
    configure_logging(Log(level="warning"))  # standard output is for the report
    report = asyncio.run(measure(build_person(gaussians), wish, codec, seconds, alpha=alpha))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


async def measure(
    avatar: Avatar, wish: NewSession, codec: Codec, seconds: float, *, alpha: bool = False
) -> dict[str, Any]:
    """Everything the command prints."""
    with tempfile.TemporaryDirectory() as folder:
        live = Session("bench", avatar, wish, load_config(storage={"data": Path(folder)}, video={"hardware": False}))
        running = asyncio.create_task(live.run(), name="session")
        await asyncio.sleep(0)
        track = live.subscribe(codec, stacked=alpha)
        received: list[int] = []
        tasks = [asyncio.create_task(_receive(track, received), name="receive")]
        if wish.source == "browser":
            tasks.append(asyncio.create_task(_send_landmarks(live, avatar, wish.fps or 30), name="drive"))
        if wish.source == "webcam":
            camera = await asyncio.to_thread(Camera, avatar, wish.fps or 30)
            tasks.append(asyncio.create_task(live.feed(camera), name="drive"))
        try:
            if wish.source == "webcam":
                await _unless_ended(running, _wait_until_tracked(live))
            await _unless_ended(running, asyncio.sleep(_WARM_UP_S))
            received.clear()
            before, start = _cpu_by_thread(), time.perf_counter()
            await _unless_ended(running, asyncio.sleep(seconds))
            after, took = _cpu_by_thread(), time.perf_counter() - start
        finally:
            track.stop()
            for task in (*tasks, running):
                task.cancel()
            await asyncio.wait([*tasks, running])
    pictures = max(len(received), 1)
    used = {name: after[name] - before.get(name, 0.0) for name in after}
    stages = {title: sum(seconds for name, seconds in used.items() if key in name) for key, title in _STAGES.items()}
    stages["event loop"] = used.get("MainThread", 0.0)
    stages["other threads"] = sum(used.values()) - sum(stages.values())
    return {
        "machine": asdict(this_machine()),
        "session": {
            **wish.model_dump(include={"source", "width", "height", "fps", "framing"}),
            "codec": codec,
            "alpha": alpha,
        },
        "gaussians": len(avatar),
        "seconds": round(took, 2),
        "pictures_per_second": round(len(received) / took, 2),
        "kbit_per_second": round(8e-3 * sum(received) / took, 1),
        "cpu_ms_per_picture": {title: round(1e3 * used_s / pictures, 3) for title, used_s in stages.items()},
        "cpu_share_of_one_core": round(sum(used.values()) / took, 4),
    }


async def _receive(track: PacketTrack, received: list[int]) -> None:
    while True:
        received.append((await track.recv()).size)


async def _send_landmarks(live: Session, avatar: Avatar, fps: int) -> None:
    """What a page sends of somebody who waves; writing it counts as event loop."""
    motion = wave(4.0, float(fps), avatar.expression_names)
    joints = forward_kinematics(motion.rotvec[0], avatar.rest_joints, motion.transl[0])[:, :3, 3]
    tracker = IdealTracker(avatar.rest_joints, frame_person(joints, "full", 640, 640))
    seen = [tracker.see(motion.pose(i)) for i in range(len(motion))]
    scores = np.zeros(52, np.float32)
    start, number, sender = time.monotonic(), 0, Sender()
    while True:
        sample = replace(seen[number % len(seen)], timestamp_s=1.0 + number / fps, face_blendshapes=scores)
        live.messages.receive(encode_landmarks(LandmarkSample(number, sample)), sender)
        number += 1
        await asyncio.sleep(start + number / fps - time.monotonic())


class Camera(MediaStreamTrack):
    """A camera before which somebody waves."""

    kind = "video"

    def __init__(self, avatar: Avatar, fps: int) -> None:
        super().__init__()
        film = plan_film(avatar, "wave", size=_CAMERA_SIZE, fps=float(fps))
        with Renderer(avatar) as renderer:
            self._pictures = [picture.copy() for picture in draw(film, renderer, "i420", background=(0.8, 0.82, 0.85))]
        self._fps, self._start, self._number = fps, 0.0, 0

    async def recv(self) -> av.VideoFrame:
        """The next picture, when it is due."""
        now = time.monotonic()
        self._start = self._start or now
        self._number = max(self._number, int((now - self._start) * self._fps)) + 1  # cameras do not wait either
        await asyncio.sleep(self._start + self._number / self._fps - now)
        frame = av.VideoFrame.from_ndarray(self._pictures[self._number % len(self._pictures)], format="yuv420p")
        frame.pts, frame.time_base = self._number, Fraction(1, self._fps)
        return frame


async def _wait_until_tracked(live: Session) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not live.state.heard_hz:
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise BackendError(f"the tracker saw nobody in {_PATIENCE_S:g} s") from error


async def _unless_ended(running: asyncio.Task[None], waiting: Coroutine[Any, Any, None]) -> None:
    """Wait, or raise what ended the session."""
    pause = asyncio.create_task(waiting)
    await asyncio.wait([running, pause], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        pause.cancel()
        running.result()


def _cpu_by_thread() -> dict[str, float]:
    """CPU seconds of each living thread by name; of the whole process where the system does not tell."""
    if not _TASKS.is_dir():
        return {"MainThread": time.process_time()}
    used: dict[str, float] = {}
    for thread in threading.enumerate():
        stat = _TASKS / str(thread.native_id) / "schedstat"
        if stat.is_file():
            used[thread.name] = used.get(thread.name, 0.0) + int(stat.read_text().split()[0]) / 1e9
    used["tracker's process"] = children_seconds()
    return used


def _print(report: dict[str, Any]) -> None:
    session_, console = report["session"], Console()
    table = Table(
        title=f"one session: {session_['source']}, {session_['width']}x{session_['height']}, {session_['codec']}"
        f"{', alpha' if session_['alpha'] else ''}, {report['gaussians']} Gaussians"
    )
    table.add_column("stage")
    table.add_column("CPU ms a picture", justify="right")
    for title, used_ms in report["cpu_ms_per_picture"].items():
        table.add_row(title, f"{used_ms:.2f}")
    table.add_row("pictures a second", f"{report['pictures_per_second']:.1f}", style="bold")
    table.add_row("share of one core", f"{report['cpu_share_of_one_core']:.1%}", style="bold")
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), style="dim")
