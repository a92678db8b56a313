"""A whole server on a free port of 127.0.0.1, and people who come to it."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import uvicorn
from aiortc import RTCDataChannel, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from peers import no_tasks_left
from websockets.asyncio.client import ClientConnection, connect

from lhm_runtime.avatar import Avatar, save_avatar
from streaming.app import create_app
from streaming.avatar_store import AvatarFacts, AvatarStore, write_facts
from streaming.config import Config, load_config
from streaming.lowlatency import connected, make_peer_connection
from streaming.services import Services
from streaming.signaling import MAX_MESSAGE_BYTES

SIZE = (128, 160)
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The server speaks no TLS, and to read whom the system trusts takes longer than many a test."""
LIMIT_S = 60.0
"""No test of a live server takes longer."""


@dataclass
class LiveServer:
    address: str
    http: httpx.AsyncClient
    services: Services

    async def start_session(self, **wish: Any) -> str:
        response = await self.http.post("/api/sessions", json={"avatar": "someone", **wish})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    async def watch(self, session: str, stack: AsyncExitStack, **query: str) -> "Visitor":
        """A viewer by WHEP, connected."""
        visitor = await stack.enter_async_context(visit())
        visitor.connection.addTransceiver("video", direction="recvonly")
        response = await self.http.post(
            f"/whep/{session}", params=query, content=await visitor.offer(), headers={"content-type": "application/sdp"}
        )
        assert response.status_code == 201, response.text
        visitor.location = response.headers["location"]
        await visitor.accept(response.text)
        return visitor

    @asynccontextmanager
    async def signal(self, session: str, role: str = "drive", **query: str) -> AsyncIterator[ClientConnection]:
        """The page's websocket."""
        extra = "".join(f"&{name}={value}" for name, value in query.items())
        url = f"{self.address.replace('http', 'ws')}/v1/signal/{session}?role={role}{extra}"
        async with connect(url, proxy=None) as socket:
            yield socket

    async def join(self, session: str, stack: AsyncExitStack, **query: str) -> "Visitor":
        """A driver as the page is one: by websocket, with data channels, connected."""
        socket = await stack.enter_async_context(self.signal(session, **query))
        visitor = await stack.enter_async_context(visit())
        visitor.socket = socket
        visitor.connection.addTransceiver("video", direction="recvonly")
        visitor.pose = visitor.connection.createDataChannel("pose", ordered=False, maxRetransmits=0)
        visitor.control = visitor.connection.createDataChannel("control")
        visitor.control.on("message", lambda text: visitor.heard.append(json.loads(text)))
        await socket.send(json.dumps({"type": "offer", "sdp": await visitor.offer()}))
        answer = await hear(socket, "answer")
        await visitor.accept(answer["sdp"])
        while visitor.pose.readyState != "open" or visitor.control.readyState != "open":
            await asyncio.sleep(0.01)
        return visitor


@dataclass
class Visitor:
    connection: RTCPeerConnection
    tracks: list[MediaStreamTrack] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    """What came over the control channel."""
    location: str = ""
    socket: ClientConnection | None = None
    pose: RTCDataChannel | None = None
    control: RTCDataChannel | None = None

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await connected(self.connection, 15.0)

    async def see(self, frames: int = 1) -> np.ndarray:
        """Luma of the last of the next ``frames`` pictures."""
        frame: Any = None
        for _ in range(frames):
            async with asyncio.timeout(10.0):
                frame = await self.tracks[0].recv()
        return luma(frame)

    async def see_until(self, wanted: Callable[[np.ndarray], bool], frames: int = 150) -> np.ndarray:
        """The first picture that is as wanted."""
        for _ in range(frames):
            picture = await self.see()
            if wanted(picture):
                return picture
        raise AssertionError(f"none of {frames} pictures was as wanted")


@asynccontextmanager
async def visit() -> AsyncIterator[Visitor]:
    visitor = Visitor(make_peer_connection())
    visitor.connection.on("track", visitor.tracks.append)
    try:
        yield visitor
    finally:
        await visitor.connection.close()


@asynccontextmanager
async def live_server(folder: Path, avatar: Avatar, *, port: int = 0, **sections: Any) -> AsyncIterator[LiveServer]:
    """A server with one avatar, ``someone``, on a port or on any that is free."""
    config = small_config(folder, **sections)
    add_avatar(folder, avatar, "someone")
    add_avatar(folder, avatar, "builtin")  # or it would be made, which takes seconds
    app = create_app(config)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_config=None, ws="websockets-sansio", ws_max_size=MAX_MESSAGE_BYTES)
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the server did not start"
        await asyncio.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=address, timeout=20.0, trust_env=False, verify=TRUSTS_NOBODY) as http:
            yield LiveServer(address, http, app.state.services)
    finally:
        server.should_exit = True
        await serving


def small_config(folder: Path, **sections: Any) -> Config:
    defaults: dict[str, Any] = {
        "storage": {"data": folder},
        "rtc": {"loopback": "only"},
        "video": {"width": SIZE[0], "height": SIZE[1], "hardware": False},
    }
    for name, values in sections.items():
        defaults[name] = {**defaults.get(name, {}), **values}
    return load_config(**defaults)


def add_avatar(folder: Path, avatar: Avatar, avatar_id: str, made_of: str = "") -> None:
    store = AvatarStore(folder / "avatars")
    save_avatar(avatar, store.avatar_path(avatar_id))
    facts = AvatarFacts(avatar_id.title(), avatar.metadata.reconstructor, avatar.metadata.created_at, made_of=made_of)
    write_facts(store.facts_path(avatar_id), facts)


async def hear(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a kind; others are passed over."""
    while True:
        message = json.loads(await asyncio.wait_for(socket.recv(), 10.0))
        if message["type"] == kind:
            return dict(message)


def luma(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width].astype(int)


def only_codec(connection: RTCPeerConnection, name: str) -> None:
    """Offer nothing but this codec for the first video."""
    codecs = [codec for codec in RTCRtpSender.getCapabilities("video").codecs if codec.name in {name, "rtx"}]
    connection.getTransceivers()[0].setCodecPreferences(codecs)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test to its end within LIMIT_S, and see that it left no task behind."""

    async def watched() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main
        await no_tasks_left()

    asyncio.run(watched())
