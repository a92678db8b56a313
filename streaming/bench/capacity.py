"""``lhm-live bench capacity``: what a session costs a server, and what each viewer more costs, by the way of watching.

Costs are CPU seconds a second, that is cores: other work on the machine blurs them less than it does wall times.
"""

import asyncio
import json
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import BackendError
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming.bench import fanout, session
from streaming.bench.audience import cores_used, find_janus, gather, serve_session, watch_poses, watch_video
from streaming.bench.machine import this_machine
from streaming.bench.session import Driver
from streaming.config import Log
from streaming.encoder import CLOCK_HZ, check_picture_size
from streaming.logs import configure_logging
from streaming.relay.rtp import open_stream
from streaming.settings import NewSession

USE: Final = 0.7
"""Share of a core that is planned with; the rest is for what comes unevenly."""

_DRIVERS: Final[tuple[Driver, ...]] = ("replay", "browser", "webcam")
_GRAIN: Final = 10
_SETTLE_S: Final = 2.0
_FED: Final = 2000
"""Pictures sent to a relay."""
_HEADERS_BYTES: Final = {"video": 28 + 12 + 8 + 10, "drawn": 52 + 4}
"""Of each packet: UDP/IP, RTP with its extensions, SRTP's tag; TCP/IP with time stamps, websocket."""
_RTP_BYTES: Final = 1200
"""What a full packet carries."""


@dataclass(frozen=True, slots=True)
class _Settings:
    width: int
    height: int
    fps: int
    bitrate_bps: int
    seconds: float
    rounds: int
    viewers: int
    """Of video, compared with one."""
    drawing: int
    """Who draw themselves, compared with one."""
    joiners: int
    janus: Path | None


def capacity(
    width: Annotated[int, typer.Option(min=128, max=2048, help="Of the picture; even.")] = 512,
    height: Annotated[int, typer.Option(min=128, max=2048, help="Of the picture; even.")] = 512,
    fps: Annotated[int, typer.Option(min=1, max=60, help="Pictures and poses a second.")] = 30,
    bitrate: Annotated[int, typer.Option(min=100_000, max=6_000_000, help="Of a viewer's video, bits a second.")] = (
        2_500_000
    ),
    viewers: Annotated[int, typer.Option(min=2, max=200, help="Viewers of video to compare with one.")] = 16,
    drawing: Annotated[int, typer.Option(min=2, max=500, help="Viewers who draw themselves, likewise.")] = 100,
    janus: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Settings of a Janus (deploy/janus), to be measured as well.")
    ] = None,
    joiners: Annotated[int, typer.Option(min=1, max=100, help="Viewers of video whose coming is measured.")] = 12,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Each measurement.")] = 8.0,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Of all measurements in turn; medians count.")] = 3,
    gaussians: Annotated[int, typer.Option(min=10_000, max=160_000, help="Of the built-in person.")] = 40_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; benchmarks/scaling.py reads it.")] = False,
) -> None:
    """Measure what sessions and viewers cost, and say how many a core carries at 70 % use.

    Sessions: driven by a recording, by landmarks from a page, by a camera that is tracked here. Viewers: of video, of
    video by way of a Janus, and those who draw the avatar themselves, over real connections from other processes on
    this machine. It takes minutes.

    \b
    [bold]Examples[/bold]
      lhm-live bench capacity
      lhm-live bench capacity --janus deploy/janus
      lhm-live bench capacity --janus deploy/janus --json > capacity.json
      lhm-live bench capacity --width 720 --height 1280 --bitrate 4000000
    """
    check_picture_size(width, height)
    if janus is not None:
        find_janus()  # now, not in some minutes
    configure_logging(Log(level="warning"))  # standard output is for the report
    settings = _Settings(width, height, fps, bitrate, seconds, rounds, viewers, drawing, joiners, janus)
    report = measure(build_person(gaussians), settings)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def measure(avatar: Avatar, settings: _Settings) -> dict[str, Any]:
    """Everything the command prints."""
    machine = asdict(this_machine())
    sessions: dict[str, list[dict[str, float]]] = {driver: [] for driver in _DRIVERS}
    ways: dict[str, list[dict[str, float]]] = {"video": [], "drawn": []}
    for _ in range(settings.rounds):
        for driver in _DRIVERS:
            sessions[driver].append(_measure_session(avatar, settings, driver))
        ways["video"].append(_measure_video(avatar, settings))
        ways["drawn"].append(_measure_drawn(avatar, settings))
        if settings.janus is not None:
            ways.setdefault("relayed", []).append(_measure_relayed(settings, settings.janus))
    return {
        "machine": machine,
        "settings": {**asdict(settings), "janus": settings.janus is not None, "gaussians": len(avatar)},
        **sum_up(sessions, ways),
    }


