"""What a cluster of two machines survives: clocks that disagree, and no storage for half a minute.

The machines are network namespaces of this one, and the clock of the second is five minutes ahead all the time. Who
watches is the Python client, which comes back by itself.
"""

import asyncio
import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from hosts import Host, needs_compiler, needs_hosts, two_hosts
from live import add_avatar

from lhm_runtime.avatar import Avatar
from streaming.access import Grant, sign
from streaming.sample_avatars import BUILTIN

pytest.importorskip("ray", reason="the extra scale is not installed")

from streaming.bench.nodes import family, send_all
from streaming.cluster.placement import ENVIRONMENT, node_of
from streaming.cluster.records import Records

pytestmark = [needs_hosts, needs_compiler]

AHEAD_S = 300
AWAY_S = 30.0
SHORT_S = 5.0
BACK_S = 150.0
"""Far more than it takes where the machine has nothing else to do."""
LIMIT_S = 400.0
CLIENT = Path(__file__).parents[3] / "clients" / "python"
SECRET = "of the gateways of this test, and of nobody else"  # noqa: S105
PORT = 8080


@dataclass
class Grid:
    """Ray's head with the first node on one machine, the second on the other, and a gateway."""

    here: Host
    there: Host
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def shared(self) -> Path:
        return self.folder / "shared"

    @property
    def records(self) -> Records:
        return Records(self.shared)

    def start_node(self, name: str, host: Host, *more: str) -> None:
        """Of Ray, with more options; blocks until it is one."""
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={host.address}"]
        ray += ["--object-store-memory=80000000", "--min-worker-port=0", "--max-worker-port=0"]
        is_head = name == "head"
        where = ["--head", "--port=6379", "--include-dashboard=false", "--num-cpus=0"]
        ray += where if is_head else [f"--address={self.here.address}:6379", "--num-cpus=4"]
        ray += more
        if not self._is_up(name, host, ray):  # Ray gives up after half a minute where the machine has much else to do
            self.kill(name)
            assert self._is_up(name, host, ray), host.log(name).read_text()[-2000:]

    def _is_up(self, name: str, host: Host, ray: list[str]) -> bool:
        said = host.log(name).stat().st_size if host.log(name).exists() else 0
        self.running[name] = host.start(name, *ray)
        until = time.monotonic() + BACK_S
        while self.running[name].poll() is None and time.monotonic() < until:
            if b"Ray runtime started" in host.log(name).read_bytes()[said:]:
                return True
            time.sleep(0.1)
        return False

    def start_gateway(self, name: str, host: Host) -> None:
        """It is reached by its machine's address."""
        program = [sys.executable, "-c", "from streaming.cli import main; main()", "serve"]
        arguments = ["--cluster", f"{self.here.address}:6379", "--config", str(self.folder / "cluster.yaml")]
        self.running[name] = host.start(name, *program, *arguments, "--host", host.address, "--port", str(PORT))

    def kill(self, name: str) -> None:
        """A node or a gateway with all its processes, at once."""
        send_all(family(self.running[name].pid), signal.SIGKILL)
        self.running.pop(name).wait()

    def seats(self, node: str) -> list[int]:
        """Processes of the seats of a node."""
        return [each for each in family(self.running[node].pid) if _command(each).startswith("ray::Worker")]


