"""A driver who claps: arms change places and the microphone clicks at the same instants."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Final

import av
import numpy as np
from aiortc import RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES, NUM_JOINTS
from lhm_runtime.body.rotations import rotvec_to_quat_wxyz
from lhm_runtime.motion.retargeting import BoneRotations
from streaming.audio import RATE_HZ
from streaming.lowlatency import connected, make_peer_connection
from streaming.protocol import BoneSample, encode_bones
from streaming.services import Services

PERIOD_S: Final = 1.2
"""Between claps: whole packets of sound and whole poses."""
TRACKING_S: Final = 0.025
"""From when the driver is seen to when the pose is sent: what a page's tracker takes."""

_POSES_A_SECOND: Final = 30
_PACKET: Final = RATE_HZ // 50
_CLICK: Final = RATE_HZ // 100
_CLOCK_AHEAD_S: Final = 1000.0
"""The driver's clock is not the server's."""
_PING_S: Final = 1.0


@asynccontextmanager
async def clapping(services: Services, session: str) -> AsyncIterator[None]:
    """Drive ``session`` of this process by WebRTC, as a page does."""
    peer = services.sessions.connect(session, "drive")
    connection = make_peer_connection()
    began_s = time.monotonic() + 0.1
    tasks: list[asyncio.Task[None]] = []
    try:
        connection.addTransceiver(_Clicks(began_s), direction="sendonly")
        pose = connection.createDataChannel("pose", ordered=False, maxRetransmits=0)
        control = connection.createDataChannel("control")
        await connection.setLocalDescription(await connection.createOffer())
        answer = await peer.answer(connection.localDescription.sdp)
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await connected(connection)
        while "connecting" in {pose.readyState, control.readyState}:
            await asyncio.sleep(0.01)

        async def move() -> None:
            number = 0
            while True:
                seen_s = began_s + number / _POSES_A_SECOND
                await asyncio.sleep(seen_s + TRACKING_S - time.monotonic())
                pose.send(encode_bones(BoneSample(number, _arms(seen_s, began_s))))
                number += 1

        async def ping() -> None:
            while True:
                control.send(json.dumps({"type": "ping", "t": 1e3 * (time.monotonic() + _CLOCK_AHEAD_S)}))
                await asyncio.sleep(_PING_S)

        tasks = [asyncio.create_task(move(), name="clap"), asyncio.create_task(ping(), name="ping")]
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await connection.close()
        with contextlib.suppress(ConnectionError):
            await peer.close()


class _Clicks(MediaStreamTrack):
    """10 ms of 1 kHz at each clap, and silence, in packets sent when their last sample is there."""

    kind = "audio"

    def __init__(self, began_s: float) -> None:
        super().__init__()
        self._began_s = began_s
        self._number = max(int((time.monotonic() - began_s) * 50), 0)

    async def recv(self) -> av.AudioFrame:
        number, self._number = self._number, self._number + 1
        await asyncio.sleep(self._began_s + (number + 1) * _PACKET / RATE_HZ - time.monotonic())
        samples = np.zeros((1, _PACKET), np.int16)
        if number % round(PERIOD_S * RATE_HZ / _PACKET) == 0:
            samples[0, :_CLICK] = 24_000 * np.sin(2 * np.pi * 1000 / RATE_HZ * np.arange(_CLICK))
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, number * _PACKET, Fraction(1, RATE_HZ)
        return frame


def _arms(seen_s: float, began_s: float) -> BoneRotations:
    turn = 1.0 if round((seen_s - began_s) * _POSES_A_SECOND) // round(PERIOD_S * _POSES_A_SECOND) % 2 else -1.0
    rotvec = np.zeros((NUM_JOINTS, 3), np.float32)
    rotvec[JOINT_INDEX["left_shoulder"], 2] = turn
    rotvec[JOINT_INDEX["right_shoulder"], 2] = -turn
    return BoneRotations(JOINT_NAMES, rotvec_to_quat_wxyz(rotvec), seen_s + _CLOCK_AHEAD_S, "smplx")
