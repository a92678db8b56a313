"""What a perfect tracker would see of a known pose, and the same with the errors of a real one."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.motion.landmark_points import (
    ANKLES,
    ELBOWS,
    FINGER_STARTS,
    HEELS,
    HIPS,
    KNEES,
    SHOULDERS,
    TOES,
    WRISTS,
    body_points_at_rest,
    finger_bones_at_rest,
)
from lhm_runtime.types import Camera, Landmarks, SmplxPose

_CAMERA_LANDMARKS = np.diag([1.0, -1.0, -1.0])  # y down and z forwards against y up and z towards the camera
_HAND = 1 / 8
"""Errors of a hand's points in those of the body's: each net sees its part in a crop of the same pixels."""
_ALONG_FINGER = np.array([0.25, 0.5, 0.75, 1.0])
"""Share of a fingertip's depth error in the points from its first joint on: neighbours err alike."""
_WAVES = 3
_WAVE_HZ = (0.05, 0.25)
"""So slow that someone who stands still moves no more from frame to frame than they do on real clips."""
_SIGMA = 0.443
"""Standard deviation of each coordinate of white noise whose mean frame-to-frame distance is 1."""


def _attached() -> np.ndarray:
    """[33] joint each body point moves with."""
    joints = np.full(33, JOINT_INDEX["head"])
    for points, name in (
        *((SHOULDERS, "shoulder"), (ELBOWS, "elbow"), ([15, 16], "wrist"), ([17, 18], "wrist"), ([19, 20], "wrist")),
        *(([21, 22], "thumb1"), (HIPS, "hip"), (KNEES, "knee"), (ANKLES, "ankle"), (HEELS, "ankle"), (TOES, "foot")),
    ):
        joints[points] = JOINT_INDEX[f"left_{name}"], JOINT_INDEX[f"right_{name}"]
    return joints


_ATTACHED = _attached()
_LAST_JOINTS = np.arange(27, 55, 3).reshape(2, 5)


@dataclass(frozen=True, slots=True)
class TrackerNoise:
    """Errors of MediaPipe's world points as measured on real clips; depth and lengths drift slowly, jitter does not."""

    jitter_m: float = 0.002
    """Mean distance a point moves from one frame to the next while the person stands still."""
    bone_length: float = 0.10
    """Standard deviation of each limb bone's length, as a share of it."""
    depth_m: float = 0.06
    """Standard deviation of each body point's depth, and of fingertips' in proportion to the size of a hand."""
    seed: int = 0

    def scaled(self, factor: float) -> "TrackerNoise":
        """The same kinds of error, larger or smaller."""
        return TrackerNoise(self.jitter_m * factor, self.bone_length * factor, self.depth_m * factor, self.seed)


