"""A session end to end: two real WebRTC peers, one of whom drives."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from live import SIZE, add_avatar, hear, live_server, run, small_config

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.motion.ideal_landmarks import IdealTracker
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import frame_person
from lhm_runtime.types import Landmarks, SmplxPose
from streaming.drivers import Drivers
from streaming.protocol import LandmarkSample, encode_landmarks
from streaming.session import Session
from streaming.settings import NewSession, SettingsChange
from streaming.time_code import read_time_code

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


def arms(avatar: Avatar, degrees: float) -> SmplxPose:
    """Both arms at this angle from hanging."""
    pose = relaxed_pose(avatar.expression_names)
    rotvec = pose.rotvec.copy()
    for side, sign in (("left", 1), ("right", -1)):
        rotvec[JOINT_INDEX[f"{side}_shoulder"]] = [0, 0, sign * np.radians(degrees - 80)]
    return replace(pose, rotvec=rotvec)


class Actor:
    """Sends perfect landmarks of poses, as a page would."""

    def __init__(self, avatar: Avatar) -> None:
        rest = arms(avatar, 0)
        joints = forward_kinematics(rest.rotvec, avatar.rest_joints, rest.transl)[:, :3, 3]
        self._tracker = IdealTracker(avatar.rest_joints, frame_person(joints, "full", 640, 640))
        self._sequence = 0

    def landmarks(self, pose: SmplxPose) -> Landmarks:
        return replace(self._tracker.see(pose), timestamp_s=time.time())

    def sample(self, pose: SmplxPose) -> bytes:
        self._sequence += 1
        return encode_landmarks(LandmarkSample(self._sequence, self.landmarks(pose)))


async def act(channel: object, actor: Actor, pose: SmplxPose, seconds: float) -> None:
    for _ in range(int(seconds * 30)):
        channel.send(actor.sample(pose))  # type: ignore[attr-defined]
        await asyncio.sleep(1 / 30)


def spread(picture: np.ndarray) -> float:
    """How far to the sides the person reaches, in halves of the width."""
    columns = (np.abs(picture - picture[2, 2]) > 30).any(axis=0).nonzero()[0]
    return float(np.abs(columns - picture.shape[1] / 2).max() / (picture.shape[1] / 2)) if columns.size else 0.0


def test_the_picture_follows_the_driver_to_every_viewer(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="browser")
            driver = await server.join(session, stack)
            viewer = await server.watch(session, stack)
            actor = Actor(avatar)
            for degrees, wide in ((0, False), (85, True), (0, False)):
                acting = asyncio.create_task(act(driver.pose, actor, arms(avatar, degrees), 3.0))
                for watching in (driver, viewer):
                    await watching.see_until(lambda picture: (spread(picture) > 0.75) == wide)  # noqa: B023
                acting.cancel()
                await asyncio.wait([acting])

    run(main())


def test_idle_motion_moves_and_takes_over_when_the_driver_falls_silent(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar, motion={"silence_s": 0.2}) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="browser")
            driver = await server.join(session, stack)
            standing = await driver.see(5)
            await act(driver.pose, Actor(avatar), arms(avatar, 85), 1.5)
            await driver.see_until(lambda picture: spread(picture) > 0.75)
            await driver.see_until(lambda picture: np.abs(picture - standing).mean() < 2.0)
            later = [await driver.see(15) for _ in range(4)]
            assert max(np.abs(a - b).mean() for a in later for b in later) > 0.02  # it breathes

    run(main())


def test_a_replay_plays(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            viewer = await server.watch(await server.start_session(source="replay", replay="wave"), stack)
            first = await viewer.see(2)
            await viewer.see_until(lambda picture: np.abs(picture - first).mean() > 1.0)

    run(main())


def test_settings_change_the_picture(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(background="000000")
            viewer = await server.watch(session, stack)
            assert (await viewer.see(3))[2:10, 2:10].mean() < 30

            async def change(**settings: object) -> None:
                response = await server.http.patch(f"/api/sessions/{session}", json=settings)
                assert response.status_code == 200, response.text
                assert response.json().items() >= settings.items()

            await change(background="ffffff")
            white = await viewer.see_until(lambda picture: picture[2:10, 2:10].mean() > 200)
            await change(framing="head")
            dark = (white < 160).mean()
            await viewer.see_until(lambda picture: (picture < 160).mean() > 1.5 * dark)
            await change(framing="full", yaw=1.0)
            turned = await viewer.see_until(lambda picture: (picture < 160).mean() < 1.2 * dark)
            turned = await viewer.see(20)
            await change(mirror=True)
            await viewer.see_until(lambda picture: np.abs(picture[:, ::-1] - turned).mean() < 2.5)
            assert np.abs(turned[:, ::-1] - turned).mean() > 2.5
            await change(background="transparent")
            await viewer.see_until(lambda picture: picture.shape == (2 * SIZE[1], SIZE[0]))

    run(main())


def test_one_viewer_may_have_alpha_beside_others_without(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            plain = await server.watch(session, stack)
            stacked = await server.watch(session, stack, alpha="true", codec="vp8")
            assert (await plain.see(2)).shape == (SIZE[1], SIZE[0])
            picture = await stacked.see(5)
            assert picture.shape == (2 * SIZE[1], SIZE[0])
            alpha = picture[SIZE[1] :]
            assert alpha[2:10, 2:10].mean() < 25
            assert alpha.max() > 225

    run(main())


def test_time_code(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="browser", probe=True)
            driver = await server.join(session, stack)
            acting = asyncio.create_task(act(driver.pose, Actor(avatar), arms(avatar, 40), 4.0))
            codes = [read_time_code((await driver.see()).astype(np.uint8)) for _ in range(60)]
            acting.cancel()
            read = [code for code in codes if code is not None]
            assert len(read) > 50
            assert read[-1].captured_ms is not None
            assert 0 <= (read[-1].drawn_ms - read[-1].captured_ms) % 16_383 < 2000

    run(main())


def test_nothing_is_drawn_while_nobody_watches(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            live = server.services.sessions.get(session)
            await asyncio.sleep(0.3)
            assert live.state.fps == 0
            viewer = await server.watch(session, stack)
            await viewer.see(10)
            assert live.drawing
            assert live.state.fps > 0
            await server.http.delete(viewer.location)
            await asyncio.sleep(2.5)
            assert not live.drawing
            assert live.state.fps == 0
            again = await server.watch(session, stack)
            await again.see(3)

    run(main())


def test_a_session_that_fails_says_why_and_leaves_the_others_alone(
    avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "motions").mkdir()
    (tmp_path / "motions" / "broken.npz").write_bytes(b"not a motion")

    async def main() -> None:
        async with (
            live_server(tmp_path, avatar, storage={"data": tmp_path, "replays": tmp_path / "motions"}) as server,
            AsyncExitStack() as stack,
        ):
            healthy = await server.start_session()
            viewer = await server.watch(healthy, stack)
            await viewer.see()
            gate = asyncio.Event()
            open_source = Drivers.source

            async def open_late(drivers: Drivers, *wanted: Any) -> object:
                await gate.wait()
                return await open_source(drivers, *wanted)

            monkeypatch.setattr(Drivers, "source", open_late)
            failing = await server.start_session(source="replay", replay="broken.npz")
            socket = await stack.enter_async_context(server.signal(failing))
            await hear(socket, "state")
            gate.set()
            error = await hear(socket, "error")
            assert error["code"] == "session_failed"
            assert "broken.npz" in error["message"]
            assert (await hear(socket, "bye"))["reason"] == error["message"]
            assert (await server.http.get(f"/api/sessions/{failing}")).status_code == 404
            await viewer.see(5)

    run(main())


def test_a_session_nobody_comes_to_ends(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar, server={"linger_s": 0.1}) as server:
            session = await server.start_session()
            for _ in range(100):
                if (await server.http.get(f"/api/sessions/{session}")).status_code == 404:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError("it still runs")

    run(main())


def test_recording(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        add_avatar(tmp_path, avatar, "someone")
        wish = NewSession(avatar="someone", source="replay", replay="wave")
        session = Session("s", avatar, wish, small_config(tmp_path))
        running = asyncio.create_task(session.run())
        await asyncio.sleep(0.2)
        recording = asyncio.create_task(session.record(tmp_path / "film.mp4"))
        await asyncio.sleep(2.0)
        recording.cancel()
        running.cancel()
        await asyncio.wait([recording, running])

    run(main())
    with av.open(tmp_path / "film.mp4") as container:
        frames = list(container.decode(video=0))
    assert len(frames) > 20
    assert (frames[0].width, frames[0].height) == SIZE


def test_changes_are_told_once(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        session = Session("s", avatar, NewSession(avatar="someone"), small_config(tmp_path))
        told = 0

        def count() -> None:
            nonlocal told
            told += 1

        session.on_state = count
        session.change(SettingsChange(framing="head"))
        session.change(SettingsChange(framing="head"))
        session.change(SettingsChange(calibrate=True))
        assert told == 1
        assert session.state.framing == "head"

    run(main())


def test_avatar_and_source_change_while_viewers_stay(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            other = replace(avatar, gaussians=replace(avatar.gaussians, rgb=0.5 * avatar.gaussians.rgb))
            add_avatar(tmp_path, other, "other")
            session = await server.start_session(background="ffffff")
            viewer = await server.watch(session, stack)
            standing = await viewer.see(5)
            pictures: list[np.ndarray] = []

            async def look() -> None:
                while True:
                    pictures.append(await viewer.see())

            looking = asyncio.create_task(look())
            for change in ({"source": "replay", "replay": "wave"}, {"avatar": "other"}, {"source": "idle"}):
                changed = await server.http.patch(f"/api/sessions/{session}", json=change)
                assert changed.status_code == 200, changed.text
                assert changed.json().items() >= change.items()
                await asyncio.sleep(1.8)
            assert (await server.http.get(f"/api/sessions/{session}")).json()["viewers"] == 1
            looking.cancel()
            await asyncio.wait([looking])
            # no black or empty picture, and no jump: of a hundred pictures none is far from the one before
            assert min(picture[:4].mean() for picture in pictures) > 200
            assert min((picture < 160).mean() for picture in pictures) > 0.5 * (standing < 160).mean()
            steps = [np.abs(after - before).mean() for before, after in pairwise(pictures)]
            assert len(steps) > 60
            assert max(steps) < 0.5 * max(np.abs(picture - standing).mean() for picture in pictures) + 1.0

    run(main())


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"avatar": "none"}, 404, "unknown_avatar"),
        ({"avatar": "broken"}, 409, "unusable_avatar"),
        ({"source": "replay"}, 422, "unknown_replay"),
        ({"replay": "dance"}, 422, "unknown_replay"),
        ({"replay": "broken.npz"}, 409, "unusable_source"),
        ({"source": "replay", "replay": "wave", "framing": "feet"}, 422, "invalid"),
    ],
)
def test_a_change_that_fails_changes_nothing(
    avatar: Avatar, tmp_path: Path, change: dict[str, str], status: int, code: str
) -> None:
    (tmp_path / "motions").mkdir()
    (tmp_path / "motions" / "broken.npz").write_bytes(b"not a motion")

    async def main() -> None:
        async with (
            live_server(tmp_path, avatar, storage={"data": tmp_path, "replays": tmp_path / "motions"}) as server,
            AsyncExitStack() as stack,
        ):
            add_avatar(tmp_path, avatar, "broken")
            server.services.avatars.avatar_path("broken").write_bytes(b"rubbish")
            session = await server.start_session(framing="half")
            viewer = await server.watch(session, stack)
            await viewer.see(3)
            before = (await server.http.get(f"/api/sessions/{session}")).json()
            refused = await server.http.patch(f"/api/sessions/{session}", json=change)
            assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
            after = (await server.http.get(f"/api/sessions/{session}")).json()
            assert {**after, "fps": 0} == {**before, "fps": 0}
            await viewer.see(5)

    run(main())


def test_the_framing_follows_the_avatar_until_somebody_chooses(avatar: Avatar, tmp_path: Path) -> None:
    bust = replace(avatar, metadata=replace(avatar.metadata, shown="head"))

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            add_avatar(tmp_path, bust, "bust")
            session = await server.start_session()

            async def change(**wish: str) -> str:
                return str((await server.http.patch(f"/api/sessions/{session}", json=wish)).json()["framing"])

            assert await change(mirror="true") == avatar.metadata.shown
            assert await change(avatar="bust") == "head"
            assert await change(framing="half") == "half"
            assert await change(avatar="someone") == "half"

    run(main())


def test_a_deserted_session_makes_room(avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.sessions._GRACE_S", 0.1)

    async def main() -> None:
        async with (
            live_server(tmp_path, avatar, server={"max_sessions": 2}) as server,
            AsyncExitStack() as stack,
        ):
            watched, deserted = await server.start_session(), await server.start_session()
            await server.watch(watched, stack)
            await asyncio.sleep(0.2)
            await server.start_session()
            assert (await server.http.get(f"/api/sessions/{watched}")).status_code == 200
            assert (await server.http.get(f"/api/sessions/{deserted}")).status_code == 404

    run(main())
