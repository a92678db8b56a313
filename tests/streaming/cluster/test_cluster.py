"""Four sessions on two Ray nodes of this machine, and what may happen to them.

Nodes, gateway and sessions are there for the whole module: each test does something to them, and leaves two nodes and
four sessions that run.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from aiortc.mediastreams import MediaStreamError
from live import add_avatar, hear, visit
from websockets.asyncio.client import connect

from lhm_runtime.avatar import Avatar

pytest.importorskip("ray", reason="the extra scale is not installed")

from streaming.app import WEB
from streaming.bench.nodes import Gateway, Nodes, send_all, two_nodes
from streaming.bench.viewer_pages import open_viewers, wait_for_all
from streaming.cluster.seat import Seat
from streaming.sample_avatars import BUILTIN

BACK_S = 60.0
"""Far more than it takes where the machine has nothing else to do."""
LIMIT_S = 200.0
_SILENT_S = 1.0


@dataclass
class Grid:
    """All that there is."""

    nodes: Nodes
    sessions: list[str]

    async def where(self, http: httpx.AsyncClient) -> dict[str, list[Seat]]:
        """The seats of each session."""
        return await self.nodes.holders(http)

    async def seat(self, http: httpx.AsyncClient, session: str) -> Seat:
        """The only one that has a session."""
        [seat] = (await self.where(http))[session]
        return seat


@pytest.fixture(scope="module")
def grid(avatar: Avatar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    folder = tmp_path_factory.mktemp("cluster")
    shared = folder / "shared"
    shared.mkdir()
    add_avatar(shared, avatar, "someone")
    add_avatar(shared, avatar, "builtin", BUILTIN.made_of)  # or it would be made, which takes seconds
    settings = {
        "storage": {"data": str(folder / "data")},
        "rtc": {"loopback": "only"},
        "video": {"width": 128, "height": 160, "fps": 15, "hardware": False},
        "cluster": {"cpus": 1.0, "memory_mb": 0, "spares": 1, "storage": str(shared)},
        "log": {"style": "json"},
    }
    with two_nodes(folder, **settings) as nodes:
        yield Grid(nodes, asyncio.run(begin_four(nodes)))


async def begin_four(nodes: Nodes) -> list[str]:
    """Sessions; asked for again while there is no room, as Retry-After says."""
    async with (
        asyncio.timeout(2 * BACK_S),
        httpx.AsyncClient(base_url=nodes.gateway.url, timeout=40.0, trust_env=False) as http,
    ):
        while {seat.node for seat in await nodes.seats(http)} != nodes.ids:
            await asyncio.sleep(0.3)
        started: list[str] = []
        while len(started) < 4:
            answer = await http.post("/api/sessions", json={"avatar": "someone", "background": "3c78b4"})
            if answer.status_code == 503:
                await asyncio.sleep(0.5)
                continue
            assert answer.status_code == 201, answer.text
            started.append(answer.json()["id"])
        return started


@dataclass
class Watcher:
    """Somebody who watches by WHEP and comes back whenever the picture stops."""

    http: httpx.AsyncClient
    session: str
    seen: float = field(default=0.0)
    """When the last picture came."""

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
                self.seen = time.monotonic()
                async with asyncio.timeout(_SILENT_S):  # wait_for of Python 3.11 may swallow a cancellation
                    await visitor.tracks[0].recv()

    async def see(self) -> None:
        """Wait for a picture of a time from now on, when what was under way has arrived."""
        since = time.monotonic() + 0.5
        async with asyncio.timeout(BACK_S):
            while self.seen < since:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def watching(gateway: Gateway, session: str) -> AsyncIterator[Watcher]:
    """Somebody who sees a session by a gateway."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30.0, trust_env=False) as http:
        watcher = Watcher(http, session)
        task = asyncio.create_task(watcher.watch())
        try:
            await watcher.see()
            yield watcher
        finally:
            task.cancel()
            await asyncio.wait([task])


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main

    asyncio.run(bounded())


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it."""
    async with asyncio.timeout(BACK_S):
        while not await is_so():
            await asyncio.sleep(0.2)


async def knows_all(grid: Grid, http: httpx.AsyncClient) -> bool:
    """Whether a gateway lists the sessions."""
    with contextlib.suppress(httpx.HTTPError):
        return {session["id"] for session in (await http.get("/api/state")).json()["sessions"]} == set(grid.sessions)
    return False


async def is_written(grid: Grid, session: str, **settings: object) -> bool:
    """Whether the session's record has some settings."""
    record = await asyncio.to_thread(grid.nodes.records.read, session)
    return record is not None and all(getattr(record.wish, name) == value for name, value in settings.items())


async def all_elsewhere(grid: Grid, http: httpx.AsyncClient, nodes: set[str]) -> bool:
    """Whether each session runs once, and on none of some nodes."""
    held = await grid.where(http)
    seats = [seat for seats in held.values() for seat in seats]
    return sorted(held) == sorted(grid.sessions) and len(seats) == 4 and nodes.isdisjoint(seat.node for seat in seats)


