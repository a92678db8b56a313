"""A server in one process and those who come to it in another, so that the clock of each is its own."""

# ruff: noqa: SLF001 - viewers that only receive are no part of aiortc
import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import httpx
from aiortc import RTCRtpReceiver, RTCSessionDescription
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from lhm_runtime.avatar import Avatar, save_avatar
from lhm_runtime.errors import BackendError
from streaming import lowlatency
from streaming.avatar_store import AvatarFacts, AvatarStore, write_facts
from streaming.config import load_config
from streaming.pose_feed import ACK_EVERY
from streaming.server import run_with
from streaming.services import Services
from streaming.settings import NewSession

_PATIENCE_S: Final = 90.0
_JANUS: Final = ("127.0.0.1", 8188)
"""Where JanusRelay looks for one."""
_AT_ONCE: Final = 16
"""People on their way in."""


@dataclass(frozen=True, slots=True)
class Served:
    """A session that runs elsewhere."""

    address: str
    session: str
    process: int

    def cpu_s(self) -> float:
        """CPU seconds its process has used, those of threads that have ended among them."""
        return process_cpu_s(self.process)


@dataclass(slots=True)
class Received:
    """What all viewers have had together."""

    messages: int = 0
    bytes: int = 0
    downloaded: int = 0
    """Bytes of what each took before the first message, as they came over the line."""


Watch = Callable[[str, str, int, Connection], Coroutine[Any, Any, None]]
"""Comes ``n`` times to a session, says so, and then what it has received whenever it is asked."""


@dataclass(frozen=True, slots=True)
class Audience:
    """People who watch from another process."""

    link: Connection = field(repr=False)
    came_s: float
    """How long it took until all were there."""
    came_cpu_s: float
    """What the server used meanwhile."""

    def received(self) -> Received:
        """What they have had so far."""
        self.link.send("count")
        return _receive(self.link)  # type: ignore[no-any-return]


