"""Machines, for which network namespaces of this one stand in: each with an address and, if wanted, a clock of its own.

They reach each other and nothing else, and vanish when the last process in them ends.
"""

import asyncio
import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from apart import in_a_thread, needs_own_network

_NEWNET: Final = 0x40000000
_READY_S: Final = 10.0

needs_hosts = needs_own_network
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="the clock of another machine needs c++")


class Host:
    """A machine; made by ``two_hosts``."""

    def __init__(self, address: str, folder: Path, environment: dict[str, str]) -> None:
        self.address = address
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        until = time.monotonic() + _READY_S
        while self._network().stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
            assert time.monotonic() < until, "no network namespace"
            time.sleep(0.01)

    @property
    def process(self) -> int:
        """One in it."""
        return self._holder.pid

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """A program on it, that logs into ``name``.log."""
        inside = ["nsenter", f"--net={self._network()}", *command]
        with self.log(name).open("ab") as log:
            return subprocess.Popen(inside, stdout=log, stderr=log, env=self._environment, start_new_session=True)

    def log(self, name: str) -> Path:
        """What a program has said."""
        return self._folder / f"{name}.log"

    def run(self, main: Coroutine[Any, Any, None], limit_s: float) -> None:
        """Run ``main`` as if on it, in a thread, for ``limit_s`` at most."""

        async def bounded() -> None:
            async with asyncio.timeout(limit_s):
                await main

        def work() -> None:
            with self._network().open() as network:
                assert ctypes.CDLL(None).setns(network.fileno(), _NEWNET) == 0
            asyncio.run(bounded())

        in_a_thread(work)

    def close(self) -> None:
        """Of itself; what runs on it has to end by itself."""
        self._holder.kill()
        self._holder.wait()

    def _network(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/ns/net")


@contextmanager
def two_hosts(folder: Path, environment: dict[str, str], *, ahead_s: int = 0) -> Iterator[tuple[Host, Host]]:
    """Two machines that reach each other; the clock of the second is ``ahead_s`` ahead."""
    skewed = environment
    if ahead_s:
        source, library = Path(__file__).parent / "streaming" / "cluster" / "clock.c", folder / "clock.so"
        subprocess.run(["c++", "-x", "c", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        skewed = {**environment, "LD_PRELOAD": str(library), "AHEAD_S": str(ahead_s)}
    with ExitStack() as ending:
        net = f"198.18.{os.getpid() % 250 + 1}"  # Ray looks for others of its address among all processes
        hosts = Host(f"{net}.1", folder, environment), Host(f"{net}.2", folder, skewed)
        for host in hosts:
            ending.callback(host.close)
        one, other = hosts
        _ip(one, f"link add lhm0 type veth peer name lhm0 netns {other.process}")
        for host in hosts:
            _ip(host, "link set lo up", f"address add {host.address}/24 dev lhm0", "link set lhm0 up")
        yield hosts


def _ip(host: Host, *commands: str) -> None:
    for command in commands:
        subprocess.run(["nsenter", f"--net=/proc/{host.process}/ns/net", "ip", *command.split()], check=True)
