import asyncio
from collections.abc import Iterator
from itertools import pairwise

import av
import pytest
from aiortc.mediastreams import MediaStreamError
from hypothesis import given
from hypothesis import strategies as st
from peers import moving_picture, no_tasks_left
from prometheus_client import REGISTRY

from streaming.encoder import EncodedFrame, EncoderThread, PictureEncoder
from streaming.hub import KEYFRAME_INTERVAL_S, QUEUE_PACKETS, PacketHub, PacketTrack

SIZE = 64


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def make_hub(clock: Clock, **limits: int) -> PacketHub:
    return PacketHub(EncoderThread(SIZE, SIZE, 30.0), now=clock, **limits)


def encode(*keyframes: int, count: int = 20, start: int = 0) -> Iterator[EncodedFrame]:
    """Real packets, keyframes at the given places only (and at the beginning)."""
    encoder = PictureEncoder(SIZE, SIZE, 30.0, hardware=False)
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(moving_picture(index, SIZE, SIZE), format="yuv420p")
        frame.pts = (start + index) * 3000
        packet = encoder.encode(frame, keyframe=index in keyframes)
        yield EncodedFrame(packet, packet.is_keyframe, 1.0, float(index))


async def begin(track: PacketTrack) -> asyncio.Task[object]:
    """Let the viewer's connection stand: aiortc's sender asks for the first packet."""
    reading = asyncio.create_task(track.recv())
    await asyncio.sleep(0)
    return reading


def test_a_late_joiner_starts_on_a_keyframe() -> None:
    async def main() -> None:
        clock = Clock()
        hub = make_hub(clock)
        frames = list(encode(10))
        for frame in frames[:5]:
            hub.publish(frame)
        track = hub.subscribe()
        reading = await begin(track)
        assert hub.keyframe_requests == 1
        for frame in frames[5:12]:
            hub.publish(frame)
        assert await reading is frames[10].packet
        assert await track.recv() is frames[11].packet

    asyncio.run(main())


def test_before_the_connection_stands_a_viewer_neither_counts_nor_queues() -> None:
    async def main() -> None:
        hub = make_hub(Clock())
        track = hub.subscribe()
        for frame in encode():
            hub.publish(frame)
        assert not hub.wanted
        assert hub.keyframe_requests == 0
        assert track.overflows == 0

    asyncio.run(main())


def test_a_viewer_that_does_not_read_loses_its_queue_and_restarts_on_a_keyframe() -> None:
    async def main() -> None:
        clock = Clock()
        hub = make_hub(clock)
        slow, quick = hub.subscribe(), hub.subscribe()
        reading = await begin(slow)
        quick_reading = await begin(quick)
        frames = list(encode(12))
        got = []
        for frame in frames[:9]:
            clock.seconds += 1 / 30
            hub.publish(frame)
            await asyncio.sleep(0)
            got.append(await quick_reading)
            quick_reading = await begin(quick)
        assert await reading is frames[0].packet
        assert slow.overflows == 1
        clock.seconds += 1
        hub.publish(frames[9])
        assert hub.keyframe_requests == 2  # one for the join, one for the overflow
        for frame in frames[10:14]:
            hub.publish(frame)
        assert await slow.recv() is frames[12].packet
        assert got == [frame.packet for frame in frames[:9]], "the other viewer noticed"
        quick_reading.cancel()

    asyncio.run(main())


@given(st.lists(st.sampled_from(["push", "read"]), max_size=80), st.sets(st.integers(0, 19), max_size=4))
def test_whatever_the_order_of_reads_a_viewer_can_decode_what_it_gets(steps: list[str], keyframes: set[int]) -> None:
    async def main() -> None:
        hub = make_hub(Clock())
        track = hub.subscribe()
        reading = await begin(track)
        frames = list(encode(*keyframes))
        index = {id(frame.packet): i for i, frame in enumerate(frames)}
        pending, last, waiting = iter(frames), None, True
        for step in steps:
            if step == "push" and (frame := next(pending, None)) is not None:
                hub.publish(frame)
                assert track._queue.qsize() <= QUEUE_PACKETS
            elif step == "read":
                await asyncio.sleep(0)
                if reading.done():
                    number = index[id(reading.result())]
                    assert frames[number].keyframe or (not waiting and number == last + 1)
                    last, waiting = number, False
                    reading = await begin(track)
        reading.cancel()

    asyncio.run(main())


