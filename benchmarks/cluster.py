"""How long viewers miss their picture when something of a cluster is lost, as seen in their browsers.

Two Ray nodes of this machine, with the settings of docs/cluster.md, a gateway, four sessions, and a headless Chromium
with a page at /view/{session} for each, all visible. For every repetition of a fault the sessions are new, two on each
node. ``back_s`` is from the fault to the first picture after the longest break, of viewers whose session was hit; the
others' longest breaks are listed apart. ``black_s``: how long a page showed no picture at all, not even the last one.
Prints JSON.

    python benchmarks/cluster.py [--rounds 3] [--spares 2] [--only FAULT]
"""

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from lhm_runtime.avatar import save_avatar
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming.avatar_store import AvatarFacts, AvatarStore, write_facts
from streaming.bench.machine import this_machine
from streaming.bench.nodes import Nodes, send_all, two_nodes
from streaming.bench.viewer_pages import ViewerPage, open_viewers, wait_for_all
from streaming.sample_avatars import BUILTIN

SESSIONS: Final = 4
GAUSSIANS: Final = 5_000
SIZE: Final = 256
FPS: Final = 20
STOPPED_S: Final = 10.0
CALM_S: Final = 3.0
"""Before each fault, in which every page sees pictures."""
AFTER_S: Final = 4.0
"""Watched after everybody is back."""
PATIENCE_S: Final = 60.0
READY_S: Final = 240.0
"""For nodes and spares that start, which nothing here measures."""


@dataclass
class Scene:
    """What a fault happens to."""

    nodes: Nodes
    http: httpx.AsyncClient
    seats: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Node and process of each session."""

    @property
    def node(self) -> str:
        """The one that things happen to."""
        return next(iter(self.seats.values()))[0]

    def on(self, node: str) -> set[str]:
        """Sessions on a node."""
        return {session for session, (at, _) in self.seats.items() if at == node}


Fault = Callable[[Scene], Awaitable[set[str]]]
"""Does something, and says which sessions that hit."""


async def kill_worker(scene: Scene) -> set[str]:
    """One process of the four that have sessions."""
    session, (_, process) = next(iter(scene.seats.items()))
    send_all([process], signal.SIGKILL)
    return {session}


async def kill_node(scene: Scene) -> set[str]:
    """All processes of a node."""
    scene.nodes.kill(scene.node)
    return scene.on(scene.node)


async def stop_node(scene: Scene) -> set[str]:
    """None of a node's processes does anything for ten seconds."""
    processes = scene.nodes.processes(scene.node)
    send_all(processes, signal.SIGSTOP)
    try:
        await asyncio.sleep(STOPPED_S)
    finally:
        send_all(processes, signal.SIGCONT)
    return scene.on(scene.node)


async def drain_node(scene: Scene) -> set[str]:
    """A node's sessions move to the other one."""
    scene.nodes.records.drain(scene.node, begin=True)
    async with asyncio.timeout(PATIENCE_S):
        while any(
            seat.node == scene.node for seats in (await scene.nodes.holders(scene.http)).values() for seat in seats
        ):
            await asyncio.sleep(0.2)
    scene.nodes.records.drain(scene.node, begin=False)
    return scene.on(scene.node)


