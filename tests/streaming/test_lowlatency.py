"""Each change to aiortc: the names it stands on are there, and it does what it is for between two real peers."""

import asyncio
import inspect
from importlib.metadata import version
from itertools import count

import aioice.ice
import pytest
from aiortc import RTCRtpSender
from aiortc.codecs import HEADER_EXTENSIONS
from aiortc.jitterbuffer import JitterBuffer
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtp import (
    RTCP_PSFB_APP,
    HeaderExtensions,
    HeaderExtensionsMap,
    RtcpPsfbPacket,
    RtpPacket,
    is_rtcp,
    pack_remb_fci,
    unpack_header_extensions,
)
from broadcasts import SIZE, run, watched
from peers import moving_picture, peers, psnr

from lhm_runtime.errors import BackendError
from streaming import lowlatency
from streaming.encoder import Codec, EncoderThread
from streaming.hub import PacketHub
from streaming.lowlatency import PLAYOUT_DELAY


@pytest.fixture(autouse=True)
def _installed() -> None:
    lowlatency.install("only")


def test_the_stock_functions_have_the_shapes_that_were_wrapped() -> None:
    shapes = {
        (JitterBuffer, "_remove_frame"): ["self", "sequence_number"],
        (RTCRtpReceiver, "_handle_rtp_packet"): ["self", "packet", "arrival_time_ms"],
        (HeaderExtensionsMap, "configure"): ["self", "parameters"],
        (HeaderExtensionsMap, "set"): ["self", "values"],
        (RTCRtpSender, "_handle_rtcp_packet"): ["self", "packet"],
        (RTCRtpSender, "_retransmit"): ["self", "sequence_number"],
        (RTCRtpSender, "_run_rtp"): ["self", "codec"],
        (aioice.ice, "get_host_addresses"): ["use_ipv4", "use_ipv6"],
    }
    for place, parameters in shapes.items():
        assert list(inspect.signature(lowlatency._stock[place]).parameters) == parameters, place
    assert set(lowlatency._stock) == {
        *shapes,
        (aioice.ice, "CONSENT_INTERVAL"),
        (aioice.ice, "CONSENT_FAILURES"),
    }


def test_installing_twice_wraps_once() -> None:
    before = {place: getattr(*place) for place in lowlatency._stock}
    lowlatency.install("only")
    after = {place: getattr(*place) for place in lowlatency._stock}
    del before[aioice.ice, "get_host_addresses"], after[aioice.ice, "get_host_addresses"]
    assert after == before
    assert [extension.uri for extension in HEADER_EXTENSIONS["video"]].count(PLAYOUT_DELAY) == 1
    assert len({extension.id for kind in HEADER_EXTENSIONS.values() for extension in kind}) == 4


def test_another_aiortc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version("aiortc").startswith(lowlatency.AIORTC)
    monkeypatch.setattr(lowlatency, "AIORTC", "1.15.")
    with pytest.raises(BackendError, match=r"1\.15\.x"):
        lowlatency.install()


def rtp(sequence_number: int, timestamp: int, data: bytes, *, marker: int = 0) -> RtpPacket:
    packet = RtpPacket(sequence_number=sequence_number, timestamp=timestamp, marker=marker)
    packet._data = data
    return packet


def test_a_frame_leaves_the_jitter_buffer_with_its_marker() -> None:
    buffer = JitterBuffer(capacity=16, is_video=True)
    assert buffer.add(rtp(65535, 1, b"a"))[1] is None
    frame = buffer.add(rtp(0, 1, b"b", marker=1))[1]
    assert (frame.data, frame.timestamp) == (b"ab", 1)
    assert buffer.add(rtp(2, 2, b"d", marker=1))[1] is None  # 1 is missing
    frame = buffer.add(rtp(1, 2, b"c"))[1]
    assert frame.data == b"cd"


def test_frames_without_markers_and_audio_leave_as_before() -> None:
    buffer = JitterBuffer(capacity=16, is_video=True)
    assert buffer.add(rtp(0, 1, b"a"))[1] is None
    assert buffer.add(rtp(1, 2, b"b"))[1].data == b"a"
    audio = JitterBuffer(capacity=16)
    assert audio.add(rtp(0, 1, b"a", marker=1))[1] is None


