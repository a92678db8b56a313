"""``lhm-live bench fanout``: what one more viewer costs, with real peers that receive in a process of their own."""

# ruff: noqa: SLF001 - viewers that only count are no part of aiortc

import asyncio
import json
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any, Final, Literal

import numpy as np
import typer
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RtpPacket
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from lhm_runtime.errors import BackendError
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming import lowlatency
from streaming.audio import AudioHub
from streaming.bench.audience import run_janus
from streaming.bench.machine import this_machine
from streaming.encoder import CLOCK_HZ, Codec, EncodedFrame, EncoderThread, check_picture_size
from streaming.film import draw, plan_film
from streaming.hub import PacketHub
from streaming.relay.janus import Mountpoint, publish_to_janus
from streaming.relay.settings import JanusRelay
from streaming.relay.tracks import Tracks

_PICTURES: Final = 60
_GAUSSIANS: Final = 20_000
_WARM_UP_S: Final = 2.0
_PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Settings:
    viewers: int
    width: int
    height: int
    codec: Codec
    fps: int
    bitrate_bps: int
    grain: int
    seconds: float
    janus: Path | None


def fanout(
    viewers: Annotated[int, typer.Option(min=2, max=200, help="Viewers to compare with one.")] = 8,
    width: Annotated[int, typer.Option(min=16, max=4096, help="Of the picture; even.")] = 512,
    height: Annotated[int, typer.Option(min=16, max=4096, help="Of the picture; even.")] = 512,
    codec: Annotated[Codec, typer.Option(help="What is encoded.")] = "h264",
    fps: Annotated[int, typer.Option(min=1, max=240, help="Pictures a second.")] = 30,
    bitrate: Annotated[int, typer.Option(min=100_000, max=20_000_000, help="Bits a second at most.")] = 2_500_000,
    grain: Annotated[
        int, typer.Option(min=0, max=100, help="Noise added to the picture, so that the bitrate is really used.")
    ] = 10,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Measured, after two that are not.")] = 8.0,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="One and many viewers in turn; the best of each.")] = 2,
    janus: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Let a Janus with these settings (deploy/janus) fan out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the CPU of the sending process for one viewer and for many, over real connections on this machine.

    The pictures are drawn beforehand; encoding, encryption and sending are in the figures. The viewers count what
    comes and report losses; they neither decode nor ask for repeats.

    \b
    [bold]Examples[/bold]
      lhm-live bench fanout --viewers 8
      lhm-live bench fanout --viewers 24 --width 720 --height 1280 --json
      lhm-live bench fanout --grain 0            a picture as easy as the person on a plain ground
      lhm-live bench fanout --janus deploy/janus
    """
    check_picture_size(width, height)
    report = measure(viewers, width, height, codec, fps, bitrate, grain, seconds, rounds, janus)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def measure(
    viewers: int,
    width: int,
    height: int,
    codec: Codec,
    fps: int,
    bitrate_bps: int,
    grain: int,
    seconds: float,
    rounds: int,
    janus: Path | None = None,
) -> dict[str, Any]:
    """Everything the command prints."""
    settings = _Settings(viewers, width, height, codec, fps, bitrate_bps, grain, seconds, janus)
    used = {**asdict(settings), "janus": janus is not None, "rounds": rounds}
    report: dict[str, Any] = {"machine": asdict(this_machine()), "settings": used}
    runs: dict[int, list[dict[str, float]]] = {1: [], viewers: []}
    for _ in range(rounds):
        for number, measured in runs.items():
            measured.append(_measure_one(replace(settings, viewers=number)))
    # the least disturbed of each: another program on the machine only ever adds
    one, many = (min(measured, key=lambda run: run["cpu_ms_per_frame"]) for measured in runs.values())
    further_ms = many["cpu_ms_per_frame"] - one["cpu_ms_per_frame"]
    report["viewers_1"], report[f"viewers_{viewers}"] = one, many
    report["more_than_one_percent_of_a_core"] = round(further_ms * fps / 10, 1)
    report["cpu_ms_per_frame_and_further_viewer"] = round(further_ms / (viewers - 1), 3)
    if janus is not None:
        further_ms = many["janus_cpu_ms_per_frame"] - one["janus_cpu_ms_per_frame"]
        report["janus_cpu_ms_per_frame_and_further_viewer"] = round(further_ms / (viewers - 1), 3)
    return report


def _measure_one(settings: _Settings) -> dict[str, float]:
    # spawned, not forked: a forked child would share threads and card handles that do not survive it
    context = get_context("spawn")
    link, far_link = context.Pipe()
    results, child_results = context.Pipe()
    watching = context.Process(target=_watch, args=(settings, far_link), daemon=True)
    sending = context.Process(target=_send, args=(settings, link, child_results), daemon=True)
    try:
        watching.start()
        sending.start()
        child_results.close()
        if not results.poll(_PATIENCE_S + settings.seconds + settings.viewers):
            raise BackendError(f"no result from {settings.viewers} viewers in time")
        measured: dict[str, float] = results.recv()
    except EOFError as error:
        raise BackendError("the sending process ended without a result; its error is above") from error
    else:
        return measured
    finally:
        for process in (sending, watching):
            process.join(10)
            process.kill()


def _send(settings: _Settings, link: Connection, results: Connection) -> None:
    results.send(asyncio.run(_serve(settings, link)))


async def _serve(settings: _Settings, link: Connection) -> dict[str, float]:
    pictures = _draw_pictures(settings)
    lowlatency.install(_loopback(settings))
    hub = PacketHub(
        EncoderThread(
            settings.width,
            settings.height,
            settings.fps,
            codec=settings.codec,
            bitrate_bps=settings.bitrate_bps,
            ceiling_bps=max(settings.bitrate_bps, 6_000_000),
        ),
        min_bps=settings.bitrate_bps,
        max_bps=settings.bitrate_bps,
    )
    connections: list[RTCPeerConnection] = []
    tasks = [asyncio.create_task(hub.run()), asyncio.create_task(_feed(hub, pictures, settings.fps))]
    with ExitStack() as stack:
        try:
            if settings.janus is None:
                for _ in range(settings.viewers):
                    connections.append(lowlatency.make_peer_connection())
                    await _invite(connections[-1], hub, settings.codec, link)
                janus_cpu_s: Callable[[], float] = lambda: 0.0  # noqa: E731
            else:
                secret = token_hex(16)
                janus_cpu_s = stack.enter_context(run_janus(settings.janus, secret))
                await _invite_to_janus(hub, settings, secret, link, tasks)
            await asyncio.sleep(_WARM_UP_S)
            return await _observe(connections, hub, settings, link, janus_cpu_s)
        finally:
            for connection in connections:
                await connection.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _loopback(settings: _Settings) -> Literal["only", "never"]:
    """Janus has no address there."""
    return "only" if settings.janus is None else "never"


async def _invite_to_janus(
    hub: PacketHub, settings: _Settings, secret: str, link: Connection, tasks: list["asyncio.Task[None]"]
) -> None:
    relay = JanusRelay(kind="janus", secret=SecretStr(secret), codec=settings.codec, max_viewers=settings.viewers)
    begun: asyncio.Queue[Mountpoint | None] = asyncio.Queue()
    tracks = Tracks(hub.subscribe(), AudioHub(is_open=False).subscribe())
    publishing = asyncio.create_task(publish_to_janus(relay, tracks, begun.put_nowait))
    tasks.append(publishing)
    mountpoint = await begun.get()
    if mountpoint is None:
        await publishing  # says why
        raise BackendError("nothing is published to Janus any more")
    for _ in range(settings.viewers):
        viewer, offer = await mountpoint.invite()
        link.send(offer)
        await mountpoint.accept(viewer, await asyncio.to_thread(link.recv))


async def _invite(connection: RTCPeerConnection, hub: PacketHub, codec: Codec, link: Connection) -> None:
    connection.addTrack(hub.subscribe())
    lowlatency.prefer_codec(connection.getTransceivers()[0], codec)
    await connection.setLocalDescription(await connection.createOffer())
    link.send(connection.localDescription.sdp)
    answer = await asyncio.to_thread(link.recv)
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await lowlatency.connected(connection)


async def _observe(
    connections: Sequence[RTCPeerConnection],
    hub: PacketHub,
    settings: _Settings,
    link: Connection,
    janus_cpu_s: Callable[[], float],
) -> dict[str, float]:
    link.send("count")
    lags: list[float] = []
    frames: list[EncodedFrame] = []
    end_counting = hub.tap(frames.append)
    bytes_before, cpu_before, start = await _bytes_sent(connections), _cpu_seconds(), time.perf_counter()
    janus_before = janus_cpu_s()
    while (elapsed := time.perf_counter() - start) < settings.seconds:
        before = time.perf_counter()
        await asyncio.sleep(0.01)
        lags.append(time.perf_counter() - before - 0.01)
    cpu, sent = _cpu_seconds() - cpu_before, await _bytes_sent(connections) - bytes_before
    janus_cpu = janus_cpu_s() - janus_before
    end_counting()
    payload = sum(frame.packet.size for frame in frames)
    link.send("stop")
    seen = await asyncio.to_thread(link.recv)
    return {
        "cpu_percent_of_a_core": round(100 * cpu / elapsed, 1),
        "cpu_ms_per_frame": round(1e3 * cpu / max(1, len(frames)), 2),
        "janus_cpu_ms_per_frame": round(1e3 * janus_cpu / max(1, len(frames)), 2),
        "encode_ms_median": round(float(np.median([frame.encode_ms for frame in frames])), 2),
        "mbps_per_viewer": round(8e-6 * (sent / len(connections) if connections else payload) / elapsed, 2),
        "fps_per_viewer": round(seen["fps"], 1),
        "packets_lost_percent": round(100 * seen["lost_share"], 2),
        "first_frame_ms_median": round(float(np.median(seen["first_frame_ms"])), 0),
        "first_frame_ms_max": round(max(seen["first_frame_ms"]), 0),
        "loop_lag_ms_p50": round(1e3 * float(np.median(lags)), 2),
        "loop_lag_ms_p99": round(1e3 * float(np.percentile(lags, 99)), 2),
        "fps_encoded": round(len(frames) / elapsed, 1),
        "overflows": float(sum(track.overflows for track in hub.viewers)),
        "keyframes_requested": float(hub.keyframe_requests),
    }


async def _feed(hub: PacketHub, pictures: Sequence[np.ndarray], fps: int) -> None:
    start, index = time.perf_counter(), 0
    while True:
        now = time.perf_counter()
        hub.submit(pictures[index % len(pictures)], int((now - start) * CLOCK_HZ), stamp=now)
        index = int((now - start) * fps) + 1  # a picture that is late is left out, not made up for
        await asyncio.sleep(start + index / fps - time.perf_counter())


def _draw_pictures(settings: _Settings) -> list[np.ndarray]:
    person = build_person(_GAUSSIANS)
    film = plan_film(person, "wave", size=(settings.width, settings.height), seconds=_PICTURES / 30)
    rng = np.random.default_rng(0)
    pictures = []
    with Renderer(person) as renderer:
        for picture in draw(film, renderer, "i420", background=(0.91, 0.93, 0.94)):
            noise = rng.integers(-settings.grain, settings.grain + 1, picture.shape)
            noise[settings.height :] = 0
            pictures.append((picture + noise).clip(16, 235).astype(np.uint8))
    return pictures


def _watch(settings: _Settings, link: Connection) -> None:
    asyncio.run(_receive(settings, link))


class _Counts:
    """What one viewer got."""

    def __init__(self) -> None:
        self.frames = 0
        self.packets = 0
        self.first_frame_at: float | None = None
        self.statistics: StreamStatistics | None = None

    @property
    def lost(self) -> int:
        return self.statistics.packets_lost if self.statistics else 0


async def _receive(settings: _Settings, link: Connection) -> None:
    """Viewers that count and report losses; repairing and decoding would take the sender's core away from it."""
    lowlatency.install(_loopback(settings))
    counts: dict[RTCRtpReceiver, _Counts] = {}

    async def count(receiver: RTCRtpReceiver, packet: RtpPacket, arrival_time_ms: int) -> None:  # noqa: ARG001
        inside: Any = receiver
        seen = counts.setdefault(receiver, _Counts())
        if seen.statistics is None:
            # where aiortc looks for what it reports once a second
            seen.statistics = inside._RTCRtpReceiver__remote_streams[packet.ssrc] = StreamStatistics(CLOCK_HZ)
        seen.statistics.add(packet)
        seen.packets += 1
        if packet.marker:
            seen.frames += 1
            seen.first_frame_at = seen.first_frame_at or time.perf_counter()

    RTCRtpReceiver._handle_rtp_packet = count  # type: ignore[method-assign, assignment]
    connections: list[RTCPeerConnection] = []
    first_frame_ms: list[float] = []
    try:
        for _ in range(settings.viewers):
            connection = lowlatency.make_peer_connection()
            connections.append(connection)
            offer = await asyncio.to_thread(link.recv)
            await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
            asked = time.perf_counter()
            link.send(connection.localDescription.sdp)
            await lowlatency.connected(connection)
            receiver = connection.getReceivers()[0]
            async with asyncio.timeout(_PATIENCE_S):
                while receiver not in counts or counts[receiver].first_frame_at is None:
                    await asyncio.sleep(0.002)
            first_frame_ms.append(1e3 * ((counts[receiver].first_frame_at or asked) - asked))
        await asyncio.to_thread(link.recv)
        frames, lost, start = _sum(counts, "frames"), _sum(counts, "lost"), time.perf_counter()
        packets = _sum(counts, "packets")
        await asyncio.to_thread(link.recv)
        seconds = time.perf_counter() - start
        fps = (_sum(counts, "frames") - frames) / seconds / settings.viewers
        lost_share = (_sum(counts, "lost") - lost) / max(1, _sum(counts, "packets") - packets)
        link.send({"fps": fps, "first_frame_ms": first_frame_ms, "lost_share": lost_share})
    finally:
        for connection in connections:
            await connection.close()


def _sum(counts: dict[RTCRtpReceiver, _Counts], name: str) -> int:
    return sum(getattr(seen, name) for seen in counts.values())


async def _bytes_sent(connections: Sequence[RTCPeerConnection]) -> int:
    sent = 0
    for connection in connections:
        for stats in (await connection.getStats()).values():
            sent += stats.bytesSent if stats.type == "outbound-rtp" else 0
    return sent


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _print(report: dict[str, Any]) -> None:
    settings, console = report["settings"], Console(highlight=False)
    columns = [key for key in report if key.startswith("viewers_")]
    table = Table(
        "", *(key.replace("viewers_", "viewers ") for key in columns), box=None, title_justify="left", padding=(0, 2)
    )
    for name in report[columns[0]]:
        table.add_row(name.replace("_", " "), *(f"{report[column][name]:g}" for column in columns))
    machine = report["machine"]
    console.print(
        f"{settings['codec']} {settings['width']}x{settings['height']} at {settings['fps']} fps, "
        f"at most {settings['bitrate_bps'] / 1e6:g} Mb/s, on {machine['cpu']}, load {machine['load']}, "
        f"commit {machine['commit']}"
    )
    console.print(table)
    console.print(
        f"{settings['viewers']} viewers cost {report['more_than_one_percent_of_a_core']} % of a core more than one: "
        f"{report['cpu_ms_per_frame_and_further_viewer']} ms a frame and further viewer"
    )
    if settings["janus"]:
        console.print(f"Janus: {report['janus_cpu_ms_per_frame_and_further_viewer']} ms a frame and further viewer")
