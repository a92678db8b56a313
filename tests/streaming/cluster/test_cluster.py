"""Sessions on two Ray nodes of this machine, with a gateway in a process of its own, and what may happen to them."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiortc.mediastreams import MediaStreamError
from live import add_avatar, hear, visit
from websockets.asyncio.client import connect

from lhm_runtime.avatar import Avatar

pytest.importorskip("ray", reason="the extra scale is not installed")

from ray.cluster_utils import Cluster

from streaming.cluster.placement import Placement, node_of
from streaming.cluster.records import Records
from streaming.cluster.seat import Seat
from streaming.config import Config, load_config
from streaming.sample_avatars import BUILTIN

BACK_S = 40.0
"""Far more than it takes where the machine has nothing else to do."""
LIMIT_S = 150.0
_SILENT_S = 0.7


@dataclass
class Grid:
    """Two nodes, and a gateway to them."""

    ray: Any
    nodes: list[Any]
    placement: Placement
    config: Config
    file: Path
    url: str
    gateway: subprocess.Popen[bytes]

    def start_gateway(self) -> None:
        self.gateway = start_gateway(self.ray.address, self.file, self.url)

    def records(self) -> Records:
        return Records(self.config.cluster.storage or "")

    async def seats(self, http: httpx.AsyncClient) -> list[Seat]:
        """All that answer, as they are now."""
        found = []
        for name in await asyncio.to_thread(self.placement.seats):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    address = await self.placement.address(name)
                    if address is not None:
                        seat = Seat(name, node_of(name), address, http)
                        if await seat.probe(2.0) == "heard":
                            found.append(seat)
        return found

    async def holders(self, http: httpx.AsyncClient) -> dict[str, list[Seat]]:
        """Seats by the session that they have."""
        held: dict[str, list[Seat]] = {}
        for seat in await self.seats(http):
            if seat.state.session is not None:
                held.setdefault(seat.state.session.id, []).append(seat)
        return held

    async def having(self, watcher: "Watcher") -> list[Seat]:
        """Seats that have what somebody watches."""
        return (await self.holders(watcher.http)).get(watcher.session, [])


def start_gateway(address: str, file: Path, url: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-c",
        "from streaming.cli import main; main()",
        "serve",
        "--cluster",
        address,
        "--config",
        str(file),
    ]
    log = (file.parent / "gateway.log").open("ab")
    return subprocess.Popen([*command, "--port", url.rpartition(":")[2]], stdout=log, stderr=log)


@pytest.fixture(scope="module")
def grid(avatar: Avatar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "shared").mkdir()
    add_avatar(folder / "shared", avatar, "someone")
    add_avatar(folder / "shared", avatar, "builtin", BUILTIN.made_of)  # or it would be made, which takes seconds
    settings = {
        "storage": {"data": str(folder / "data")},
        "rtc": {"loopback": "only"},
        "video": {"width": 128, "height": 160, "hardware": False},
        "cluster": {"cpus": 1.0, "memory_mb": 0, "spares": 2, "storage": str(folder / "shared")},
        "log": {"style": "json"},
    }
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(settings))
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    common = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    ray = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
    nodes = [ray.add_node(num_cpus=4, **common) for _ in range(2)]
    config = load_config(file)
    placement = Placement(config, ray.address)
    placement.connect()
    grid = Grid(ray, nodes, placement, config, file, url, start_gateway(ray.address, file, url))
    try:
        yield grid
    finally:
        grid.gateway.kill()
        grid.gateway.wait()
        placement.disconnect()
        ray.shutdown()


@dataclass
class Watcher:
    """Somebody who watches by WHEP and comes back whenever the picture stops."""

    http: httpx.AsyncClient
    session: str
    seen: list[float] = field(default_factory=list)
    """When pictures came."""

    async def watch(self) -> None:
        while True:
            try:
                await self._watch()
            except (httpx.HTTPError, TimeoutError, ConnectionError, MediaStreamError):
                await asyncio.sleep(0.1)

    async def _watch(self) -> None:
        async with visit() as visitor:
            visitor.connection.addTransceiver("video", direction="recvonly")
            answer = await self.http.post(
                f"/whep/{self.session}", content=await visitor.offer(), headers={"content-type": "application/sdp"}
            )
            answer.raise_for_status()
            async with asyncio.timeout(5):
                await visitor.accept(answer.text)
                await visitor.tracks[0].recv()
            while True:
                self.seen.append(time.monotonic())
                async with asyncio.timeout(_SILENT_S):  # wait_for of Python 3.11 may swallow a cancellation
                    await visitor.tracks[0].recv()

    async def see(self, since: float) -> float:
        """Wait for a picture later than ``since``; the longest break from then on, or to the first one after."""
        async with asyncio.timeout(BACK_S):
            while not self.seen or self.seen[-1] < since + 0.5:
                await asyncio.sleep(0.05)
        times = [time_s for time_s in self.seen if time_s > since - 0.5]
        return max((after - before for before, after in pairwise(times)), default=0.0)


@asynccontextmanager
async def audience(grid: Grid, count: int) -> AsyncIterator[list[Watcher]]:
    """So many new sessions, each watched; they end with the test."""
    async with httpx.AsyncClient(base_url=grid.url, timeout=30.0, trust_env=False) as http:
        await ready(http)
        watchers = []
        for _ in range(count):
            answer = await begin(http)
            assert answer.status_code == 201, answer.text
            watchers.append(Watcher(http, answer.json()["id"]))
        watching = [asyncio.create_task(watcher.watch()) for watcher in watchers]
        try:
            for watcher in watchers:
                await watcher.see(time.monotonic())
            yield watchers
        finally:
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)
            for watcher in watchers:
                with contextlib.suppress(httpx.HTTPError):
                    await http.delete(f"/api/sessions/{watcher.session}")


async def begin(http: httpx.AsyncClient) -> httpx.Response:
    """A new session; asked for again while there is no room, as Retry-After says: seats of the last test restart."""
    async with asyncio.timeout(BACK_S):
        while True:
            answer = await http.post("/api/sessions", json={"avatar": "someone"})
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(0.5)


async def ready(http: httpx.AsyncClient) -> None:
    """The gateway answers, and each node has its spares."""
    async with asyncio.timeout(BACK_S):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                told = (await http.get("/metrics")).text
                free = [line for line in told.splitlines() if line.startswith("lhm_live_cluster_free_seats ")]
                if free and float(free[0].split()[1]) >= 4:
                    return
            await asyncio.sleep(0.2)


def run(main: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main

    asyncio.run(bounded())


def family(process: int) -> list[int]:
    """A process and all that it started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [process]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found


