"""What we send by VMC, read by python-osc and by our own input."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from live import live_server, run
from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_packet import OscPacket
from vmc_peer import free_port

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import BackendError
from lhm_runtime.motion.procedural import relaxed_pose, wave
from lhm_runtime.motion.retargeting import BoneRotations, Retargeter
from streaming.sources.vmc import VmcReader
from streaming.vmc_output import VRM_FACES, VmcOutput, VmcWriter

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


def test_our_input_reads_back_the_very_pose(avatar: Avatar) -> None:
    writer, reader = VmcWriter(avatar.rest_joints, avatar.expression_names), VmcReader()
    height = float(avatar.rest_joints[0, 1] - avatar.rest_joints[:, 1].min())
    retargeter = Retargeter(avatar.rest_joints, avatar.expression_names, hips_height_m=height)
    motion = wave(1.0, 30.0, avatar.expression_names)
    told: list[BoneRotations] = []
    for i in range(len(motion)):
        for k, packet in enumerate(writer.write(motion.pose(i))):
            bones = reader.read(packet, i / 30 + k * 1e-4)
            told += [] if bones is None else [bones]
    for i, bones in enumerate(told[-28:], start=2):
        pose, expected = retargeter.to_pose(bones), motion.pose(i)
        np.testing.assert_allclose(pose.rotvec, expected.rotvec, atol=1e-5)
        np.testing.assert_allclose(pose.transl, expected.transl, atol=1e-5)
        np.testing.assert_allclose(pose.expression, expected.expression, atol=1e-6)


def test_a_frame_as_python_osc_reads_it(avatar: Avatar) -> None:
    pose = relaxed_pose(avatar.expression_names)
    packets = VmcWriter(avatar.rest_joints, avatar.expression_names).write(pose)
    assert all(OscBundle.dgram_is_bundle(packet) and len(packet) <= 1400 for packet in packets)
    messages = [timed.message for packet in packets for timed in OscPacket(packet).messages]
    assert [content.address for content in messages[:3]] == ["/VMC/Ext/OK", "/VMC/Ext/T", "/VMC/Ext/Root/Pos"]
    assert messages[-1].address == "/VMC/Ext/Blend/Apply"
    bones = {content.params[0]: content.params[1:] for content in messages if content.address.endswith("Bone/Pos")}
    assert len(bones) == 55
    assert bones["Hips"][1] == pytest.approx(avatar.rest_joints[0, 1] - avatar.rest_joints[:, 1].min(), abs=1e-4)
    # a T-pose in Unity's axes: the left arm along -x; at ease it is turned down, by a positive turn about z
    np.testing.assert_allclose(bones["LeftLowerArm"][1:3], [0, 0], atol=1e-5)
    assert bones["LeftLowerArm"][0] < -0.2
    assert bones["LeftUpperArm"][5] > 0.4
    assert bones["RightUpperArm"][5] < -0.4
    shapes = {content.params[0] for content in messages if content.address.endswith("Blend/Val")}
    assert shapes == set(avatar.expression_names)


def test_faces_for_models_that_know_only_vrms(avatar: Avatar) -> None:
    pose = relaxed_pose(avatar.expression_names)
    for name, expected in (("eyeBlinkLeft", "Blink_L"), ("mouthPucker", "U")):
        expression = pose.expression * 0
        expression[avatar.expression_names.index(name)] = 1.0
        writer = VmcWriter(avatar.rest_joints, avatar.expression_names, "vrm")
        packets = writer.write(type(pose)(pose.rotvec, pose.transl, expression, 0.0))
        messages = [timed.message for packet in packets for timed in OscPacket(packet).messages]
        faces = {content.params[0]: content.params[1] for content in messages if content.address.endswith("Blend/Val")}
        assert set(faces) == set(VRM_FACES)
        assert max(faces, key=lambda face: faces[face]) == expected
        assert faces[expected] > 0.5


def test_nobody_listens_and_no_such_host(avatar: Avatar) -> None:
    pose = relaxed_pose(avatar.expression_names)
    with VmcOutput("127.0.0.1", free_port(), avatar.rest_joints, avatar.expression_names) as output:
        for _ in range(3):
            output.send(pose)
    nowhere = VmcOutput("no.such.host.invalid", 39540, avatar.rest_joints, avatar.expression_names)
    with nowhere as output, pytest.raises(BackendError, match=r"no\.such\.host\.invalid:39540.*vmc\.send_host"):
        output.send(pose)


def test_a_session_sends_what_drives_it_when_told_to(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", 0))
            receiver.setblocking(False)
            vmc = {"send_port": receiver.getsockname()[1]}
            async with live_server(tmp_path, avatar, vmc=vmc) as server, AsyncExitStack() as stack:
                session = await server.start_session(source="replay", replay="wave")
                await server.watch(session, stack)
                loop = asyncio.get_running_loop()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(loop.sock_recv(receiver, 65536), 0.5)
                changed = await server.http.patch(f"/api/sessions/{session}", json={"vmc": True})
                assert changed.json()["vmc"] is True
                reader, hands = VmcReader(), []
                while len(hands) < 60:
                    packet = await asyncio.wait_for(loop.sock_recv(receiver, 65536), 3.0)
                    bones = reader.read(packet, loop.time())
                    if bones is not None:
                        hands.append(bones.quat_wxyz[bones.names.index("RightUpperArm")])
                assert np.ptp(hands, axis=0).max() > 0.3  # it waves

    run(main())


def test_a_session_that_cannot_send_goes_on(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        vmc = {"send_host": "no.such.host.invalid"}
        async with live_server(tmp_path, avatar, vmc=vmc) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="replay", replay="wave", vmc=True)
            viewer = await server.watch(session, stack)
            for _ in range(100):
                if not (await server.http.get(f"/api/sessions/{session}")).json()["vmc"]:
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError("it goes on trying")
            await viewer.see(5)

    run(main())