def process_cpu_s(process: int) -> float:
    """CPU seconds a process has used; raises BackendError where there is no /proc, or no such process."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        raise BackendError(f"the system does not tell what process {process} uses: {error}") from error
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cores_used(seconds: float, *clocks: Callable[[], float]) -> list[float]:
    """CPU seconds a second on each of the clocks, over so many from now."""
    before, start = [clock() for clock in clocks], time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - start
    return [(clock() - used) / took for clock, used in zip(clocks, before, strict=True)]


@contextmanager
def serve_session(folder: Path, avatar: Avatar, wish: NewSession) -> Iterator[Served]:
    """Serve one session of the avatar ``builtin`` in a process of its own."""
    store = AvatarStore(folder / "avatars")
    save_avatar(avatar, store.avatar_path("builtin"))
    facts = AvatarFacts("Built-in", avatar.metadata.reconstructor, avatar.metadata.created_at)
    write_facts(store.facts_path("builtin"), facts)
    with _process(partial(_serve, folder, wish.model_dump_json())) as (link, process):
        address, session = _receive(link)
        yield Served(address, session, process)


def find_janus() -> str:
    """The program; raises BackendError where it is not installed."""
    program = shutil.which("janus")
    if program is None:
        raise BackendError("Janus is not installed: apt-get install janus")
    return program


@contextmanager
def run_janus(settings: Path, secret: str) -> Iterator[Callable[[], float]]:
    """A Janus with a folder of settings; its clock of CPU seconds.

    Raises:
        BackendError: it is not installed, or does not run.
    """
    program = find_janus()
    with tempfile.TemporaryFile() as log:
        command = [program, "--configs-folder", str(settings.absolute()), f"--apisecret={secret}"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while not _listens(_JANUS):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read().decode(errors="replace")[-300:]
                    raise BackendError(f"Janus does not run with the settings in {settings}; it says: {said}")
                time.sleep(0.05)
            yield partial(process_cpu_s, process.pid)
        finally:
            process.terminate()
            process.wait(10)


def _listens(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, 0.2):
        return True
    return False


@contextmanager
def gather(served: Served, watch: Watch, viewers: int) -> Iterator[Audience]:
    """``viewers`` who have come to a session, until the block ends."""
    with _process(partial(_attend, watch, served.address, served.session, viewers)) as (link, _):
        _receive(link)  # their program is loaded
        start, before = time.perf_counter(), served.cpu_s()
        link.send("come")
        _receive(link)
        yield Audience(link, time.perf_counter() - start, served.cpu_s() - before)


async def watch_poses(address: str, session: str, viewers: int, link: Connection) -> None:
    """People who draw the avatar: take its file and read poses."""
    received, coming = Received(), asyncio.Semaphore(_AT_ONCE)
    async with AsyncExitStack() as stack, httpx.AsyncClient(base_url=address, timeout=30.0, trust_env=False) as http:

        async def come() -> ClientConnection:
            async with coming:
                async with http.stream("GET", f"/api/sessions/{session}/avatar") as answer:
                    answer.raise_for_status()
                    async for chunk in answer.aiter_raw():
                        received.downloaded += len(chunk)
                url = f"{address.replace('http', 'ws', 1)}/v1/poses/{session}"
                return await stack.enter_async_context(connect(url, proxy=None))

        sockets = await asyncio.gather(*(come() for _ in range(viewers)))
        reading = [asyncio.create_task(_read_poses(socket, received), name="read poses") for socket in sockets]
        await _answer(link, received)
        for task in reading:
            task.cancel()


async def watch_video(address: str, session: str, viewers: int, link: Connection) -> None:
    """People who come by WHEP; they count packets, and neither decode nor ask for repeats."""
    received = Received()

    async def count(receiver: RTCRtpReceiver, packet: Any, arrival_time_ms: int) -> None:  # noqa: ARG001
        received.messages += 1
        received.bytes += len(packet.payload)

    RTCRtpReceiver._handle_rtp_packet = count  # type: ignore[method-assign, assignment]
    lowlatency.install("only")
    async with AsyncExitStack() as stack, httpx.AsyncClient(base_url=address, timeout=30.0, trust_env=False) as http:
        for _ in range(viewers):
            connection = lowlatency.make_peer_connection()
            stack.push_async_callback(connection.close)
            connection.addTransceiver("video", direction="recvonly")
            await connection.setLocalDescription(await connection.createOffer())
            offer = connection.localDescription.sdp
            answer = await http.post(f"/whep/{session}", content=offer, headers={"content-type": "application/sdp"})
            answer.raise_for_status()
            await connection.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
            await lowlatency.connected(connection)
        await _answer(link, received)


async def _read_poses(socket: ClientConnection, received: Received) -> None:
    had = 0
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            if isinstance(message, str):
                continue
            had += 1
            received.messages += 1
            received.bytes += len(message)
            if had % ACK_EVERY == 0:
                await socket.send(f'{{"type": "ack", "received": {had}}}')


async def _answer(link: Connection, received: Received) -> None:
    """Say that everybody is there, and then what they have had, until told to go."""
    link.send("here")
    while await asyncio.to_thread(link.recv) == "count":
        link.send(received)


def _attend(watch: Watch, address: str, session: str, viewers: int, link: Connection) -> None:
    link.send("ready")
    with contextlib.suppress(EOFError):  # whoever asked is gone
        link.recv()
        asyncio.run(watch(address, session, viewers, link))


def _serve(folder: Path, wish: str, link: Connection) -> None:
    async def host(services: Services, address: str) -> None:
        live = await services.sessions.start(NewSession.model_validate_json(wish))
        link.send((address, live.id))
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(link.recv)

    config = load_config(
        storage={"data": folder},
        rtc={"loopback": "only"},
        video={"hardware": False},
        server={"port": 0, "linger_s": 3600.0, "max_viewers": 1000},
        log={"level": "error"},
    )
    run_with(config, host)


@contextmanager
def _process(run: Callable[[Connection], None]) -> Iterator[tuple[Connection, int]]:
    # spawned, not forked: a forked child would share threads and card handles that do not survive it
    context = get_context("spawn")
    link, far_link = context.Pipe()
    process = context.Process(target=run, args=(far_link,), daemon=True)
    process.start()
    far_link.close()
    try:
        yield link, process.pid or 0
    finally:
        with contextlib.suppress(OSError):
            link.send("go")
        process.join(20)
        process.kill()
        link.close()


def _receive(link: Connection) -> Any:
    try:
        if not link.poll(_PATIENCE_S):
            raise BackendError(f"a process of this benchmark said nothing for {_PATIENCE_S:g} s")
        return link.recv()
    except EOFError as error:
        raise BackendError("a process of this benchmark ended; its error is above") from error