def processes(node: Any) -> list[int]:
    """Of a Ray node."""
    return [each for kind in node.all_processes.values() for info in kind for each in family(info.process.pid)]


def signal_all(ids: list[int], what: signal.Signals) -> None:
    for each in ids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, what)


def report(what: str, breaks: list[float]) -> None:
    print(f"{what}: longest break {', '.join(f'{seconds:.2f}' for seconds in breaks)} s")  # noqa: T201


def test_four_sessions_are_spread_and_the_gateway_is_not_missed(grid: Grid) -> None:
    async def main() -> None:
        async with audience(grid, 4) as watchers:
            http = watchers[0].http
            held = await grid.holders(http)
            nodes = [seats[0].node for seats in held.values()]
            assert set(held) == {watcher.session for watcher in watchers}
            assert len(set(nodes)) == 2  # two each, unless a seat of the busy machine answers too late to be picked
            state = (await http.get("/api/state")).json()
            assert {session["id"] for session in state["sessions"]} == set(held)
            began = time.monotonic()
            grid.gateway.kill()
            grid.gateway.wait()
            grid.start_gateway()
            async with asyncio.timeout(BACK_S):
                while True:
                    with contextlib.suppress(httpx.HTTPError):
                        answer = await http.get(f"/api/sessions/{watchers[0].session}")
                        assert answer.status_code == 200, answer.text
                        break
                    await asyncio.sleep(0.1)
            report("gateway killed", [await watcher.see(began) for watcher in watchers])
            assert {name: len(seats) for name, seats in (await grid.holders(http)).items()} == dict.fromkeys(held, 1)

    run(main())


def test_a_killed_worker_is_replaced_with_what_was_set(grid: Grid) -> None:
    async def main() -> None:
        async with audience(grid, 1) as [watcher]:
            change = {"background": "112233", "yaw": 0.5}
            assert (await watcher.http.patch(f"/api/sessions/{watcher.session}", json=change)).status_code == 200
            await asyncio.sleep(1.0)
            [seat] = await grid.having(watcher)
            began = time.monotonic()
            os.kill(seat.address.process, signal.SIGKILL)
            report("worker killed", [await watcher.see(began)])
            state = (await watcher.http.get(f"/api/sessions/{watcher.session}")).json()
            assert (state["background"], state["yaw"]) == ("112233", 0.5)
            [other] = await grid.having(watcher)
            assert other.address != seat.address

    run(main())


