"""How connections come about, and how it is noticed that they ended: real peers on loopback."""

import asyncio
import inspect

import aioice.ice
import pytest
from aiortc import RTCIceServer, RTCSessionDescription
from broadcasts import run, watched

from streaming import lowlatency
from streaming.encoder import Codec
from streaming.errors import ConnectError


@pytest.fixture(autouse=True)
def _installed() -> None:
    lowlatency.install("only")


def test_loopback_is_offered_when_told() -> None:
    stock = lowlatency._stock[aioice.ice, "get_host_addresses"](True, True)
    lowlatency.gather_loopback("only")
    assert aioice.ice.get_host_addresses(True, True) == ["127.0.0.1"]
    assert aioice.ice.get_host_addresses(False, True) == []
    lowlatency.gather_loopback("always")
    assert aioice.ice.get_host_addresses(True, True) == [*stock, "127.0.0.1"]
    lowlatency.gather_loopback("never")
    assert aioice.ice.get_host_addresses(True, True) == stock
    lowlatency.gather_loopback("alone")
    assert aioice.ice.get_host_addresses(True, True) == (stock or ["127.0.0.1"])


def test_consent_is_asked_often_enough_to_notice_a_vanished_peer_in_15_s() -> None:
    assert aioice.ice.CONSENT_INTERVAL * aioice.ice.CONSENT_FAILURES <= 15
    source = inspect.getsource(aioice.ice.Connection.query_consent)
    assert "CONSENT_INTERVAL" in source
    assert "CONSENT_FAILURES" in source


def test_no_server_is_asked_that_was_not_named() -> None:
    async def main() -> None:
        for servers in ([], [RTCIceServer("stun:127.0.0.1:9")]):
            connection = lowlatency.make_peer_connection(servers)
            connection.addTransceiver("video", direction="recvonly")
            gatherer = connection.getTransceivers()[0].receiver.transport.transport.iceGatherer
            assert gatherer._connection.stun_server == (("127.0.0.1", 9) if servers else None)
            assert gatherer._connection.turn_server is None
            await connection.close()

    run(main)


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_the_preferred_codec_is_the_only_one_agreed(codec: Codec) -> None:
    async def main() -> None:
        async with watched(codec) as (_, _, pair):
            names = {c.name.lower() for c in pair.server.getTransceivers()[0]._codecs}
            assert names == {codec, "rtx"}

    run(main)


def test_a_connection_that_cannot_come_about_says_what_is_missing() -> None:
    async def main() -> None:
        offering, answering = lowlatency.make_peer_connection(), lowlatency.make_peer_connection()
        try:
            with pytest.raises(ConnectError, match="nothing was negotiated"):
                await lowlatency.connected(answering, 0.05)
            offering.addTransceiver("video", direction="recvonly")
            await offering.setLocalDescription(await offering.createOffer())
            blind = "\r\n".join(line for line in offering.localDescription.sdp.split("\r\n") if "candidate" not in line)
            await answering.setRemoteDescription(RTCSessionDescription(blind, "offer"))
            await answering.setLocalDescription(await answering.createAnswer())
            with pytest.raises(ConnectError, match="named no address"):
                await lowlatency.connected(answering, 0.3)
        finally:
            await offering.close()
            await answering.close()
        with pytest.raises(ConnectError, match="closed"):
            await lowlatency.connected(answering, 1.0)

    run(main)


def test_where_no_packet_gets_through_udp_is_named() -> None:
    async def main() -> None:
        offering, answering = lowlatency.make_peer_connection(), lowlatency.make_peer_connection()
        try:
            offering.addTransceiver("video", direction="recvonly")
            await offering.setLocalDescription(await offering.createOffer())
            # an address of the range reserved for documentation: nobody answers
            walled = offering.localDescription.sdp.replace("127.0.0.1", "192.0.2.1")
            await answering.setRemoteDescription(RTCSessionDescription(walled, "offer"))
            await answering.setLocalDescription(await answering.createAnswer())
            with pytest.raises(ConnectError, match="UDP"):
                await lowlatency.connected(answering, 0.5)
        finally:
            await offering.close()
            await answering.close()

    run(main)


def test_a_sender_that_died_is_noticed_though_the_connection_stands() -> None:
    async def main() -> None:
        async with watched() as (_, track, pair):
            await pair.video.recv()
            watching = asyncio.create_task(lowlatency.watch_peer(pair.server, silence_s=4.0))
            await asyncio.sleep(0.1)
            assert not watching.done()
            track._queue.put_nowait("no packet at all")
            assert await asyncio.wait_for(watching, 5) == "the server stopped sending"
            assert pair.server.connectionState == "connected"

    run(main)


def test_a_viewer_that_vanishes_is_noticed() -> None:
    async def main() -> None:
        async with watched() as (_, _, pair):
            await pair.video.recv()
            viewer = pair.receiver.transport.transport
            reports = viewer._send

            async def say_nothing(_: bytes) -> None:
                """As from a computer whose lid was closed."""

            viewer._send = say_nothing
            reason = await asyncio.wait_for(lowlatency.watch_peer(pair.server, silence_s=2.0), 10)
            assert reason == "nothing was heard from the peer for 2 s"
            viewer._send = reports

    run(main)


def test_a_viewer_that_leaves_is_noticed_and_its_track_ends() -> None:
    async def main() -> None:
        async with watched() as (hub, track, pair):
            await pair.video.recv()
            assert hub.viewers == {track}
            await pair.viewer.close()
            reason = await asyncio.wait_for(lowlatency.watch_peer(pair.server), 5)
            assert "closed" in reason or "stopped" in reason
            await pair.server.close()
            assert track.readyState == "ended"
            assert not hub.wanted

    run(main)
