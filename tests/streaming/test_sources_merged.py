"""One avatar driven by several: parts, silence, and a session in which one takes over the face."""

import asyncio
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamTrack
from broker import needs_mosquitto, publish, run_broker
from dancer import RAISED, Dancer, reach
from live import hear, live_server, run, visit
from peers import moving_picture
from vmc_peer import arms, as_one, frame, free_port, turn_z

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import NUM_JOINTS
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.errors import BackendError
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.types import SmplxPose
from streaming.config import load_config
from streaming.drivers import assign_parts
from streaming.protocol import LandmarkSample, parse_sample
from streaming.sources import Sample
from streaming.sources.merged import JOINTS, Driver, MergedSource, Part

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


class Metronome:
    """A source of one pose again and again."""

    def __init__(self, value: float, rate_hz: float = 100.0) -> None:
        rotvec = np.full((NUM_JOINTS, 3), value, np.float32)
        expression = np.full(len(relaxed_pose().expression), value, np.float32)
        self.pose = SmplxPose(rotvec, np.full(3, value, np.float32), expression, 0.0)
        self.speaks, self.fails, self.open = True, False, False
        self._pause_s = 1 / rate_hz

    async def __aenter__(self) -> "Metronome":
        self.open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open = False

    async def __aiter__(self) -> AsyncIterator[Sample]:
        while True:
            await asyncio.sleep(self._pause_s)
            if self.fails:
                raise BackendError("the camera burns")
            if self.speaks:
                yield Sample(self.pose, 1e3 * float(self.pose.transl[0]))


def merge(**drivers: tuple[tuple[Part, ...], Metronome]) -> MergedSource:
    made = {name: Driver(parts, source, lambda sample: sample.motion) for name, (parts, source) in drivers.items()}
    return MergedSource(made, lambda _: relaxed_pose(), 0.2)  # type: ignore[arg-type]


def pose_of(sample: Sample) -> SmplxPose:
    assert isinstance(sample.motion, SmplxPose)
    return sample.motion


async def watch(source: MergedSource, seconds: float) -> list[SmplxPose]:
    poses: list[SmplxPose] = []
    try:
        async with asyncio.timeout(seconds):
            async for sample in source:
                poses.append(pose_of(sample))  # noqa: PERF401 - it is read until cancelled
    except TimeoutError:
        pass
    return poses


def test_every_joint_is_in_one_part() -> None:
    assert sorted(joint for joints in JOINTS.values() for joint in joints) == [*range(NUM_JOINTS)]
    assert set(JOINTS) == set(get_args(Part))


def test_parts_come_from_their_drivers() -> None:
    async def main() -> None:
        body, face = Metronome(0.1), Metronome(0.2)
        driven: list[tuple[Part, float]] = [("body", 0.1), ("hands", 0.1), ("face", 0.2)]
        async with merge(body=(("body", "hands"), body), face=(("face",), face)) as source:
            assert body.open
            assert face.open
            async with asyncio.timeout(10):
                async for sample in source:
                    pose = pose_of(sample)
                    if np.allclose(pose.transl, 0.1, rtol=1e-7, atol=0.0) and all(
                        np.allclose(pose.rotvec[JOINTS[part]], value, rtol=1e-7, atol=1e-6) for part, value in driven
                    ):
                        break  # they have eased in
            for part, value in driven:
                np.testing.assert_allclose(pose.rotvec[JOINTS[part]], value, atol=1e-6)
            np.testing.assert_array_equal(pose.rotvec[JOINTS["head"]], relaxed_pose().rotvec[JOINTS["head"]])
            np.testing.assert_allclose(pose.transl, 0.1)
            np.testing.assert_allclose(pose.expression, 0.2)
        assert not body.open
        assert not face.open

    run(main())