def test_a_worker_that_is_asked_to_end_hands_its_session_on_first(grid: Grid) -> None:
    async def main() -> None:
        async with audience(grid, 1) as [watcher]:
            [seat] = await grid.having(watcher)
            os.kill(seat.address.process, signal.SIGTERM)
            async with asyncio.timeout(BACK_S):
                while [one.address for one in await grid.having(watcher)] in ([], [seat.address]):
                    await asyncio.sleep(0.1)
            report("worker asked to end", [await watcher.see(time.monotonic())])
            [other] = await grid.having(watcher)
            assert other.state.generation == 2

    run(main())


def test_a_drained_node_hands_its_sessions_on(grid: Grid) -> None:
    async def main() -> None:
        async with audience(grid, 1) as [watcher]:
            [seat] = await grid.having(watcher)
            url = f"{grid.url.replace('http', 'ws')}/v1/signal/{watcher.session}?role=view"
            async with connect(url, proxy=None) as page:
                grid.records().drain(seat.node, begin=True)
                bye = await asyncio.wait_for(hear(page, "bye"), BACK_S)
                assert bye["reason"] == "moved"
            report("node drained", [await watcher.see(time.monotonic())])
            [other] = await grid.having(watcher)
            assert other.node != seat.node
            grid.records().drain(seat.node, begin=False)

    run(main())


def test_the_storage_may_go_away(grid: Grid) -> None:
    async def main() -> None:
        shared = Path(grid.config.cluster.storage or "")
        async with audience(grid, 1) as [watcher]:
            shared.rename(shared.with_name("away"))
            try:
                change = {"background": "445566"}
                answer = await watcher.http.patch(f"/api/sessions/{watcher.session}", json=change)
                assert answer.status_code == 200
                await asyncio.sleep(4.0)
                assert not shared.exists()
            finally:
                shared.with_name("away").rename(shared)
            gap = await watcher.see(time.monotonic())
            report("storage away", [gap])
            assert gap < 3.0
            await asyncio.sleep(1.0)
            record = grid.records().read(watcher.session)
            assert record is not None
            assert record.wish.background == "445566"

    run(main())


def test_a_hung_node_is_replaced_and_lets_go_when_it_is_back(grid: Grid) -> None:
    async def main() -> None:
        async with audience(grid, 1) as [watcher]:
            [seat] = await grid.having(watcher)
            [hung] = [node for node in grid.nodes if node.node_id == seat.node]
            frozen = processes(hung)
            began = time.monotonic()
            signal_all(frozen, signal.SIGSTOP)
            try:
                report("node hung", [await watcher.see(began)])
                await asyncio.sleep(max(0, began + 6 - time.monotonic()))
            finally:
                signal_all(frozen, signal.SIGCONT)
            async with asyncio.timeout(BACK_S):
                while len(seats := await grid.having(watcher)) != 1:
                    await asyncio.sleep(0.2)
            assert seats[0].node != seat.node

    run(main())


def test_a_full_cluster_says_so_and_a_lost_node_takes_no_session_with_it(grid: Grid) -> None:
    async def main() -> None:
        async with audience(grid, 4) as watchers:
            http = watchers[0].http
            before = await grid.holders(http)
            more = []
            for _ in range(5):
                answer = await http.post("/api/sessions", json={"avatar": "someone"})
                if answer.status_code != 201:
                    break
                more.append(answer.json()["id"])
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "full")
            assert int(answer.headers["retry-after"]) > 0
            assert len(more) == 4
            for session in more:
                assert (await http.delete(f"/api/sessions/{session}")).status_code == 204
            [lost] = [node for node in grid.nodes if node.node_id == before[watchers[0].session][0].node]
            grid.nodes.remove(lost)
            began = time.monotonic()
            signal_all(processes(lost), signal.SIGKILL)
            report("node lost", [await watcher.see(began) for watcher in watchers])
            after = await grid.holders(http)
            assert set(after) == set(before)
            assert {seat.node for seats in after.values() for seat in seats} == {grid.nodes[0].node_id}

    run(main())