def test_two_gateways_know_the_same_sessions_and_one_is_enough(grid: Grid) -> None:
    async def main() -> None:
        session = grid.sessions[0]
        with contextlib.closing(Gateway(grid.nodes.address, grid.nodes.file)) as other:
            async with httpx.AsyncClient(base_url=other.url, timeout=30.0, trust_env=False) as http:
                await until(lambda: knows_all(grid, http))
                async with watching(other, session) as watcher:
                    held = await grid.where(http)
                    assert {len(seats) for seats in held.values()} == {1}
                    assert {seats[0].node for seats in held.values()} == grid.nodes.ids
                    grid.nodes.gateway.kill()
                    change = {"background": "112233", "yaw": 0.5}
                    assert (await http.patch(f"/api/sessions/{session}", json=change)).status_code == 200
                    await until(lambda: is_written(grid, session, yaw=0.5))
                    os.kill(held[session][0].address.process, signal.SIGKILL)
                    await watcher.see()
                    state = (await http.get(f"/api/sessions/{session}")).json()
                    assert (state["background"], state["yaw"]) == ("112233", 0.5)
                    grid.nodes.gateway.start()
                    async with httpx.AsyncClient(
                        base_url=grid.nodes.gateway.url, timeout=30.0, trust_env=False
                    ) as again:
                        await until(lambda: knows_all(grid, again))
                    await watcher.see()
                    after = await grid.where(http)
            assert sorted(after) == sorted(grid.sessions)
            for each, [seat] in after.items():
                assert (seat.address == held[each][0].address) == (each != session)

    run(main())


@pytest.mark.skipif(not (WEB / "view.html").is_file(), reason="the page is not built (make web)")
@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here")
def test_browsers_see_all_sessions_again_when_a_node_is_killed_and_miss_no_gateway(grid: Grid) -> None:
    async def main() -> None:
        async with open_viewers(4) as viewers, httpx.AsyncClient(trust_env=False) as http:

            async def all_live() -> None:
                is_live = "lhm.phase().name === 'live'"
                await asyncio.gather(*(viewer.page.wait_for(is_live, BACK_S) for viewer in viewers))

            for viewer, session in zip(viewers, grid.sessions, strict=True):
                await viewer.watch(f"{grid.nodes.gateway.url}/view/{session}", BACK_S)
            before = await grid.where(http)
            lost = before[grid.sessions[0]][0].node
            await asyncio.to_thread(grid.nodes.kill, lost)
            await until(lambda: all_elsewhere(grid, http, {lost}))
            await wait_for_all(viewers, BACK_S)
            after = await grid.where(http)
            for session, [seat] in before.items():
                [now] = after[session]
                assert (now.address == seat.address) == (seat.node != lost)
                assert now.state.generation == seat.state.generation + (seat.node == lost)
            await all_live()
            grid.nodes.gateway.kill()  # pictures go on without it
            await wait_for_all(viewers, BACK_S)
            grid.nodes.gateway.start()
            await all_live()
            await wait_for_all(viewers, BACK_S)
        grid.nodes.mend()

    run(main())


def test_a_worker_that_is_asked_to_end_hands_its_session_on_first(grid: Grid) -> None:
    async def main() -> None:
        session = grid.sessions[1]
        async with watching(grid.nodes.gateway, session) as watcher:
            seat = await grid.seat(watcher.http, session)
            os.kill(seat.address.process, signal.SIGTERM)

            async def is_elsewhere() -> bool:  # for a moment in both
                held = (await grid.where(watcher.http)).get(session, [])
                return len(held) == 1 and held[0].address != seat.address

            await until(is_elsewhere)
            await watcher.see()
            assert (await grid.seat(watcher.http, session)).state.generation == seat.state.generation + 1

    run(main())


def test_a_hung_node_is_replaced_and_lets_go_when_it_is_back(grid: Grid) -> None:
    async def main() -> None:
        session = grid.sessions[0]
        async with watching(grid.nodes.gateway, session) as watcher:
            hung = (await grid.seat(watcher.http, session)).node
            frozen = grid.nodes.processes(hung)
            send_all(frozen, signal.SIGSTOP)
            try:
                await asyncio.sleep(_SILENT_S)  # until it is missed
                await watcher.see()
            finally:
                send_all(frozen, signal.SIGCONT)
            await until(lambda: all_elsewhere(grid, watcher.http, set()))  # in one seat each, there or here
            assert (await grid.seat(watcher.http, session)).node != hung
            await watcher.see()
        grid.nodes.mend()

    run(main())


def test_a_drained_node_hands_its_sessions_on_and_a_full_cluster_says_so(grid: Grid) -> None:
    async def main() -> None:
        session = grid.sessions[0]
        async with watching(grid.nodes.gateway, session) as watcher:
            drained = (await grid.seat(watcher.http, session)).node
            url = f"{grid.nodes.gateway.url.replace('http', 'ws')}/v1/signal/{session}?role=view"
            async with connect(url, proxy=None) as page:
                grid.nodes.records.drain(drained, begin=True)
                async with asyncio.timeout(BACK_S):
                    assert (await hear(page, "bye"))["reason"] == "moved"
            await until(lambda: all_elsewhere(grid, watcher.http, {drained}))
            answer = await watcher.http.post("/api/sessions", json={"avatar": "someone"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "full")
            assert int(answer.headers["retry-after"]) > 0
            grid.nodes.records.drain(drained, begin=False)
            await watcher.see()

    run(main())
