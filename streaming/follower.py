"""From samples to calm poses of one avatar: solve, smooth, keep the person before the camera."""

import time
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.expression import Calibration, map_face
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.retargeting import BoneRotations, Convention, Retargeter
from lhm_runtime.motion.smoothing import OneEuro, Smoother, SmoothingConfig
from lhm_runtime.motion.solver import Solver
from lhm_runtime.types import Landmarks, SmplxPose
from streaming import metrics
from streaming.config import Motion
from streaming.sources import Sample

_RECENTRE_S = np.array([1.5, 4.0, 1.5])
"""Time in which a new place becomes the middle of the picture, along each axis: a step to the side or a jump is seen,
a chair moved away from the camera is not."""
_GAP_S = 1.0
_CALM = OneEuro(min_cutoff_hz=10.0, beta=1000.0, noise=0.002, lag_cutoff_hz=5.0)
"""For bones: rigs send calm rotations, so that only jumps are held back and nothing comes late."""
_UPPER_ARMS = {"leftupperarm", "rightupperarm", "left_shoulder", "right_shoulder"}
"""By the names of VRM and SMPL-X."""


Neutral = Float[np.ndarray, " 52"]
"""Face scores at rest, as Calibration finds them."""


class Follower:
    """One driver's motion on one avatar; for one thread."""

    def __init__(self, avatar: Avatar, motion: Motion, neutral: Neutral | None = None) -> None:
        """Follow whoever drives; ``neutral`` is their face as another follower learnt it."""
        self._motion, self._rest_joints = motion, avatar.rest_joints
        self._face = map_face(avatar.expression_names)
        self.neutral = neutral
        """The driver's calibrated face, if there is one."""
        self._solver = self._make_solver()
        self._smoother = Smoother(SmoothingConfig(lock_feet=motion.lock_feet), avatar.rest_joints)
        rig = SmoothingConfig(_CALM, _CALM, _CALM, _CALM, _CALM, _CALM, lock_feet=motion.lock_feet)
        self._rig_smoother = Smoother(rig, avatar.rest_joints)
        self._expression_names = avatar.expression_names
        self._at_ease = relaxed_pose(avatar.expression_names)
        self._convention: Convention = "smplx"
        self._retargeter = Retargeter(avatar.rest_joints, avatar.expression_names)
        self._calibration: Calibration | None = None
        self._middle: Float64[np.ndarray, " 3"] | None = None
        self._time_s = 0.0

    def calibrate(self) -> None:
        """Learn the driver's neutral face as soon as it holds still for a second."""
        self._calibration = Calibration()

    def follow(self, sample: Sample) -> SmplxPose | None:
        """The pose to show; None when nobody is in sight or the sample is unusable."""
        start = time.perf_counter()
        try:
            pose = self._pose(sample.motion)
        except InvalidInputError:
            metrics.FRAMES_DROPPED.labels("sample_unusable").inc()
            return None
        metrics.STAGE_SECONDS.labels("solve").observe(time.perf_counter() - start)
        return None if pose is None else self._centre(pose)

    def _pose(self, motion: Landmarks | BoneRotations | SmplxPose) -> SmplxPose | None:
        if isinstance(motion, SmplxPose):
            return motion
        if isinstance(motion, BoneRotations):
            return self._turn(motion)
        if motion.body_world is None and motion.face_blendshapes is None:
            return None
        if self._calibration is not None:
            self._calibrate(motion)
        solved = self._solver.solve(motion)
        return self._smoother.smooth(solved.pose, solved.confidence)

    def _turn(self, bones: BoneRotations) -> SmplxPose | None:
        """A rig's pose on the avatar; of one that has no arms, as a face or a head has none, the rest is at ease."""
        if not bones.names and bones.root_transl is None and bones.blendshape_values is None:
            return None
        if bones.convention != self._convention:  # another rig, of another size
            self._convention = bones.convention
            self._retargeter = Retargeter(self._rest_joints, self._expression_names)
        pose = self._retargeter.to_pose(bones)
        if not any(name.lower() in _UPPER_ARMS for name in bones.names):
            listed = self._retargeter.joints_of(bones)
            rotvec = self._at_ease.rotvec.copy()
            rotvec[listed] = pose.rotvec[listed]
            pose = replace(pose, rotvec=rotvec)
        return self._rig_smoother.smooth(pose)

    def _calibrate(self, landmarks: Landmarks) -> None:
        if self._calibration is None:
            return
        neutral = self._calibration.add(landmarks)
        if neutral is not None:
            self._calibration = None
            self.neutral = neutral
            self._solver = self._make_solver()

    def _make_solver(self) -> Solver:
        return Solver(
            self._rest_joints,
            fov_y_deg=self._motion.fov_y_deg,
            person_height_m=self._motion.person_height_m,
            face=self._face if self.neutral is None else self._face.with_neutral(self.neutral),
        )

    def _centre(self, pose: SmplxPose) -> SmplxPose:
        elapsed_s, self._time_s = pose.timestamp_s - self._time_s, pose.timestamp_s
        transl = pose.transl.astype(np.float64)
        if self._middle is None or not 0 <= elapsed_s < _GAP_S:
            self._middle = transl
        else:
            self._middle = self._middle + (transl - self._middle) * (1 - np.exp(-elapsed_s / _RECENTRE_S))
        centred = (transl - self._middle).astype(np.float32)
        return SmplxPose(pose.rotvec, centred, pose.expression, pose.timestamp_s)
