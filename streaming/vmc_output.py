"""Our poses for VTuber software, by the VMC protocol (https://protocol.vmc.info): what sources/vmc.py reads, sent."""

import socket
import struct
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from lhm_runtime.body.joints import PARENTS
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.errors import BackendError
from lhm_runtime.motion.bone_names import vrm_bones, vrm_face_mix
from lhm_runtime.motion.retargeting import BoneRotations, Retargeter
from lhm_runtime.types import SmplxPose
from streaming import metrics
from streaming.osc import encode_bundles, encode_message

Faces = Literal["arkit", "vrm"]
"""What the receiving model's face knows: ARKit's 52 shapes ("perfect sync"), or only VRM's own expressions."""

VRM_FACES: Final = ("A", "I", "U", "E", "O", "Blink_L", "Blink_R", "Joy", "Angry", "Sorrow", "Surprised")

_TO_UNITY = np.array([-1.0, 1.0, 1.0])
_OPEN_ENDED = 7 * struct.calcsize("f")
"""Bytes of a bone's message behind its name: position and quaternion."""


class VmcWriter:
    """Poses of one body as packets."""

    def __init__(
        self, rest_joints: Float[np.ndarray, "55 3"], expression_names: Sequence[str], faces: Faces = "arkit"
    ) -> None:
        """Prepare for poses of a body with these joints at zero pose and these expressions."""
        self._retargeter = Retargeter(rest_joints, expression_names)
        self._names = tuple(expression_names)
        nothing = BoneRotations((), np.zeros((0, 4), np.float32), 0.0, "unity")
        t_pose = forward_kinematics(self._retargeter.to_pose(nothing).rotvec, rest_joints, np.zeros(3, np.float32))
        joints = t_pose[:, :3, 3]
        self._offsets = (joints - joints[PARENTS]) * _TO_UNITY
        self._heads = [
            encode_message("/VMC/Ext/Bone/Pos", name, *[0.0] * 7)[:-_OPEN_ENDED] for name in vrm_bones(vrm1=False)
        ]
        self._mixes = None if faces == "arkit" else _mixes(self._names)

    def write(self, pose: SmplxPose) -> list[bytes]:
        """The packets of one frame, each small enough to stay whole on a network.

        Raises:
            InvalidInputError: an expression of another length than the names given.
        """
        bones = self._retargeter.to_bones(pose, "unity")
        positions = self._offsets.copy()
        positions[0] = bones.root_transl
        transforms = np.concatenate([positions, bones.quat_wxyz[:, [1, 2, 3, 0]]], axis=1).astype(">f4")
        messages = [
            encode_message("/VMC/Ext/OK", 1),
            encode_message("/VMC/Ext/T", pose.timestamp_s),
            encode_message("/VMC/Ext/Root/Pos", "root", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        ]
        messages += [head + transform.tobytes() for head, transform in zip(self._heads, transforms, strict=True)]
        messages += [encode_message("/VMC/Ext/Blend/Val", name, value) for name, value in self._face(bones).items()]
        messages.append(encode_message("/VMC/Ext/Blend/Apply"))
        return encode_bundles(messages)

    def _face(self, bones: BoneRotations) -> dict[str, float]:
        values = np.zeros(0) if bones.blendshape_values is None else bones.blendshape_values
        if self._mixes is None:
            return dict(zip(self._names, values.tolist(), strict=True))
        weights, _ = nnls(self._mixes, values.astype(np.float64))
        return dict(zip(VRM_FACES, np.minimum(weights, 1).tolist(), strict=True))


class VmcOutput:
    """Sends poses to an address; for one thread, which never waits for the network. Whether anybody listens is unknown.

    Use it in ``with``; everything is made with the first pose.
    """

    def __init__(
        self,
        host: str,
        port: int,
        rest_joints: Float[np.ndarray, "55 3"],
        expression_names: Sequence[str],
        faces: Faces = "arkit",
    ) -> None:
        """Prepare to send poses of a body with these joints and expressions (VmcWriter)."""
        self._host, self._port = host, port
        self._make_writer = partial(VmcWriter, rest_joints, expression_names, faces)
        self._writer: VmcWriter | None = None
        self._socket: socket.socket | None = None
        self._address: Any = None

    def __enter__(self) -> "VmcOutput":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def send(self, pose: SmplxPose) -> None:
        """Send one frame; what the system has no room for, or no way to, is left out.

        Raises:
            BackendError: no such host.
        """
        if self._socket is None or self._writer is None:
            self._socket, self._address = _open_socket(self._host, self._port)
            self._writer = self._make_writer()
        try:
            for packet in self._writer.write(pose):
                self._socket.sendto(packet, self._address)
        except OSError:
            metrics.FRAMES_DROPPED.labels("vmc_unsent").inc()


def _open_socket(host: str, port: int) -> tuple[socket.socket, Any]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BackendError(
            f"cannot send VMC to {host}:{port}: {error.strerror or error}; is the address right (of a session: "
            "vmc.send_host in the settings)?"
        ) from error
    opened.setblocking(False)
    return opened, address


def _mixes(expression_names: Sequence[str]) -> Float[np.ndarray, "e f"]:
    """Column f: how much of each expression VRM's face f is."""
    columns = np.zeros((len(expression_names), len(VRM_FACES)))
    for column, face in enumerate(VRM_FACES):
        mix = vrm_face_mix(face) or {}
        columns[:, column] = [mix.get(name, 0.0) for name in expression_names]
    return columns
