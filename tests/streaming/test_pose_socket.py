"""A real server on loopback, and senders who come to its /v1/pose."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dancer import RAISED, Dancer, reach
from live import LiveServer, Visitor, hear, live_server, run
from packets import BROKEN
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.body.rotations import rotvec_to_quat_wxyz
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.retargeting import BoneRotations
from streaming import pose_socket
from streaming.protocol import BoneSample, encode_bones, format_sample


def arms(sequence: int, *, raised: bool) -> BoneSample:
    """Somebody who stands; the arms hang or are stretched out."""
    rotvec = relaxed_pose().rotvec.copy()
    for side, sign in (("left", 1), ("right", -1)):
        rotvec[JOINT_NAMES.index(f"{side}_shoulder")] = [0, 0, sign * np.radians(10 if raised else -75)]
    bones = BoneRotations(JOINT_NAMES, rotvec_to_quat_wxyz(rotvec), time.time(), "smplx")
    return BoneSample(sequence, bones)


@asynccontextmanager
async def send_to(server: LiveServer, session: str) -> AsyncIterator[ClientConnection]:
    async with connect(f"{server.address.replace('http', 'ws')}/v1/pose/{session}", proxy=None) as socket:
        assert (await hear(socket, "welcome"))["max_rate_hz"] == pose_socket.MAX_RATE_HZ
        yield socket


async def closing(socket: ClientConnection) -> tuple[int | None, list[dict[str, Any]]]:
    """The close code, and what was said until then."""
    said = []
    async with asyncio.timeout(10):
        try:
            while True:
                said.append(json.loads(await socket.recv()))
        except ConnectionClosed:
            return socket.close_code, said


async def arms_seen(visitor: Visitor, *, raised: bool) -> None:
    await visitor.see_until(lambda picture: (reach(picture) > RAISED) == raised, frames=90)


@pytest.mark.parametrize("write", [encode_bones, format_sample])
def test_bones_move_the_avatar(write: Any, avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            viewer = await server.watch(session, stack)
            socket = await stack.enter_async_context(send_to(server, session))
            shown = {"raised": False}

            async def send() -> None:
                for sequence in range(10_000):
                    await socket.send(write(arms(sequence, raised=shown["raised"])))
                    await asyncio.sleep(1 / 60)

            sending = asyncio.create_task(send())
            for raised in (False, True, False):
                shown["raised"] = raised
                await arms_seen(viewer, raised=raised)
            while (ack := await hear(socket, "ack"))["used"] == 0:  # the first one comes at once
                pass
            assert ack["refused"] == ack["too_fast"] == 0
            assert ack["used"] <= ack["received"]
            assert 0 <= ack["sequence"] < 10_000
            sending.cancel()
            await asyncio.wait([sending])
            await viewer.see_until(lambda picture: reach(picture) < RAISED)  # idle motion takes over

    run(main())


def test_landmarks_move_it_too(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            viewer = await server.watch(session, stack)
            socket = await stack.enter_async_context(send_to(server, session))
            dancer = Dancer(avatar)

            async def send() -> None:
                for sequence in range(10_000):
                    await socket.send(dancer.message(sequence, time.time(), raised=True))
                    await asyncio.sleep(1 / 60)

            sending = asyncio.create_task(send())
            await arms_seen(viewer, raised=True)
            sending.cancel()
            await asyncio.wait([sending])

    run(main())


def test_bones_over_a_data_channel(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            driver = await server.join(await server.start_session(source="browser"), stack)
            assert driver.pose is not None

            async def send(pose: Any) -> None:
                for sequence in range(10_000):
                    write = encode_bones if sequence % 2 else format_sample
                    pose.send(write(arms(sequence, raised=True)))
                    await asyncio.sleep(1 / 60)

            sending = asyncio.create_task(send(driver.pose))
            await arms_seen(driver, raised=True)
            sending.cancel()
            await asyncio.wait([sending])
            (session,) = server.services.sessions.all
            assert session.messages.refused == 0

    run(main())


def test_broken_messages_are_answered_and_change_nothing(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            socket = await stack.enter_async_context(send_to(server, session))
            await socket.send(BROKEN["bones_quat_nan.bin"])
            error = await hear(socket, "error")
            assert error["code"] == "bad_sample"
            assert "quaternion of 'pelvis'" in error["message"]
            sent = 1
            for name, packet in BROKEN.items():
                if len(packet) <= 30_000:
                    await socket.send(packet)
                    sent += name != ""
                    await asyncio.sleep(0.01)
            await socket.send(encode_bones(arms(7, raised=False)))
            async with asyncio.timeout(5):
                while (ack := await hear(socket, "ack"))["sequence"] != 7:
                    pass
            assert (ack["received"], ack["used"]) == (sent + 1, 1)
            assert ack["refused"] == sent

    run(main())


def test_who_is_not_to_send_is_told_why(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            url = f"{server.address.replace('http', 'ws')}/v1/pose/"
            idle = await server.start_session(source="idle")
            for session, code, reason in (("none", 4404, "unknown_session"), (idle, 4409, "other_source")):
                async with connect(url + session, proxy=None) as socket:
                    closed, (said,) = await closing(socket)
                    assert (closed, socket.close_reason) == (code, reason)
                    assert said["code"] == reason
            with pytest.raises(InvalidStatus, match="403"):
                async with connect(url + idle, proxy=None, origin="https://elsewhere.example"):
                    pass

    run(main())


def test_the_last_to_come_drives(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            first = await stack.enter_async_context(send_to(server, session))
            await first.send(encode_bones(arms(1000, raised=False)))
            await hear(first, "ack")
            second = await stack.enter_async_context(send_to(server, session))
            code, said = await closing(first)
            assert (code, said[-1]["code"]) == (4410, "replaced")
            await second.send(encode_bones(arms(0, raised=False)))  # its own count, at once
            while (await hear(second, "ack"))["used"] != 1:
                pass

    run(main())


def test_the_session_s_end_and_another_source_send_it_away(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            socket = await stack.enter_async_context(send_to(server, session))
            await server.http.patch(f"/api/sessions/{session}", json={"source": "replay", "replay": "wave"})
            await socket.send(encode_bones(arms(0, raised=False)))
            assert (await closing(socket))[0] == 4409
            await server.http.patch(f"/api/sessions/{session}", json={"source": "socket"})
            socket = await stack.enter_async_context(send_to(server, session))
            await server.http.delete(f"/api/sessions/{session}")
            code, said = await closing(socket)
            assert (code, said[-1]["code"]) == (1001, "session_ended")

    run(main())


def test_too_fast_is_dropped_and_far_too_fast_sent_away(
    avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            monkeypatch.setattr("streaming.pose_socket.MAX_RATE_HZ", 20.0)  # however slow this machine sends
            socket = await stack.enter_async_context(send_to(server, session))
            message = encode_bones(arms(0, raised=False))
            for _ in range(500):
                await socket.send(message)
            assert (await hear(socket, "error"))["code"] == "too_fast"
            while (ack := await hear(socket, "ack"))["received"] != 500:
                pass
            assert 0 < ack["too_fast"] <= 440  # a burst of 60 passes
            monkeypatch.setattr("streaming.pose_socket._FLOOD_HZ", 50.0)
            socket = await stack.enter_async_context(send_to(server, session))
            for _ in range(100):
                await socket.send(message)
            code, said = await closing(socket)
            assert (code, said[-1]["code"]) == (1008, "flood")

    run(main())


def test_too_long_a_message_ends_it(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            for message in (bytes(40_000), "x" * 40_000, bytes(200_000)):
                socket = await stack.enter_async_context(send_to(server, session))
                await socket.send(message)
                assert (await closing(socket))[0] == 1009
            socket = await stack.enter_async_context(send_to(server, session))
            await socket.send(encode_bones(arms(0, raised=False)))
            while (await hear(socket, "ack"))["used"] != 1:
                pass

    run(main())


def test_a_session_with_a_sender_is_not_deserted(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar, server={"linger_s": 0.5}) as server:
            session = await server.start_session(source="socket")
            async with send_to(server, session):
                await asyncio.sleep(3.0)
                assert (await server.http.get(f"/api/sessions/{session}")).status_code == 200
            async with asyncio.timeout(10):
                while (await server.http.get(f"/api/sessions/{session}")).status_code != 404:
                    await asyncio.sleep(0.1)

    run(main())


def test_a_sender_who_never_reads_hinders_nobody(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            socket = await stack.enter_async_context(send_to(server, session))
            for number in range(150):  # errors and acks pile up unread
                await socket.send("no sample" if number % 3 else encode_bones(arms(number, raised=False)))
                await asyncio.sleep(0.01)
            assert server.services.sessions.get(session).messages.used > 20
            viewer = await server.watch(session, stack)
            await viewer.see(3)

    run(main())


def test_only_a_face_leaves_the_body_at_ease(avatar: Avatar, tmp_path: Path) -> None:
    from streaming.config import Motion  # noqa: PLC0415
    from streaming.follower import Follower  # noqa: PLC0415
    from streaming.sources import Sample  # noqa: PLC0415

    follower = Follower(avatar, Motion())
    face = replace(
        arms(0, raised=True).bones,
        names=(),
        quat_wxyz=np.zeros((0, 4), np.float32),
        blendshape_names=("jawOpen",),
        blendshape_values=np.ones(1, np.float32),
    )
    pose = follower.follow(Sample(face))
    assert pose is not None
    np.testing.assert_allclose(pose.rotvec, relaxed_pose().rotvec, atol=1e-6)
    assert pose.expression[avatar.expression_names.index("jawOpen")] == 1
    nobody = replace(face, blendshape_names=(), blendshape_values=None)
    assert follower.follow(Sample(nobody)) is None
