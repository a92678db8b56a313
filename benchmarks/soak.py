"""What an evening of people coming and going costs a server: memory, latency, tasks and threads left behind.

A whole server in a process of its own, and visitors who come, watch and go, in turn: with a goodbye (WHEP's DELETE), by
closing the connection, by vanishing without a word, and as a driver in a session of its own, with landmarks over the
data channel, which is started for them and ended after. Latency is from drawing to decoded picture, by the time codes
in the pictures. The server is looked at when everybody has gone: after the first visits, and at the end. Prints JSON;
the exit code says whether everything stayed within its limit.

    python benchmarks/soak.py [--seconds 3600] [--stay 20] [--visitors 1]
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import count, cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import uvicorn
from aiortc import RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from websockets.asyncio.client import connect

from lhm_runtime.avatar import save_avatar
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.motion.ideal_landmarks import IdealTracker
from lhm_runtime.motion.procedural import wave
from lhm_runtime.rasterizer import frame_person
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.types import Landmarks
from streaming.app import create_app
from streaming.avatar_store import AvatarFacts, AvatarStore, write_facts
from streaming.bench.machine import this_machine
from streaming.config import Log, load_config
from streaming.logs import configure_logging
from streaming.lowlatency import connected, install, make_peer_connection
from streaming.protocol import LandmarkSample, encode_landmarks
from streaming.time_code import elapsed_ms, read_time_code

MOST_GROWTH_MB: Final = 30.0
MOST_DRIFT_MS: Final = 5.0
WAYS: Final = ("says goodbye", "closes", "drives", "vanishes")
GAUSSIANS: Final = 5_000
SIZE: Final = 256
SETTLE_S: Final = 1.0
"""A visit's first pictures, which wait for connection and keyframe, are in no figure."""
NEW_EACH_TIME: Final = httpx.Limits(max_keepalive_connections=0)
"""A kept connection may be closed by the server just when it is used again."""
PATIENCE_S: Final = 40.0
"""Who vanished is noticed within this long."""


@dataclass(frozen=True)
class Census:
    """What a server at rest consists of."""

    rss_mb: float
    tasks: Counter[str]
    threads: Counter[str]
    files: int


