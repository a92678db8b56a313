"""A real coturn on a free port."""

import asyncio
import contextlib
import shutil
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

TURNSERVER = shutil.which("turnserver") or shutil.which("turnserver", path="/usr/sbin:/usr/local/bin")
SECRET = "the turn server's"  # noqa: S105

needs_coturn = pytest.mark.skipif(TURNSERVER is None, reason="coturn is not installed: apt-get install coturn")


@contextmanager
def free_ports() -> Iterator[tuple[int, int]]:
    """A port to listen on, and the first of twenty to relay by."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], min(two.getsockname()[1], 65_000)
    yield ports


@asynccontextmanager
async def coturn(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The settings of a running one (``rtc.turn``)."""
    assert TURNSERVER is not None
    users = folder / "turn.db"  # the system's is root's; without the table no secret counts
    with contextlib.closing(sqlite3.connect(users)) as database:
        database.execute(
            "create table turn_secret (realm varchar(127), value varchar(127), primary key (realm, value))"
        )
    with free_ports() as (port, relays):
        process = await asyncio.create_subprocess_exec(
            *(TURNSERVER, "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log"),
            *("--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--allow-loopback-peers", "--realm=test"),
            *("--use-auth-secret", f"--static-auth-secret={SECRET}", f"--pidfile={folder / 'turn.pid'}"),
            *(f"--listening-port={port}", f"--min-port={relays}", f"--max-port={relays + 20}", f"--userdb={users}"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=folder,
        )
        try:
            for _ in range(500):
                assert process.returncode is None, "coturn does not start"
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                    break
                await asyncio.sleep(0.02)
            yield {"urls": [f"turn:127.0.0.1:{port}?transport=udp"], "secret": SECRET, "minutes": 5}
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