def test_many_keyframe_requests_make_one_keyframe_per_interval() -> None:
    async def main() -> None:
        clock = Clock()
        hub = make_hub(clock)
        tracks = [hub.subscribe() for _ in range(5)]
        readings = [await begin(track) for track in tracks]
        frames = iter(list(encode(count=200)))
        hub.publish(next(frames))
        asked_at = []
        for _ in range(90):  # three seconds in which everyone loses pictures
            clock.seconds += 1 / 30
            before = hub.keyframe_requests
            for track in tracks:
                track.on_keyframe_request("pli")
            hub.publish(next(frames))
            if hub.keyframe_requests > before:
                asked_at.append(clock.seconds)
        assert 9 <= len(asked_at) <= 10
        gaps = [later - earlier for earlier, later in pairwise(asked_at)]
        assert min(gaps) >= KEYFRAME_INTERVAL_S - 1e-9
        for reading in readings:
            reading.cancel()

    asyncio.run(main())


def test_a_request_soon_after_a_keyframe_is_kept_not_lost() -> None:
    clock = Clock()

    async def main() -> None:
        hub = make_hub(clock)
        hub.request_keyframe("pli")
        clock.seconds += 0.1
        hub.request_keyframe("pli")
        assert hub.keyframe_requests == 1
        delta = list(encode())[1]
        hub.publish(delta)
        assert hub.keyframe_requests == 1
        clock.seconds += KEYFRAME_INTERVAL_S
        hub.publish(delta)
        assert hub.keyframe_requests == 2

    asyncio.run(main())


def test_a_keyframe_answers_the_requests_made_before_it() -> None:
    clock = Clock()

    async def main() -> None:
        hub = make_hub(clock)
        hub.request_keyframe("pli")
        hub.request_keyframe("pli")
        keyframe, delta, *_ = encode()
        hub.publish(keyframe)
        clock.seconds += 1
        hub.publish(delta)
        assert hub.keyframe_requests == 1

    asyncio.run(main())


def test_the_weakest_viewer_sets_the_rate_within_the_limits() -> None:
    async def main() -> None:
        hub = make_hub(Clock(), min_bps=400_000, max_bps=3_000_000)
        strong, weak = hub.subscribe(), hub.subscribe()
        readings = [await begin(track) for track in (strong, weak)]
        for track in (strong, weak):
            track.on_bitrate_estimate(50_000_000)
        assert hub.target_bps == 3_000_000
        weak.on_loss(0.8)
        assert hub.target_bps == 3_000_000  # 60 % of what it could take is still plenty
        for _ in range(12):
            weak.on_loss(0.8)
        assert hub.target_bps == 400_000
        weak.stop()
        assert hub.target_bps == 3_000_000
        strong.stop()
        await asyncio.gather(*readings, return_exceptions=True)

    asyncio.run(main())


def test_leaving_ends_the_read_and_the_audience() -> None:
    async def main() -> None:
        hub = make_hub(Clock())
        heard: list[bool] = []
        hub.on_audience = lambda: heard.append(hub.wanted)
        track = hub.subscribe()
        reading = await begin(track)
        track.stop()
        track.stop()
        with pytest.raises(MediaStreamError):
            await asyncio.wait_for(reading, 1)
        with pytest.raises(MediaStreamError):
            await track.recv()
        assert heard == [True, False]
        assert not hub.viewers

    asyncio.run(main())


def test_moving_waits_for_the_other_keyframe_and_repeats_no_timestamp() -> None:
    async def main() -> None:
        clock = Clock()
        full, low = make_hub(clock), make_hub(clock)
        track = full.subscribe()
        reading = await begin(track)
        full_frames, low_frames = list(encode()), list(encode(4))
        received = []
        for index in range(8):
            if index == 2:
                track.move_to(low)
                assert track.moving
                assert low.keyframe_requests == 1
            full.publish(full_frames[index])
            low.publish(low_frames[index])
            await asyncio.sleep(0)
            if index == 0:
                received.append(await reading)
            while not track._queue.empty():
                received.append(await track.recv())
        sizes = {f.packet.size for f in full_frames[:5]} | {f.packet.size for f in low_frames[4:]}
        assert {packet.size for packet in received} <= sizes
        pts = [packet.pts for packet in received]
        assert pts == sorted(set(pts))
        # picture 4 came from both: the keyframe of the new quality one tick later
        assert pts == [0, 3000, 6000, 9000, 12000, 12001, 15000, 18000, 21000]
        assert received[5].is_keyframe
        assert bytes(received[5]) == bytes(low_frames[4].packet)
        assert track.hub is low
        assert not full.viewers
        track.stop()
        assert not low.viewers

    asyncio.run(main())


