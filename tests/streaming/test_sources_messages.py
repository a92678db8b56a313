import asyncio
import struct
import time
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from live import hear, live_server, run
from packets import bones

from lhm_runtime.avatar import Avatar
from lhm_runtime.motion.retargeting import BoneRotations
from lhm_runtime.types import Landmarks
from streaming.protocol import (
    MAX_SAMPLE_BYTES,
    BoneSample,
    LandmarkSample,
    encode_bones,
    encode_landmarks,
    format_sample,
)
from streaming.sources import Sample
from streaming.sources.messages import MessageSource, Sender


def message(sequence: int, captured_s: float = 1.0) -> bytes:
    world = np.zeros((33, 3), np.float32)
    return encode_landmarks(
        LandmarkSample(sequence, Landmarks(timestamp_s=captured_s, image_size=(640, 480), body_world=world))
    )


def with_nan(data: bytes) -> bytes:
    return data[:-4] + struct.pack("<f", float("nan"))


async def read(source: MessageSource, count: int, limit_s: float = 1.0) -> list[Sample]:
    """Up to ``count`` samples, as they come."""
    samples: list[Sample] = []

    async def collect() -> None:
        async for sample in source:
            samples.append(sample)
            if len(samples) == count:
                return

    await asyncio.wait([asyncio.create_task(collect())], timeout=limit_s)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    return samples


def test_samples_arrive_with_their_capture_time() -> None:
    async def main() -> None:
        async with MessageSource() as source:
            sender = Sender()
            source.receive(message(7, 12.5), sender)
            (sample,) = await read(source, 1)
            assert sample.captured_ms == 12_500.0
            assert isinstance(sample.motion, Landmarks)
            assert sample.motion.timestamp_s == 12.5

    run(main())


def test_only_the_newest_of_many_is_read() -> None:
    async def main() -> None:
        async with MessageSource() as source:
            sender = Sender()
            for sequence in range(1000):
                source.receive(message(sequence, sequence / 1000), sender)
            samples = await read(source, 2, 0.1)
            assert [sample.captured_ms for sample in samples] == [999.0]

    run(main())


def test_older_samples_are_left_out_across_the_wrap() -> None:
    async def main() -> None:
        order = [5, 4, 5, 6, 2**31 + 10]
        wrap = [2**32 - 1, 0, 2**32 - 2, 1]
        for numbers, taken in ((order, [5, 6]), (wrap, [2**32 - 1, 0, 1])):
            async with MessageSource() as source:
                sender = Sender()
                seen = []
                for number in numbers:
                    source.receive(message(number, float(number)), sender)
                    seen += [sample.captured_ms for sample in await read(source, 1, 0.05)]
                assert seen == [1e3 * number for number in taken]

    run(main())


def test_a_sender_that_starts_again_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with MessageSource() as source:
            sender = Sender()
            source.receive(message(1000), sender)
            assert await read(source, 1)
            monkeypatch.setattr("streaming.sources.messages._FORGET_S", 0.05)
            await asyncio.sleep(0.1)
            source.receive(message(0), sender)
            assert await read(source, 1)

    run(main())


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "message of 0 bytes"),
        (b"LL", "message of 2 bytes"),
        (message(1)[:-1], "landmark sample of 417 bytes"),
        (message(1) + b"x", "landmark sample of 419 bytes"),
        (with_nan(message(1)), "is nan on the wire"),
        (b"x" * (MAX_SAMPLE_BYTES + 1), "message of 4097 bytes"),
        ("text", "message is no JSON"),
    ],
)
def test_what_is_no_sample_is_refused_and_the_next_one_taken(data: bytes | str, complaint: str) -> None:
    async def main() -> None:
        async with MessageSource() as source:
            complaints: list[str] = []
            sender = Sender(complaints.append)
            source.receive(data, sender)
            assert await read(source, 1, 0.05) == []
            assert (source.refused, sender.refused) == (1, 1)
            (said,) = complaints
            assert complaint in said
            source.receive(message(2), sender)
            assert len(await read(source, 1)) == 1
            assert (sender.received, sender.used, sender.last) == (2, 1, 2)

    run(main())


def test_bones_come_as_bytes_and_as_text() -> None:
    async def main() -> None:
        async with MessageSource() as source:
            sender = Sender()
            sample = bones(range(22), root=True)
            for number, write in enumerate((encode_bones, format_sample)):
                source.receive(write(BoneSample(number, sample.bones)), sender)
                (got,) = await read(source, 1)
                assert isinstance(got.motion, BoneRotations)
                assert got.motion.names == sample.bones.names
                assert got.captured_ms == sample.bones.timestamp_s * 1e3

    run(main())


def test_each_sender_counts_for_itself() -> None:
    async def main() -> None:
        async with MessageSource() as source:
            old, new = Sender(), Sender()
            source.receive(message(1000), old)
            assert await read(source, 1)
            source.receive(message(0), new)
            assert await read(source, 1)
            source.receive(message(999), old)
            assert not await read(source, 1, 0.05)
            assert (old.used, new.used, source.used) == (1, 1, 2)

    run(main())


def test_a_flood_of_rubbish_disturbs_nobody(avatar: Avatar, tmp_path: Path) -> None:
    """1,000 messages a second: NaN, halves, out of order, clocks that jump, text; another session goes on."""

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            other = await server.watch(await server.start_session(), stack)
            session = await server.start_session(source="browser")
            driver = await server.join(session, stack)
            assert driver.pose is not None
            assert driver.socket is not None
            await other.see()
            rubbish = [
                lambda n: message(n, time.time()),
                lambda n: with_nan(message(n)),
                lambda n: message(n)[: n % 30],
                lambda n: message(2000 - n, -1e12),
                lambda n: message(n, 1e15),
                lambda n: "text",  # noqa: ARG005
            ]
            start = time.monotonic()
            for n in range(1500):
                driver.pose.send(rubbish[n % len(rubbish)](n))
                await asyncio.sleep(max(0.0, start + n / 1000 - time.monotonic()))
            assert (await hear(driver.socket, "error"))["code"] == "bad_sample"
            await other.see(3)
            await driver.see(3)
            assert len(server.services.sessions.all) == 2

    run(main())
