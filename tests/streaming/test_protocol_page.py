"""docs/protocol.md says what the program does: its examples run, its schema and its numbers hold."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiomqtt import Client
from broker import needs_mosquitto, run_broker
from dancer import RAISED, reach
from live import LiveServer, Visitor, live_server, run
from packets import BROKEN, VALID

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_NAMES
from streaming.pose_socket import _FLOOD_HZ
from streaming.protocol import MAX_RATE_HZ, MAX_SAMPLE_BYTES, MAX_TEXT_BYTES, parse_sample

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocol.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[0]


async def drives(server: LiveServer, viewer: Visitor, *command: str, **environment: str) -> str:
    """Run a sender until the arm has been seen up; what it printed."""
    sender = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **environment}
    )
    try:
        await viewer.see_until(lambda picture: reach(picture) > RAISED, frames=400)
        async with asyncio.timeout(30):
            printed, _ = await sender.communicate()
    finally:
        if sender.returncode is None:
            sender.kill()
            await sender.wait()
    (session,) = server.services.sessions.all
    assert session.messages.refused == 0
    assert sender.returncode == 0, printed.decode()
    return printed.decode()


def test_the_python_sender(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            viewer = await server.watch(session, stack)
            script = tmp_path / "sender.py"
            script.write_text(example("python"))
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}"
            printed = await drives(server, viewer, sys.executable, str(script), url, no_proxy="127.0.0.1")
            assert "'type': 'ack'" in printed
            assert len(example("python").splitlines()) <= 22

    run(main())


def test_the_javascript_sender(avatar: Avatar, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    major = int(subprocess.check_output([node, "--version"], text=True)[1:].partition(".")[0])
    if major < 20:
        pytest.skip(f"node {major} has no WebSocket")

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="socket")
            viewer = await server.watch(session, stack)
            script = tmp_path / "sender.mjs"
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}"
            script.write_text(f"globalThis.poseUrl = {url!r}\n" + example("javascript"))
            flags = ["--experimental-websocket"] if major < 22 else []
            printed = await drives(server, viewer, node, *flags, str(script))
            assert '"type":"ack"' in printed

    run(main())


@needs_mosquitto
def test_the_shell_sender(tmp_path: Path) -> None:
    if shutil.which("mosquitto_pub") is None:
        pytest.skip("mosquitto_pub is not installed: apt-get install mosquitto-clients")

    async def main() -> None:
        with run_broker(tmp_path) as broker:
            async with Client("127.0.0.1", broker.port) as listener:
                await listener.subscribe("lhm-live/default/studio/pose")
                environment = {**os.environ, "BROKER": "127.0.0.1", "PORT": str(broker.port)}
                sender = await asyncio.create_subprocess_exec("sh", "-c", example("sh"), env=environment)
                count = 0
                async with asyncio.timeout(50):
                    async for message in listener.messages:
                        assert isinstance(message.payload, bytes)
                        sample = parse_sample(message.payload)
                        assert sample.sequence == count
                        assert sample.bones.names == ("left_shoulder", "right_shoulder")
                        count += 1
                        if count == 300:
                            break
                assert await sender.wait() == 0

    run(main())


def test_the_json_example_and_the_sizes() -> None:
    sample = parse_sample(example("json"))
    assert sample.bones.names == ("left_shoulder", "left_elbow")
    for number in (MAX_SAMPLE_BYTES, MAX_TEXT_BYTES):
        assert f"{number:,} bytes" in PAGE
    assert f"{MAX_RATE_HZ:g} samples a second" in PAGE
    assert f"{_FLOOD_HZ:g} a second" in PAGE
    assert f"is {len(VALID['bones_whole.bin'])} bytes in half precision" in PAGE
    assert abs(len(VALID["bones_whole.json"]) - 4200) < 100
    named = re.findall(r"`(\w+)`", PAGE[PAGE.index("`pelvis`") : PAGE.index("Those of VRM")])
    assert named[:25] == list(JOINT_NAMES[:25])


def test_the_schema_takes_what_the_server_takes() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads((DOCS / "schema" / "sample-v1.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name, packet in VALID.items():
        if name.endswith(".json"):
            validator.validate(json.loads(packet))
    validator.validate(json.loads(example("json")))
    beyond = {  # what no schema can say
        *("nan.json", "infinity.json", "huge_number.json", "no_json.json", "deep.json", "endless_digits.json"),
        *("bones_unknown_bone.json", "bones_bone_of_vrm.json", "bones_twice.json", "bones_quat_zero.json"),
        *("bones_shape_half_a_letter.json", "bones_shape_unprintable.json", "bones_shape_long_name.json"),
        "too_long.json",
    }
    for name, packet in BROKEN.items():
        if name.endswith(".json") and name not in beyond:
            assert not validator.is_valid(json.loads(packet)), name
