"""iFacialMocap's packets, and a phone that is asked to send them."""

import asyncio
import ipaddress
import math
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import live_server, run
from vmc_peer import free_port

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.motion.procedural import relaxed_pose
from streaming.config import Motion
from streaming.errors import ProtocolError
from streaming.follower import Follower
from streaming.sources import Sample
from streaming.sources.facemocap import FaceMocapSource, read_face
from streaming.udp import UdpPorts

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

LOCAL = [ipaddress.ip_network("127.0.0.0/8")]
PACKET = (
    b"mouthSmile_R-0|eyeLookOut_L-30|mouthUpperUp_L-11|eyeBlink_L-100|eyeBlink_R-7|jawOpen-50|browInnerUp-120|"
    b"tongueOut-0|trackingStatus-1|=head#-20.5,10.25,-5.5,-0.03,-0.1,-0.65|rightEye#6.03,2.44,0.26|leftEye#6.03,-1.67,-0.17|"
)
SECOND_VERSION = PACKET.replace(b"-", b"&", 10)


def packet(jaw: float, degrees: str = "0,0,0") -> bytes:
    return f"jawOpen-{jaw}|eyeBlink_L-0|=head#{degrees},0,0,0|rightEye#0,0,0|leftEye#0,0,0|".encode()


@pytest.mark.parametrize("data", [PACKET, SECOND_VERSION.replace(b"#&", b"#-")])
def test_a_packet(data: bytes) -> None:
    face = read_face(data, 2.0)
    assert face.blendshape_values is not None
    shapes = dict(zip(face.blendshape_names, face.blendshape_values.tolist(), strict=True))
    assert shapes["eyeBlink_L"] == 1.0
    assert shapes["jawOpen"] == 0.5
    assert shapes["browInnerUp"] == 1.0  # they say up to 100, and mean it mostly
    assert "eyeLookOut_L" not in shapes  # the eyes turn as bones
    assert face.names == ("Head", "RightEye", "LeftEye")
    assert face.convention == "unity"
    assert face.timestamp_s == 2.0


def test_angles_are_unitys_and_the_body_is_at_ease(avatar: Avatar) -> None:
    """Unity's Euler(x, y, z): R_y R_x R_z in left-handed axes; nodding down and turning right are positive."""
    for degrees, axis, sign in (("30,0,0", 0, 1), ("0,30,0", 1, -1), ("0,0,30", 2, -1)):
        follower = Follower(avatar, Motion())
        pose = follower.follow(Sample(read_face(packet(40, degrees), 0.0)))
        assert pose is not None
        expected = np.zeros(3)
        expected[axis] = sign * math.radians(30)
        np.testing.assert_allclose(pose.rotvec[JOINT_INDEX["head"]], expected, atol=1e-5)
        rest = relaxed_pose()
        body = [JOINT_INDEX[name] for name in ("left_shoulder", "right_shoulder", "left_index1", "neck")]
        np.testing.assert_allclose(pose.rotvec[body], rest.rotvec[body], atol=1e-6)
        assert pose.expression[avatar.expression_names.index("jawOpen")] == pytest.approx(0.4)
    combined = Follower(avatar, Motion()).follow(Sample(read_face(packet(40, "20,30,40"), 0.0)))
    assert combined is not None
    x, y, z = (
        rotvec_to_matrix(np.eye(3)[i] * s * math.radians(d)) for i, (s, d) in enumerate([(1, 20), (-1, 30), (-1, 40)])
    )
    np.testing.assert_allclose(
        rotvec_to_matrix(combined.rotvec[JOINT_INDEX["head"]].astype(np.float64)), y @ x @ z, atol=1e-5
    )


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "expected name-value"),
        (b"rubbish", "expected name-value"),
        (b"\xff\xfe", "no ASCII"),
        (b"jawOpen-x|", "jawOpen is 'x'"),
        (b"jawOpen-nan|", "jawOpen is nan"),
        (b"-5|", "expected name-value"),
        (b"x" * 100 + b"-5|", "expected name-value"),
        (b"jawOpen-5|=head#1,2|", "has 2 numbers"),
        (b"jawOpen-5|=head#1,2,inf|", "head is inf"),
        (b"jawOpen-5|=head#1,2,9e9|", "degrees"),
        (b"=head#1,2,3,0,0,0|", "without a face shape"),
        (b"|".join(b"s%d-5" % i for i in range(300)), "300 shapes"),
        (b"x" * 10_000, "10000 bytes"),
    ],
)
def test_what_is_no_face(data: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        read_face(data, 0.0)


@given(st.binary(max_size=300), st.integers(0, len(PACKET)))
def test_any_bytes(data: bytes, at: int) -> None:
    for damaged in (data, PACKET[:at] + data, PACKET[:at] + data + PACKET[at:]):
        try:
            face = read_face(damaged, 0.0)
        except ProtocolError:
            continue
        assert face.blendshape_values is not None
        assert np.isfinite(face.blendshape_values).all()
        assert np.isfinite(face.quat_wxyz).all()


def test_the_phone_is_asked_while_it_is_silent() -> None:
    async def main() -> None:
        port = free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
            phone.bind(("127.0.0.2", port))
            phone.setblocking(False)
            async with FaceMocapSource(UdpPorts(), "127.0.0.1", port, LOCAL, "127.0.0.2") as source:
                loop = asyncio.get_running_loop()
                call, address = await asyncio.wait_for(loop.sock_recvfrom(phone, 200), 2.0)
                assert call.startswith(b"iFacialMocap_sahuasouryya9218")
                phone.sendto(packet(10), address)
                samples = aiter(source)
                assert (await asyncio.wait_for(anext(samples), 2.0)).captured_ms is not None
                phone.sendto(packet(10), address)  # the very same: it sees no face
                phone.sendto(b"rubbish", address)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(samples), 0.3)
                assert source.refused == 1

    run(main())


def test_a_phone_moves_the_face(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        async with live_server(tmp_path, avatar, facemocap={"port": port}) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="facemocap", framing="head")
            viewer = await server.watch(session, stack)
            phone = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

            async def act(yaw: float) -> None:
                count = 0
                while True:
                    count += 1
                    phone.sendto(packet(5, f"0,{yaw},{count % 2 / 100}"), ("127.0.0.1", port))
                    await asyncio.sleep(1 / 30)

            pictures = []
            for yaw in (-35, 35, -35):
                acting = asyncio.create_task(act(yaw))
                pictures.append(await viewer.see(45))
                acting.cancel()
                await asyncio.wait([acting])
            left, right, again = pictures
            assert np.abs(left - right).mean() > 3 * np.abs(left - again).mean()
            assert np.abs(left - right).mean() > 2.0

    run(main())
