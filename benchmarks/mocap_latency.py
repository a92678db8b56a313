"""What it takes from a rig's or a program's socket to the drawing of its pose: VMC over UDP, samples over MQTT.

A process of its own sends, 25 times a second, whole bodies with hands and face; here a session runs them and draws with
60 frames a second, so that no frame is waited for. Measured is from before the sending to the moment the pose is handed
to the thread that draws; ``added`` leaves out retargeting and smoothing, which samples from anywhere need. MQTT needs
mosquitto. Prints JSON.

    python benchmarks/mocap_latency.py [SAMPLES]
"""

import asyncio
import ctypes
import json
import multiprocessing
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from paho.mqtt.client import CallbackAPIVersion, Client

from lhm_runtime.motion.procedural import wave
from lhm_runtime.motion.retargeting import Retargeter
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.types import SmplxPose
from streaming.bench.machine import this_machine
from streaming.config import load_config
from streaming.follower import Follower
from streaming.protocol import BoneSample, encode_bones
from streaming.renderer import Moment, RenderThread
from streaming.session import Session
from streaming.settings import NewSession
from streaming.sources import Sample
from streaming.vmc_output import VmcWriter

RATE_HZ = 25.0
WARM_UP = 20
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def send(kind: str, port: int, count: int, sent: Any) -> None:
    """Wave over VMC or MQTT; ``sent`` says when the last frame was."""
    avatar = build_person(2_000)
    motion = wave(4.0, RATE_HZ, avatar.expression_names)
    deliver: Callable[[list[bytes]], None]
    if kind == "vmc":
        writer = VmcWriter(avatar.rest_joints, avatar.expression_names)
        frames = [writer.write(motion.pose(i)) for i in range(len(motion))]
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        def deliver(packets: list[bytes]) -> None:
            for packet in packets:
                sender.sendto(packet, ("127.0.0.1", port))
    else:
        retargeter = Retargeter(avatar.rest_joints, avatar.expression_names)
        poses = [retargeter.to_bones(motion.pose(i), "unity") for i in range(len(motion))]
        frames = [[encode_bones(BoneSample(i, bones))] for i, bones in enumerate(poses)]
        client = Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", port)
        client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.loop_start()

        def deliver(packets: list[bytes]) -> None:
            client.publish("lhm-live/default/bench/pose", packets[0])

    due = time.monotonic()
    for i in range(count):
        due += 1 / RATE_HZ
        time.sleep(max(due - time.monotonic(), 0))
        packets = frames[i % len(frames)]
        if kind == "mqtt":  # numbers go on growing; bytes 6 to 9 of a sample
            packets = [packets[0][:6] + i.to_bytes(4, "little") + packets[0][10:]]
        sent.value = time.time()
        deliver(packets)


async def measure(kind: str, port: int, count: int, folder: Path) -> dict[str, object]:
    """Milliseconds from sent to drawn."""
    wish = NewSession(avatar="bench", source=kind, rig="bench" if kind == "mqtt" else None, fps=60)  # type: ignore[arg-type]
    config = load_config(
        storage={"data": folder}, video={"width": 256, "height": 256, "hardware": False}, **{kind: {"port": port}}
    )
    session = Session("bench", build_person(), wish, config)
    apart = multiprocessing.get_context("spawn")
    sent = apart.Value(ctypes.c_double, 0.0)
    latencies: list[float] = []
    added: list[float] = []
    submit, follow, last = RenderThread.submit, Follower.follow, None
    solved = 0.0

    def clock(follower: Follower, sample: Sample) -> SmplxPose | None:
        nonlocal solved
        start = time.perf_counter()
        pose = follow(follower, sample)
        solved = 1e3 * (time.perf_counter() - start)
        return pose

    def watch(thread: RenderThread, moment: Moment) -> None:
        nonlocal last
        if moment.captured_ms is not None and moment.captured_ms != last and moment.share >= 1:
            last = moment.captured_ms
            latencies.append(1e3 * (time.time() - sent.value))
            added.append(latencies[-1] - solved)
        submit(thread, moment)

    RenderThread.submit, Follower.follow = watch, clock  # type: ignore[method-assign]
    running = asyncio.create_task(session.run())
    await asyncio.sleep(1.0)
    recording = asyncio.create_task(session.record(folder / f"{kind}.mp4"))
    sending = apart.Process(target=send, args=(kind, port, count, sent))
    sending.start()
    while sending.is_alive():
        await asyncio.sleep(0.1)
    recording.cancel()
    running.cancel()
    await asyncio.wait([recording, running])
    RenderThread.submit, Follower.follow = submit, follow  # type: ignore[method-assign]
    return {"samples": len(added) - WARM_UP, "total": _spread(latencies[WARM_UP:]), "added": _spread(added[WARM_UP:])}


def main() -> None:
    """Print the figures as JSON."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["vmc"] = asyncio.run(measure("vmc", _free_port(socket.SOCK_DGRAM), count, folder))
        if MOSQUITTO is None:
            results["mqtt"] = "mosquitto is not installed"
        else:
            port = _free_port(socket.SOCK_STREAM)
            settings = folder / "mosquitto.conf"
            settings.write_text(
                f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_type none\n"
            )
            with subprocess.Popen([MOSQUITTO, "-c", settings]) as broker:
                time.sleep(1.0)
                try:
                    results["mqtt"] = asyncio.run(measure("mqtt", port, count, folder))
                finally:
                    broker.terminate()
    sys.stdout.write(json.dumps({"machine": asdict(this_machine()), "rate_hz": RATE_HZ, **results}, indent=2) + "\n")


def _spread(milliseconds: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99]).round(2).tolist()
    return {"best_ms": round(min(milliseconds), 2), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
