"""What is known about a pose before anything is seen: how far joints are likely to be from a relaxed stance."""

from typing import Final

import numpy as np

from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS
from lhm_runtime.motion.procedural import relaxed_pose

# standard deviations of the rotvec components, radians; x, y, z are the left side's as in motion.joint_limits
_DEVIATIONS: dict[str, tuple[float, float, float]] = {
    "spine1": (0.2, 0.15, 0.12),
    "spine2": (0.2, 0.15, 0.12),
    "spine3": (0.2, 0.15, 0.12),
    "neck": (0.25, 0.3, 0.2),
    "head": (0.25, 0.35, 0.2),
    "collar": (0.08, 0.12, 0.15),
    "shoulder": (0.5, 0.7, 0.9),
    "elbow": (0.25, 1.6, 0.15),
    "wrist": (0.5, 0.3, 0.4),
    "hip": (1.2, 0.4, 0.5),
    "knee": (1.2, 0.08, 0.08),
    "ankle": (0.35, 0.15, 0.15),
    "foot": (0.1, 0.05, 0.05),
    "jaw": (0.001, 0.001, 0.001),  # face scores decide, not points
    "eye_smplhf": (0.001, 0.001, 0.001),
    "finger1": (0.05, 0.12, 0.6),
    "finger2": (0.03, 0.03, 0.6),
    "finger3": (0.03, 0.03, 0.6),
    "thumb1": (0.3, 0.35, 0.35),
    "thumb2": (0.3, 0.35, 0.35),
    "thumb3": (0.3, 0.35, 0.35),
}


def _deviations() -> np.ndarray:
    deviations = np.full((NUM_JOINTS, 3), np.inf)  # the root may face anywhere
    for name, joint in JOINT_INDEX.items():
        if name == "pelvis":
            continue
        side, _, rest = name.partition("_")
        part = rest if side in {"left", "right"} else name
        if part[:-1] in {"index", "middle", "ring", "pinky"}:
            part = f"finger{part[-1]}"
        deviations[joint] = _DEVIATIONS[part]
    deviations.setflags(write=False)
    return deviations


MEAN: Final[np.ndarray] = relaxed_pose().rotvec.astype(np.float64)
"""[55, 3] the likeliest rotvecs: standing at ease, arms hanging."""
MEAN.setflags(write=False)
DEVIATION: Final[np.ndarray] = _deviations()
"""[55, 3] standard deviations from it, radians; infinite for the root."""