def test_leaving_in_the_middle_of_a_move_leaves_both() -> None:
    async def main() -> None:
        clock = Clock()
        full, low = make_hub(clock), make_hub(clock)
        track = full.subscribe()
        reading = await begin(track)
        track.move_to(low)
        track.stop()
        assert not full.viewers
        assert not low.viewers
        await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(main())


def test_a_tap_begins_on_a_keyframe_and_keeps_the_session_awake() -> None:
    async def main() -> None:
        hub = make_hub(Clock())
        frames, taken = list(encode(3)), []
        hub.publish(frames[0])
        end = hub.tap(taken.append)
        assert hub.wanted
        assert hub.keyframe_requests == 1
        for frame in frames[1:6]:
            hub.publish(frame)
        end()
        end()
        hub.publish(frames[6])
        assert taken == frames[3:6]
        assert not hub.wanted

    asyncio.run(main())


def test_repeats_stay_within_a_quarter_of_the_rate() -> None:
    async def main() -> None:
        clock = Clock()
        track = make_hub(clock).subscribe()
        allowed = 0
        for step in range(10_000):  # ten seconds of a storm: a thousand packets a second reported lost
            clock.seconds += 0.001
            allowed += track.may_repeat(step)
        assert 0.2 * 800_000 * 10 / 8 < allowed * 1300 < 0.3 * 800_000 * 10 / 8 + 20 * 1300

    asyncio.run(main())


def test_one_packet_is_not_repeated_twice_at_once() -> None:
    async def main() -> None:
        clock = Clock()
        track = make_hub(clock).subscribe()
        assert track.may_repeat(7)
        assert not track.may_repeat(7)
        assert track.may_repeat(8)
        clock.seconds += 0.2
        assert track.may_repeat(7)

    asyncio.run(main())


def test_sent_rate_is_that_of_the_last_second() -> None:
    clock = Clock()
    hub = PacketHub(EncoderThread(SIZE, SIZE, 30.0), now=clock)
    frames = list(encode(count=60))
    for frame in frames:
        clock.seconds += 1 / 30
        hub.publish(frame)
    assert hub.sent_bps == pytest.approx(8 * sum(frame.packet.size for frame in frames[-30:]), rel=0.1)
    clock.seconds += 5
    assert hub.sent_bps == 0


def test_run_encodes_for_its_viewers_and_ends_their_tracks() -> None:
    async def main() -> None:
        hub = PacketHub(EncoderThread(SIZE, SIZE, 30.0))
        running = asyncio.create_task(hub.run())
        track = hub.subscribe()
        reading = await begin(track)
        hub.submit(moving_picture(0, SIZE, SIZE), 0, stamp=0.0)
        packet = await asyncio.wait_for(reading, 5)
        assert packet.is_keyframe
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert track.readyState == "ended"
        await no_tasks_left()

    asyncio.run(main())


def test_a_viewer_counts_once_wherever_it_goes_and_a_hub_leaves_no_figures_behind() -> None:
    def shown(name: str) -> list[float]:
        return [sample.value for metric in REGISTRY.collect() for sample in metric.samples if sample.name == name]

    async def main() -> None:
        clock = Clock()
        full, low = (PacketHub(EncoderThread(SIZE, SIZE, 30.0), session="s", name=name, now=clock) for name in "fl")
        running = [asyncio.create_task(hub.run()) for hub in (full, low)]
        before = sum(shown("lhm_live_viewers"))
        targets = len(shown("lhm_live_target_bps"))
        tracks = [full.subscribe(), full.subscribe()]
        assert sum(shown("lhm_live_viewers")) == before
        readings = [await begin(track) for track in tracks]
        tracks[0].move_to(low)
        assert tracks[0].moving
        assert sum(shown("lhm_live_viewers")) == before + 2
        low.publish(next(encode()))
        assert tracks[0].hub is low
        assert sum(shown("lhm_live_viewers")) == before + 2
        tracks[0].stop()
        tracks[0].stop()
        assert sum(shown("lhm_live_viewers")) == before + 1
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *readings, return_exceptions=True)
        assert sum(shown("lhm_live_viewers")) == before
        assert len(shown("lhm_live_target_bps")) == targets - 2

    asyncio.run(main())
