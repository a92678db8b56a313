import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from live import run

from lhm_runtime.errors import InvalidInputError, MotionFileError
from lhm_runtime.motion.procedural import wave
from lhm_runtime.motion.sequences import save_motion
from lhm_runtime.types import SmplxPose
from streaming.sources import Sample
from streaming.sources.replay import ReplaySource, list_replays, open_replay


async def play(source: ReplaySource, seconds: float, pause_s: float = 0.0) -> list[Sample]:
    samples = []
    end = time.monotonic() + seconds
    async with source:
        async for sample in source:
            samples.append(sample)
            await asyncio.sleep(pause_s)
            if time.monotonic() > end:
                break
    return samples


def pose_of(sample: Sample) -> SmplxPose:
    assert isinstance(sample.motion, SmplxPose)
    return sample.motion


def test_it_plays_at_its_own_pace_and_again_from_the_start() -> None:
    async def main() -> None:
        motion = wave(0.4, 25.0)
        samples = await play(ReplaySource(motion, 60.0), 1.0)
        assert 15 <= len(samples) <= 28
        times = [pose_of(sample).timestamp_s for sample in samples]
        assert all(np.diff(times) > 0)
        for sample in samples:
            expected = motion.pose(int((pose_of(sample).timestamp_s % 0.4) * 25 + 1e-9) % 10)
            assert (
                any(
                    np.array_equal(pose_of(sample).rotvec, near.rotvec)
                    for near in (expected, motion.pose(-1), motion.pose(0))
                )
                or np.abs(pose_of(sample).rotvec - expected.rotvec).max() < 0.5
            )
        assert all(sample.captured_ms is None for sample in samples)

    run(main())


def test_it_is_never_faster_than_the_picture() -> None:
    async def main() -> None:
        assert len(await play(ReplaySource(wave(1.0, 120.0), 20.0), 0.5)) <= 12

    run(main())


def test_a_slow_reader_gets_what_is_due() -> None:
    async def main() -> None:
        samples = await play(ReplaySource(wave(4.0, 50.0), 60.0), 0.6, pause_s=0.15)
        gaps = np.diff([pose_of(sample).timestamp_s for sample in samples])
        assert (gaps > 0.14).all()

    run(main())


def test_a_motion_of_one_frame_stands() -> None:
    async def main() -> None:
        assert await play(ReplaySource(wave(0.04, 25.0), 30.0), 0.1)

    run(main())


def test_only_what_is_listed_is_opened(tmp_path: Path) -> None:
    save_motion(tmp_path / "dance.npz", wave(1.0, 10.0, ("jawOpen",)))
    (tmp_path / "notes.txt").write_text("no motion")
    (tmp_path / "broken.bvh").write_text("no motion either")
    assert list_replays(tmp_path) == ["wave", "broken.bvh", "dance.npz"]
    assert list_replays(None) == ["wave"]
    motion = open_replay("dance.npz", tmp_path, ("eyeBlinkLeft", "jawOpen"))
    assert motion.expression_names == ("eyeBlinkLeft", "jawOpen")
    assert len(motion) == 10
    with pytest.raises(MotionFileError):
        open_replay("broken.bvh", tmp_path, ())
    for name in ("notes.txt", "../dance.npz", "dance.npz/", ""):
        with pytest.raises(InvalidInputError, match="no replay"):
            open_replay(name, tmp_path, ())
