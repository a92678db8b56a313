"""A hub that is fed with moving pictures, and a real peer that watches it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

from peers import Pair, moving_picture, no_tasks_left, peers

from streaming.encoder import Codec, EncoderThread
from streaming.hub import PacketHub, PacketTrack

SIZE = 128


@asynccontextmanager
async def broadcast(codec: Codec = "h264", fps: float = 30.0, noise: int = 0) -> AsyncIterator[PacketHub]:
    """A hub that is fed with moving pictures, whether or not anybody watches."""
    hub = PacketHub(EncoderThread(SIZE, SIZE, fps, codec=codec))

    async def feed() -> None:
        for index in count():
            hub.submit(moving_picture(index, SIZE, SIZE, noise=noise), index * 3000, stamp=0.0)
            await asyncio.sleep(1 / fps)

    tasks = [asyncio.create_task(hub.run()), asyncio.create_task(feed())]
    try:
        yield hub
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def watched(codec: Codec = "h264", **arguments: int) -> AsyncIterator[tuple[PacketHub, PacketTrack, Pair]]:
    async with broadcast(codec, **arguments) as hub:
        track = hub.subscribe()
        async with peers(track, codec) as pair:
            yield hub, track, pair


def run(main: Callable[[], object], timeout_s: float = 30.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(timeout_s):
            await main()
            await no_tasks_left()

    threads = threading.active_count()
    asyncio.run(bounded())
    assert threading.active_count() <= threads
