"""What an avatar does when nothing drives it: stand at ease, breathe, sway and blink; and the way there and back."""

from collections.abc import Sequence

import numpy as np

from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.motion.procedural import breathing
from lhm_runtime.types import SmplxPose

_LOOP_S = 21.6  # six breaths, seven blinks
_LOOP_FPS = 60.0


class IdleMotion:
    """A seamless loop, made once for an avatar's expressions."""

    def __init__(self, expression_names: Sequence[str]) -> None:
        self._motion = breathing(_LOOP_S, _LOOP_FPS, expression_names)

    def pose(self, time_s: float) -> SmplxPose:
        """The pose at any time."""
        pose = self._motion.pose(int(time_s * _LOOP_FPS) % len(self._motion))
        return SmplxPose(pose.rotvec, pose.transl, pose.expression, time_s)


def ease(share: float) -> float:
    """Of a way of which ``share`` of the time has passed: slow at both ends."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def blend_poses(start: SmplxPose, end: SmplxPose, share: float) -> SmplxPose:
    """From ``start`` (share 0) to ``end`` (1), each joint along its shortest arc; expressions are of equal length."""
    if share <= 0:
        return start
    if share >= 1:
        return end
    R_start = rotvec_to_matrix(start.rotvec.astype(np.float64))
    arc = matrix_to_rotvec(R_start.swapaxes(1, 2) @ rotvec_to_matrix(end.rotvec.astype(np.float64)))
    rotvec = matrix_to_rotvec(R_start @ rotvec_to_matrix(share * arc))
    return SmplxPose(
        rotvec.astype(np.float32),
        ((1 - share) * start.transl + share * end.transl).astype(np.float32),
        ((1 - share) * start.expression + share * end.expression).astype(np.float32),
        end.timestamp_s,
    )
