"""What leaves for a viewer, read off the wire between real peers; RTP headers are authenticated, not encrypted."""

import asyncio
import socket
import sys
from contextlib import AsyncExitStack
from itertools import count, pairwise

import pytest
from aiortc.rtp import RtpPacket, is_rtcp
from hypothesis import given
from hypothesis import strategies as st
from peers import Pair, moving_picture, no_tasks_left, peers, psnr

from streaming.encoder import Codec, EncoderThread
from streaming.hub import PacketHub
from streaming.packet_sender import in_bursts

SIZE = 256
PICTURES = 12
SO_NO_CHECK = 11


class Wire:
    """Everything that goes to one viewer, in RTP packets."""

    def __init__(self, pair: Pair) -> None:
        self.packets: list[RtpPacket] = []
        pair.lay_road(self._take)

    def _take(self, _: int, data: bytes) -> float:
        if 127 < data[0] < 192 and not is_rtcp(data):
            self.packets.append(RtpPacket.parse(data))
        return 0.0


async def send_pictures(hub: PacketHub, numbers: "count[int]", pictures: int = PICTURES) -> int:
    """The number of the last one."""
    index = -1
    for _ in range(pictures):
        index = next(numbers)
        hub.submit(moving_picture(index, SIZE, SIZE, noise=40), index * 3000, stamp=0.0)
        await asyncio.sleep(0.04)
    return index


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_two_viewers_get_the_same_pictures_each_in_a_stream_of_its_own(codec: Codec) -> None:
    async def main() -> None:
        hub = PacketHub(EncoderThread(SIZE, SIZE, 30.0, codec=codec))
        running = asyncio.create_task(hub.run())
        async with AsyncExitStack() as stack:
            pairs = [await stack.enter_async_context(peers(hub.subscribe(), codec)) for _ in range(2)]
            numbers = count()
            await send_pictures(hub, numbers, 3)
            wires = [Wire(pair) for pair in pairs]
            last = await send_pictures(hub, numbers)
            for pair in pairs:
                while not pair.video._queue.empty():
                    frame = await pair.video.recv()
                assert psnr(frame, moving_picture(last, SIZE, SIZE)) > psnr(frame, moving_picture(last - 2, SIZE, SIZE))
            for pair, wire in zip(pairs, wires, strict=True):
                packets = wire.packets
                assert {packet.ssrc for packet in packets} == {pair.sender._ssrc}
                assert all((b.sequence_number - a.sequence_number) % 65536 == 1 for a, b in pairwise(packets))
                # one marker a picture, on its last packet; and one time stamp a picture, 3000 ticks from the last one's
                assert all(a.marker == (a.timestamp != b.timestamp) for a, b in pairwise(packets))
                assert {(b.timestamp - a.timestamp) % 2**32 for a, b in pairwise(packets)} <= {0, 3000, 6000}
                assert len({packet.timestamp for packet in packets}) >= PICTURES - 2
                assert max(len(packet.payload) for packet in packets) < 1400
                assert len(packets) > 1.5 * PICTURES
                sent = [s for s in (await pair.server.getStats()).values() if s.type == "outbound-rtp"]
                assert sent[0].packetsSent >= len(packets)
                assert sent[0].bytesSent >= sum(len(packet.payload) for packet in packets)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await no_tasks_left()

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="bursts are Linux'")
def test_where_bursts_are_refused_packets_go_one_by_one() -> None:
    """Linux refuses them, for one, on sockets that send no checksums."""

    async def main() -> None:
        hub = PacketHub(EncoderThread(SIZE, SIZE, 30.0))
        running = asyncio.create_task(hub.run())
        async with peers(hub.subscribe()) as pair:
            numbers = count()
            await send_pictures(hub, numbers, 2)
            nominated = pair.sender.transport.transport._connection._nominated[1]
            nominated.protocol.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
            wire = Wire(pair)
            await send_pictures(hub, numbers)
            assert len({packet.timestamp for packet in wire.packets}) >= PICTURES - 1
            steps = {(b.sequence_number - a.sequence_number) % 65536 for a, b in pairwise(wire.packets)}
            assert steps == {1}
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await no_tasks_left()

    asyncio.run(main())


@given(st.lists(st.integers(1, 4), max_size=200))
def test_bursts_are_what_one_call_can_send(lengths: list[int]) -> None:
    datagrams = [bytes(length) for length in lengths]
    bursts = list(in_bursts(datagrams))
    assert [datagram for burst in bursts for datagram in burst] == datagrams
    for burst in bursts:
        assert 1 <= len(burst) <= 64
        assert {len(datagram) for datagram in burst[:-1]} <= {len(burst[0])}
        assert len(burst[-1]) <= len(burst[0])
