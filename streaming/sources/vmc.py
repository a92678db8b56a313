"""Bones and face shapes from VTuber software, by the VMC protocol 3.1 (https://protocol.vmc.info): OSC over UDP.

Senders are VSeeFace, Warudo, VirtualMotionCapture, XR Animator and others. Their frames have no mark where they end and
may be one bundle, several, or a hundred single messages; ``VmcReader`` finds the end.
"""

import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final

import numpy as np

from lhm_runtime.body.rotations import quat_multiply_wxyz, quat_wxyz_to_matrix
from lhm_runtime.motion.bone_names import vrm_bones
from lhm_runtime.motion.retargeting import BoneRotations
from streaming import metrics
from streaming.errors import ProtocolError
from streaming.latest import Latest
from streaming.osc import Argument, OscMessage, decode_packet
from streaming.sources import Sample
from streaming.udp import Network, UdpPorts
from streaming.wire.limits import MAX_NAME_BYTES, MAX_REACH_M, UNIT_RANGE

_Transform = tuple[float, float, float, float, float, float, float]
"""Position, quaternion xyzw."""
_WXYZ = [6, 3, 4, 5]
_LEAST_SQUARE, _MOST_SQUARE = (length**2 for length in UNIT_RANGE)

MAX_SHAPES: Final = 256
"""Names of face shapes that are kept; further ones are left out. More than in samples: models name their own."""

_BONES = {name.lower() for vrm1 in (False, True) for name in vrm_bones(vrm1=vrm1)}
_EYES = ("lefteye", "righteye")
_HIPS = "hips"
_ROOT = "/root"
_APPLY = "/apply"
_PAUSE_S = 0.004
"""Between the packets of one frame there is less, between frames more."""
_FORGET_S = 1.0
"""What has not been heard of for so long is no longer part of the pose."""


class VmcReader:
    """Packets of one or more senders to moments of one skeleton.

    A frame is complete when all has come that the frame before had. What is missing then, because it was lost or the
    sender has changed, is not waited for beyond the beginning of the next frame.
    """

    def __init__(self) -> None:
        self._bones: dict[str, tuple[_Transform, float]] = {}
        self._shapes: dict[str, tuple[float, float]] = {}
        self._staged: dict[str, float] = {}
        self._loaded = True
        self._heard: set[str] = set()
        self._expected: set[str] | None = None
        self._told = False
        self._at_s = -math.inf
        self.refused = 0
        """Messages whose content was unusable."""

    def read(self, packet: bytes, now_s: float) -> BoneRotations | None:
        """Take in a packet that came at ``now_s`` of a steady clock; the skeleton, when a frame is complete.

        Raises:
            ProtocolError: no OSC packet; nothing of it was used.
        """
        messages = decode_packet(packet)
        due = now_s - self._at_s > _PAUSE_S and self._begin_frame()
        self._at_s = now_s
        for message in messages:
            try:
                part = self._take(message, now_s)
            except ProtocolError:
                self.refused += 1
                metrics.FRAMES_DROPPED.labels("message_malformed").inc()
                continue
            if part is None:
                continue
            if part in self._heard:
                due |= self._begin_frame()
            self._heard.add(part)
            if not self._told and self._expected is not None and self._heard >= self._expected:
                self._told = due = True
        return self._skeleton(now_s) if due and self._loaded else None

    def _begin_frame(self) -> bool:
        """Expect in the new frame what the last one had; whether that one has yet to be told."""
        untold = bool(self._heard) and not self._told
        if self._heard:
            self._expected = self._heard
        self._heard, self._told = set(), False
        return untold

    def _take(self, message: OscMessage, now_s: float) -> str | None:
        """Keep what a message says; the part of the frame that it is."""
        arguments = message.arguments
        match message.address.lower():
            case "/vmc/ext/bone/pos":
                name = _name(arguments)
                if name.lower() not in _BONES:
                    return None
                self._bones[name] = (_transform(arguments), now_s)
                return name
            case "/vmc/ext/root/pos":
                self._bones[_ROOT] = (_transform(arguments), now_s)
                return _ROOT
            case "/vmc/ext/blend/val":
                name = _name(arguments)
                if len(self._staged) < MAX_SHAPES:
                    self._staged[name] = _number(arguments, 1, 100.0)
                return None
            case "/vmc/ext/blend/apply":
                for name, value in self._staged.items():
                    if name in self._shapes or len(self._shapes) < MAX_SHAPES:
                        self._shapes[name] = (value, now_s)
                self._staged.clear()
                return _APPLY
            case "/vmc/ext/ok":
                self._loaded = not arguments or arguments[0] != 0
        return None

    def _skeleton(self, now_s: float) -> BoneRotations | None:
        oldest = now_s - _FORGET_S
        self._bones = {name: bone for name, bone in self._bones.items() if bone[1] >= oldest}
        self._shapes = {name: shape for name, shape in self._shapes.items() if shape[1] >= oldest}
        names = tuple(name for name in self._bones if name != _ROOT)
        if not names and not self._shapes:
            return None
        transforms = np.array([self._bones[name][0] for name in names], np.float64).reshape(-1, 7)
        quat_wxyz = transforms[:, _WXYZ]
        lower = [name.lower() for name in names]
        root_transl = None
        if _HIPS in lower:
            hips = lower.index(_HIPS)
            root_transl = transforms[hips, :3]
            if _ROOT in self._bones:
                root = np.array(self._bones[_ROOT][0], np.float64)
                root_quat = root[_WXYZ]
                quat_wxyz[hips] = quat_multiply_wxyz(root_quat, quat_wxyz[hips])
                root_transl = root[:3] + quat_wxyz_to_matrix(root_quat) @ root_transl
            root_transl = root_transl.astype(np.float32)
        # where eyes turn as bones the shapes that turn them must not do so again
        looks = any(eye in lower for eye in _EYES)
        shapes = {
            name: value
            for name, (value, _) in self._shapes.items()
            if not (looks and name.lower().startswith("eyelook"))
        }
        return BoneRotations(
            names=names,
            quat_wxyz=quat_wxyz.astype(np.float32),
            timestamp_s=now_s,
            convention="unity",
            root_transl=root_transl,
            blendshape_names=tuple(shapes),
            blendshape_values=np.array([*shapes.values()], np.float32),
        )