async def kill_gateway(scene: Scene) -> set[str]:
    """It is started again at once."""
    scene.nodes.gateway.kill()
    scene.nodes.gateway.start()
    async with asyncio.timeout(READY_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                (await scene.http.get("/healthz")).raise_for_status()
                return set(scene.seats)
            await asyncio.sleep(0.1)


FAULTS: Final[dict[str, Fault]] = {
    "worker killed": kill_worker,
    "node killed": kill_node,
    "node stopped for 10 s": stop_node,
    "node drained": drain_node,
    "gateway killed": kill_gateway,
}


def main() -> None:
    """Do everything that may befall a cluster, and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="of each fault")
    parser.add_argument("--spares", type=int, default=SESSIONS // 2, help="seats that wait on each node")
    parser.add_argument("--only", choices=FAULTS, help="one fault")
    arguments = parser.parse_args()
    faults = {name: fault for name, fault in FAULTS.items() if arguments.only in {None, name}}
    with (
        tempfile.TemporaryDirectory(prefix="lhm-live-cluster-", ignore_cleanup_errors=True) as folder,
        contextlib.redirect_stdout(sys.stderr),  # Ray prints
    ):
        report = asyncio.run(measure(Path(folder), faults, arguments.rounds, arguments.spares))
    print(json.dumps(report, indent=2))


async def measure(folder: Path, faults: dict[str, Fault], rounds: int, spares: int) -> dict[str, Any]:
    """Everything that is printed."""
    machine = asdict(this_machine())
    add_person(folder)
    settings = {
        "storage": {"data": str(folder)},
        "rtc": {"loopback": "only"},
        "video": {"width": SIZE, "height": SIZE, "fps": FPS, "hardware": False},
        "cluster": {"cpus": 1.0, "memory_mb": 0, "spares": spares},
        "log": {"style": "json"},
    }
    figures = {}
    with two_nodes(folder, **settings) as nodes:
        async with (
            httpx.AsyncClient(base_url=nodes.gateway.url, timeout=30.0, trust_env=False) as http,
            open_viewers(SESSIONS) as viewers,
        ):
            for name, fault in faults.items():
                seen = [await watch(Scene(nodes, http), viewers, fault, spares) for _ in range(rounds)]
                print(name, seen, file=sys.stderr)
                figures[name] = summarize(seen)
    return {
        "machine": machine,
        "settings": {"sessions": SESSIONS, "size": SIZE, "fps": FPS, "gaussians": GAUSSIANS, "spares": spares},
        "rounds": rounds,
        "faults": figures,
    }


@dataclass(frozen=True)
class Sight:
    """What one viewer saw of one fault."""

    hit: bool
    back_s: float
    break_s: float
    black_s: float


async def watch(scene: Scene, viewers: list[ViewerPage], fault: Fault, spares: int) -> list[Sight]:
    """One fault, with sessions of its own."""
    await until_ready(scene, spares)
    async with sessions(scene) as started:
        await asyncio.gather(
            *(
                viewer.watch(f"{scene.nodes.gateway.url}/view/{session}", PATIENCE_S)
                for viewer, session in zip(viewers, started, strict=True)
            )
        )
        await until_ready(scene, spares)
        await asyncio.sleep(CALM_S)
        await wait_for_all(viewers, PATIENCE_S)
        held = await scene.nodes.holders(scene.http)
        scene.seats = {session: (seat.node, seat.address.process) for session, [seat] in held.items()}
        began = time.time()
        hit = await fault(scene)
        await asyncio.sleep(AFTER_S)
        await wait_for_all(viewers, PATIENCE_S)
        await asyncio.sleep(AFTER_S)
        sights = []
        for viewer, session in zip(viewers, started, strict=True):
            found = await viewer.longest_break(began)
            black_s = await viewer.longest_black_s(began)
            sights.append(
                Sight(session in hit, round(found.end_s - began, 2), round(found.length_s, 2), round(black_s, 2))
            )
        return sights


def summarize(rounds: list[list[Sight]]) -> dict[str, Any]:
    """Medians and maxima over viewers and rounds."""
    sights = [sight for sights in rounds for sight in sights]
    hit = [sight for sight in sights if sight.hit]
    return {
        "viewers_hit": len(hit),
        "back_s": {"median": statistics.median(sight.back_s for sight in hit), "max": max(s.back_s for s in hit)},
        "break_s": {"median": statistics.median(sight.break_s for sight in hit), "max": max(s.break_s for s in hit)},
        "black_s": {"median": statistics.median(sight.black_s for sight in hit), "max": max(s.black_s for s in hit)},
        "others_break_s": max((sight.break_s for sight in sights if not sight.hit), default=None),
    }


async def until_ready(scene: Scene, spares: int) -> None:
    """Two nodes, each with its spares."""
    scene.nodes.mend()
    async with asyncio.timeout(READY_S):
        while True:
            seats = await scene.nodes.seats(scene.http)
            free = [seat.node for seat in seats if seat.state.session is None]
            if all(free.count(node) >= spares for node in scene.nodes.ids):
                return
            await asyncio.sleep(0.5)


@asynccontextmanager
async def sessions(scene: Scene) -> AsyncIterator[list[str]]:
    """Four of them, two on each node; they end here."""
    wish = {"avatar": BUILTIN.id, "source": "replay", "replay": "wave", "background": "3c78b4"}
    started: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(started) < SESSIONS:
                answer = await scene.http.post("/api/sessions", json=wish)
                if answer.status_code == 503:
                    await asyncio.sleep(0.5)
                    continue
                answer.raise_for_status()
                started.append(str(answer.json()["id"]))
        yield started
    finally:
        for session in started:
            (await scene.http.delete(f"/api/sessions/{session}")).raise_for_status()


def add_person(folder: Path) -> None:
    """A small one, which leaves the machine to what is measured."""
    store = AvatarStore(folder / "avatars")
    person = build_person(GAUSSIANS)
    save_avatar(person, store.avatar_path(BUILTIN.id))
    facts = AvatarFacts("Built-in", person.metadata.reconstructor, person.metadata.created_at, made_of=BUILTIN.made_of)
    write_facts(store.facts_path(BUILTIN.id), facts)


if __name__ == "__main__":
    main()