def test_padding_never_becomes_an_empty_frame() -> None:
    buffer = JitterBuffer(capacity=16, is_video=True)
    assert buffer.add(rtp(0, 1, b"a", marker=1))[1].data == b"a"
    assert buffer.add(rtp(1, 1, b""))[1] is None
    assert buffer.add(rtp(2, 1, b""))[1] is None
    assert buffer.add(rtp(3, 2, b"b", marker=1))[1].data == b"b"


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_one_picture_alone_reaches_the_viewer(codec: Codec) -> None:
    """The stock jitter buffer would hold it until the next one."""

    async def main() -> None:
        hub = PacketHub(EncoderThread(SIZE, SIZE, 30.0, codec=codec))
        running = asyncio.create_task(hub.run())
        async with peers(hub.subscribe(), codec) as pair:
            while not hub.wanted:
                await asyncio.sleep(0.005)
            hub.submit(moving_picture(3, SIZE, SIZE), 9000, stamp=0.0)
            frame = await asyncio.wait_for(pair.video.recv(), 5)
            assert psnr(frame, moving_picture(3, SIZE, SIZE)) > 32
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(main)


def test_playout_delay_is_appended_in_every_form() -> None:
    for own_id in (4, 14, 15, 200):
        for mid in ("0", None, "a-very-long-media-id"):
            extensions = HeaderExtensionsMap()
            offered = [
                RTCRtpHeaderExtensionParameters(id=own_id if e.uri == PLAYOUT_DELAY else e.id, uri=e.uri)
                for e in HEADER_EXTENSIONS["video"]
            ]
            extensions.configure(RTCRtpParameters(headerExtensions=offered))
            profile, packed = extensions.set(HeaderExtensions(mid=mid, abs_send_time=0x123456))
            assert len(packed) % 4 == 0
            assert (own_id, b"\0\0\0") in unpack_header_extensions(profile, packed)
            values = extensions.get(profile, packed)
            assert (values.mid, values.abs_send_time) == (mid, 0x123456)


def test_who_did_not_offer_playout_delay_gets_none() -> None:
    extensions = HeaderExtensionsMap()
    assert extensions.set(HeaderExtensions(mid="0", abs_send_time=1)) == (0, b"")


def test_every_video_packet_asks_to_be_shown_at_once() -> None:
    async def main() -> None:
        async with watched() as (_, _, pair):
            assert PLAYOUT_DELAY in pair.server.localDescription.sdp
            seen: list[bytes] = []

            def look(_: int, data: bytes) -> float:
                if is_media(data):
                    seen.append(data)
                return 0.0

            pair.lay_road(look)  # the header is authenticated, not encrypted
            for _ in range(5):
                await pair.video.recv()
            own_id = next(e.id for e in HEADER_EXTENSIONS["video"] if e.uri == PLAYOUT_DELAY)
            for data in seen:
                assert data[12:14] == b"\xbe\xde"
                length = 4 * int.from_bytes(data[14:16], "big")
                assert (own_id, b"\0\0\0") in unpack_header_extensions(0xBEDE, data[16 : 16 + length])
            assert len(seen) >= 5

    run(main)


def test_keyframe_requests_of_a_viewer_reach_the_encoder() -> None:
    async def main() -> None:
        async with watched() as (hub, _, pair):
            await pair.video.recv()
            await asyncio.sleep(0.4)
            before = hub.keyframe_requests
            await pair.receiver._send_rtcp_pli(pair.sender._ssrc)
            async with asyncio.timeout(3):
                while hub.keyframe_requests == before:
                    await asyncio.sleep(0.01)

    run(main)


def test_the_viewers_bitrate_estimate_reaches_its_track() -> None:
    async def main() -> None:
        async with watched() as (hub, track, pair):
            await pair.video.recv()
            remb = RtcpPsfbPacket(
                fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=pack_remb_fci(4_000_000, [pair.sender._ssrc])
            )
            await pair.receiver._send_rtcp(remb)
            async with asyncio.timeout(3):
                while hub.target_bps < 3_000_000:
                    await asyncio.sleep(0.01)
            assert track.rate.bps == pytest.approx(0.85 * 4_000_000, rel=0.01)
            # another application's message of the same type, and one about somebody else's stream
            for fci in (b"XXXX1234", pack_remb_fci(1000, [12345])):
                await pair.receiver._send_rtcp(RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=fci))
            await pair.video.recv()
            assert hub.target_bps > 3_000_000

    run(main)