class VmcSource:
    """Listens for VMC senders; sessions may share a port."""

    def __init__(self, ports: UdpPorts, host: str, port: int, senders: Iterable[Network]) -> None:
        """Listen on UDP ``host``:``port`` to ``senders`` only, once entered."""
        self._ports, self._host, self._port, self._senders = ports, host, port, tuple(senders)
        self._reader = VmcReader()
        self._samples: Latest[Sample] = Latest()
        self._leaving = AsyncExitStack()
        self.refused = 0
        """Packets that were no OSC."""

    async def __aenter__(self) -> "VmcSource":
        """Raises BackendError when the port cannot be had."""
        await self._leaving.enter_async_context(self._ports.listen(self._host, self._port, self._senders, self._hear))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leaving.aclose()

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """The newest complete frame, each time."""
        while True:
            yield await self._samples.get()

    def _hear(self, packet: bytes) -> None:
        try:
            bones = self._reader.read(packet, time.monotonic())
        except ProtocolError:
            self.refused += 1
            metrics.FRAMES_DROPPED.labels("sample_malformed").inc()
            return
        if bones is not None:
            self._samples.put(Sample(bones, time.time() * 1e3))


def _name(arguments: tuple[Argument, ...]) -> str:
    name = arguments[0] if arguments else None
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_BYTES:
        raise ProtocolError(f"VMC message about {name!r}, expected a name of 1 to {MAX_NAME_BYTES} letters")
    return name


def _number(arguments: tuple[Argument, ...], index: int, limit: float) -> float:
    value = arguments[index] if index < len(arguments) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= limit:
        raise ProtocolError(f"argument {index} of a VMC message is {value!r}, expected a number up to {limit:g}")
    return float(value)


def _transform(arguments: tuple[Argument, ...]) -> _Transform:
    """Checked in plain Python, since there are 3,000 a second."""
    numbers: Any = arguments[1:8]
    try:
        x, y, z, qx, qy, qz, qw = numbers
        square = qx * qx + qy * qy + qz * qz + qw * qw
        near = abs(x) <= MAX_REACH_M and abs(y) <= MAX_REACH_M and abs(z) <= MAX_REACH_M  # max() passes over NaN
        usable = near and _LEAST_SQUARE <= square <= _MOST_SQUARE
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"bone {arguments[:1]} with {numbers}, expected 7 numbers") from error
    if not usable:
        raise ProtocolError(f"bone {arguments[:1]} at {numbers[:3]} turned {numbers[3:]}, expected a unit quaternion")
    return x, y, z, qx, qy, qz, qw
