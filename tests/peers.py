"""Two real aiortc peers on 127.0.0.1, and a road between them that may lose and delay."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import av
import numpy as np
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
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

    def lay_road(self, road: Road) -> None:
        """Send everything from the server to the viewer over ``road`` from now on."""
        _lay(self.sender.transport.transport, road)


@asynccontextmanager
async def peers(track: MediaStreamTrack, codec: Codec = "h264") -> AsyncIterator[Pair]:
    """The server sends ``track`` to a viewer that offered to receive, as in WHEP."""
    lowlatency.install("only")
    server, viewer = lowlatency.make_peer_connection(), lowlatency.make_peer_connection()
    videos: list[MediaStreamTrack] = []
    viewer.on("track", videos.append)
    try:
        receiver = viewer.addTransceiver("video", direction="recvonly").receiver
        await viewer.setLocalDescription(await viewer.createOffer())
        sender = server.addTrack(track)
        lowlatency.prefer_codec(server.getTransceivers()[0], codec)
        await server.setRemoteDescription(viewer.localDescription)
        await server.setLocalDescription(await server.createAnswer())
        await viewer.setRemoteDescription(server.localDescription)
        await lowlatency.connected(server, CONNECT_S)
        await lowlatency.connected(viewer, CONNECT_S)
        yield Pair(server, viewer, sender, receiver, videos[0])
    finally:
        await viewer.close()
        await server.close()


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


def _lay(transport: object, road: Road) -> None:
    send, count, loop = transport._send, 0, asyncio.get_running_loop()
    late: set[asyncio.Task[None]] = set()

    async def send_later(data: bytes, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await send(data)

    async def send_over_road(data: bytes) -> None:
        nonlocal count
        count += 1
        delay_s = road(count, data)
        if delay_s:
            task = loop.create_task(send_later(data, delay_s))
            late.add(task)
            task.add_done_callback(late.discard)
        elif delay_s is not None:
            await send(data)

    transport._send = send_over_road