def test_loss_reports_of_a_viewer_lower_the_rate() -> None:
    async def main() -> None:
        async with watched(noise=20) as (_, track, pair):
            await pair.video.recv()
            lost = iter([None, 0.0] * 10_000)
            pair.lay_road(lambda _, data: next(lost) if is_media(data) else 0.0)
            watching = asyncio.create_task(drain(pair.video))
            async with asyncio.timeout(8):
                while track.rate._loss_bps > 5e6:
                    await asyncio.sleep(0.02)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    run(main)


def is_media(data: bytes) -> bool:
    return 127 < data[0] < 192 and not is_rtcp(data)


async def drain(video: MediaStreamTrack) -> None:
    while True:
        await video.recv()


def test_a_storm_of_loss_reports_is_answered_within_the_budget() -> None:
    async def main() -> None:
        async with watched(noise=20) as (_, _, pair):
            for _ in range(5):
                await pair.video.recv()
            history = pair.sender._RTCRtpSender__rtp_history
            sequence_numbers = sorted(packet.sequence_number for packet in history.values())
            repeated, stock_send = [], pair.sender.transport._send_rtp
            rtx = pair.sender._RTCRtpSender__rtx_payload_type

            async def send_rtp(data: bytes) -> None:
                if not is_rtcp(data) and data[1] & 0x7F == rtx:
                    repeated.append(data)
                await stock_send(data)

            pair.sender.transport._send_rtp = send_rtp
            for _ in range(30):
                await pair.receiver._send_rtcp_nack(pair.sender._ssrc, sequence_numbers[-3:])
            await asyncio.sleep(0.1)
            assert len(repeated) == 3

    run(main)


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_a_lossy_and_uneven_road_keeps_its_picture(codec: Codec) -> None:
    """Every 9th packet lost, every 5th late by 20 ms and therefore out of order: repeats repair it."""

    async def main() -> None:
        async with watched(codec, noise=8) as (_, _, pair):
            await pair.video.recv()
            numbers = count(1)

            def road(_: int, data: bytes) -> float | None:
                if not is_media(data):
                    return 0.0
                number = next(numbers)
                return None if number % 9 == 0 else 0.02 if number % 5 == 0 else 0.0

            pair.lay_road(road)
            frames = 0
            async with asyncio.timeout(12):
                while frames < 45:
                    await pair.video.recv()
                    frames += 1

    run(main)


def test_after_a_blackout_the_picture_is_back_within_a_second() -> None:
    """All that is sent for half a second is lost for good: stock aiortc waits for 512 packets."""

    async def main() -> None:
        async with watched(noise=8) as (hub, _, pair):
            for _ in range(5):
                await pair.video.recv()
            loop = asyncio.get_running_loop()
            dark_until = loop.time() + 0.5

            def road(_: int, data: bytes) -> float | None:
                if not is_media(data):
                    return 0.0
                # what is repeated is lost as well
                return None if loop.time() < dark_until or data[1] & 0x7F == rtx else 0.0

            rtx = pair.sender._RTCRtpSender__rtx_payload_type
            assert rtx is not None
            pair.lay_road(road)
            requests = hub.keyframe_requests
            while loop.time() < dark_until:
                await asyncio.sleep(0.02)
            while not pair.video._queue.empty():
                pair.video._queue.get_nowait()
            async with asyncio.timeout(1.5):
                for _ in range(5):
                    await pair.video.recv()
            assert hub.keyframe_requests > requests

    run(main)


def test_a_repaired_loss_leaves_no_lag() -> None:
    """Three one-packet frames wait for a lost one; its repeat hands on all four, not one per packet from then on."""

    async def main() -> None:
        hub = PacketHub(EncoderThread(SIZE, SIZE, 30.0))
        running = asyncio.create_task(hub.run())
        track = hub.subscribe()
        async with peers(track) as pair:
            while not hub.wanted:
                await asyncio.sleep(0.005)
            pictures = count()

            async def send(pictures_to_send: int) -> None:
                for _ in range(pictures_to_send):
                    index = next(pictures)
                    hub.submit(moving_picture(index, SIZE, SIZE), index * 3000, stamp=0.0)
                    await asyncio.sleep(0.04)

            await send(4)
            for _ in range(4):
                await asyncio.wait_for(pair.video.recv(), 5)
            lost: list[bytes] = []

            def lose_first(_: int, data: bytes) -> float | None:
                if not is_media(data) or lost:
                    return 0.0
                lost.append(data)
                return None

            pair.lay_road(lose_first)
            await send(4)
            for _ in range(4):
                await asyncio.wait_for(pair.video.recv(), 10)
            assert lost
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(main)