def sum_up(
    sessions: Mapping[str, Sequence[Mapping[str, float]]], ways: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[str, Any]:
    """Medians of the rounds, and what follows from them.

    Raises:
        BackendError: a viewer seems to cost nothing, so much else went on.
    """
    costs = {driver: _medians(runs) for driver, runs in sessions.items()}
    viewers = {way: _medians(runs) for way, runs in ways.items()}
    for way, cost in viewers.items():
        if cost["viewer_cores"] <= 0:
            raise BackendError(
                f"a further viewer ({way}) seems to cost {cost['viewer_cores']} cores: the machine is too busy for "
                "this; use more --viewers, --drawing, --seconds or --rounds"
            )
    # a session that nobody has drawn: what the recording's costs so, and what another driver has to have solved
    undrawn = viewers["drawn"].pop("session_cores")
    for cost in costs.values():
        cost["undrawn_cores"] = round(undrawn + cost["pose_cores"] - costs["replay"]["pose_cores"], 5)
    return {
        "sessions": costs,
        "viewers": viewers,
        "per_core_at_70_percent": {
            "sessions": {driver: round(USE / cost["cores"], 2) for driver, cost in costs.items()},
            "undrawn_sessions": {driver: round(USE / cost["undrawn_cores"], 1) for driver, cost in costs.items()},
            "viewers": {way: int(round(USE / cost["viewer_cores"], 6)) for way, cost in viewers.items()},
        },
    }


def _measure_session(avatar: Avatar, settings: _Settings, driver: Driver) -> dict[str, float]:
    """A session with one viewer, whose packets go nowhere: all it costs, and what of it makes poses."""
    wish = _wish(settings, driver, fps=settings.fps)
    report = asyncio.run(session.measure(avatar, wish, "h264", settings.seconds))
    stages: dict[str, float] = report["cpu_ms_per_picture"]
    # by the picture, not by the second: on a busy machine there are fewer
    a_second = settings.fps / 1e3
    making = sum(stages[title] for title in ("convert", "track", "solve and smooth"))
    return {
        "cores": round(sum(stages.values()) * a_second, 5),
        "pose_cores": round(making * a_second, 5),
        "pictures_per_second": report["pictures_per_second"],
    }


def _measure_video(avatar: Avatar, settings: _Settings) -> dict[str, float]:
    sent = _fan_out(settings, None)
    # pictures are few, so that what is seen is the coming
    wish = _wish(settings, "idle", fps=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_session(Path(folder), avatar, wish) as served,
        gather(served, watch_video, 1),
        gather(served, watch_video, settings.joiners) as audience,
    ):
        join_cpu_s = audience.came_cpu_s / settings.joiners
    return {
        "viewer_cores": sent["cpu_ms_per_frame_and_further_viewer"] * settings.fps / 1e3,
        "join_cpu_s": round(join_cpu_s, 5),
        "join_megabytes": 0.0,
        **_line(sent, settings),
    }


def _measure_relayed(settings: _Settings, janus: Path) -> dict[str, float]:
    """By way of a Janus; viewers' costs are its, not ours."""
    sent = _fan_out(settings, janus)
    return {
        "viewer_cores": sent["janus_cpu_ms_per_frame_and_further_viewer"] * settings.fps / 1e3,
        "join_megabytes": 0.0,
        **_line(sent, settings),
        "feed_cores": round(asyncio.run(_feed(settings)), 5),
    }


async def _feed(settings: _Settings) -> float:
    """Cores of sending pictures to a relay: here to a socket that nobody reads."""
    count = max(1, round(settings.bitrate_bps / settings.fps / 8 / _RTP_BYTES))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        port = sink.getsockname()[1]
        stream = await open_stream("127.0.0.1", (port, port), payload_type=96)
        start = time.thread_time()
        for picture in range(_FED):
            stream.send([bytes(_RTP_BYTES)] * count, picture * CLOCK_HZ // settings.fps, marked=True)
            await asyncio.sleep(0)
        used_s = time.thread_time() - start
        stream.close()
    return used_s / _FED * settings.fps


def _fan_out(settings: _Settings, janus: Path | None) -> dict[str, Any]:
    return fanout.measure(
        settings.viewers,
        settings.width,
        settings.height,
        "h264",
        settings.fps,
        settings.bitrate_bps,
        _GRAIN,
        settings.seconds,
        rounds=1,
        janus=janus,
    )


def _line(sent: Mapping[str, Any], settings: _Settings) -> dict[str, float]:
    many = sent[f"viewers_{settings.viewers}"]
    headers = _HEADERS_BYTES["video"] / _RTP_BYTES
    return {
        "mbit_per_second": round(float(many["mbps_per_viewer"]) * (1 + headers), 3),
        "pictures_per_second": many["fps_per_viewer"],
        "packets_lost_percent": many["packets_lost_percent"],
    }


def _measure_drawn(avatar: Avatar, settings: _Settings) -> dict[str, float]:
    wish = _wish(settings, "replay", fps=settings.fps).model_copy(update={"share_avatar": True})
    others = settings.drawing - 1
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_session(Path(folder), avatar, wish) as served,
        gather(served, watch_poses, 1),
    ):
        time.sleep(_SETTLE_S)  # the avatar's file is made when the first one asks for it
        (one,) = cores_used(settings.seconds, served.cpu_s)
        with gather(served, watch_poses, others) as audience:
            first = audience.received()
            (many,) = cores_used(settings.seconds, served.cpu_s)
            last = audience.received()
    poses = last.messages - first.messages
    viewer_cores = (many - one) / others
    payload = (last.bytes - first.bytes) / max(poses, 1)
    return {
        "session_cores": round(one - viewer_cores, 5),
        "viewer_cores": round(viewer_cores, 6),
        "join_cpu_s": round((audience.came_cpu_s - audience.came_s * (one + many) / 2) / others, 5),
        "mbit_per_second": round(8e-6 * settings.fps * (payload + _HEADERS_BYTES["drawn"]), 4),
        "join_megabytes": round(last.downloaded / others / 1e6, 3),
        "poses_per_second": round(poses / others / settings.seconds, 2),
    }


def _wish(settings: _Settings, driver: Driver, *, fps: int) -> NewSession:
    return NewSession(
        avatar="builtin",
        source=driver,
        replay="wave" if driver == "replay" else None,
        width=settings.width,
        height=settings.height,
        fps=fps,
    )


def _medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: round(median(run[key] for run in runs), 6) for key in runs[0]}


