"""A motion file as a live rig: each frame when it is due, to a server's websocket, an MQTT broker or a VMC listener."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import numpy as np
from aiomqtt import Client, MqttError, TLSParameters, Will
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.body.rotations import rotvec_to_quat_wxyz
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.retargeting import BoneRotations
from lhm_runtime.motion.sequences import MotionSequence
from lhm_runtime.types import SmplxPose
from streaming.errors import ConnectError
from streaming.protocol import BoneSample, encode_bones
from streaming.vmc_output import VmcOutput

ADDRESSES: Final = "ws://HOST:PORT/v1/pose/SESSION, mqtt://[USER:PASSWORD@]HOST[:PORT]/TENANT/RIG, vmc://HOST[:PORT]"
_ROOT_TOPIC: Final = "lhm-live"
_LAST_WORD_S: Final = 1.2
"""A server reports once a second."""

Deliver = Callable[[SmplxPose], Awaitable[None]]


@dataclass
class Fed:
    """What was sent, and what the other side said of it."""

    sent: int = 0
    late: int = 0
    """Frames that were left out because the next one was due."""
    answer: str = ""


async def feed(motion: MotionSequence, to: str, *, speed: float = 1.0, loop: bool = False, start_s: float = 0.0) -> Fed:
    """Play ``motion`` to the address ``to`` at ``speed`` from ``start_s`` on, once, or over and over until cancelled.

    Raises:
        InvalidInputError: an address that is none of ADDRESSES, or a start beyond the end.
        ConnectError: nobody is there, or they do not take it.
    """
    times = motion.timestamps_s - motion.timestamps_s[0]
    if not 0 <= start_s <= times[-1]:
        raise InvalidInputError(f"the motion is {times[-1]:.2f} s long, it cannot start at {start_s:g} s")
    step_s = float(np.median(np.diff(times))) if len(motion) > 1 else 1.0
    length_s = float(times[-1]) + step_s
    fed = Fed()
    async with _open_road(_split(to), motion.expression_names, fed) as deliver:
        start = time.monotonic() - start_s / speed
        first = int(np.searchsorted(times, start_s))
        while True:
            for index in range(first, len(motion)):
                now_s = (time.monotonic() - start) * speed
                if index + 1 < len(motion) and times[index + 1] <= now_s:
                    fed.late += 1
                    continue
                await asyncio.sleep(max(float(times[index]) - now_s, 0.0) / speed)
                await deliver(motion.pose(index))
                fed.sent += 1
            if not loop:
                return fed
            first, start = 0, start + length_s / speed
            await asyncio.sleep(max(start - time.monotonic(), 0.0))


def _split(to: str) -> SplitResult:
    try:
        address = urlsplit(to)
        _ = address.port  # looked at when it is asked for
    except ValueError as error:
        raise InvalidInputError(f"{to} is no address to send to ({error}); known are {ADDRESSES}") from error
    return address


@asynccontextmanager
async def _open_road(address: SplitResult, names: tuple[str, ...], fed: Fed) -> AsyncIterator[Deliver]:
    match address.scheme:
        case "ws" | "wss":
            async with _to_websocket(address, names, fed) as deliver:
                yield deliver
        case "mqtt" | "mqtts":
            async with _to_broker(address, names) as deliver:
                yield deliver
        case "vmc":
            with VmcOutput(
                address.hostname or "127.0.0.1", address.port or 39539, BodyModel.default().rest_joints(), names
            ) as output:

                async def deliver(pose: SmplxPose) -> None:
                    output.send(pose)

                yield deliver
        case _:
            raise InvalidInputError(f"{address.geturl()} is no address to send to; known are {ADDRESSES}")


@asynccontextmanager
async def _to_websocket(address: SplitResult, names: tuple[str, ...], fed: Fed) -> AsyncIterator[Deliver]:
    refusals: list[str] = []
    where = address._replace(query="").geturl()  # there may be a token in the query

    async def listen(socket: ClientConnection) -> None:
        async for text in socket:
            match json.loads(text):
                case {"type": "ack", "received": received, "used": used, "overtaken": overtaken, "refused": refused}:
                    fed.answer = f"{received} received, {used} used, {overtaken} overtaken, {refused} refused"
                case {"type": "error", "message": str(message)}:
                    refusals.append(message)

    try:
        async with connect(address.geturl(), proxy=None, compression=None) as socket:
            listening = asyncio.create_task(listen(socket), name="listen to the server")
            write = _Writer(names)

            async def deliver(pose: SmplxPose) -> None:
                await socket.send(write.message(pose))

            try:
                yield deliver
                await asyncio.wait([listening], timeout=_LAST_WORD_S)
            except ConnectionClosed as error:
                await asyncio.wait([listening])
                raise ConnectError(refusals[-1] if refusals else f"{where}: {error}") from error
            finally:
                listening.cancel()
                await asyncio.wait([listening])
    except (OSError, WebSocketException) as error:
        if isinstance(error, ConnectError):
            raise
        raise ConnectError(
            f"{where} does not take samples: {error}; is lhm-live serve running there, with such a session?"
        ) from error
    if refusals:
        fed.answer += f"; the last complaint: {refusals[-1]}"


@asynccontextmanager
async def _to_broker(address: SplitResult, names: tuple[str, ...]) -> AsyncIterator[Deliver]:
    topic = f"{_ROOT_TOPIC}{address.path}"
    if topic.count("/") != 2 or topic.endswith("/") or set(topic) & set("+#"):
        raise InvalidInputError(f"{address.path!r} is no /TENANT/RIG, as in mqtt://localhost/default/studio")
    secure = address.scheme == "mqtts"
    client = Client(
        address.hostname or "127.0.0.1",
        address.port or (8883 if secure else 1883),
        username=unquote(address.username) if address.username else None,
        password=unquote(address.password) if address.password else None,
        will=Will(f"{topic}/meta", b"", retain=True),
        tls_params=TLSParameters() if secure else None,
    )
    write = _Writer(names)
    try:
        async with client:
            await client.publish(f"{topic}/meta", json.dumps({"version": 1, "skeleton": "smplx"}), retain=True)

            async def deliver(pose: SmplxPose) -> None:
                await client.publish(f"{topic}/pose", write.message(pose), qos=0)

            try:
                yield deliver
            finally:  # the will is for those who go without a word
                await client.publish(f"{topic}/meta", b"", retain=True)
    except MqttError as error:
        raise ConnectError(f"the broker at {client.identifier} {address.hostname}: {error}") from error


class _Writer:
    """Counts and dates poses as the samples of one sender."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._sequence = 0

    def message(self, pose: SmplxPose) -> bytes:
        shown = {name: value for name, value in zip(self._names, pose.expression.tolist(), strict=True) if value > 0}
        bones = BoneRotations(
            names=JOINT_NAMES,
            quat_wxyz=rotvec_to_quat_wxyz(pose.rotvec),
            timestamp_s=time.time(),
            convention="smplx",
            root_transl=pose.transl,
            blendshape_names=tuple(shown),
            blendshape_values=np.clip([*shown.values()], 0, 1).astype(np.float32) if shown else None,
        )
        message = encode_bones(BoneSample(self._sequence, bones), "rotvec")
        self._sequence = (self._sequence + 1) % (1 << 32)
        return message
