"""A session's poses beside its film: rendered again they are the film, at any size and with anybody."""

import asyncio
import io
import queue
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from live import add_avatar, live_server, luma, run, small_config
from typer.testing import CliRunner

from lhm_runtime.avatar import Avatar, save_avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.sequences import MotionSequence
from lhm_runtime.motion.takes import MAGIC, Scene, format_pose, format_poses, format_scene, parse_take, read_take
from lhm_runtime.types import SmplxPose
from streaming import cli
from streaming.feeding import feed
from streaming.renderer import Moment, Performer
from streaming.session import Session
from streaming.settings import NewSession, Settings
from streaming.sources.replay import list_replays, open_replay
from streaming.take import _TakeWriter

PERSON = 12
"""Luma that differs from the background by more is somebody."""


def decode(film: bytes) -> dict[float, np.ndarray]:
    """Luma of each picture, by its time."""
    with av.open(io.BytesIO(film)) as container:
        return {float(frame.time or 0): luma(frame) for frame in container.decode(video=0)}


def show(take: Path, out: Path, *options: str) -> dict[float, np.ndarray]:
    result = CliRunner().invoke(cli.app, ["render", "--pose", str(take), "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    return decode(out.read_bytes())


def person_of(picture: np.ndarray) -> np.ndarray:
    return np.abs(picture - picture[2, 2]) > PERSON


def swinging_arms(seconds: float) -> MotionSequence:
    """Sixty frames a second of somebody who moves one arm."""
    count = int(seconds * 60)
    rotvec = np.repeat(relaxed_pose().rotvec[None], count, axis=0)
    swing = np.sin(np.arange(count) / 60 * 2 * np.pi * 0.5)
    rotvec[:, JOINT_INDEX["left_shoulder"], 2] = -0.5 + 0.4 * swing
    rotvec[:, JOINT_INDEX["right_shoulder"], 2] = 1.3
    return MotionSequence(
        rotvec.astype(np.float32),
        np.zeros((count, 3), np.float32),
        np.full((count, 1), 0.6, np.float32),
        np.arange(count) / 60,
        ("jawOpen",),
    )


def test_a_take_rendered_again_is_the_film(avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film_path, take_path = tmp_path / "film.mp4", tmp_path / "take.motion"

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session(source="socket", framing="half", mirror=True, yaw=0.3)
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}"
            feeding = asyncio.create_task(feed(swinging_arms(5.0), url))
            while not server.services.sessions.get(session).messages.used:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.8)  # idle motion has given way
            own = f"/api/sessions/{session}/recording"
            await server.http.post(own)
            await asyncio.sleep(1.2)
            await server.http.patch(f"/api/sessions/{session}", json={"background": "00B140", "framing": "full"})
            await asyncio.sleep(1.2)
            recording = (await server.http.delete(own)).json()
            feeding.cancel()
            film_path.write_bytes((await server.http.get(recording["url"])).content)
            take = await server.http.get(recording["motion_url"])
            assert len(take.content) == recording["motion_bytes"]
            assert "attachment" in take.headers["content-disposition"]
            take_path.write_bytes(take.content)
            assert (await server.http.delete(recording["url"])).status_code == 204
            assert (await server.http.get(recording["motion_url"])).status_code == 404

    run(main())
    film, take = decode(film_path.read_bytes()), read_take(take_path)
    assert take.timestamps_s[0] == 0
    assert [scene.framing for scene in take.scenes] == ["half", "full"]
    ticks = set(np.rint(take.timestamps_s * 90_000).tolist())
    assert {round(time_s * 90_000) for time_s in film} <= ticks  # every picture has its pose

    monkeypatch.setenv("LHM_LIVE_STORAGE__DATA", str(tmp_path))  # where ``someone`` is
    again = show(take_path, tmp_path / "again.mp4", "--fps", "120")
    times = np.array([*again])
    likeness = []
    for time_s, picture in film.items():
        same = again[times[min(np.searchsorted(times, time_s - 1e-4), len(times) - 1)]]  # not from before a cut
        error = (picture - same)[person_of(same)]
        likeness.append(10 * np.log10(255**2 / np.mean(error**2)))
    assert min(likeness) >= 30, likeness
    assert len(show(take_path, tmp_path / "steady.mp4")) == 1 + int(30 * take.timestamps_s[-1] + 1e-6)  # its own rate

    gaussians = avatar.gaussians
    other = replace(avatar, gaussians=replace(gaussians, rgb=1 - gaussians.rgb))
    save_avatar(other, tmp_path / "other.avatar")
    chosen = ("--avatar", str(tmp_path / "other.avatar"), "--size", "256x320", "--background", "000000")
    of_other = show(take_path, tmp_path / "other.mp4", "--fps", "30", *chosen)
    last = max(film)
    seen, here = of_other[min(of_other, key=lambda time_s: abs(time_s - last))], person_of(film[last])
    assert seen.shape == (320, 256)
    there = person_of(seen[::2, ::2])
    assert (here & there).sum() / (here | there).sum() > 0.8
    shades = [np.median(film[last][here]), np.median(seen[::2, ::2][here])]
    assert abs(shades[0] - shades[1]) > 30, shades

    assert "take.motion" in list_replays(tmp_path)
    played = open_replay("take.motion", tmp_path, avatar.expression_names)
    assert played.expression[:, avatar.expression_names.index("jawOpen")].max() == pytest.approx(0.6, abs=0.05)


def test_without_its_avatar_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHM_LIVE_STORAGE__DATA", str(tmp_path / "data"))
    scene = Scene("gone", (), 64, 64, 30, "full", "transparent", mirror=False, yaw=0.0, pitch=0.0)
    take = tmp_path / "idle.motion"
    take.write_bytes(MAGIC + format_scene(scene) + format_poses([format_pose(0, relaxed_pose())]))
    result = CliRunner().invoke(cli.app, ["render", "--pose", str(take), "-o", str(tmp_path / "x.mp4")])
    assert result.exit_code == 1
    assert "name the .avatar file" in result.stderr


def test_a_backlog_is_written_in_pieces(avatar: Avatar, tmp_path: Path) -> None:
    """Two megabytes at once, as after a disk that stood still."""
    performer, told = Performer(avatar, "someone"), relaxed_pose(avatar.expression_names)
    drawn: queue.SimpleQueue[tuple[Moment, SmplxPose] | int | None] = queue.SimpleQueue()
    drawn.put(90_000)
    for step in range(2500):
        drawn.put((Moment(performer, 1 + step / 30, 0.0, told, 1.0, None, Settings(), ()), told))
    drawn.put(None)
    _TakeWriter(tmp_path / "me.motion", (64, 64), 30, None).work(drawn)
    take = read_take(tmp_path / "me.motion")
    np.testing.assert_allclose(take.timestamps_s, np.arange(2500) / 30, atol=2e-5)


def test_a_crash_costs_a_second(avatar: Avatar, tmp_path: Path) -> None:
    """The hidden file as it is on the disk in the middle of a recording; then there is no room for more."""
    left = 10**9

    def room(size: int) -> bool:
        nonlocal left
        left -= size
        return left >= 0

    async def main() -> None:
        nonlocal left
        add_avatar(tmp_path, avatar, "someone")
        session = Session("s", avatar, NewSession(avatar="someone"), small_config(tmp_path))
        running = asyncio.create_task(session.run())
        await asyncio.sleep(0.2)
        recording = asyncio.create_task(session.record(tmp_path / "film.mp4", room=room))
        kept = None
        while kept is None or kept.timestamps_s[-1] < 0.8:
            await asyncio.sleep(0.1)
            for part in tmp_path.glob(".film.*.motion"):
                with suppress(InvalidInputError):  # nothing yet
                    kept = parse_take(part.read_bytes())
        left = 0
        await asyncio.wait_for(recording, 5)
        running.cancel()
        await asyncio.wait([running])
        whole = read_take(tmp_path / "film.motion")
        np.testing.assert_array_equal(whole.rotvec[: len(kept.rotvec)], kept.rotvec)
        assert not [*tmp_path.glob(".film*")]

    run(main())
