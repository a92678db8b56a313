"""VMC: frames found in packets, and a real sender that moves a real session's picture."""

import asyncio
import ipaddress
import math
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import live_server, run
from pythonosc.osc_message import OscMessage
from vmc_peer import (
    BODY,
    FINGERS,
    arms,
    as_one,
    as_several,
    as_single,
    bone,
    frame,
    free_port,
    message,
    turn_z,
)

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.errors import BackendError
from lhm_runtime.motion.retargeting import BoneRotations
from streaming.config import Motion
from streaming.errors import ProtocolError
from streaming.follower import Follower
from streaming.sources import Sample
from streaming.sources.vmc import MAX_SHAPES, VmcReader, VmcSource
from streaming.udp import UdpPorts

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

LOCAL = [ipaddress.ip_network("127.0.0.0/8")]
Way = Callable[[Sequence[OscMessage]], list[bytes]]
WAYS = pytest.mark.parametrize("way", [as_one, as_several, as_single])


def play(reader: VmcReader, frames: Sequence[Sequence[bytes]], fps: float = 60.0) -> list[BoneRotations]:
    """What is read of frames whose packets come 0.1 ms after each other."""
    read = [
        reader.read(packet, i / fps + k * 1e-4) for i, packets in enumerate(frames) for k, packet in enumerate(packets)
    ]
    return [bones for bones in read if bones is not None]


def stamped(number: int) -> list[OscMessage]:
    """A frame whose every bone and shape tells which one it is."""
    z = math.sin(number / 100)
    turned = (0.0, 0.0, z, math.sqrt(1 - z * z))
    return frame(dict.fromkeys([*BODY, *FINGERS], turned), {"A": z, "Joy": z})


def stamps(bones: BoneRotations) -> set[float]:
    assert bones.blendshape_values is not None
    return {round(float(value), 5) for value in [*bones.quat_wxyz[:, 3], *bones.blendshape_values]}


@WAYS
def test_every_frame_is_told_once_and_whole(way: Way) -> None:
    told = play(VmcReader(), [way(stamped(i)) for i in range(1, 30)])
    assert len(told) <= 29  # the first frame has no other to say where it ends
    assert [stamps(bones) for bones in told[-28:]] == [{round(math.sin(i / 100), 5)} for i in range(2, 30)]
    assert len(told[-1].names) == 54


@pytest.mark.parametrize("start", [1, 3, 6])
def test_a_sender_that_was_already_talking(start: int) -> None:
    frames = [as_several(stamped(i)) for i in range(1, 30)]
    frames[0] = frames[0][start:]
    told = play(VmcReader(), frames)
    assert [stamps(bones) for bones in told[-27:]] == [{round(math.sin(i / 100), 5)} for i in range(3, 30)]


def test_a_lost_packet_costs_one_frame_at_most() -> None:
    frames = [as_several(stamped(i)) for i in range(1, 31)]
    del frames[10][2]
    told = play(VmcReader(), frames)
    assert len(told) >= 28
    whole = [bones for bones in told if len(stamps(bones)) == 1]
    assert len(whole) >= 27


def test_packets_that_come_evenly_are_told_all_the_same() -> None:
    packets = [packet for i in range(1, 10) for packet in as_several(stamped(i))]
    told = play(VmcReader(), [[packet] for packet in packets], fps=100.0)
    assert len(told) > len(packets) / 2
    assert len(told[-1].names) == 54


def test_a_sender_of_a_face_alone() -> None:
    told = play(VmcReader(), [as_one(frame({}, {"A": i / 10}, bones=[])) for i in range(5)])
    assert [bones.names for bones in told] == [()] * 4
    values = [bones.blendshape_values for bones in told]
    assert [None if value is None else float(value[0]) for value in values] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_shapes_wait_for_apply() -> None:
    reader = VmcReader()
    one = [bone("Head"), message("/VMC/Ext/Blend/Val", "A", 0.7)]
    told = play(reader, [as_one(one)] * 3)
    assert told[-1].blendshape_names == ()
    applied = reader.read(as_one([bone("Head"), message("/VMC/Ext/Blend/Apply", 1)])[0], 1.0)
    assert applied is not None
    assert applied.blendshape_names == ("A",)
    assert applied.blendshape_values == pytest.approx([0.7])


