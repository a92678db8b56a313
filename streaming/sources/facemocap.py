"""A face from a phone: iFacialMocap's text over UDP 49983 (ARKit's 52 shapes, head and eyes, 60 times a second).

A packet is ``name-value|...|=head#rx,ry,rz,px,py,pz|rightEye#rx,ry,rz|leftEye#rx,ry,rz|``: shapes 0 to 100 with ``_L``
and ``_R`` for the sides, degrees as Unity's Euler angles, metres. Version 2 writes ``&`` for ``-``, and so does
Facemotion3D. See https://www.ifacialmocap.com/for-developer/.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final

import numpy as np

from lhm_runtime.body.rotations import quat_multiply_wxyz
from lhm_runtime.motion.retargeting import BoneRotations
from streaming import metrics
from streaming.errors import ProtocolError
from streaming.latest import Latest
from streaming.sources import Sample
from streaming.udp import Network, Send, UdpPorts
from streaming.wire.limits import MAX_NAME_BYTES, MAX_SHAPES

MAX_BYTES: Final = 8192
"""Longest packet that is read; the app's have 1,500."""

_CALL = b"iFacialMocap_sahuasouryya9218sauhuiayeta91555dy3719|sendDataVersion=v2"
"""Asks the app to send."""
_CALL_EVERY_S = 2.0
_BONES = {"head": "Head", "=head": "Head", "righteye": "RightEye", "lefteye": "LeftEye"}
_STATUS = "trackingStatus"
_MOST_DEGREES = 360.0


def read_face(packet: bytes, time_s: float) -> BoneRotations:
    """The face in one packet: shapes by ARKit's names, head and eyes as bones in Unity's axes.

    Raises:
        ProtocolError: anything but such a packet, of finite numbers.
    """
    if len(packet) > MAX_BYTES:
        raise ProtocolError(f"iFacialMocap packet of {len(packet)} bytes, at most {MAX_BYTES} are read")
    try:
        text = packet.decode("ascii")
    except UnicodeDecodeError as error:
        raise ProtocolError("iFacialMocap packet is no ASCII text") from error
    shapes: dict[str, float] = {}
    turns: dict[str, np.ndarray] = {}
    for part in text.strip().strip("|").split("|"):
        name, mark, numbers = part.partition("#")
        if mark:
            bone = _BONES.get(name.lower())
            if bone is not None:
                turns[bone] = _unity_quat(name, numbers)
            continue
        if not part.startswith(_STATUS):
            name, value = _read_shape(part)
            shapes[name] = value
    if len(shapes) > MAX_SHAPES:
        raise ProtocolError(f"iFacialMocap packet with {len(shapes)} shapes, at most {MAX_SHAPES} are read")
    if not shapes:
        raise ProtocolError("iFacialMocap packet without a face shape")
    if "LeftEye" in turns:  # the shapes would turn the eyes once more
        shapes = {name: value for name, value in shapes.items() if not name.startswith("eyeLook")}
    return BoneRotations(
        names=tuple(turns),
        quat_wxyz=np.array([*turns.values()], np.float32).reshape(-1, 4),
        timestamp_s=time_s,
        convention="unity",
        blendshape_names=tuple(shapes),
        blendshape_values=np.array([*shapes.values()], np.float32),
    )


class FaceMocapSource:
    """Listens to a phone, and calls it while it is silent."""

    def __init__(
        self, ports: UdpPorts, host: str, port: int, senders: Iterable[Network], phone: str | None = None
    ) -> None:
        """Listen on UDP ``host``:``port`` to ``senders`` only, once entered; ``phone`` is asked there to send."""
        self._ports, self._host, self._port, self._senders = ports, host, port, tuple(senders)
        self._phone = phone
        self._samples: Latest[Sample] = Latest()
        self._last = b""
        self._heard_at = -math.inf
        self._leaving = AsyncExitStack()
        self.refused = 0
        """Packets that held no face."""

    async def __aenter__(self) -> "FaceMocapSource":
        """Raises BackendError when the port cannot be had."""
        send = await self._leaving.enter_async_context(
            self._ports.listen(self._host, self._port, self._senders, self._hear)
        )
        if self._phone is not None:
            calling = asyncio.create_task(self._call(send, self._phone), name="call the phone")
            self._leaving.push_async_callback(asyncio.wait, [calling])
            self._leaving.callback(calling.cancel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leaving.aclose()

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """The newest face, each time."""
        while True:
            yield await self._samples.get()

    def _hear(self, packet: bytes) -> None:
        if packet == self._last:  # no face is that still: the app repeats itself while it sees none
            return
        self._last = packet
        now = time.monotonic()
        try:
            face = read_face(packet, now)
        except ProtocolError:
            self.refused += 1
            metrics.FRAMES_DROPPED.labels("sample_malformed").inc()
            return
        self._heard_at = now
        self._samples.put(Sample(face, time.time() * 1e3))

    async def _call(self, send: Send, phone: str) -> None:
        while True:
            if time.monotonic() - self._heard_at > _CALL_EVERY_S:
                send(_CALL, (phone, self._port))
            await asyncio.sleep(_CALL_EVERY_S)


def _read_shape(part: str) -> tuple[str, float]:
    name, mark, number = part.partition("&" if "&" in part else "-")
    if not mark or not 0 < len(name) <= MAX_NAME_BYTES:
        raise ProtocolError(f"iFacialMocap packet with {part[:80]!r}, expected name-value, name&value or name#angles")
    return name, min(max(_number(name, number) / 100, 0.0), 1.0)


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise ProtocolError(f"{name[:40]} is {text[:40]!r}, expected a number") from error
    if not math.isfinite(number):
        raise ProtocolError(f"{name[:40]} is {number}, expected a finite number")
    return number


def _unity_quat(name: str, text: str) -> np.ndarray:
    """[4] of Euler angles in degrees as Unity takes them: about z, then x, then y, in fixed axes."""
    numbers = [_number(name, number) for number in text.split(",")]
    if len(numbers) < 3:
        raise ProtocolError(f"{name} has {len(numbers)} numbers, expected 3 angles")
    if max(map(abs, numbers[:3])) > _MOST_DEGREES:
        raise ProtocolError(f"{name} is turned by {numbers[:3]} degrees, expected at most {_MOST_DEGREES:g}")
    x, y, z = (_turn(axis, math.radians(angle)) for axis, angle in enumerate(numbers[:3]))
    return quat_multiply_wxyz(y, quat_multiply_wxyz(x, z))


def _turn(axis: int, angle: float) -> np.ndarray:
    quat_wxyz = np.zeros(4)
    quat_wxyz[0], quat_wxyz[1 + axis] = math.cos(angle / 2), math.sin(angle / 2)
    return quat_wxyz
