"""A Ray cluster of two nodes on this machine, gateways to it, and what may befall them: for benchmarks and tests.

Nodes are Ray's own processes, started as ``ray start`` starts them, beside a head that has no sessions.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from ray.cluster_utils import Cluster

from streaming.cluster.placement import ENVIRONMENT, Placement, node_of
from streaming.cluster.records import Records
from streaming.cluster.seat import Seat
from streaming.config import load_config

_CORES: Final = 4
"""That Ray believes a node to have: as many seats."""
_ANSWER_S: Final = 2.0


class Gateway:
    """``lhm-live serve --cluster`` in a process of its own, at an address that stays."""

    def __init__(self, cluster: str, file: Path) -> None:
        """Start it, for the cluster at an address, with the settings of a file."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = str(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self._arguments = ["serve", "--cluster", cluster, "--config", str(file), "--port", self._port]
        self._log = file.parent / f"gateway-{self._port}.log"
        self.start()

    def start(self) -> None:
        """Again, after ``kill``."""
        program = [sys.executable, "-c", "from streaming.cli import main; main()"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*program, *self._arguments], stdout=log, stderr=log)

    def kill(self) -> None:
        """At once, and without a word to anybody."""
        self._process.kill()
        self._process.wait()

    close = kill


class Nodes:
    """Two nodes, what is on them, and a gateway; made by ``two_nodes``."""

    def __init__(self, file: Path) -> None:
        """Start them, with the settings of a file."""
        self.file = file
        self.config = load_config(file)
        common = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
        self._ray = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
        self.address = str(self._ray.address)
        self.gateway = Gateway(self.address, file)  # takes seconds, as the nodes do
        self.placement = Placement(self.config, self.address)
        self._common = common
        self._all: list[Any] = []
        try:
            self._all += [self._ray.add_node(wait=False, num_cpus=_CORES, **common) for _ in range(2)]
            self._ray.wait_for_nodes()
            self.placement.connect()
        except BaseException:
            self.stop()
            raise
        self.records = Records(self.config.cluster.storage or self.config.storage.data)

    @property
    def ids(self) -> set[str]:
        """Of the nodes."""
        return {str(node.node_id) for node in self._all}

    def processes(self, node: str) -> list[int]:
        """All of a node, by its id."""
        [meant] = [each for each in self._all if each.node_id == node]
        started = [info.process.pid for kind in meant.all_processes.values() for info in kind]
        return [process for each in started for process in family(each)]

    def kill(self, node: str) -> None:
        """All of its processes, at once."""
        send_all(self.processes(node), signal.SIGKILL)
        [lost] = [each for each in self._all if each.node_id == node]
        self._all.remove(lost)

    def add(self) -> None:
        """Another node; as ``mend``."""
        self._all.append(self._ray.add_node(num_cpus=_CORES, **self._common))

    def mend(self) -> None:
        """Put a new node in the place of each that is lost: Ray takes nobody back who was silent for long.

        Blocks for seconds, and has to be in the main thread, where Ray sets its handlers of signals.
        """
        for lost in self.ids - set(self.placement.nodes()):
            self.kill(lost)
        while len(self._all) < 2:
            self.add()

    async def seats(self, http: httpx.AsyncClient) -> list[Seat]:
        """All that answer, as they are now."""
        names = await asyncio.to_thread(self.placement.seats)
        found = await asyncio.gather(*(self._meet(name, http) for name in names))
        return [seat for seat in found if seat is not None]

    async def _meet(self, name: str, http: httpx.AsyncClient) -> Seat | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                address = await self.placement.address(name)
                if address is not None:
                    seat = Seat(name, node_of(name), address, http)
                    if await seat.probe(_ANSWER_S) == "heard":
                        return seat
        return None

    async def holders(self, http: httpx.AsyncClient) -> dict[str, list[Seat]]:
        """Seats by the session that they have."""
        held: dict[str, list[Seat]] = {}
        for seat in await self.seats(http):
            if seat.state.session is not None:
                held.setdefault(seat.state.session.id, []).append(seat)
        return held

    def stop(self) -> None:
        """End all of it."""
        self.gateway.kill()
        self.placement.disconnect()
        self._ray.shutdown()


@contextmanager
def two_nodes(folder: Path, **settings: dict[str, Any]) -> Iterator[Nodes]:
    """Two nodes and a gateway, by settings that are written into ``folder``."""
    file = folder / "cluster.yaml"
    file.write_text(json.dumps(settings))  # which is YAML
    os.environ.update(ENVIRONMENT, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    nodes = Nodes(file)
    try:
        yield nodes
    finally:
        nodes.stop()


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


def send_all(processes: Iterable[int], what: signal.Signals) -> None:
    """A signal to each; who is gone is passed over."""
    for each in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, what)
