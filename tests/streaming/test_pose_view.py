"""A real server on loopback, and viewers who come to draw the avatar themselves."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import ReadPose, read_avatar, read_pose
from live import LiveServer, live_server, run
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from lhm_runtime.avatar import Avatar
from streaming import pose_view
from streaming.access import Grant, Role, sign
from streaming.browser_avatar import encode_avatar
from streaming.pose_feed import PoseViewer


@asynccontextmanager
async def come(server: LiveServer, session: str) -> AsyncIterator[ClientConnection]:
    async with connect(f"{server.address.replace('http', 'ws')}/v1/poses/{session}", proxy=None) as socket:
        yield socket


async def next_pose(socket: ClientConnection) -> ReadPose:
    while isinstance(message := await asyncio.wait_for(socket.recv(), 10), str):
        pass
    return read_pose(message)


async def next_scene(socket: ClientConnection) -> dict[str, Any]:
    while not isinstance(message := await asyncio.wait_for(socket.recv(), 10), str):
        pass
    return dict(json.loads(message))


async def closing(socket: ClientConnection) -> tuple[int | None, dict[str, Any]]:
    """The close code, and the last that was said in JSON."""
    said: dict[str, Any] = {}
    async with asyncio.timeout(10):
        try:
            while True:
                message = await socket.recv()
                said = json.loads(message) if isinstance(message, str) else said
        except ConnectionClosed:
            return socket.close_code, said


def kept(server: LiveServer) -> bytes:
    """What browsers are to get of the avatar, as it was saved."""
    return encode_avatar(server.services.avatars.load("someone"))


def token(secret: str, role: Role) -> str:
    return sign(secret, Grant(role, expires_s=time.time() + 60))


async def share(server: LiveServer, session: str, **change: Any) -> None:
    assert (await server.http.patch(f"/api/sessions/{session}", json=change)).status_code == 200


def test_an_avatar_is_given_away_only_where_that_is_allowed(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            file = f"/api/sessions/{session}/avatar"
            refused = await server.http.get(file)
            assert refused.status_code == 403
            assert "its owner can allow it" in refused.json()["error"]["message"]
            code, said = await closing(await stack.enter_async_context(come(server, session)))
            assert (code, said["code"]) == (pose_view.NOT_SHARED, "not_shared")
            code, _ = await closing(await stack.enter_async_context(come(server, "nothere")))
            assert code == pose_view.UNKNOWN

            await share(server, session, share_avatar=True)
            answer = await server.http.get(file)
            assert answer.content == kept(server)
            assert answer.headers["content-encoding"] == "gzip"
            plain = await server.http.get(file, headers={"Accept-Encoding": "identity"})
            assert plain.content == answer.content
            assert "content-encoding" not in plain.headers
            etag = answer.headers["etag"]
            again = await server.http.get(file, headers={"If-None-Match": etag})
            assert (again.status_code, again.content) == (304, b"")

            viewer = await stack.enter_async_context(come(server, session))
            await next_pose(viewer)
            await share(server, session, avatar="builtin")  # whose sharing nobody has allowed
            code, said = await closing(viewer)
            assert (code, said["code"]) == (pose_view.NOT_SHARED, "not_shared")
            assert (await server.http.get(file)).status_code == 403

    run(main())


def test_viewers_get_the_poses_and_nothing_is_drawn(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(share_avatar=True, fps=60, background="102030")
            viewer = await stack.enter_async_context(come(server, session))
            scene = await next_scene(viewer)
            assert (scene["type"], scene["background"], scene["mirror"]) == ("scene", "102030", False)
            assert np.shape(scene["T_camera_world"]) == (4, 4)
            poses = [await next_pose(viewer) for _ in range(40)]
            assert {pose.cast for pose in poses} == {scene["cast"]}
            steps = np.diff([pose.sequence for pose in poses])
            assert (steps >= 1).all()
            times = np.diff([pose.time_ms for pose in poses])
            assert (times > 0).all()
            assert np.ptp([pose.matrices for pose in poses], axis=0).max() > 0, "idle motion goes on"
            assert len(poses[0].expression) == len(avatar.expression_names)

            await share(server, session, framing="head", mirror=True)
            changed = await next_scene(viewer)
            assert (changed["mirror"], changed["framing"]) == (True, "head")
            assert changed["T_camera_world"] != scene["T_camera_world"]
            assert np.linalg.det(np.array(changed["T_camera_world"])[:3, :3]) == pytest.approx(1), "not yet mirrored"
            await share(server, session, avatar="builtin", share_avatar=True)
            other = await next_scene(viewer)
            assert other["cast"] == scene["cast"] + 1
            assert read_avatar((await server.http.get(f"/api/sessions/{session}/avatar")).content).gaussians

            shown = server.services.sessions.get(session)
            assert not shown.drawing
            await viewer.close()
            while shown.viewers:
                await asyncio.sleep(0.01)
            await share(server, session, background="aabbcc")
            viewer = await stack.enter_async_context(come(server, session))
            assert (await next_scene(viewer))["background"] == "aabbcc", "not what the last one saw"
            assert (await server.http.get(f"/api/sessions/{session}")).json()["viewers"] == 1
            await server.http.delete(f"/api/sessions/{session}")
            code, said = await closing(viewer)
            assert (code, said["code"]) == (pose_view.ENDED, "session_ended")

    run(main())


def test_a_slow_viewer_gets_the_newest(avatar: Avatar, tmp_path: Path) -> None:
    """One that does not say what it has received, as one behind a full network, is sent no more; then the newest."""

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(share_avatar=True, fps=60)
            viewer = await stack.enter_async_context(come(server, session))
            received = 0
            with contextlib.suppress(TimeoutError):
                while received < 100:
                    async with asyncio.timeout(1.0):
                        last = await next_pose(viewer)
                        received += 1
            assert received == 48
            await viewer.send("this is no JSON")
            await viewer.send(json.dumps({"type": "ack", "received": received}))
            newest = await next_pose(viewer)
            assert newest.sequence - last.sequence > 10
            await viewer.send("x" * 300)
            code, said = await closing(viewer)
            assert (code, said["code"]) == (pose_view.TOO_LONG, "too_large")

    run(main())


def test_who_only_drives_cannot_give_the_avatar_away(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        secret = "s" * 40
        access = {"required": "always", "secret": secret}
        async with live_server(tmp_path, avatar, access=access) as server:
            admin = {"Authorization": f"Bearer {token(secret, 'admin')}"}
            driver = {"Authorization": f"Bearer {token(secret, 'drive')}"}
            wish = {"avatar": "someone"}
            session = (await server.http.post("/api/sessions", json=wish, headers=admin)).json()["id"]
            change = {"share_avatar": True}
            at = f"/api/sessions/{session}"
            assert (await server.http.patch(at, json=change, headers=driver)).status_code == 403
            assert not (await server.http.get(at, headers=driver)).json()["share_avatar"]
            assert (await server.http.patch(at, json=change, headers=admin)).json()["share_avatar"]
            assert (await server.http.get(f"{at}/avatar")).status_code == 401
            assert (await server.http.get(f"{at}/avatar", headers=driver)).content == kept(server)

    run(main())


def test_newest_wins_for_each_viewer() -> None:
    async def main() -> None:
        viewer = PoseViewer()
        viewer.show({"type": "scene", "cast": 0})
        viewer.show({"type": "scene", "cast": 1})
        for packet in (b"1", b"2", b"3"):
            viewer.put(packet)
        assert await viewer.next() == ({"type": "scene", "cast": 1}, b"3")
        assert viewer.replaced == 2
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await viewer.next()

    run(main())