@dataclass
class Visits:
    """What visitors saw."""

    latency_ms: list[tuple[float, float]] = field(default_factory=list)
    """When the visit was, seconds, and its median."""
    ways: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def main() -> None:
    """Soak a server and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=3600.0, help="of visits, without the first ones")
    parser.add_argument("--stay", type=float, default=20.0, help="seconds from one visitor's coming to the next one's")
    parser.add_argument("--visitors", type=int, default=1, help="at a time")
    parser.add_argument(
        "--drift", type=float, default=MOST_DRIFT_MS, help="most ms that latency may have grown by (%(default)s)"
    )
    arguments = parser.parse_args()
    report = asyncio.run(soak(arguments.seconds, arguments.stay, arguments.visitors, arguments.drift))
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["complaints"]))


async def soak(seconds: float, stay_s: float, visitors: int, most_drift_ms: float) -> dict[str, Any]:
    """Everything that is printed."""
    configure_logging(Log(level="error"))
    install("only")
    machine = asdict(this_machine())
    warm_up, visits = Visits(), Visits()
    with tempfile.TemporaryDirectory(prefix="lhm-live-soak-") as folder:
        async with (
            server_process(Path(folder)) as (address, link),
            httpx.AsyncClient(base_url=address, timeout=30.0, trust_env=False, limits=NEW_EACH_TIME) as http,
        ):
            watched = await start_session(http, "replay", replay="wave")
            # each way twice, so that what is made once and kept has been made
            await come_and_go(http, watched, warm_up, 2 * stay_s, stay_s, len(WAYS))
            first = await census(link, http)
            start = time.monotonic()
            course: list[float] = []
            sampling = asyncio.create_task(sample_memory(link, seconds / 8, course))
            await come_and_go(http, watched, visits, seconds, stay_s, visitors)
            took = time.monotonic() - start
            await sampling
            last = await census(link, http)
    times, medians = np.array(visits.latency_ms).reshape(-1, 2).T
    early, late = times < start + took / 4, times >= start + took * 3 / 4
    drift = float(np.median(medians[late]) - np.median(medians[early])) if early.any() and late.any() else None
    figures = {
        "visits": sum(visits.ways.values()),
        "ways": dict(visits.ways),
        "rss_mb": [first.rss_mb, last.rss_mb],
        "rss_course_mb": course,
        "rss_growth_mb": round(last.rss_mb - first.rss_mb, 1),
        "latency_ms": {
            "median": round(float(np.median(medians)), 1),
            "first_quarter": round(float(np.median(medians[early])), 1),
            "last_quarter": round(float(np.median(medians[late])), 1),
        },
        "latency_drift_ms": None if drift is None else round(drift, 1),
        "tasks_left": dict(last.tasks - first.tasks),
        "threads_left": dict(last.threads - first.threads),
        "files_left": max(0, last.files - first.files),
    }
    return {
        "machine": machine,
        "settings": {"seconds": seconds, "stay_s": stay_s, "visitors": visitors},
        "seconds": round(took, 1),
        **figures,
        "complaints": [*warm_up.failures, *visits.failures, *complain(figures, most_drift_ms)],
    }


def complain(figures: dict[str, Any], most_drift_ms: float) -> list[str]:
    """What is beyond its limit."""
    complaints = [
        f"left behind: {figures[key]}" for key in ("tasks_left", "threads_left", "files_left") if figures[key]
    ]
    if figures["rss_growth_mb"] >= MOST_GROWTH_MB:
        complaints.append(f"memory grew by {figures['rss_growth_mb']} MB, at most {MOST_GROWTH_MB:g} are allowed")
    if figures["latency_drift_ms"] is None or figures["latency_drift_ms"] > most_drift_ms:
        complaints.append(f"latency drifted by {figures['latency_drift_ms']} ms, at most {most_drift_ms:g} are allowed")
    return complaints


async def come_and_go(
    http: httpx.AsyncClient, watched: str, visits: Visits, seconds: float, stay_s: float, visitors: int
) -> None:
    """Visits until ``seconds`` have passed, ``visitors`` at a time; the ways of going take turns."""
    end = time.monotonic() + seconds
    ways = cycle(WAYS)
    numbers = count()

    async def keep_coming(number: int) -> None:
        await asyncio.sleep(number * stay_s / visitors)
        while time.monotonic() < end:
            way, due = next(ways), time.monotonic() + stay_s
            try:
                async with asyncio.timeout(stay_s + PATIENCE_S):
                    if way == "drives":
                        await drive(http, 0.8 * stay_s)
                    else:
                        await watch(http, watched, visits, 0.8 * stay_s, way)
            except Exception as error:  # noqa: BLE001 - a visit that fails is what this looks for
                visits.failures.append(f"visit {next(numbers)}, who {way}: {type(error).__name__} {error}")
            visits.ways[way] += 1
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    await asyncio.gather(*(keep_coming(number) for number in range(visitors)))


async def watch(http: httpx.AsyncClient, session: str, visits: Visits, stay_s: float, way: str) -> None:
    """Come as a viewer, look, and go in one of the ways."""
    connection = make_peer_connection()
    try:
        connection.addTransceiver("video", direction="recvonly")
        tracks: list[Any] = []
        connection.on("track", tracks.append)
        await connection.setLocalDescription(await connection.createOffer())
        offer = connection.localDescription.sdp
        response = await http.post(f"/whep/{session}", content=offer, headers={"content-type": "application/sdp"})
        response.raise_for_status()
        await connection.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        await connected(connection, 15.0)
        latencies = await look(tracks[0], stay_s)
        visits.latency_ms.append((time.monotonic(), float(np.median(latencies))))
        if way == "says goodbye":
            (await http.delete(response.headers["location"])).raise_for_status()
        elif way == "vanishes":
            ice: Any = connection.getTransceivers()[0].receiver.transport.transport
            ice._connection._nominated[1].protocol.transport.abort()  # noqa: SLF001 - no public way to be rude
    finally:
        await connection.close()


async def look(track: Any, seconds: float) -> list[float]:
    """Milliseconds from drawing to decoded picture, of each picture."""
    start, latencies = time.monotonic(), []
    while (watched_s := time.monotonic() - start) < seconds:
        frame = await asyncio.wait_for(track.recv(), 10.0)
        now_ms = time.time() * 1e3
        plane = frame.planes[0]
        code = read_time_code(
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
        )
        if watched_s >= min(SETTLE_S, seconds / 2) and code is not None:
            latencies.append(elapsed_ms(now_ms, code.drawn_ms))
    if not latencies:
        raise ValueError("no picture had a readable time code")
    return latencies


async def drive(http: httpx.AsyncClient, stay_s: float) -> None:
    """Start a session, drive it as the page does, end it."""
    session = await start_session(http, "browser")
    async with AsyncExitStack() as stack:
        address = str(http.base_url).replace("http", "ws", 1)
        socket = await stack.enter_async_context(connect(f"{address}/v1/signal/{session}?role=drive", proxy=None))
        connection = make_peer_connection()
        stack.push_async_callback(connection.close)
        tracks: list[Any] = []
        connection.on("track", tracks.append)
        connection.addTransceiver("video", direction="recvonly")
        pose = connection.createDataChannel("pose", ordered=False, maxRetransmits=0)
        await connection.setLocalDescription(await connection.createOffer())
        await socket.send(json.dumps({"type": "offer", "sdp": connection.localDescription.sdp}))
        while (message := json.loads(await asyncio.wait_for(socket.recv(), 10.0)))["type"] != "answer":
            if message["type"] == "error":
                raise ValueError(message["message"])
        await connection.setRemoteDescription(RTCSessionDescription(message["sdp"], "answer"))
        await connected(connection, 15.0)
        looking = asyncio.create_task(look_on(tracks[0]))
        start = time.monotonic()
        for number, landmarks in zip(count(), cycle(SIGHTINGS), strict=False):
            if time.monotonic() - start > stay_s:
                break
            if pose.readyState == "open":
                pose.send(encode_landmarks(LandmarkSample(number, replace(landmarks, timestamp_s=number / 30))))
            await asyncio.sleep(1 / 30)
        looking.cancel()
        await asyncio.wait([looking])
    (await http.delete(f"/api/sessions/{session}")).raise_for_status()


async def look_on(track: Any) -> None:
    """Take pictures as they come."""
    with contextlib.suppress(MediaStreamError):
        while True:
            await track.recv()


async def start_session(http: httpx.AsyncClient, source: str, **wish: Any) -> str:
    """Its id."""
    body = {"avatar": "builtin", "source": source, "width": SIZE, "height": SIZE, "probe": True, **wish}
    response = await http.post("/api/sessions", json=body)
    response.raise_for_status()
    return str(response.json()["id"])


async def census(link: Connection, http: httpx.AsyncClient) -> Census:
    """The server when everybody has gone, once nothing changes any more."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        sessions = (await http.get("/api/state")).json()["sessions"]
        if not any(session["viewers"] for session in sessions) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    found, seen = await ask(link), 0
    while seen < 4 and time.monotonic() < deadline:  # peers that are gone are forgotten a moment later
        await asyncio.sleep(0.5)
        again = await ask(link)
        seen = seen + 1 if (again.tasks, again.threads) == (found.tasks, found.threads) else 0
        found = again
    return found


