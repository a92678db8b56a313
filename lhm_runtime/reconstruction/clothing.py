"""How a bare body is changed by being dressed: shoes instead of toes, and a plain chest."""

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial import ConvexHull

from lhm_runtime.reconstruction.anatomy import FEET, Anatomy, Part, smooth_along
from lhm_runtime.reconstruction.builtin_person.figure import vertex_normals

_CHEST_M = (0.30, 0.02)
"""The chest ends so far below the top of the trunk, and begins so far below it."""
_CHEST_ROUNDS, _CHEST_SHARE = 60, 0.6
_SHOE = 0.8
"""How far a foot grows towards its convex hull."""


def shoe_and_flatten(bare: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, "v 3"]:
    """The body at zero pose as shoes and a shirt show it: no toes, and a chest that is no one's in particular."""
    return _flatten_chest(_shoe(bare.astype(np.float64), anatomy), anatomy)


def _shoe(bare: Float64[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, "v 3"]:
    """Feet grown towards their convex hull, outwards from the line between heel and toes."""
    shod = bare.copy()
    for part in FEET:
        foot = np.flatnonzero(anatomy.part == part)
        points = bare[foot]
        planes = ConvexHull(points).equations
        axis = points.mean(axis=0)
        sole = points[:, 1].min()
        # every point looks away from the middle of the foot at its own length
        outward = points - [axis[0], 0.5 * (sole + axis[1]), 0]
        outward[:, 2] = 0.3 * (points[:, 2] - axis[2])
        outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
        speed = outward @ planes[:, :3].T
        room = -(points @ planes[:, :3].T + planes[:, 3])
        reach = np.where(speed > 1e-6, room / np.maximum(speed, 1e-6), np.inf).min(axis=1)
        below_ankle = np.clip((points[:, 1].max() - points[:, 1]) / 0.03, 0, 1)
        shod[foot] += (_SHOE * below_ankle * np.clip(reach, 0, 0.03))[:, None] * outward
    return shod


def _flatten_chest(bare: Float64[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, "v 3"]:
    trunk = anatomy.part == Part.TORSO
    top = bare[trunk, 1].max()
    forward = np.clip(2 * vertex_normals(bare, anatomy.faces)[:, 2], 0, 1)
    low, high = top - _CHEST_M[0], top - _CHEST_M[1]
    height = np.clip((bare[:, 1] - low) / 0.08, 0, 1) * np.clip((high - bare[:, 1]) / 0.08, 0, 1)
    inner = np.clip(2 * smooth_along(anatomy.average, trunk.astype(float), 6) - 1, 0, 1)  # away from the armpits
    share = _CHEST_SHARE * inner * smooth_along(anatomy.average, forward * height, 3)
    flat = bare.copy()
    near = np.flatnonzero(share > 1e-3)
    rows = anatomy.average[near]
    for _ in range(_CHEST_ROUNDS):
        flat[near] = rows @ flat
    # sideways and upwards the skin stays where it is, and with it the colours
    bare = bare.copy()
    bare[:, 2] += share * (flat - bare)[:, 2]
    return bare
