import asyncio
import json
import multiprocessing
import time
from http.client import HTTPConnection

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from streaming.bench.stock_server import stock_server
from streaming.time_code import elapsed_ms, read_time_code


def post(address: str, body: dict[str, object]) -> dict[str, str]:
    connection = HTTPConnection(address.removeprefix("http://"), timeout=30)
    connection.request("POST", "/offer", json.dumps(body), {"content-type": "application/json"})
    answer: dict[str, str] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


async def watch(address: str) -> list[float]:
    """Ages of the pictures received, milliseconds."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    receiver = connection.addTransceiver("video", direction="recvonly").receiver
    await connection.setLocalDescription(await connection.createOffer())
    offer = {"sdp": connection.localDescription.sdp, "type": "offer", "drive": False, "codec": "vp8"}
    answer = await asyncio.to_thread(post, address, offer)
    await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    ages = []
    async with asyncio.timeout(30):
        while len(ages) < 5:
            frame = await receiver.track.recv()
            code = read_time_code(frame.to_ndarray(format="yuv420p")[: frame.height])  # type: ignore[union-attr]
            if code is not None:
                ages.append(elapsed_ms(time.time() * 1e3, code.drawn_ms))
    await connection.close()
    return ages


def test_it_sends_pictures_that_say_when_they_were_drawn_and_ends() -> None:
    before = set(multiprocessing.active_children())
    with stock_server(5_000, (256, 192), 15) as address:
        ages = asyncio.run(watch(address))
    assert all(0 <= age < 10_000 for age in ages)
    assert set(multiprocessing.active_children()) == before
