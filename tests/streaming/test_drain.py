"""A server that is told to stop lets those go on who watch, for a while: the program, and SIGTERM."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import av
import httpx
from live import LiveServer, add_avatar, hear, run

from lhm_runtime.avatar import Avatar
from streaming import lowlatency
from streaming.services import Services

DRAIN_S = 8.0
PROGRAM = "from streaming.cli import main; main()"


@asynccontextmanager
async def program(folder: Path) -> AsyncIterator[tuple[LiveServer, asyncio.subprocess.Process]]:
    """``lhm-live serve``, which drains."""
    environment = {
        **os.environ,
        "LHM_LIVE_STORAGE__DATA": str(folder),
        "LHM_LIVE_SERVER__DRAIN_S": str(DRAIN_S),
        "LHM_LIVE_RTC__LOOPBACK": "only",
        "LHM_LIVE_VIDEO__WIDTH": "128",
        "LHM_LIVE_VIDEO__HEIGHT": "160",
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, "serve", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    try:
        assert process.stdout is not None
        address = None
        async for line in process.stdout:
            if found := re.search(r"http://\S+?:\d+", line.decode()):
                address = found[0]
                break
        assert address, "the server did not start"
        async with httpx.AsyncClient(base_url=address, timeout=20.0, trust_env=False) as http:
            yield LiveServer(address, http, cast("Services", None)), process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def test_it_drains_before_it_stops(avatar: Avatar, tmp_path: Path) -> None:
    add_avatar(tmp_path, avatar, "someone")
    add_avatar(tmp_path, avatar, "builtin")

    async def main() -> None:
        lowlatency.install("only")
        async with AsyncExitStack() as stack:
            server, process = await stack.enter_async_context(program(tmp_path))
            watched = await server.start_session(source="replay", replay="wave")
            recorded = await server.start_session(source="replay", replay="wave")
            viewer = await server.watch(watched, stack)
            told = await stack.enter_async_context(server.signal(recorded, role="view"))
            await viewer.see(5)
            assert (await server.http.post(f"/api/sessions/{recorded}/recording")).status_code == 201
            assert (await server.http.get("/readyz")).status_code == 200

            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            news = await hear(told, "error")
            assert (news["code"], "stops" in news["message"]) == ("draining", True)
            ready = await server.http.get("/readyz")
            assert (ready.status_code, "draining_error" in ready.json()) == (503, True)
            refused = await server.http.post("/api/sessions", json={"avatar": "someone"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert int(refused.headers["retry-after"]) > 0
            await viewer.see(30)

            assert (await server.http.delete(viewer.location)).status_code == 200
            while (await server.http.get(f"/api/sessions/{watched}")).status_code == 200:  # ends with its viewer
                await asyncio.sleep(0.1)
            assert time.monotonic() - began < DRAIN_S
            assert (await server.http.get(f"/api/sessions/{recorded}")).status_code == 200
            assert (await hear(told, "bye"))["reason"] == "the server stops"
            assert time.monotonic() - began >= DRAIN_S - 1
            assert await asyncio.wait_for(process.wait(), 10.0) == -signal.SIGTERM

        (film,) = (tmp_path / "recordings").glob("*.mp4")
        with av.open(film) as container:
            assert sum(1 for _ in container.decode(video=0)) > 60

    run(main())
