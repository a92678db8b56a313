"""A cluster of one machine, as a program: its session is relayed to a real Janus, and it stops when it is told to."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from aiortc import RTCSessionDescription
from apart import needs_own_network, run_apart
from janus_server import RELAY, needs_janus, run_janus
from live import Visitor, add_avatar, visit

from lhm_runtime.avatar import Avatar
from streaming import lowlatency
from streaming.sample_avatars import BUILTIN

pytest.importorskip("ray", reason="the extra scale is not installed")

from streaming.bench.nodes import family, send_all

PATIENCE_S = 100.0
"""Far more than it takes where the machine has nothing else to do: Ray starts slowly."""
LIMIT_S = 240.0

# tests that run in the background have interrupts switched off, and a program inherits that
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from streaming.cli import main
main()
"""


@asynccontextmanager
async def local_cluster(folder: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    """``lhm-live serve --cluster local`` with two seats, which logs into gateway.log, and its address."""
    settings = {
        "storage": {"data": str(folder)},
        "rtc": {"loopback": "never"},
        "relay": {"hall": RELAY},
        "video": {"width": 128, "height": 160, "hardware": False},
        "cluster": {"cpus": 0.5, "memory_mb": 0, "spares": 1},
        "server": {"linger_s": 60.0},
    }
    file = folder / "cluster.yaml"
    file.write_text(json.dumps(settings))  # which is YAML
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    program = [sys.executable, "-c", PROGRAM, "serve", "--cluster", "local"]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [*program, "--config", str(file), "--port", port],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            send_all(family(process.pid), signal.SIGKILL)
            process.wait()


def seats_of(process: int) -> list[int]:
    """Processes of the seats, by the names that Ray gives them."""
    return [each for each in family(process) if b"ray::Worker" in Path(f"/proc/{each}/cmdline").read_bytes()]


async def begin(http: httpx.AsyncClient) -> str:
    """A relayed session, as soon as there is room for it."""
    wish = {"avatar": "someone", "source": "replay", "replay": "wave", "relay": "hall"}
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await http.post("/api/sessions", json=wish)
                if answer.status_code == 201:
                    return str(answer.json()["id"])
                assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.3)


async def watch(http: httpx.AsyncClient, session: str, stack: AsyncExitStack) -> Visitor:
    """A viewer by way of Janus, invited by the gateway once the session is relayed."""
    visitor = await stack.enter_async_context(visit())
    async with asyncio.timeout(PATIENCE_S):
        while (invited := await http.post(f"/api/sessions/{session}/relay/viewers")).status_code != 201:
            assert invited.status_code == 503, invited.text
            await asyncio.sleep(0.1)
        await visitor.connection.setRemoteDescription(RTCSessionDescription(invited.json()["sdp"], "offer"))
        await visitor.connection.setLocalDescription(await visitor.connection.createAnswer())
        answer = {"sdp": visitor.connection.localDescription.sdp}
        assert (await http.put(invited.headers["location"], json=answer)).status_code == 204
        await lowlatency.connected(visitor.connection, 15.0)
    visitor.location = invited.headers["location"]
    return visitor


async def stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C reaches Ray's processes too, and timeout or npm tell their program of it a second time."""
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        await asyncio.sleep(0.05)  # or they are one
    assert await asyncio.to_thread(process.wait, 40.0) == 0


async def see_motion(visitor: Visitor) -> None:
    before = await visitor.see()
    await visitor.see_until(lambda picture: bool(np.abs(picture - before).max() > 40))


@needs_janus
@needs_own_network
def test_an_audience_comes_through_the_gateway_again_when_its_seat_dies_and_all_stop_in_order(
    avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_avatar(tmp_path, avatar, "someone")
    add_avatar(tmp_path, avatar, "builtin", BUILTIN.made_of)  # or it would be made, which takes seconds
    monkeypatch.setattr("live.LIMIT_S", LIMIT_S)
    lowlatency.install("never")

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(run_janus(tmp_path))
            process, url = await stack.enter_async_context(local_cluster(tmp_path))
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False))
            session = await begin(http)
            visitor = await watch(http, session, stack)
            await see_motion(visitor)
            state = (await http.get(f"/api/sessions/{session}/relay")).json()
            assert (state["state"], state["viewers"]) == ("live", 1)
            assert (await http.delete(visitor.location)).status_code == 204

            seats = seats_of(process.pid)
            assert seats
            send_all(seats, signal.SIGKILL)
            await see_motion(await watch(http, session, stack))

            assert (await http.delete(f"/api/sessions/{session}")).status_code == 204
            assert (await http.post(f"/api/sessions/{session}/relay/viewers")).status_code == 404
            await stop(process)

    run_apart(main())
    log = (tmp_path / "gateway.log").read_text()
    assert "Traceback" not in log
    assert "with all of its sessions" in log