def _command(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""


@pytest.fixture(scope="module")
def grid(avatar: Avatar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    folder = tmp_path_factory.mktemp("faults")
    shared = folder / "shared"
    shared.mkdir()
    add_avatar(shared, avatar, "someone")
    add_avatar(shared, avatar, "builtin", BUILTIN.made_of)  # or it would be made, which takes seconds
    settings = {
        "access": {"required": "always", "secret": SECRET, "starts_per_minute": 1000},
        "storage": {"data": str(folder / "data")},
        "video": {"width": 128, "height": 160, "fps": 15, "hardware": False},
        "cluster": {"cpus": 1.0, "memory_mb": 0, "spares": 1, "storage": str(shared)},
        "log": {"style": "json"},
    }
    (folder / "cluster.yaml").write_text(json.dumps(settings))  # which is YAML
    environment = {
        **ENVIRONMENT,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    with two_hosts(folder, environment, ahead_s=AHEAD_S) as (here, there), _ending(Grid(here, there, folder)) as grid:
        grid.start_node("head", here)
        grid.start_node("first", here)
        grid.start_node("second", there)
        grid.start_gateway("gateway", here)
        yield grid


@contextmanager
def _ending(grid: Grid) -> Iterator[Grid]:
    try:
        yield grid
    finally:
        for name in reversed(list(grid.running)):
            grid.kill(name)


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CLIENT))


def token(session: str | None = None, *, lasts_s: float = 3600, ahead_s: float = 0) -> str:
    """Of a viewer, or of an admin; as a machine signs it whose clock is so much ahead."""
    return sign(SECRET, Grant("admin" if session is None else "view", session, time.time() + ahead_s + lasts_s))


def url(host: Host) -> str:
    return f"http://{host.address}:{PORT}"


@asynccontextmanager
async def gateway(host: Host) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway of a machine, by an admin."""
    async with httpx.AsyncClient(
        base_url=url(host),
        timeout=40.0,
        trust_env=False,
        headers={"Authorization": f"Bearer {token(lasts_s=7200)}"},
    ) as http:
        yield http


class Watcher:
    """Somebody who watches a session by the gateway of a machine."""

    def __init__(self, host: Host, session: str, by: str) -> None:
        from lhm_live_client.viewer import Watched, watch  # noqa: PLC0415

        self.seen = Watched()
        self.watching = asyncio.create_task(
            watch(url(host), session, seconds=1e6, token=by, patience_s=BACK_S, seen=self.seen)
        )

    async def see(self) -> None:
        """Wait for pictures from now on."""
        before, since = self.seen.frames, time.monotonic()
        async with asyncio.timeout(BACK_S):
            while self.seen.frames < before + 5 or time.monotonic() < since + 0.5:
                if self.watching.done():
                    self.watching.result()
                await asyncio.sleep(0.05)

    async def come_back(self) -> None:
        """Wait for pictures after a first break."""
        async with asyncio.timeout(BACK_S):
            while not self.seen.breaks_s:
                if self.watching.done():
                    self.watching.result()
                await asyncio.sleep(0.05)
        await self.see()

    async def __aenter__(self) -> "Watcher":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.watching.cancel()
        await asyncio.wait([self.watching])


async def begin(http: httpx.AsyncClient) -> str:
    """A new session; asked for again while there is no room yet, as Retry-After says."""
    async with asyncio.timeout(BACK_S):
        while True:
            with suppress(httpx.TransportError):
                answer = await http.post("/api/sessions", json={"avatar": "someone", "source": "idle"})
                if answer.status_code != 503:
                    assert answer.status_code == 201, answer.text
                    return str(answer.json()["id"])
            await asyncio.sleep(0.3)


async def begin_on_both(grid: Grid, http: httpx.AsyncClient) -> tuple[str, str]:
    """A new session on each machine; all others end."""
    found: dict[str, str] = {}
    async with asyncio.timeout(BACK_S):
        while len(found) < 2:
            session = await begin(http)
            where = await runs_on(grid, http, session)
            if where in found:  # the other one has no seat yet
                await asyncio.sleep(1)
                assert (await http.delete(f"/api/sessions/{session}")).status_code == 204
            else:
                found[where] = session
    return found[grid.here.address], found[grid.there.address]


async def runs_on(grid: Grid, http: httpx.AsyncClient, session: str) -> str:
    """The machine that has a session, by its record and by what a gateway knows of nodes."""
    async with asyncio.timeout(BACK_S):
        while (record := await asyncio.to_thread(grid.records.read, session)) is None:
            await asyncio.sleep(0.1)
        while True:
            told = (await http.get("/metrics")).text
            for line in told.splitlines():
                if line.startswith("lhm_live_cluster_sessions{") and f'"{node_of(record.seat)[:12]}"' in line:
                    return next(host.address for host in (grid.here, grid.there) if f'"{host.address}"' in line)
            await asyncio.sleep(0.2)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(BACK_S):
        while not await is_so():
            await asyncio.sleep(0.2)


def test_clocks_may_be_five_minutes_apart(grid: Grid) -> None:
    async def main() -> None:
        grid.start_gateway("ahead", grid.there)
        async with gateway(grid.here) as http, gateway(grid.there) as http_ahead:
            behind, ahead = await begin_on_both(grid, http)

            async def both_know() -> bool:
                with suppress(httpx.TransportError):
                    listed = (await http_ahead.get("/api/state")).json()["sessions"]
                    return {behind, ahead} <= {session["id"] for session in listed}
                return False

            await until(both_know)
            assert await ahead_of(http_ahead, http) == pytest.approx(AHEAD_S, abs=10)
            async with (
                Watcher(grid.here, behind, token(behind)) as one,
                Watcher(grid.here, ahead, token(ahead)) as other,
                Watcher(grid.there, behind, token(behind, ahead_s=AHEAD_S)) as third,
            ):
                for watcher in (one, other, third):
                    await watcher.see()
                short = [
                    Watcher(grid.here, ahead, token(ahead, lasts_s=SHORT_S)),
                    Watcher(grid.there, behind, token(behind, lasts_s=SHORT_S, ahead_s=AHEAD_S)),
                ]
                # neither is turned away before its time, nor stays for as much as the clocks differ
                for watcher in short:
                    await watcher.see()
                async with asyncio.timeout(BACK_S):
                    for watcher in short:
                        with pytest.raises(ConnectionError, match="token_expired"):
                            await watcher.watching
                for watcher in (one, other, third):
                    assert not watcher.seen.breaks_s
                grid.kill("ahead")
                grid.kill("second")
                await other.come_back()
                assert await runs_on(grid, http, ahead) == grid.here.address
                await one.see()
            for session in (behind, ahead):
                assert (await http.delete(f"/api/sessions/{session}")).status_code == 204
        await asyncio.to_thread(grid.start_node, "second", grid.there)

    grid.here.run(main(), LIMIT_S)


async def ahead_of(one: httpx.AsyncClient, other: httpx.AsyncClient) -> float:
    """Seconds that one gateway's clock is ahead of another's."""
    dates = [parsedate_to_datetime((await http.get("/healthz")).headers["date"]) for http in (one, other)]
    return (dates[0] - dates[1]).total_seconds()


def test_the_storage_may_be_gone_for_half_a_minute(grid: Grid) -> None:
    async def main() -> None:
        async with gateway(grid.here) as http:
            kept, lost = await begin_on_both(grid, http)
            async with Watcher(grid.here, kept, token(kept)) as one, Watcher(grid.here, lost, token(lost)) as other:
                for watcher in (one, other):
                    await watcher.see()
                began = time.monotonic()
                away = grid.shared.rename(grid.shared.with_name("away"))
                try:
                    change = {"background": "445566"}
                    assert (await http.patch(f"/api/sessions/{kept}", json=change)).status_code == 200
                    send_all(grid.seats("second"), signal.SIGKILL)
                    answer = await http.post("/api/sessions", json={"avatar": "someone"})
                    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_storage")
                    assert int(answer.headers["retry-after"]) > 0
                    while time.monotonic() < began + AWAY_S:
                        await one.see()
                    assert not one.seen.breaks_s
                    assert not grid.shared.exists()  # nobody wrote where it had been
                finally:
                    away.rename(grid.shared)
                await other.come_back()

                async def is_written() -> bool:
                    record = await asyncio.to_thread(grid.records.read, kept)
                    return record is not None and record.wish.background == "445566"

                await until(is_written)
            for session in (kept, lost):
                assert (await http.delete(f"/api/sessions/{session}")).status_code == 204

    grid.here.run(main(), LIMIT_S)
