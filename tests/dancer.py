"""Somebody whose arms hang or are raised to the sides, and how to tell from a picture of the avatar that follows."""

import struct
from dataclasses import replace

import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.motion.ideal_landmarks import IdealTracker
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import frame_person
from streaming.protocol import LandmarkSample, encode_landmarks

RAISED = 0.6
"""Arms that are raised reach further than this, hanging ones do not; see ``reach``."""


class Dancer:
    """Sends perfect landmarks, as a page would."""

    def __init__(self, avatar: Avatar) -> None:
        rest = relaxed_pose(avatar.expression_names)
        joints = forward_kinematics(rest.rotvec, avatar.rest_joints, rest.transl)[:, :3, 3]
        tracker = IdealTracker(avatar.rest_joints, frame_person(joints, "full", 640, 640))
        self._messages: dict[bool, bytes] = {}
        for raised in (False, True):
            rotvec = rest.rotvec.copy()
            for side, sign in (("left", 1), ("right", -1)):
                rotvec[JOINT_INDEX[f"{side}_shoulder"]] = [0, 0, sign * np.radians(10 if raised else -75)]
            seen = tracker.see(replace(rest, rotvec=rotvec))
            self._messages[raised] = encode_landmarks(LandmarkSample(0, replace(seen, timestamp_s=0.0)))

    def message(self, sequence: int, time_s: float, *, raised: bool) -> bytes:
        """Sequence number and time are from the sixth byte on; see protocol.py."""
        message = self._messages[raised]
        return message[:6] + struct.pack("<Id", sequence, time_s * 1e3) + message[18:]


def reach(picture: np.ndarray) -> float:
    """How far to the sides the person reaches, in halves of the width, on a plain ground."""
    columns = (np.abs(picture.astype(int) - picture[2, 2]) > 30).any(axis=0).nonzero()[0]
    return float(np.abs(columns - picture.shape[1] / 2).max() / (picture.shape[1] / 2)) if columns.size else 0.0
