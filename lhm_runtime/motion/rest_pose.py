"""Where two skeletons' rest poses differ, and how to lay one parallel to the other."""

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.body.joints import JOINT_INDEX, LEFT_HAND, NUM_JOINTS, PARENTS, RIGHT_HAND
from lhm_runtime.motion.directions import arc

LIMBS = {
    f"{side}_{joint}": f"{side}_{end}"
    for side in ("left", "right")
    for joint, end in {
        "hip": "knee",
        "knee": "ankle",
        "shoulder": "elbow",
        "elbow": "wrist",
        "wrist": "middle1",
        **{
            f"{finger}{k}": f"{finger}{k + 1}"
            for finger in ("index", "middle", "ring", "pinky", "thumb")
            for k in (1, 2)
        },
    }.items()
}
"""Joint of arms, legs and fingers -> the joint its bone points to."""

_LIMB_JOINTS = np.array([JOINT_INDEX[joint] for joint in LIMBS])
_LIMB_ENDS = np.array([JOINT_INDEX[end] for end in LIMBS.values()])
_HANDS = range(LEFT_HAND.start, RIGHT_HAND.stop)


def rest_turns(
    rest_joints: Float[np.ndarray, "55 3"], directions: Float64[np.ndarray, "55 3"]
) -> Float64[np.ndarray, "55 3 3"]:
    """World turn of each joint that takes the body from its zero pose to the rest pose with these directions.

    Joints without a direction do not turn, but for those of the hand, which go with what they hang on.
    """
    own = np.full((NUM_JOINTS, 3), np.nan)
    own[_LIMB_JOINTS] = rest_joints[_LIMB_ENDS].astype(np.float64) - rest_joints[_LIMB_JOINTS]
    turns = np.broadcast_to(np.eye(3), (NUM_JOINTS, 3, 3)).copy()
    known = np.flatnonzero(np.isfinite(directions).all(1) & np.isfinite(own).all(1))
    if known.size:
        turns[known] = arc(own[known], directions[known])
    for joint in _HANDS:
        if joint not in known:
            turns[joint] = turns[PARENTS[joint]]
    return turns
