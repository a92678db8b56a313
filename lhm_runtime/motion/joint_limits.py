"""How far each joint turns, and a soft stop there.

Ranges are the means of healthy adults, in degrees, from Roaas and Andersson 1982 (hip, knee, ankle), Boone and Azen
1979 (shoulder, elbow, forearm, wrist), Norkin and White 2016 (spine, neck) and Hume et al. 1990 (fingers), written as
rotvec components in SMPL-X's axes at zero pose. For small ranges these are the anatomical angles; shoulders and hips
turn too far for that, so their boxes are wide and the solver bounds their twist itself. A trunk range is shared by the
joints that make it up. Each range holds about two standard deviations more than the mean, and where fitted motion
capture (AMASS) goes further it goes as far as that: the limits are there to stop noise, not people.
"""

import numpy as np
from jaxtyping import Float64

from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS

_SOFTNESS = np.radians(12.0)
"""People differ, and so do definitions of the axes: beyond its range a joint gives by up to this much more."""

# the left side's; x, y, z: to the person's left, up, to the front
_RANGES_DEG = {
    "spine1": ((-20, 40), (-20, 20), (-20, 20)),  # forward +x; in all 80 flexion, 25 extension, 35 aside, 45 rotation
    "spine2": ((-20, 40), (-20, 20), (-20, 20)),
    "spine3": ((-20, 40), (-20, 20), (-20, 20)),
    "neck": ((-45, 45), (-50, 50), (-35, 35)),  # with the head: 45 flexion, 45 extension, 80 rotation, 45 aside
    "head": ((-45, 45), (-50, 50), (-35, 35)),
    "collar": ((-20, 20), (-35, 35), (-40, 40)),  # elevation +z, protraction -y
    "shoulder": ((-120, 120), (-150, 90), (-125, 125)),
    "elbow": ((-100, 30), (-150, 15), (-85, 40)),  # 142 flexion -y; half of 76 pronation, 82 supination x; both: -z
    "wrist": ((-100, 30), (-36, 46), (-86, 85)),  # the other half on x; 21 and 36 deviation on y; 75 flexion -z
    "hip": ((-140, 40), (-70, 70), (-55, 70)),  # flexion -x
    "knee": ((-10, 152), (-35, 35), (-30, 30)),  # 141 flexion +x
    "ankle": ((-35, 55), (-35, 35), (-38, 38)),  # 40 plantarflexion +x
    "foot": ((-45, 30), (-5, 5), (-5, 5)),
    "jaw": ((-2, 35), (-12, 12), (-5, 5)),
    "eye_smplhf": ((-35, 35), (-45, 45), (-5, 5)),
    "finger1": ((-25, 25), (-30, 30), (-105, 50)),  # 100 flexion -z, spreading y
    "finger2": ((-15, 15), (-18, 18), (-115, 12)),  # 105
    "finger3": ((-15, 15), (-18, 18), (-95, 20)),  # 85
    "thumb1": ((-95, 95), (-55, 55), (-55, 55)),
    "thumb2": ((-50, 50), (-65, 65), (-55, 55)),
    "thumb3": ((-40, 40), (-95, 95), (-65, 65)),
}


def _ranges() -> Float64[np.ndarray, "2 55 3"]:
    ranges = np.full((2, NUM_JOINTS, 3), np.inf)  # the root is free
    ranges[0] = -np.inf
    for name, joint in JOINT_INDEX.items():
        side, _, rest = name.partition("_")
        part = rest if side in {"left", "right"} else name
        if part[:-1] in {"index", "middle", "ring", "pinky"}:
            part = f"finger{part[-1]}"
        if part == "pelvis":
            continue
        low, high = np.radians(np.array(_RANGES_DEG[part], np.float64).T)
        if side == "right":  # seen in the mirror, turns about y and z go the other way
            low, high = np.array([low[0], -high[1], -high[2]]), np.array([high[0], -low[1], -low[2]])
        ranges[:, joint] = low, high
    return ranges


LOWER_LIMITS, UPPER_LIMITS = _ranges()
LOWER_LIMITS.setflags(write=False)
UPPER_LIMITS.setflags(write=False)


def soften_limits(rotvec: Float64[np.ndarray, "55 3"]) -> Float64[np.ndarray, "55 3"]:
    """The same inside the ranges; beyond them ever slower, without a kink, towards 12 degrees more."""
    inside = np.minimum(np.maximum(rotvec, LOWER_LIMITS), UPPER_LIMITS)
    beyond = rotvec - inside
    softened: np.ndarray = inside + _SOFTNESS * np.tanh(beyond / _SOFTNESS)
    return softened