def test_a_part_eases_in_and_out_and_never_snaps() -> None:
    async def main() -> None:
        body, face = Metronome(0.1), Metronome(1.0)
        face.speaks = False
        async with merge(body=(("body",), body), face=(("head", "face"), face)) as source:
            poses = await watch(source, 1.5)
            rest = relaxed_pose().rotvec
            np.testing.assert_allclose(poses[-1].rotvec[JOINTS["head"]], rest[JOINTS["head"]], atol=1e-6)
            face.speaks = True
            poses += await watch(source, 2.0)
            np.testing.assert_allclose(poses[-1].rotvec[JOINTS["head"]], 1.0, atol=1e-6)
            face.speaks = False
            poses += await watch(source, 2.0)
            np.testing.assert_allclose(poses[-1].rotvec[JOINTS["head"]], rest[JOINTS["head"]], atol=1e-6)
            turns = [
                rotvec_to_matrix(a.rotvec.astype(np.float64)).swapaxes(1, 2)
                @ rotvec_to_matrix(b.rotvec.astype(np.float64))
                for a, b in itertools.pairwise(poses)
            ]
            cosines = (np.trace(np.array(turns), axis1=-2, axis2=-1) - 1) / 2
            degrees = np.degrees(np.arccos(np.clip(cosines, -1, 1))).max(axis=1)
            elapsed_s = np.diff([pose.timestamp_s for pose in poses])
            # 99 degrees in 0.6 s, at most half again as fast as that on average, however rarely a busy machine looks
            assert np.all(degrees < 5 + 1.6 * 99 / 0.6 * elapsed_s)

    run(main())


def test_a_driver_that_fails_ends_the_source_and_closes_the_others() -> None:
    async def main() -> None:
        body, face = Metronome(0.1), Metronome(0.2)
        async with merge(body=(("body",), body), face=(("face",), face)) as source:
            await watch(source, 0.1)
            face.fails = True
            with pytest.raises(BackendError, match="the camera burns"):
                await watch(source, 2.0)
        assert not body.open

    run(main())


def test_a_driver_that_does_not_open_closes_those_before_it() -> None:
    class Shut(Metronome):
        async def __aenter__(self) -> "Shut":
            raise BackendError("taken")

    async def main() -> None:
        body = Metronome(0.1)
        with pytest.raises(BackendError, match="taken"):
            async with merge(body=(("body",), body), face=(("face",), Shut(0.2))):
                pass
        assert not body.open

    run(main())


def test_the_table(tmp_path: Path) -> None:
    rig, phone, vmc = {"source": "mqtt", "rig": "studio"}, {"source": "facemocap"}, {"source": "vmc"}

    def assign(**merged: Any) -> dict[str, set[str]]:
        table = load_config(storage={"data": tmp_path}, merged=merged).merged
        return {choice.source: set(parts) for choice, parts in assign_parts(table).items()}

    assert assign(body=rig) == {"mqtt": {"body", "head", "hands"}}
    assert assign(body=rig, face=phone, head=phone) == {"mqtt": {"body", "hands"}, "facemocap": {"face", "head"}}
    assert assign(body=rig, face=phone, hands=vmc) == {
        "mqtt": {"body", "head"},
        "facemocap": {"face"},
        "vmc": {"hands"},
    }
    assert assign(face=phone) == {"facemocap": {"face"}}
    with pytest.raises(ValueError, match="nobody to merge"):
        assign()
    for wrong in ({"source": "mqtt"}, {"source": "vmc", "rig": "studio"}, {"source": "idle"}, {"source": "replay"}):
        with pytest.raises(ValueError, match=r"merged\.body"):
            assign(body=wrong)


