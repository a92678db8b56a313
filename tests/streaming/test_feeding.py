"""A motion file played to a real server, a real broker, a real UDP socket."""

import asyncio
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from aiomqtt import Client
from broker import needs_mosquitto, run_broker
from dancer import RAISED, reach
from live import live_server, run
from typer.testing import CliRunner

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import relaxed_pose, wave
from lhm_runtime.motion.sequences import MotionSequence, save_motion
from streaming import cli
from streaming.errors import ConnectError
from streaming.feeding import feed
from streaming.protocol import BoneSample, parse_sample


def stretched(seconds: float, fps: float = 60.0) -> MotionSequence:
    """Somebody who holds the arms out to the sides and smiles."""
    count = int(seconds * fps)
    rotvec = np.repeat(relaxed_pose().rotvec[None], count, axis=0)
    rotvec[:, [JOINT_INDEX["left_shoulder"], JOINT_INDEX["right_shoulder"]]] = 0
    face = np.full((count, 1), 0.7, np.float32)
    return MotionSequence(rotvec, np.zeros((count, 3), np.float32), face, np.arange(count) / fps, ("mouthSmileLeft",))


def test_a_session_follows_the_file(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            viewer = await server.watch(session, stack)
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}"
            feeding = asyncio.create_task(feed(stretched(3.0), url))
            await viewer.see_until(lambda picture: reach(picture) > RAISED)
            fed = await feeding
            assert fed.sent + fed.late == 180
            assert fed.sent > 60
            assert f"{fed.sent} received" in fed.answer
            assert "0 refused" in fed.answer
            assert server.services.sessions.get(session).messages.refused == 0

    run(main())


def test_speed_start_and_loop(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session(source="socket")
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}"
            start = time.monotonic()
            fed = await feed(stretched(4.0, 30.0), url, speed=4.0, start_s=2.0)
            assert fed.sent + fed.late == 60
            assert 0.4 < time.monotonic() - start < 3.5  # half a second, and the server's last word
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(feed(stretched(0.2), url, loop=True), 2.0)
            assert server.services.sessions.get(session).messages.used > 0
            with pytest.raises(InvalidInputError, match="cannot start at 9 s"):
                await feed(stretched(1.0), url, start_s=9.0)

    run(main())


def test_refusals_are_told(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            url = f"{server.address.replace('http', 'ws')}/v1/pose/"
            idle = await server.start_session(source="idle")
            for session, message in (("none", "no session 'none'"), (idle, "has source idle")):
                with pytest.raises(ConnectError, match=message):
                    await feed(stretched(2.0), url + session)
            driven = await server.start_session(source="socket")
            feeding = asyncio.create_task(feed(stretched(5.0), url + driven))
            while server.services.sessions.get(driven).sender is None:
                await asyncio.sleep(0.01)
            await server.http.delete(f"/api/sessions/{driven}")
            with pytest.raises(ConnectError, match="has ended"):
                await feeding
        for address in (url + driven, "ws://127.0.0.1:1/v1/pose/x"):
            with pytest.raises(ConnectError, match="does not take samples"):
                await feed(stretched(1.0), address)
        for address in ("http://127.0.0.1/", "dance", "mqtt://127.0.0.1/only", "mqtt://127.0.0.1/a/+"):
            with pytest.raises(InvalidInputError):
                await feed(stretched(1.0), address)

    run(main())


@needs_mosquitto
def test_a_broker_gets_samples_and_a_description(tmp_path: Path) -> None:
    async def main() -> None:
        with run_broker(tmp_path) as broker:
            port = broker.port
            async with Client("127.0.0.1", port) as listener:
                await listener.subscribe("lhm-live/default/studio/#")
                fed = await feed(stretched(0.5), f"mqtt://127.0.0.1:{port}/default/studio")
                topics, samples = [], []
                async with asyncio.timeout(10):
                    async for message in listener.messages:
                        topics.append(str(message.topic).rpartition("/")[2])
                        assert isinstance(message.payload, bytes)
                        if topics[-1] == "pose":
                            samples.append(parse_sample(message.payload))
                        elif len(topics) > 1:
                            break
                assert topics == ["meta", *["pose"] * fed.sent, "meta"]
                assert message.payload == b""
                first = samples[0]
                assert isinstance(first, BoneSample)
                assert first.bones.blendshape_names == ("mouthSmileLeft",)
                assert [sample.sequence for sample in samples] == list(range(fed.sent))
                captured = [sample.bones.timestamp_s for sample in samples]
                assert all(np.diff(captured) > 0)
        with pytest.raises(ConnectError, match="broker"):
            await feed(stretched(0.5), f"mqtt://127.0.0.1:{port}/default/studio")

    run(main())


def test_vtuber_software_gets_vmc() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("127.0.0.1", 0))
            fed = await feed(stretched(0.3), f"vmc://127.0.0.1:{listener.getsockname()[1]}")
            assert fed.sent > 5
            listener.settimeout(2.0)
            packet = listener.recv(65536)
            assert b"/VMC/Ext/" in packet

    run(main())


def test_the_command(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "wave.npz"
        save_motion(path, wave(1.0, 30.0, ("jawOpen",)))
        async with live_server(tmp_path / "data", avatar) as server:
            session = await server.start_session(source="socket")
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}"
            result = await asyncio.to_thread(CliRunner().invoke, cli.app, ["feed", str(path), "--to", url])
            assert result.exit_code == 0, result.output
            assert "frames sent" in result.output
            assert "0 refused" in result.output
            result = await asyncio.to_thread(CliRunner().invoke, cli.app, ["feed", str(path), "--to", "ftp://x"])
            assert result.exit_code == 1
            assert "no address to send to" in result.stderr

    run(main())