def _print(report: dict[str, Any]) -> None:
    settings, console = report["settings"], Console(highlight=False)
    console.print(
        f"{settings['width']}x{settings['height']} at {settings['fps']} fps, {settings['gaussians']} Gaussians, "
        f"medians of {settings['rounds']} rounds; a core is planned with {USE:.0%} of its time"
    )
    table = Table("", "cores", "a core carries", "coming, CPU ms", "Mbit/s", box=None, padding=(0, 2))
    carried = report["per_core_at_70_percent"]
    for driver, cost in report["sessions"].items():
        table.add_row(f"session: {driver}", f"{cost['cores']:.3f}", f"{carried['sessions'][driver]:g}", "", "")
    for driver, cost in report["sessions"].items():
        table.add_row(
            f"session: {driver}, drawn by viewers",
            f"{cost['undrawn_cores']:.3f}",
            f"{carried['undrawn_sessions'][driver]:g}",
            "",
            "",
        )
    for way, cost in report["viewers"].items():
        table.add_row(
            f"viewer: {way}",
            f"{cost['viewer_cores']:.5f}",
            f"{carried['viewers'][way]}",
            f"{1e3 * cost['join_cpu_s']:.1f}" if "join_cpu_s" in cost else "",
            f"{cost['mbit_per_second']:.3f}",
        )
        if "feed_cores" in cost:
            table.add_row("feeding a Janus", f"{cost['feed_cores']:.5f}", "", "", "")
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), style="dim")
