import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from live import run
from people import picture_of_person

from lhm_runtime.errors import BackendError
from lhm_runtime.types import Landmarks
from streaming.sources import Sample
from streaming.sources.webcam import WebcamSource
from streaming.time_code import draw_time_code, pack_time_code


class Film(MediaStreamTrack):
    """Pictures at 15 a second; then the track ends."""

    kind = "video"

    def __init__(self, pictures: list[np.ndarray], code_ms: float | None = None) -> None:
        super().__init__()
        self._pictures, self._code_ms, self.given = pictures, code_ms, 0

    async def recv(self) -> av.VideoFrame:
        if self.given == len(self._pictures):
            raise MediaStreamError
        await asyncio.sleep(1 / 15)
        frame = av.VideoFrame.from_ndarray(self._pictures[self.given], format="rgb24").reformat(format="yuv420p")
        if self._code_ms is not None:
            planes = frame.to_ndarray()
            draw_time_code(planes, pack_time_code(self._code_ms + self.given, None))
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = self.given * 6000, Fraction(1, 90_000)
        self.given += 1
        return frame


@asynccontextmanager
async def watching(*films: Film) -> AsyncIterator[tuple[WebcamSource, list[asyncio.Task[None]]]]:
    source = WebcamSource("body")
    async with source:
        feeding = [asyncio.create_task(source.feed(film)) for film in films]
        try:
            yield source, feeding
        finally:
            for task in feeding:
                task.cancel()
            await asyncio.wait(feeding)


async def first(source: WebcamSource, wanted: Any) -> Sample:
    async for sample in source:
        if wanted(sample):
            return sample
    raise AssertionError("it ended")


def sees_body(sample: Sample) -> bool:
    assert isinstance(sample.motion, Landmarks)
    return sample.motion.body_world is not None


def test_a_person_in_the_video_is_tracked_and_the_time_code_travels_along() -> None:
    pictures = [picture_of_person(i % 60) for i in range(300)]

    async def main() -> None:
        async with watching(Film(pictures, code_ms=4000)) as (source, _):
            sample = await first(source, sees_body)
            assert isinstance(sample.motion, Landmarks)
            assert sample.motion.image_size == (360, 640)
            assert sample.captured_ms == 4000 + round(sample.motion.timestamp_s * 15)

    run(main())


def test_a_later_track_takes_over_and_the_earlier_one_is_read_on() -> None:
    blank = [np.full((64, 64, 3), 90, np.uint8)] * 1000
    person = [picture_of_person(0)] * 1000

    async def main() -> None:
        old, new = Film(blank), Film(person)
        async with watching(old, new) as (source, _):
            await first(source, sees_body)
            before = old.given
            await asyncio.sleep(0.5)
            assert old.given > before + 2

    run(main())


def test_a_track_that_ends_is_no_failure() -> None:
    async def main() -> None:
        async with watching(Film([picture_of_person(0)] * 3)) as (_, feeding):
            await asyncio.wait_for(feeding[0], 5.0)

    run(main())


def test_a_tracker_that_gives_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with watching(Film([picture_of_person(0)] * 500)) as (source, _):

            def give_up(*_: object) -> None:
                raise BackendError("the tracker gave up: no legs")

            monkeypatch.setattr(source._worker, "submit", give_up)
            with pytest.raises(BackendError, match="no legs"):
                await first(source, lambda _: False)

    run(main())