async def sample_memory(link: Connection, every_s: float, course: list[float]) -> None:
    """Eight looks while people come and go: growth that ends is what a busy server keeps, growth that goes on leaks."""
    for _ in range(8):
        course.append((await ask(link)).rss_mb)
        await asyncio.sleep(every_s)


async def ask(link: Connection) -> Census:
    """What the server consists of now."""
    link.send("census")
    answer: Census = await asyncio.to_thread(link.recv)
    return answer


@asynccontextmanager
async def server_process(folder: Path) -> AsyncIterator[tuple[str, Connection]]:
    """A server with the built-in person in a process of its own."""
    store = AvatarStore(folder / "avatars")
    person = build_person(GAUSSIANS)
    save_avatar(person, store.avatar_path("builtin"))
    facts = AvatarFacts("Built-in", person.metadata.reconstructor, person.metadata.created_at)
    write_facts(store.facts_path("builtin"), facts)
    context = get_context("spawn")
    link, far_link = context.Pipe()
    process = context.Process(target=_serve, args=(folder, far_link), daemon=True)
    process.start()
    far_link.close()
    try:
        yield await asyncio.to_thread(link.recv), link
    finally:
        link.send("stop")
        process.join(20)
        if process.is_alive():
            process.kill()
        link.close()


def _serve(folder: Path, link: Connection) -> None:
    configure_logging(Log(level="error"))
    asyncio.run(_serve_until_told(folder, link))


async def _serve_until_told(folder: Path, link: Connection) -> None:
    config = load_config(
        storage={"data": folder}, rtc={"loopback": "only"}, video={"hardware": False}, server={"linger_s": 3600}
    )
    server = uvicorn.Server(uvicorn.Config(create_app(config), port=0, log_config=None, ws="websockets-sansio"))
    serving = asyncio.create_task(server.serve(), name="serve")
    while not server.started:
        await asyncio.sleep(0.02)
    link.send(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    with contextlib.suppress(EOFError):  # whoever asked is gone
        while await asyncio.to_thread(link.recv) == "census":
            link.send(_count())
    server.should_exit = True
    await serving


def _count() -> Census:
    gc.collect()
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    tasks = Counter(_plain(task.get_name(), task.get_coro()) for task in asyncio.all_tasks())
    # the default executor's threads are few and stay
    threads = Counter(_plain(thread.name) for thread in threading.enumerate() if not thread.name.startswith("asyncio_"))
    return Census(round(rss, 1), tasks, threads, sum(1 for _ in Path("/proc/self/fd").iterdir()))


def _plain(name: str, work: Any = None) -> str:
    """A name without the ids and numbers in it, which differ each time."""
    if re.fullmatch(r"Task-\d+", name):
        return str(getattr(work, "__qualname__", work))
    return re.sub(r"[0-9a-f]{8}|\d+", "*", name)


def _see_somebody_wave() -> list[Landmarks]:
    person = build_person(GAUSSIANS)
    motion = wave(4.0, 30.0, person.expression_names)
    joints = forward_kinematics(motion.rotvec[0], person.rest_joints, motion.transl[0])[:, :3, 3]
    tracker = IdealTracker(person.rest_joints, frame_person(joints, "full", 640, 640))
    scores = np.zeros(52, np.float32)
    return [replace(tracker.see(motion.pose(i)), face_blendshapes=scores) for i in range(len(motion))]


SIGHTINGS: Final = _see_somebody_wave() if __name__ == "__main__" else []

if __name__ == "__main__":
    main()
