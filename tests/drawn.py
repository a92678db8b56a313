"""What browsers get to draw an avatar themselves, read by docs/client_rendering.md alone: a second opinion on it.

``python tests/drawn.py`` writes the golden files of it that the tests of the page read, too.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lhm_runtime.avatar import Avatar, AvatarMetadata
from lhm_runtime.body.joints import NUM_JOINTS
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.body.rotations import quat_wxyz_to_matrix
from lhm_runtime.types import Gaussians, SmplxPose
from streaming.browser_avatar import encode_avatar
from streaming.pose_packet import encode_pose

GOLDEN: Final = Path(__file__).parent / "streaming" / "golden"
CAST, SEQUENCE, TIME_MS = 3, 4_000_000_001, 1_234_567.25


@dataclass
class ReadPose:
    cast: int
    sequence: int
    time_ms: float
    transl: np.ndarray
    quat_wxyz: np.ndarray
    expression: np.ndarray

    @property
    def matrices(self) -> np.ndarray:
        return np.asarray(quat_wxyz_to_matrix(self.quat_wxyz))


@dataclass
class ReadAvatar:
    gaussians: Gaussians
    skin_joints: np.ndarray
    skin_weights: np.ndarray
    constrained: np.ndarray
    directions: np.ndarray
    """[e, 3, m], metres."""
    rest_joints: np.ndarray
    parents: np.ndarray


def read_pose(data: bytes) -> ReadPose:
    magic, version, cast, sequence, time_ms, x, y, z, count = struct.unpack_from("<2sBBId3fH", data)
    assert (magic, version) == (b"LS", 1)
    assert len(data) == 30 + 6 * 55 + 2 * count
    words = np.frombuffer(data, "<u2", 165, 30).reshape(55, 3)
    quaternions = np.array([_quaternion((a >> 15) | (b >> 15) << 1, a, b, c, 15) for a, b, c in words.tolist()])
    face = np.frombuffer(data, "<f2", count, 360).astype(np.float32)
    return ReadPose(cast, sequence, time_ms, np.array([x, y, z], np.float32), quaternions, face)


def read_avatar(data: bytes) -> ReadAvatar:
    magic, version, e, n, m, *numbers = struct.unpack_from("<4sHHII8f", data)
    assert (magic, version) == (b"LLBA", 1)
    low, step, (scale_low, scale_step) = np.array(numbers[:3]), np.array(numbers[3:6]), numbers[6:]
    at = 48

    def take(dtype: str, *shape: int) -> np.ndarray:
        nonlocal at
        found = np.frombuffer(data, dtype, int(np.prod(shape)), at).reshape(shape)
        at += found.nbytes
        return found

    rest = take("<f4", 55, 3)
    steps = take("<f4", e)
    quaternions = take("<u4", n)
    means = take("<u2", 3, n)
    scales = take("u1", 3, n)
    rgba = take("u1", 4, n).T.astype(np.float32) / 255
    joints, weights = take("u1", 8, n).T, take("u1", 8, n).T / 255
    constrained = take("u1", n) == 1
    directions = take("i1", e, 3, m) * steps[:, None, None]
    parents = take("u1", 55)
    assert at == len(data)
    quat = np.array([_quaternion(q >> 30, q >> 20, q >> 10, q, 10) for q in quaternions.tolist()])
    gaussians = Gaussians(
        (low + step * means.T).astype(np.float32),
        quat.astype(np.float32),
        np.exp(scale_low + scale_step * scales.T).astype(np.float32),
        rgba[:, 3],
        rgba[:, :3],
    )
    return ReadAvatar(gaussians, joints, weights, constrained, directions, rest, parents)


def _quaternion(left_out: int, a: int, b: int, c: int, bits: int) -> list[float]:
    most = 2**bits - 1
    others = [((value & most) / most * 2 - 1) / 2**0.5 for value in (a, b, c)]
    others.insert(left_out, max(0.0, 1 - sum(value**2 for value in others)) ** 0.5)
    return others


def golden_avatar() -> Avatar:
    """Six Gaussians with something of everything: faint, constrained, moved by a face, one to eight joints."""
    rng = np.random.default_rng(7)
    n, k, e = 6, 8, 3
    quat = rng.normal(size=(n, 4))
    weights = -np.sort(-rng.random((n, k)) * (np.arange(k) <= np.arange(n)[:, None] + 2), axis=1)
    gaussians = Gaussians(
        rng.uniform(-0.9, 0.9, (n, 3)).astype(np.float32),
        (quat / np.linalg.norm(quat, axis=1, keepdims=True)).astype(np.float32),
        np.exp(rng.uniform(-8, -4, (n, 3))).astype(np.float32),
        np.array([0.9, 0.5, 0.002, 1.0, 0.004, 0.75], np.float32),
        rng.random((n, 3)).astype(np.float32),
    )
    return Avatar(
        gaussians,
        rng.integers(0, NUM_JOINTS, (n, k)).astype(np.uint8),
        (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
        np.array([False, True, False, False, False, True]),
        np.array([0, 2, 3], np.int32),
        rng.uniform(-0.03, 0.03, (3, e, 3)).astype(np.float32),
        ("jawOpen", "mouthSmileLeft", "eyeBlinkLeft"),
        rng.uniform(-1, 1, (NUM_JOINTS, 3)).astype(np.float32),
        AvatarMetadata("test 1", "test", "", "CC0-1.0", "2026-01-31T12:00:00+00:00"),
    )


def golden_pose() -> SmplxPose:
    rng = np.random.default_rng(11)
    rotvec = rng.normal(size=(NUM_JOINTS, 3)).astype(np.float32)
    rotvec[3], rotvec[4] = 0, [np.pi, 0, 0]
    return SmplxPose(rotvec, np.array([0.25, -1.5, 3.0], np.float32), np.array([0.5, -0.125, 1.0], np.float32), 0.0)


def goldens() -> dict[str, bytes]:
    """File names and contents."""
    avatar, pose = golden_avatar(), golden_pose()
    file, packet = encode_avatar(avatar), encode_pose(pose, CAST, SEQUENCE, TIME_MS)
    read = read_avatar(file)
    told = {
        "matrices": np.round(joint_matrices(pose, avatar.rest_joints), 5).tolist(),
        "means": np.round(read.gaussians.means, 6).tolist(),
        "moved": np.round(np.einsum("ecm,e->mc", read.directions, read_pose(packet).expression), 6).tolist(),
    }
    return {
        "drawn_avatar.bin": file,
        "drawn_pose.bin": packet,
        "drawn.json": (json.dumps(told) + "\n").encode(),
    }


if __name__ == "__main__":
    for name, content in goldens().items():
        (GOLDEN / name).write_bytes(content)
