"""The Python package for clients, against a real server; it shares no code with it."""

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from aiomqtt import Client
from broker import needs_mosquitto, run_broker
from dancer import RAISED, reach
from live import live_server, run

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.body.rotations import quat_wxyz_to_rotvec
from lhm_runtime.motion.procedural import relaxed_pose, wave
from lhm_runtime.motion.sequences import save_motion, write_bvh
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming.access import Grant, sign
from streaming.protocol import BoneSample, parse_sample
from streaming.rigs import read_meta
from streaming.time_code import draw_time_code, pack_time_code

PACKAGE = Path(__file__).parents[3] / "clients" / "python"


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return build_person(2_000)


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))


def test_it_imports_nothing_of_ours() -> None:
    code = (
        "import sys, lhm_live_client.send, lhm_live_client.rig, lhm_live_client.viewer; "
        "print([name for name in sys.modules if name.startswith(('streaming', 'lhm_runtime'))])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=PACKAGE, text=True)
    assert printed.strip() == "[]"


def test_its_bytes_are_the_server_s() -> None:
    from lhm_live_client.wire import JOINT_NAMES as NAMES  # noqa: PLC0415
    from lhm_live_client.wire import pack_bones  # noqa: PLC0415

    assert NAMES == JOINT_NAMES
    pose = relaxed_pose()
    data = pack_bones(
        2**32 + 5,
        1234.5,
        dict(zip(JOINT_NAMES, pose.rotvec.tolist(), strict=True)),
        root=(0.1, 0.2, 0.3),
        expression={"jawOpen": 0.5},
    )
    sample = parse_sample(data)
    assert isinstance(sample, BoneSample)
    assert (sample.sequence, sample.bones.timestamp_s, sample.bones.names) == (5, 1.2345, JOINT_NAMES)
    np.testing.assert_allclose(quat_wxyz_to_rotvec(sample.bones.quat_wxyz), pose.rotvec, atol=1e-6)
    np.testing.assert_allclose(sample.bones.root_transl, [0.1, 0.2, 0.3], atol=1e-7)
    assert sample.bones.blendshape_names == ("jawOpen",)
    assert not parse_sample(pack_bones(0, 0.0, {})).bones.names
    with pytest.raises(KeyError, match="elbow"):
        pack_bones(0, 0.0, {"elbow": (0, 0, 0)})


def test_a_sender_and_a_viewer(avatar: Avatar, tmp_path: Path) -> None:
    from lhm_live_client import PoseSender, Refused  # noqa: PLC0415
    from lhm_live_client.viewer import watch  # noqa: PLC0415

    async def main() -> None:
        async with live_server(tmp_path / "data", avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            viewer = await server.watch(session, stack)
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}"
            async with PoseSender(url) as sender:

                async def send() -> None:
                    pose = dict(zip(JOINT_NAMES, relaxed_pose().rotvec.tolist(), strict=True))
                    pose |= {"left_shoulder": [0, 0, 0], "right_shoulder": [0, 0, 0]}
                    while True:
                        await sender.send(pose, expression={"jawOpen": 0.3})
                        await asyncio.sleep(1 / 60)

                sending = asyncio.create_task(send())
                await viewer.see_until(lambda picture: reach(picture) > RAISED)
                seen = await watch(server.address, session, seconds=1.0, frames=tmp_path / "frames", every=5)
                sending.cancel()
                await asyncio.wait([sending])
                while not sender.report.get("used"):
                    await asyncio.sleep(0.05)
                assert sender.report["refused"] == 0
                assert sender.complaint is None
                await sender.send_message("no sample")
                async with asyncio.timeout(5):
                    while sender.complaint is None:
                        await asyncio.sleep(0.05)
                assert "no JSON" in sender.complaint
            assert seen.frames > 5
            assert len(seen.draw_to_decoded_ms) > seen.frames / 3
            assert 0 < np.median(seen.draw_to_decoded_ms) < 5000
            assert np.median(seen.capture_to_decoded_ms) >= np.median(seen.draw_to_decoded_ms)
            assert "drawn to decoded" in str(seen)
            pictures = sorted((tmp_path / "frames").glob("*.png"))
            assert len(pictures) == (seen.frames + 4) // 5
            await server.http.delete(f"/api/sessions/{session}")

            async def send_to(where: str) -> None:
                async with PoseSender(where) as sender:
                    for _ in range(200):
                        await sender.send({})
                        await asyncio.sleep(0.01)

            with pytest.raises(Refused, match="no session"):
                await send_to(url)
            with pytest.raises(ConnectionError, match="unknown_session"):
                await watch(server.address, session, seconds=1.0)

    run(main())


def test_a_viewer_with_a_token(avatar: Avatar, tmp_path: Path) -> None:
    from lhm_live_client.viewer import watch  # noqa: PLC0415

    secret = "s" * 32
    until_s = time.time() + 60

    async def main() -> None:
        async with live_server(tmp_path, avatar, access={"required": "always", "secret": secret}) as server:
            admin = sign(secret, Grant("admin", expires_s=until_s))
            server.http.headers["Authorization"] = f"Bearer {admin}"
            session = await server.start_session()
            with pytest.raises(ConnectionError, match="no_token"):
                await watch(server.address, session, seconds=0.5)
            other = sign(secret, Grant("view", "other", until_s))
            with pytest.raises(PermissionError, match="another session"):
                await watch(server.address, session, seconds=0.5, token=other)
            viewer = sign(secret, Grant("view", session, until_s))
            seen = await watch(server.address, session, seconds=0.5, token=viewer)
            assert seen.frames > 2
            assert not seen.draw_to_decoded_ms  # asking for time codes is driving
            driver = sign(secret, Grant("drive", session, until_s))
            assert (await watch(server.address, session, seconds=1.0, token=driver)).draw_to_decoded_ms

    run(main())


def test_a_viewer_comes_back_when_there_is_room(
    avatar: Avatar, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from lhm_live_client.viewer import Watched, watch  # noqa: PLC0415

    async def main() -> None:
        async with live_server(tmp_path, avatar, server={"max_viewers": 1}) as server:
            session = await server.start_session()
            async with AsyncExitStack() as stack:
                await server.watch(session, stack)
                with pytest.raises(ConnectionError, match=r"no picture within 0\.5 s: .*full"):
                    await watch(server.address, session, seconds=0.2, patience_s=0.5)
                waiting = asyncio.create_task(watch(server.address, session, seconds=1e6, seen=(seen := Watched())))
                while not any("connecting again" in said for said in caplog.messages):
                    await asyncio.sleep(0.05)
                assert not seen.frames
            async with asyncio.timeout(20):
                while not seen.frames:
                    await asyncio.sleep(0.05)
            await server.http.delete(f"/api/sessions/{session}")
            with pytest.raises(ConnectionError, match="unknown_session"):
                await waiting
        with pytest.raises(ConnectionError, match="does not answer"):
            await watch(server.address, session, seconds=0.2)

    run(main())
    assert any("closed the connection" in said or "goodbye" in said for said in caplog.messages)


@pytest.mark.parametrize("kind", ["npz", "bvh"])
def test_files_are_played(kind: str, avatar: Avatar, tmp_path: Path) -> None:
    motion = wave(1.0, 30.0, ("jawOpen",) if kind == "npz" else ())
    path = tmp_path / f"wave.{kind}"
    if kind == "npz":
        save_motion(path, motion)
    else:
        write_bvh(path, motion, avatar.rest_joints)

    async def main() -> None:
        async with live_server(tmp_path / "data", avatar) as server:
            session = await server.start_session(source="socket")
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}"
            command = [sys.executable, "-m", "lhm_live_client.send", str(path), url, "--speed", "1.5"]
            sender = await asyncio.create_subprocess_exec(*command, cwd=PACKAGE, stdout=subprocess.PIPE)
            printed, _ = await sender.communicate()
            assert sender.returncode == 0
            assert "0 refused" in printed.decode()
            assert server.services.sessions.get(session).messages.used > 5

    run(main())


@needs_mosquitto
def test_a_rig_says_that_it_comes_and_that_it_goes(tmp_path: Path) -> None:
    from lhm_live_client.rig import RigSender  # noqa: PLC0415

    path = tmp_path / "wave.npz"
    save_motion(path, wave(0.5, 30.0, ("jawOpen",)))

    async def main() -> None:
        with run_broker(tmp_path) as broker:
            url = f"mqtt://127.0.0.1:{broker.port}/default/studio"
            async with Client("127.0.0.1", broker.port) as listener, asyncio.timeout(20):
                await listener.subscribe("lhm-live/default/studio/#", qos=1)
                heard = listener.messages

                async def next_kind() -> tuple[str, bytes]:
                    message = await anext(heard)
                    assert isinstance(message.payload, bytes)
                    return str(message.topic).rpartition("/")[2], message.payload

                command = [sys.executable, "-m", "lhm_live_client.send", str(path), url]
                sender = await asyncio.create_subprocess_exec(*command, cwd=PACKAGE, stdout=subprocess.PIPE)
                kind, meta = await next_kind()
                assert kind == "meta"
                assert read_meta(meta).skeleton == "smplx"
                sequences = []
                while (said := await next_kind())[0] == "pose":
                    sequences.append(parse_sample(said[1]).sequence)
                assert said == ("meta", b"")
                printed, _ = await sender.communicate()
                assert printed.decode().strip() == f"{len(sequences)} sent"
                assert sequences == list(range(len(sequences)))
                assert len(sequences) > 5

                dying = "import asyncio, os; from lhm_live_client.rig import RigSender\n"
                dying += (
                    f"async def main():\n    async with RigSender({url!r}) as rig: await rig.send({{}}); os._exit(1)\n"
                )
                dead = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", dying + "asyncio.run(main())", cwd=PACKAGE
                )
                await dead.wait()
                kinds = [await next_kind() for _ in range(2)]
                while kinds[-1][0] == "pose":
                    kinds.append(await next_kind())
                assert kinds[-1] == ("meta", b"")  # its last will
            for bad in ("mqtt://127.0.0.1/only", "ws://127.0.0.1/a/b", "mqtt://127.0.0.1/a/+"):
                with pytest.raises(ValueError, match="no address of a rig"):
                    RigSender(bad)
        with pytest.raises(ConnectionError, match="broker"):
            async with RigSender(url):
                pass

    run(main())


def test_time_codes_are_read_as_the_server_draws_them() -> None:
    from lhm_live_client.viewer import read_time_code  # noqa: PLC0415

    for drawn, captured in ((0, None), (12_345, 678), (16_382, 16_382)):
        i420 = np.full((96, 160), 128, np.uint8)
        draw_time_code(i420, pack_time_code(drawn, captured))
        assert read_time_code(i420[:64]) == (drawn, captured)
    assert read_time_code(np.zeros((64, 160), np.uint8)) == (None, None)
    assert read_time_code(np.full((64, 160), 255, np.uint8)) == (None, None)
