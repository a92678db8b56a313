"""The 55 joints of SMPL-X (Pavlakos et al. 2019): names, parents, and which belong to what."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")

_HEAD_AND_BODY = {
    "pelvis": None,
    "left_hip": "pelvis",
    "right_hip": "pelvis",
    "spine1": "pelvis",
    "left_knee": "left_hip",
    "right_knee": "right_hip",
    "spine2": "spine1",
    "left_ankle": "left_knee",
    "right_ankle": "right_knee",
    "spine3": "spine2",
    "left_foot": "left_ankle",
    "right_foot": "right_ankle",
    "neck": "spine3",
    "left_collar": "spine3",
    "right_collar": "spine3",
    "head": "neck",
    "left_shoulder": "left_collar",
    "right_shoulder": "right_collar",
    "left_elbow": "left_shoulder",
    "right_elbow": "right_shoulder",
    "left_wrist": "left_elbow",
    "right_wrist": "right_elbow",
    "jaw": "head",
    "left_eye_smplhf": "head",
    "right_eye_smplhf": "head",
}


def _hand(side: str) -> dict[str, str]:
    """Three joints a finger, the first on the wrist."""
    return {
        f"{side}_{finger}{k}": f"{side}_wrist" if k == 1 else f"{side}_{finger}{k - 1}"
        for finger in _FINGERS
        for k in (1, 2, 3)
    }


_PARENT_NAMES: dict[str, str | None] = {**_HEAD_AND_BODY, **_hand("left"), **_hand("right")}

JOINT_NAMES: Final[tuple[str, ...]] = tuple(_PARENT_NAMES)
"""Names in the order of every [55, ...] array, as SMPL-X publishes them."""

NUM_JOINTS: Final = len(JOINT_NAMES)
"""55."""

JOINT_INDEX: Final[Mapping[str, int]] = MappingProxyType({name: i for i, name in enumerate(JOINT_NAMES)})
"""Name to index."""

PARENTS: Final[np.ndarray] = np.array(
    [-1 if parent is None else JOINT_INDEX[parent] for parent in _PARENT_NAMES.values()]
)
"""[55] index of each joint's parent, always smaller than its own; -1 for the root."""
PARENTS.setflags(write=False)

ROOT: Final = 0
"""The pelvis: its rotation is the body's global orientation."""
BODY: Final = slice(1, 22)
"""The 21 body joints."""
JAW: Final = slice(22, 23)
"""The jaw."""
LEFT_EYE: Final = slice(23, 24)
"""The left eyeball."""
RIGHT_EYE: Final = slice(24, 25)
"""The right eyeball."""
LEFT_HAND: Final = slice(25, 40)
"""15 joints: index, middle, pinky, ring, thumb, from palm to tip."""
RIGHT_HAND: Final = slice(40, 55)
"""As ``LEFT_HAND``."""
