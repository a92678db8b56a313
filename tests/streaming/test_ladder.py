import asyncio

import av
import pytest
from peers import moving_picture, no_tasks_left

from lhm_runtime.errors import InvalidInputError
from streaming.hub import PacketTrack
from streaming.ladder import Ladder, Tier


def make_ladder() -> Ladder:
    return Ladder(256, 256, 30.0)


async def begin(track: PacketTrack) -> asyncio.Task[object]:
    reading = asyncio.create_task(track.recv())
    await asyncio.sleep(0)
    return reading


def lose(track: PacketTrack) -> None:
    for _ in range(20):
        track.on_loss(0.9)


def recover(track: PacketTrack) -> None:
    track.on_bitrate_estimate(5_000_000)
    for _ in range(60):
        track.on_loss(0.0)


def test_tiers_must_rise() -> None:
    with pytest.raises(InvalidInputError, match="worst first"):
        Ladder(256, 256, 30.0, tiers=(Tier("a", 500_000, 1_000_000), Tier("b", 100_000, 500_000)))
    with pytest.raises(InvalidInputError, match="at least one"):
        Ladder(256, 256, 30.0, tiers=())


def test_a_weak_viewer_falls_after_a_second_and_drags_nobody_along() -> None:
    async def main() -> None:
        ladder = make_ladder()
        low, full = ladder.hubs
        strong, weak = ladder.subscribe(), ladder.subscribe()
        readings = [await begin(strong), await begin(weak)]
        recover(strong)
        lose(weak)
        assert full.target_bps == full.min_bps
        ladder.review(0.0)
        assert not weak.moving
        ladder.review(1.1)
        assert weak.moving
        assert not strong.moving
        assert low.keyframe_requests == 1
        assert ladder.viewers == 2
        weak.stop()
        strong.stop()
        await asyncio.gather(*readings, return_exceptions=True)

    asyncio.run(main())


def test_a_short_dip_moves_nobody() -> None:
    async def main() -> None:
        ladder = make_ladder()
        track = ladder.subscribe()
        reading = await begin(track)
        lose(track)
        ladder.review(0.0)
        recover(track)
        ladder.review(0.6)
        lose(track)
        ladder.review(1.2)
        ladder.review(2.1)
        assert not track.moving
        ladder.review(2.3)
        assert track.moving
        track.stop()
        await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(main())


def test_falls_and_rises_over_real_packets_and_waits_longer_the_second_time() -> None:
    async def main() -> None:
        ladder = make_ladder()
        low, full = ladder.hubs
        running = asyncio.create_task(ladder.run())
        track = ladder.subscribe()
        reading = await begin(track)
        decoder, heights, pts = av.CodecContext.create("h264", "r"), [], 0
        now = 0.0

        async def watch_until(height: int) -> None:
            nonlocal reading, pts
            async with asyncio.timeout(10):
                while not heights or heights[-1] != height:
                    ladder.submit(moving_picture(pts), pts * 3000, stamp=0.0)
                    pts += 1
                    await asyncio.sleep(0.01)
                    while reading.done():
                        heights.extend(f.height for f in decoder.decode(av.Packet(bytes(reading.result()))))
                        reading = await begin(track)

        def review_for(seconds: float) -> None:
            nonlocal now
            for _ in range(round(seconds / 0.5)):
                now += 0.5
                ladder.review(now)

        await watch_until(256)
        for patience in (5.5, 10.5):
            lose(track)
            review_for(2.0)
            await watch_until(128)
            assert track.hub is low
            assert ladder.wanted.is_set()
            recover(track)
            review_for(patience - 1.0)
            assert not track.moving
            review_for(1.5)
            await watch_until(256)
            assert track.hub is full
        track.stop()
        assert not ladder.wanted.is_set()
        running.cancel()
        await asyncio.gather(running, reading, return_exceptions=True)
        await no_tasks_left()

    asyncio.run(main())


def test_nobody_watching_nothing_encoded() -> None:
    async def main() -> None:
        ladder = make_ladder()
        ladder.submit(moving_picture(0), 0, stamp=0.0)
        # a picture that was handed on would have moved the encoder's clock, and this one were stale
        ladder.best.submit(moving_picture(0), 0, stamp=0.0)
        assert [hub.encoder.stale for hub in ladder.hubs] == [0, 0]
        assert not ladder.wanted.is_set()

    asyncio.run(main())


def test_a_failing_encoder_ends_the_session_with_its_reason() -> None:
    async def main() -> None:
        ladder = Ladder(254, 251, 30.0)
        track = ladder.subscribe()
        running = asyncio.create_task(ladder.run())
        reading = await begin(track)
        ladder.submit(moving_picture(0), 0, stamp=0.0)
        with pytest.raises(ExceptionGroup) as failure:
            await asyncio.wait_for(running, 5)
        assert "254x251" in str(failure.value.exceptions[0])
        await asyncio.gather(reading, return_exceptions=True)
        await no_tasks_left()

    asyncio.run(main())