def test_eyes_turn_once() -> None:
    shapes = {"EyeLookInLeft": 0.5, "eyeLookUp_R": 0.5, "JawOpen": 0.3}
    told = play(VmcReader(), [as_one(frame({}, shapes))] * 2)
    assert told[-1].blendshape_names == ("JawOpen",)
    told = play(VmcReader(), [as_one(frame({}, shapes, bones=["Head"]))] * 2)
    assert len(told[-1].blendshape_names) == 3


def test_the_root_carries_the_hips() -> None:
    root = message("/VMC/Ext/Root/Pos", "root", 1.0, 0.0, 0.0, *turn_z(90), 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    (told,) = play(VmcReader(), [as_one([root, bone("Hips", turn_z(-90), (0, 1, 0))])] * 2)
    assert told.root_transl is not None
    np.testing.assert_allclose(told.root_transl, [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(told.quat_wxyz, [[1, 0, 0, 0]], atol=1e-6)


def test_what_is_not_usable_is_left_out_and_the_rest_taken() -> None:
    reader = VmcReader()
    bad = [
        bone("Head", (math.nan, 0, 0, 1)),
        bone("Neck", (0, 0, 0, 0)),
        bone("Chest", (0, 0, 0, 9)),
        bone("Spine", position=(1e9, 0, 0)),
        bone("Hips", position=(0, 0, math.nan)),
        message("/VMC/Ext/Bone/Pos", "Hips", 1.0),
        message("/VMC/Ext/Root/Pos"),
        message("/VMC/Ext/Bone/Pos", 1.0, 2.0),
        message("/VMC/Ext/Bone/Pos", "Hips", *["x"] * 7),
        message("/VMC/Ext/Blend/Val", "A", "much"),
        message("/VMC/Ext/Blend/Val", "x" * 300, 0.5),
        message("/VMC/Ext/Blend/Val"),
    ]
    others = [bone("Tail"), message("/VMC/Ext/Cam", "camera", 1.0), message("/elsewhere")]
    (told,) = play(reader, [as_one([bone("LeftHand"), *bad, *others])] * 2)
    assert told.names == ("LeftHand",)
    assert told.blendshape_names == ()
    assert reader.refused == 2 * len(bad)
    with pytest.raises(ProtocolError):
        reader.read(b"rubbish", 1.0)


def test_nothing_is_told_while_no_model_is_loaded() -> None:
    reader = VmcReader()
    closed = [bone("Head"), message("/VMC/Ext/OK", 0)]
    assert play(reader, [as_one(closed)] * 4) == []
    assert len(play(reader, [as_one([bone("Head"), message("/VMC/Ext/OK", 1)])] * 4)) == 4


def test_what_is_no_longer_sent_is_forgotten() -> None:
    reader = VmcReader()
    play(reader, [as_one(frame())] * 3)
    for i in range(3):
        told = reader.read(as_one([bone("Head")])[0], 5.0 + i / 60)
    assert told is not None
    assert told.names == ("Head",)


def test_no_sender_can_fill_the_memory() -> None:
    reader = VmcReader()
    for k in range(20):
        shapes = {f"shape {k} {i}": 0.5 for i in range(100)}
        told = reader.read(as_one(frame({}, shapes, bones=["Head"]))[0], k / 60)
    assert told is not None
    assert len(told.blendshape_names) <= MAX_SHAPES


@settings(max_examples=200)
@given(st.data())
def test_damaged_packets(data: st.DataObject) -> None:
    packet = bytearray(data.draw(st.sampled_from(as_several(frame(arms(30), {"A": 0.5})) + as_one(frame()))))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(packet) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                packet[at] = data.draw(st.integers(0, 255))
            case 1:
                packet[at : at + 4] = struct.pack(">f", data.draw(st.floats(width=32)))
            case 2:
                del packet[at:]
            case _:
                packet[at:at] = data.draw(st.binary(max_size=16))
        if not packet:
            break
    reader = VmcReader()
    for i in range(3):
        try:
            told = reader.read(bytes(packet), i / 60)
        except ProtocolError:
            continue
        if told is not None:
            assert np.isfinite(told.quat_wxyz).all()
            assert (np.linalg.norm(told.quat_wxyz, axis=1) > 0.4).all()


def test_unitys_axes(avatar: Avatar) -> None:
    """Left-handed: a left arm goes down by a positive turn about z, a head to its left by a negative one about y."""
    half = math.radians(-30) / 2
    turned = {**arms(70), "RightUpperArm": turn_z(0), "Head": (0.0, math.sin(half), 0.0, math.cos(half))}
    (told,) = play(VmcReader(), [as_one(frame(turned, {"EyeBlinkLeft": 1.0}))] * 2)
    pose = Follower(avatar, Motion()).follow(Sample(told))
    assert pose is not None
    joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)
    place = {
        name: joints[JOINT_INDEX[name], :3, 3]
        for name in ("left_shoulder", "left_wrist", "right_shoulder", "right_wrist")
    }
    assert place["left_wrist"][0] > 0 > place["right_wrist"][0]
    assert place["left_shoulder"][1] - place["left_wrist"][1] > 0.3
    assert abs(place["right_shoulder"][1] - place["right_wrist"][1]) < 0.05
    forward = joints[JOINT_INDEX["head"], :3, :3] @ [0, 0, 1]
    assert forward[0] == pytest.approx(0.5, abs=0.01)  # its own left
    assert pose.expression[avatar.expression_names.index("eyeBlinkLeft")] == pytest.approx(1.0)


def test_a_port_is_shared_and_closed_after_the_last() -> None:
    async def main() -> None:
        ports, port = UdpPorts(), free_port()
        packets = as_one(frame(arms(30)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            async with AsyncExitStack() as stack:
                first = await stack.enter_async_context(VmcSource(ports, "127.0.0.1", port, LOCAL))
                async with VmcSource(ports, "127.0.0.1", port, LOCAL) as second:
                    for source in (first, second):
                        for _ in range(3):
                            sender.sendto(packets[0], ("127.0.0.1", port))
                        sample = await asyncio.wait_for(anext(aiter(source)), 2.0)
                        assert isinstance(sample.motion, BoneRotations)
                with pytest.raises(BackendError, match=rf"cannot listen on UDP 127.0.0.1:{port}"):
                    async with VmcSource(UdpPorts(), "127.0.0.1", port, LOCAL):
                        pass
            async with VmcSource(UdpPorts(), "127.0.0.1", port, LOCAL):
                pass

    run(main())


def test_only_those_on_the_list_are_heard() -> None:
    async def main() -> None:
        port = free_port()
        elsewhere = [ipaddress.ip_network("10.0.0.0/8")]
        async with VmcSource(UdpPorts(), "127.0.0.1", port, elsewhere) as source:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(4):
                    sender.sendto(as_one(frame())[0], ("127.0.0.1", port))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(aiter(source)), 0.3)
                assert source.refused == 0

    run(main())


def test_an_address_of_another_machine() -> None:
    async def main() -> None:
        with pytest.raises(BackendError, match=r"203\.0\.113\.7"):
            async with VmcSource(UdpPorts(), "203.0.113.7", 39539, LOCAL):
                pass

    run(main())


@WAYS
def test_a_sender_moves_the_picture_of_two_sessions(avatar: Avatar, tmp_path: Path, way: Way) -> None:
    async def main() -> None:
        port = free_port()
        async with live_server(tmp_path, avatar, vmc={"port": port}) as server, AsyncExitStack() as stack:
            sessions = [await server.start_session(source="vmc") for _ in range(2)]
            viewers = [await server.watch(session, stack) for session in sessions]
            sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

            async def act(degrees: float) -> None:
                sender.sendto(b"rubbish", ("127.0.0.1", port))
                while True:
                    for packet in way(frame(arms(degrees), {"Blink": 1.0})):
                        sender.sendto(packet, ("127.0.0.1", port))
                    await asyncio.sleep(1 / 30)

            for degrees, wide in ((75, False), (0, True), (75, False)):
                acting = asyncio.create_task(act(degrees))
                for viewer in viewers:
                    await viewer.see_until(lambda picture: (spread(picture) > 0.75) == wide)  # noqa: B023
                acting.cancel()
                await asyncio.wait([acting])
            changed = await server.http.patch(f"/api/sessions/{sessions[0]}", json={"avatar": "builtin"})
            assert changed.status_code == 200, changed.text
            assert changed.json()["source"] == "vmc"

    run(main())


def spread(picture: np.ndarray) -> float:
    """How far to the sides the person reaches, in halves of the width."""
    columns = (np.abs(picture - picture[2, 2]) > 30).any(axis=0).nonzero()[0]
    return float(np.abs(columns - picture.shape[1] / 2).max() / (picture.shape[1] / 2)) if columns.size else 0.0