@needs_mosquitto
def test_a_rig_moves_the_body_and_vtuber_software_takes_over_the_head(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        with run_broker(tmp_path) as broker:
            settings: dict[str, Any] = {
                "mqtt": {"port": broker.port},
                "vmc": {"port": port},
                "merged": {
                    "body": {"source": "mqtt", "rig": "studio"},
                    "head": {"source": "vmc"},
                    "face": {"source": "vmc"},
                },
            }
            async with live_server(tmp_path, avatar, **settings) as server, AsyncExitStack() as stack:
                session = await server.start_session(source="merged", background="ffffff")
                viewer = await server.watch(session, stack)
                sending = asyncio.create_task(publish(broker.port, "studio", 0))
                await viewer.see_until(lambda picture: wide(picture) > 0.75)
                without = await viewer.see(45)  # the arms have come to rest
                sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

                async def nod() -> None:
                    while True:
                        # its arms hang, which must not be seen, and its head lies on the side
                        turned = {**arms(75), "Head": turn_z(40)}
                        sender.sendto(as_one(frame(turned))[0], ("127.0.0.1", port))
                        await asyncio.sleep(1 / 30)

                nodding = asyncio.create_task(nod())
                until = time.monotonic() + 2.5
                while time.monotonic() < until:
                    merged = await viewer.see()
                    assert wide(merged) > 0.75
                head, arm = slice(0, without.shape[0] // 4), slice(None, without.shape[1] // 4)
                assert np.abs(merged[head] - without[head]).mean() > 2 * np.abs(merged[:, arm] - without[:, arm]).mean()
                for task in (sending, nodding):
                    task.cancel()
                await asyncio.wait([sending, nodding])
                refused = await server.http.patch(f"/api/sessions/{session}", json={"avatar": "builtin"})
                assert refused.status_code == 200, refused.text

    run(main())


def test_a_session_with_nobody_to_merge(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session()
            refused = await server.http.patch(f"/api/sessions/{session}", json={"source": "merged"})
            assert refused.status_code == 409
            assert "nobody to merge" in refused.json()["error"]["message"]

    run(main())


def wide(picture: np.ndarray) -> float:
    """How far to the sides the person reaches, in halves of the width."""
    columns = (np.abs(picture - picture[2, 2]) > 30).any(axis=0).nonzero()[0]
    return float(np.abs(columns - picture.shape[1] / 2).max() / (picture.shape[1] / 2)) if columns.size else 0.0


def test_calibrating_reaches_every_driver() -> None:
    asked: list[str] = []
    drivers = {
        name: Driver((part,), Metronome(0.1), lambda sample: sample.motion, lambda name=name: asked.append(name))  # type: ignore[arg-type,misc]
        for name, part in (("rig", "body"), ("phone", "face"))
    }
    MergedSource(drivers, lambda _: relaxed_pose(), 0.2).calibrate()  # type: ignore[arg-type]
    assert asked == ["rig", "phone"]


@pytest.mark.parametrize("road", ["whip", "page"])
def test_a_camera_moves_the_body_of_a_merged_driver(avatar: Avatar, tmp_path: Path, road: str) -> None:
    """It lasts while drivers change, though each is made ready before the one before it leaves."""

    class Camera(MediaStreamTrack):
        kind = "video"
        given = 0

        async def recv(self) -> av.VideoFrame:
            await asyncio.sleep(1 / 30)
            frame = av.VideoFrame.from_ndarray(moving_picture(self.given, 128, 128), format="yuv420p")
            frame.pts, frame.time_base = self.given * 3000, Fraction(1, 90_000)
            self.given += 1
            return frame

    async def main() -> None:
        merged = {"body": {"source": "webcam"}, "face": {"source": "browser"}}
        async with live_server(tmp_path, avatar, merged=merged) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="merged")
            viewer = await server.watch(session, stack)
            camera = await stack.enter_async_context(visit())
            camera.connection.addTransceiver(Camera(), direction="sendonly")
            if road == "whip":
                answer = await server.http.post(
                    f"/whip/{session}", content=await camera.offer(), headers={"content-type": "application/sdp"}
                )
                assert answer.status_code == 201, answer.text
                await camera.accept(answer.text)
            else:
                socket = await stack.enter_async_context(server.signal(session))
                await socket.send(json.dumps({"type": "offer", "sdp": await camera.offer()}))
                await camera.accept((await hear(socket, "answer"))["sdp"])
            webcam = server.services.sessions.get(session)._drivers.webcam
            while not hasattr(webcam, "_worker"):
                await asyncio.sleep(0.01)
            tracker, dancer, raised = webcam._worker, Dancer(avatar), True

            def track(_: np.ndarray, timestamp_s: float) -> None:
                sample = parse_sample(dancer.message(0, timestamp_s, raised=raised))
                assert isinstance(sample, LandmarkSample)
                webcam._seen.put(sample.landmarks)

            tracker.submit = track  # what it does with pictures is tested elsewhere

            def is_seen(picture: np.ndarray) -> bool:
                return (reach(picture) > RAISED) == raised

            await viewer.see_until(is_seen)
            for source in ("webcam", "merged"):
                answer = await server.http.patch(f"/api/sessions/{session}", json={"source": source})
                assert answer.status_code == 200, answer.text
                raised = not raised
                await viewer.see_until(is_seen)
            assert webcam._worker is tracker
            await server.http.patch(f"/api/sessions/{session}", json={"source": "idle"})
            assert tracker._closed

    run(main())