@dataclass(slots=True)
class IdealTracker:
    """Sees poses of one body; with ``noise``, as a real tracker would. The noise is a function of seed and time."""

    rest_joints: Float[np.ndarray, "55 3"]
    camera: Camera | None = None
    """Where it looks from; without one, straight at the front of the world, and there are no image points."""
    noise: TrackerNoise | None = None
    _points_at_rest: Float64[np.ndarray, "33 3"] = field(init=False)
    _bones_at_rest: Float64[np.ndarray, "2 5 3 3"] = field(init=False)

    def __post_init__(self) -> None:
        self._points_at_rest = body_points_at_rest(self.rest_joints)
        self._bones_at_rest = finger_bones_at_rest(self.rest_joints)

    def see(self, pose: SmplxPose) -> Landmarks:
        """Body and hand points of ``pose``; every point is visible wherever it is."""
        T_world_joint = forward_kinematics(pose.rotvec, self.rest_joints, pose.transl)
        R, t = T_world_joint[:, :3, :3], T_world_joint[:, :3, 3]
        offsets = self._points_at_rest - self.rest_joints[_ATTACHED]
        body = t[_ATTACHED] + (R[_ATTACHED] @ offsets[:, :, None])[:, :, 0]
        hands = []
        for side in range(2):
            last = _LAST_JOINTS[side]
            tips = t[last] + (R[last] @ self._bones_at_rest[side, :, 2, :, None])[:, :, 0]
            points = np.empty((21, 3))
            points[0] = t[JOINT_INDEX["left_wrist"] + side]
            for finger, start in enumerate(FINGER_STARTS):
                points[start : start + 3] = t[last[finger] - 2 : last[finger] + 1]
                points[start + 3] = tips[finger]
            hands.append(points)
        return self._landmarks(body, hands, pose.timestamp_s)

    def _landmarks(self, body: np.ndarray, hands: list[np.ndarray], timestamp_s: float) -> Landmarks:
        image: list[np.ndarray | None] = [None, None, None]
        image_size = (1, 1)
        turn = np.eye(3)
        if self.camera is not None:
            turn = _CAMERA_LANDMARKS @ self.camera.T_camera_world[:3, :3]
            image_size = (self.camera.width, self.camera.height)
            image = [_project(points, self.camera) for points in (body, *hands)]
        seen = [points @ turn.T for points in (body, *hands)]
        if self.noise is not None:
            seen = _disturb(seen, self.noise, timestamp_s)
        body_world = seen[0] - seen[0][HIPS].mean(0)
        hand_worlds = [points - points.mean(0) for points in seen[1:]]
        return Landmarks(
            timestamp_s=timestamp_s,
            image_size=image_size,
            body_world=body_world.astype(np.float32),
            body_image=image[0],
            body_visibility=np.ones(33, np.float32),
            left_hand_world=hand_worlds[0].astype(np.float32),
            left_hand_image=image[1],
            right_hand_world=hand_worlds[1].astype(np.float32),
            right_hand_image=image[2],
        )


def _project(points: np.ndarray, camera: Camera) -> np.ndarray:
    x, y, z = (points @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]).T
    z = np.maximum(z, 1e-3)
    return np.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], axis=1).astype(np.float32)


def _disturb(seen: list[np.ndarray], noise: TrackerNoise, timestamp_s: float) -> list[np.ndarray]:
    """Body and hands with noise; a longer bone carries what hangs on it along."""
    drift = np.random.default_rng(noise.seed)
    body = seen[0].copy()
    for chain in ([SHOULDERS, ELBOWS, WRISTS], [HIPS, KNEES, ANKLES]):
        for side in range(2):
            joints = [pair[side] for pair in chain]
            moves = [noise.bone_length * _wave(drift, timestamp_s, 1)[0] for _ in range(2)]
            upper, lower = np.diff(seen[0][joints], axis=0)
            body[joints[1]] += moves[0] * upper
            ends = [joints[2], HEELS[side], TOES[side]] if chain[0] is HIPS else [joints[2], *range(17 + side, 23, 2)]
            body[ends] += moves[0] * upper + moves[1] * lower
    body[:, 2] += noise.depth_m * _wave(drift, timestamp_s, 33)
    hands = [points.copy() for points in seen[1:]]
    for points in hands:
        fingers = noise.depth_m * _HAND * _wave(drift, timestamp_s, 5)
        points[1:, 2] += np.outer(fingers, _ALONG_FINGER).ravel()
    jitter = np.random.default_rng([noise.seed, int(timestamp_s * 1e6) & 0xFFFFFFFF])
    size = _SIGMA * noise.jitter_m * np.array([1, _HAND, _HAND])
    return [points + s * jitter.normal(size=points.shape) for s, points in zip(size, (body, *hands), strict=True)]


def _wave(rng: np.random.Generator, timestamp_s: float, count: int) -> np.ndarray:
    """[count] smooth random functions of time of mean 0 and standard deviation 1."""
    hertz = rng.uniform(*_WAVE_HZ, (_WAVES, count))
    phase = rng.uniform(0, 2 * np.pi, (_WAVES, count))
    wave: np.ndarray = np.sqrt(2 / _WAVES) * np.sin(2 * np.pi * hertz * timestamp_s + phase).sum(0)
    return wave
