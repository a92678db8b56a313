import asyncio
import threading
import time

import pytest

from streaming.latest import Latest, LatestForThread


def test_newest_value_wins_and_the_others_are_counted() -> None:
    async def main() -> None:
        box: Latest[int] = Latest()
        for value in (1, 2, 3):
            box.put(value)
        assert await box.get() == 3
        assert box.replaced == 2
        assert box.take() is None

    asyncio.run(main())


def test_get_waits_for_a_value_and_can_be_cancelled() -> None:
    async def main() -> None:
        box: Latest[str] = Latest()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(box.get(), 0.01)
        reader = asyncio.create_task(box.get())
        await asyncio.sleep(0)
        box.put("pose")
        assert await asyncio.wait_for(reader, 1) == "pose"
        assert box.replaced == 0

    asyncio.run(main())


def test_two_readers_never_get_the_same_value() -> None:
    async def main() -> None:
        box: Latest[int] = Latest()
        readers = [asyncio.create_task(box.get()) for _ in range(2)]
        await asyncio.sleep(0)
        box.put(1)
        await asyncio.sleep(0.01)
        assert [reader.done() for reader in readers].count(True) == 1
        box.put(2)
        assert sorted(await asyncio.gather(*readers)) == [1, 2]

    asyncio.run(main())


def test_falsy_values_are_values() -> None:
    async def main() -> None:
        box: Latest[int] = Latest()
        box.put(0)
        assert await asyncio.wait_for(box.get(), 1) == 0

    asyncio.run(main())


def test_values_from_another_thread_wake_the_loop() -> None:
    async def main() -> None:
        box: Latest[int] = Latest()
        loop = asyncio.get_running_loop()
        threading.Timer(0.02, lambda: box.put_threadsafe(7, loop)).start()
        assert await asyncio.wait_for(box.get(), 2) == 7

    asyncio.run(main())


def test_thread_reads_a_fast_source_in_order_and_ends_with_the_last() -> None:
    box: LatestForThread[int] = LatestForThread()
    seen: list[int] = []

    def read() -> None:
        while (value := box.get()) is not None:
            seen.append(value)
            time.sleep(0.001)

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(200):
        box.put(value)
    deadline = time.monotonic() + 2
    while 199 not in seen and time.monotonic() < deadline:
        time.sleep(0.001)
    box.close()
    reader.join(2)
    assert not reader.is_alive()
    assert seen == sorted(set(seen))
    assert seen[-1] == 199
    assert len(seen) + box.replaced == 200


def test_closing_and_time_limits_let_a_thread_go() -> None:
    box: LatestForThread[int] = LatestForThread()
    assert box.get(0.01) is None
    box.close()
    assert box.get() is None
