"""Two real aiortc peers on 127.0.0.1, and a road between them that may lose and delay."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import av
import numpy as np
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from streaming import lowlatency
from streaming.encoder import Codec

Road = Callable[[int, bytes], float | None]
"""(count of the datagram, its bytes) to seconds of delay, or None: lost."""

CONNECT_S = 15.0


@dataclass
class Pair:
    server: RTCPeerConnection
    viewer: RTCPeerConnection
    sender: RTCRtpSender
    receiver: RTCRtpReceiver
    video: MediaStreamTrack
    """What the viewer sees."""
    relay: "Relay"

    def lay_road(self, road: Road) -> None:
        """Send everything from the server to the viewer over ``road`` from now on."""
        self.relay.road = road


class Relay(asyncio.DatagramProtocol):
    """A UDP socket between the two, as a router is: every datagram passes it, those to the viewer by its road."""

    def __init__(self) -> None:
        self.road: Road = lambda _, __: 0.0
        self._server: tuple[str, int] | None = None
        self._viewer: tuple[str, int] | None = None
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def between(self, answer: str) -> str:
        """The server's answer with this relay's address in the place of the server's."""
        port = self._transport.get_extra_info("sockname")[1]
        found = re.search(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) typ host", answer)
        assert found, answer
        self._server = ("127.0.0.1", int(found[1]))
        return answer.replace(f"127.0.0.1 {found[1]} typ host", f"127.0.0.1 {port} typ host")

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr != self._server:
            self._viewer = addr
            self._send(data, self._server)
            return
        self._count += 1
        delay_s = self.road(self._count, data)
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._send, data, self._viewer)
        elif delay_s is not None:
            self._send(data, self._viewer)

    def _send(self, data: bytes, address: tuple[str, int] | None) -> None:
        if address is not None and not self._transport.is_closing():
            self._transport.sendto(data, address)


@asynccontextmanager
async def peers(track: MediaStreamTrack, codec: Codec = "h264") -> AsyncIterator[Pair]:
    """The server sends ``track`` to a viewer that offered to receive, as in WHEP."""
    lowlatency.install("only")
    transport, relay = await asyncio.get_running_loop().create_datagram_endpoint(Relay, local_addr=("127.0.0.1", 0))
    server, viewer = lowlatency.make_peer_connection(), lowlatency.make_peer_connection()
    videos: list[MediaStreamTrack] = []
    viewer.on("track", videos.append)
    try:
        receiver = viewer.addTransceiver("video", direction="recvonly").receiver
        await viewer.setLocalDescription(await viewer.createOffer())
        sender = server.addTrack(track)
        lowlatency.prefer_codec(server.getTransceivers()[0], codec)
        # without the viewer's addresses the server learns of it through the relay alone
        offer = re.sub(r"a=(candidate:|end-of-candidates).*\r\n", "", viewer.localDescription.sdp)
        await server.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await server.setLocalDescription(await server.createAnswer())
        answer = relay.between(server.localDescription.sdp)
        await viewer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await lowlatency.connected(server, CONNECT_S)
        await lowlatency.connected(viewer, CONNECT_S)
        yield Pair(server, viewer, sender, receiver, videos[0], relay)
    finally:
        await viewer.close()
        await server.close()
        transport.close()


async def no_tasks_left() -> None:
    """Fail if any task but the caller's is alive a moment from now."""
    others: set[asyncio.Task[object]] = set()
    for _ in range(100):
        others = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        if not others:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"still running: {others}")


def moving_picture(index: int, width: int = 256, height: int = 256, *, noise: int = 0) -> np.ndarray:
    """I420 of a smooth ground with a bright box that moves; ``noise`` makes it as hard to encode as one likes."""
    y, x = np.mgrid[:height, :width]
    luma = 90 + 40 * np.sin(x / 40) + 30 * np.cos(y / 30)
    left = 8 * index % (width - 48)
    luma[height // 3 : height // 3 + 48, left : left + 48] = 220
    if noise:
        luma = luma + np.random.default_rng(index).integers(-noise, noise + 1, luma.shape)
    chroma = np.full((height // 2, width), 128.0)
    return np.vstack([luma, chroma]).clip(16, 235).astype(np.uint8)


def psnr(frame: av.VideoFrame, i420: np.ndarray) -> float:
    """Likeness of the luma in dB."""
    height, width = frame.height, frame.width
    plane = frame.planes[0]
    luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, :width].astype(float)
    return float(10 * np.log10(255**2 / max(1e-9, ((luma - i420[:height]) ** 2).mean())))
