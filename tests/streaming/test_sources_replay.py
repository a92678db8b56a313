import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from live import live_server, run

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError, MotionFileError
from lhm_runtime.motion.procedural import wave
from lhm_runtime.motion.sequences import MotionSequence, save_motion, write_bvh
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


def ramp_motion(seconds: float = 4.0, fps: float = 50.0) -> MotionSequence:
    """The head turns by half a radian a second, so that a pose tells its time."""
    count = int(seconds * fps)
    rotvec = np.zeros((count, 55, 3), np.float32)
    times = np.arange(count) / fps
    rotvec[:, HEAD, 1] = 0.5 * times
    none = np.zeros((count, 0), np.float32)
    return MotionSequence(rotvec, np.zeros((count, 3), np.float32), none, times, ())


HEAD = JOINT_INDEX["head"]


def place_of(sample: Sample) -> float:
    return float(pose_of(sample).rotvec[HEAD, 1]) / 0.5


@pytest.mark.parametrize(("speed", "passed_s"), [(0.5, 0.4), (2.0, 1.6), (4.0, 3.2)])
def test_its_speed(speed: float, passed_s: float) -> None:
    async def main() -> None:
        samples = await play(ReplaySource(ramp_motion(), 60.0, speed=speed), 0.8)
        assert place_of(samples[-1]) == pytest.approx(passed_s, abs=0.15 * speed + 0.05)
        assert len(samples) <= 55

    run(main())


def test_speed_0_holds_the_pose_and_says_so_again() -> None:
    async def main() -> None:
        source = ReplaySource(ramp_motion(), 60.0)
        samples: list[Sample] = []
        async with source:
            async for sample in source:
                samples.append(sample)
                if len(samples) == 10:
                    source.play(speed=0.0, loop=True)
                if len(samples) == 14:
                    break
        held = [place_of(sample) for sample in samples[-3:]]
        assert max(held) - min(held) < 1e-6
        pauses_s = np.diff([pose_of(sample).timestamp_s for sample in samples[-4:]])
        assert np.median(pauses_s) < 0.5  # within motion.silence_s; one may come late on a busy machine

    run(main())


def test_seeking_goes_there_without_a_jerk() -> None:
    async def main() -> None:
        source = ReplaySource(ramp_motion(), 60.0)
        places: list[float] = []
        async with source:
            async for sample in source:
                places.append(place_of(sample))
                if len(places) == 10:
                    source.seek(3.0)
                if len(places) == 45:
                    break
        assert 3.0 < places[-1] < 3.99
        assert 0.5 * np.abs(np.diff(places)).max() < np.radians(30)  # of 83 degrees at once
        assert source.place_s == pytest.approx(places[-1], abs=0.2)

    run(main())


def test_the_way_back_to_the_start_is_no_jerk_either() -> None:
    async def main() -> None:
        source = ReplaySource(ramp_motion(2.0), 60.0)
        places: list[float] = []
        async with source:
            async for sample in source:
                if not places:
                    source.seek(1.7)
                places.append(place_of(sample))
                if len(places) > 60 and places[-1] < 0.7:
                    break
        assert 0.5 * np.abs(np.diff(places)).max() < np.radians(20)  # of 57 degrees at once

    run(main())


def test_once_is_to_the_end_and_then_silence_until_it_is_sought() -> None:
    async def main() -> None:
        source = ReplaySource(ramp_motion(0.4), 60.0, loop=False)
        places: list[float] = []

        async def collect() -> None:
            async with source:
                async for place in (place_of(sample) async for sample in source):
                    places.append(place)  # noqa: PERF401 - it is read meanwhile

        collecting = asyncio.create_task(collect())
        await asyncio.sleep(0.8)
        first = len(places)
        assert places[-1] > 0.3
        assert source.place_s == source.length_s
        await asyncio.sleep(0.2)
        assert len(places) == first
        source.seek(0.1)
        await asyncio.sleep(0.2)
        assert len(places) > first
        source.seek(99.0)
        await asyncio.sleep(0.1)
        ended = len(places)
        source.play(speed=1.0, loop=True)
        await asyncio.sleep(0.3)
        assert len(places) > ended
        collecting.cancel()
        await asyncio.wait([collecting])

    run(main())


def test_a_session_s_replay_is_controlled_over_rest(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "replays"
        folder.mkdir()
        save_motion(folder / "long.npz", wave(20.0, 30.0, ()))
        write_bvh(folder / "dance.bvh", wave(3.0, 30.0, ()), avatar.rest_joints)
        async with live_server(tmp_path / "data", avatar, storage={"replays": folder}) as server:
            session = await server.start_session(source="replay", replay="long.npz", speed=0.0, loop=False)
            path = f"/api/sessions/{session}"
            async with asyncio.timeout(10):
                while (await server.http.get(path)).json()["replay_s"] is None:
                    await asyncio.sleep(0.05)
            state = (await server.http.get(path)).json()
            assert (state["speed"], state["loop"], state["place_s"]) == (0.0, False, 0.0)
            assert state["replay_s"] == pytest.approx(20.0)
            state = (await server.http.patch(path, json={"seek_s": 12.5})).json()
            assert state["place_s"] == 12.5
            await server.http.patch(path, json={"speed": 2.0, "loop": True})
            await asyncio.sleep(0.3)
            assert 12.9 < (await server.http.get(path)).json()["place_s"] < 18
            for change in ({"speed": -1}, {"speed": 9}, {"seek_s": -1}, {"loop": "sometimes"}):
                assert (await server.http.patch(path, json=change)).status_code == 422, change
            state = (await server.http.patch(path, json={"replay": "dance.bvh"})).json()
            assert state["replay_s"] == pytest.approx(3.0, abs=0.05)
            assert state["speed"] == 2.0
            state = (await server.http.patch(path, json={"source": "idle"})).json()
            assert state["replay_s"] is state["place_s"] is None

    run(main())
