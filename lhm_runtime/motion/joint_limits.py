"""How far each joint turns, and a soft stop there.

Ranges are the means of healthy adults, in degrees, from Roaas and Andersson 1982 (hip, knee, ankle), Boone and Azen
1979 (shoulder, elbow, forearm, wrist), Norkin and White 2016 (spine, neck) and Hume et al. 1990 (fingers), written as
rotvec components in SMPL-X's axes at zero pose. For small ranges these are the anatomical angles; shoulders and hips
turn too far for that, so their boxes are wide and the solver bounds their twist itself. A trunk range is shared evenly
by the joints that make it up.
"""


import numpy as np
from jaxtyping import Float64

from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS

_SOFTNESS = np.radians(12.0)
"""People differ, and so do definitions of the axes: beyond its range a joint gives by up to this much more."""

# the left side's; x, y, z: to the person's left, up, to the front
_RANGES_DEG = {
    "spine1": ((-10, 28), (-16, 16), (-12, 12)),  # bends forward +x; 80 flexion, 25 extension, 35 aside, 45 rotation
    "spine2": ((-10, 28), (-16, 16), (-12, 12)),
    "spine3": ((-10, 28), (-16, 16), (-12, 12)),
    "neck": ((-30, 30), (-45, 45), (-25, 25)),  # with the head: 45 flexion, 45 extension, 80 rotation, 45 aside
    "head": ((-30, 30), (-45, 45), (-25, 25)),
    "collar": ((-15, 15), (-25, 25), (-10, 35)),  # elevation +z, protraction -y
    "shoulder": ((-120, 120), (-150, 90), (-110, 110)),
    "elbow": ((-95, 25), (-145, 5), (-30, 30)),  # flexion -y; half of the 76 pronation and 82 supination on x
    "wrist": ((-95, 25), (-22, 36), (-76, 75)),  # the other half on x; deviation on y; flexion -z
    "hip": ((-125, 30), (-60, 60), (-45, 60)),  # flexion -x
    "knee": ((-5, 145), (-25, 25), (-15, 15)),  # flexion +x
    "ankle": ((-20, 42), (-25, 25), (-28, 28)),  # plantarflexion +x
    "foot": ((-45, 30), (-5, 5), (-5, 5)),
    "jaw": ((-2, 35), (-12, 12), (-5, 5)),
    "eye_smplhf": ((-35, 35), (-45, 45), (-5, 5)),
    "finger1": ((-10, 10), (-25, 25), (-95, 30)),  # flexion -z, spreading y
    "finger2": ((-8, 8), (-8, 8), (-110, 8)),
    "finger3": ((-8, 8), (-8, 8), (-85, 8)),
    "thumb1": ((-45, 45), (-45, 45), (-45, 45)),
    "thumb2": ((-25, 25), (-60, 60), (-50, 50)),
    "thumb3": ((-20, 20), (-85, 85), (-60, 60)),
}


def _ranges() -> Float64[np.ndarray, "2 55 3"]:
    ranges = np.full((2, NUM_JOINTS, 3), np.inf) * np.array([-1.0, 1.0])[:, None, None]  # the root is free
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
    inside = np.clip(rotvec, LOWER_LIMITS, UPPER_LIMITS)
    beyond = rotvec - inside
    return inside + _SOFTNESS * np.tanh(beyond / _SOFTNESS)
