"""Live video over bad roads: every datagram to the viewer passes a UDP relay that loses and delays by pattern.

Each picture carries the time it was drawn. While the road is bad the picture goes on; when it is good again, all
pictures soon come whole and as young as at the start: nothing has piled up.
"""

import asyncio
import random
import time
from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from peers import Pair, Road, moving_picture, no_tasks_left, peers, psnr

from streaming.encoder import EncoderThread
from streaming.hub import PacketHub
from streaming.time_code import HEIGHT as CODE_HEIGHT
from streaming.time_code import draw_time_code, elapsed_ms, pack_time_code, read_time_code

SIZE = 256
FPS = 30
BAD_S = 3.0
GOOD_S = 6.0
"""Within this long all is well again; an idle machine takes a tenth of it."""


def bursts(number: int, _: bytes) -> float | None:
    """Eight in a row, of every hundred."""
    return None if number % 100 < 8 else 0.0


def losses(share: float) -> Callable[[], Road]:
    def lay() -> Road:
        dice = random.Random(1)
        return lambda _, __: None if dice.random() < share else 0.0

    return lay


def jitter() -> Road:
    """Up to 40 ms, each datagram by itself, so that they overtake one another."""
    dice = random.Random(2)
    return lambda _, __: dice.uniform(0.001, 0.04)


def far_and_lossy() -> Road:
    """80 ms away and 2 % lost: repeats come late."""
    dice = random.Random(3)
    return lambda _, __: None if dice.random() < 0.02 else 0.08


def stalls() -> Road:
    """Nothing for 200 ms of each second, then all of it at once, as over a bad radio."""
    start = time.monotonic()

    def road(_: int, __: bytes) -> float:
        since = (time.monotonic() - start) % 1.0
        return max(0.0, 0.2 - since)

    return road


class Watcher:
    """What a viewer sees, and how old it is."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.likeness: list[float] = []
        """To the picture that was sent, dB; where the time code is, is left out."""
        self.age_ms: list[float] = []

    async def watch(self, pictures: dict[int, np.ndarray]) -> None:
        while True:
            frame = await self._pair.video.recv()
            now_ms = time.time() * 1e3
            luma = frame.to_ndarray()[:SIZE]
            code = read_time_code(luma)
            if code is not None and code.drawn_ms in pictures:
                self.age_ms.append(elapsed_ms(now_ms, code.drawn_ms))
                self.likeness.append(psnr(frame, pictures[code.drawn_ms]))

    def sees(self, age_ms: float, likeness_db: float) -> bool:
        """Whether the last half second came nearly whole, that young and that like what was sent."""
        ages, likeness = self.age_ms[-FPS // 2 :], self.likeness[-FPS // 2 :]
        return len(ages) == FPS // 2 and float(np.median(ages)) < age_ms and float(np.median(likeness)) > likeness_db

    def forget(self) -> None:
        self.age_ms.clear()
        self.likeness.clear()


@pytest.mark.parametrize(
    ("lay", "least_share"),
    [
        pytest.param(lambda: bursts, 0.5, id="bursts"),
        pytest.param(losses(0.1), 0.3, id="a tenth lost"),
        pytest.param(jitter, 0.7, id="jitter"),
        pytest.param(far_and_lossy, 0.4, id="far and lossy"),
        pytest.param(stalls, 0.6, id="stalls"),
    ],
)
def test_pictures_go_on_and_latency_does_not_grow(lay: Callable[[], Road], least_share: float) -> None:
    async def main() -> None:
        hub = PacketHub(EncoderThread(SIZE, SIZE, FPS, hardware=False))
        pictures: dict[int, np.ndarray] = {}

        async def feed() -> None:
            start = time.monotonic()
            for index in count():
                picture = moving_picture(index, SIZE, SIZE, noise=3)
                code = pack_time_code(time.time() * 1e3, None)
                draw_time_code(picture, code)
                pictures[code & 0x3FFF] = picture
                hub.submit(picture, int((time.monotonic() - start) * 90_000), stamp=0.0)
                await asyncio.sleep(max(0.0, start + (index + 1) / FPS - time.monotonic()))

        tasks = [asyncio.create_task(hub.run()), asyncio.create_task(feed())]
        async with peers(hub.subscribe()) as pair:
            watcher = Watcher(pair)
            tasks.append(asyncio.create_task(watcher.watch(pictures)))
            await asyncio.sleep(1.5)
            watcher.forget()
            await asyncio.sleep(1.0)
            young_ms = float(np.median(watcher.age_ms))
            watcher.forget()
            pair.lay_road(lay())
            await asyncio.sleep(BAD_S)
            assert len(watcher.age_ms) > least_share * FPS * BAD_S
            pair.lay_road(lambda _, __: 0.0)
            watcher.forget()
            async with asyncio.timeout(GOOD_S):
                while not watcher.sees(young_ms + 30, 30.0):
                    await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await no_tasks_left()

    assert CODE_HEIGHT < SIZE
    asyncio.run(main())
