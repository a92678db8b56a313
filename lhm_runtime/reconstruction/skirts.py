"""Skirts and coats: cloth that hangs between the legs hangs on both of them."""

import numpy as np
from jaxtyping import Float, Float64, Int64

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.anatomy import LEGS, Anatomy, Part
from lhm_runtime.reconstruction.view import View

_LEG_JOINTS = tuple(
    np.array([JOINT_INDEX[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle", "foot")])
    for side in ("left", "right")
)
_SLICE_M, _STEPS = 0.01, 24
_LEAST_GAP_M, _LEAST_LENGTH_M = 0.03, 0.08
"""Legs nearer than this tell nothing; cloth that reaches less far below the crotch is a baggy seat."""
_BLUNT_M, _BLUNT_SHARE = 0.03, 0.5
"""Below a hem the legs come apart at once: so far below it, so much of the gap is open. A trousers' fork is pointed."""
_LONG_GAP_M = 0.06
_HEM_M = 0.04
_OWN, _ASIDE = 0.5, 0.4
"""Share of a leg in the cloth midway between both, and how much more it has on its own side."""


def hem_height(view: View, rest: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> float | None:
    """Height at zero pose, metres, of the hem of cloth that fills the gap between the legs; None where there is none.

    Args:
        rest: the bare body at zero pose.
    """
    legs = [np.flatnonzero(anatomy.part == part) for part in LEGS]
    image = view.project(view.posed(rest))
    top = rest[anatomy.part == Part.TORSO, 1].min()
    heights = np.arange(top - _SLICE_M, max(rest[leg, 1].min() for leg in legs), -_SLICE_M)
    if len(heights) == 0:
        return None
    metres = image[np.concatenate(legs), 2].mean() / view.focal[0]
    # the sides that the legs turn to each other, in the picture
    inner = [_inner_side(image[leg, :2], rest[leg], heights, sign) for leg, sign in zip(legs, (1, -1), strict=True)]
    gap = np.linalg.norm(inner[0] - inner[1], axis=1) * metres * np.sign(inner[0][:, 0] - inner[1][:, 0])
    share = (np.arange(_STEPS) + 0.5) / _STEPS
    across = inner[1][:, None] + share[:, None] * (inner[0] - inner[1])[:, None]
    width, height = view.size
    column, row = np.moveaxis(across, 2, 0).astype(int)
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    filled = view.alpha[row.clip(0, height - 1), column.clip(0, width - 1)] > 0.5
    known = within.all(axis=1) & (gap > _LEAST_GAP_M)
    open_ = 1 - filled.mean(axis=1)
    closed = known & (open_ < 0.1)
    parted = np.flatnonzero(known & ~closed)
    cloth = np.flatnonzero(closed[: parted[0]] if len(parted) else closed)
    if len(cloth) == 0 or (cloth[-1] + 1) * _SLICE_M < _LEAST_LENGTH_M:
        return None
    hem = int(cloth[-1])
    if len(parted):
        below = np.arange(parted[0], min(parted[0] + round(_BLUNT_M / _SLICE_M) + 1, len(heights)))
        blunt = bool((known[below] & (open_[below] > _BLUNT_SHARE)).any())
    else:
        blunt = gap[hem] > _LONG_GAP_M
    return float(heights[hem]) if blunt else None


def _inner_side(
    image: Float[np.ndarray, "k 2"], rest: Float[np.ndarray, "k 3"], heights: Float[np.ndarray, " h"], sign: int
) -> Float64[np.ndarray, "h 2"]:
    """Where a leg comes nearest to the other, in the picture, at each height."""
    near = np.abs(rest[:, 1] - heights[:, None]) < 2 * _SLICE_M
    nearest: Int64[np.ndarray, " h"] = np.where(near, sign * image[:, 0], np.inf).argmin(axis=1)
    side: np.ndarray = image[nearest]
    return side


def hang_skirt(
    weights: Float[np.ndarray, "v 55"], rest: Float[np.ndarray, "v 3"], hem: float, anatomy: Anatomy
) -> Float64[np.ndarray, "v 55"]:
    """Skin weights with which what is above the hem follows both legs, each more on its own side.

    Midway the two halves move as one: there is no split. Below the hem each leg is its own.
    """
    hung = weights.astype(np.float64)
    x, y = rest[:, 0], rest[:, 1]
    cloth = np.clip((y - hem) / _HEM_M + 1, 0, 1)
    leg = np.isin(anatomy.part, LEGS)
    slices = np.arange(y[leg].min(), y[leg].max(), _SLICE_M)
    wide = np.array([np.abs(x[leg & (np.abs(y - at) < 2 * _SLICE_M)]).max(initial=0.05) for at in slices])
    own = _OWN + _ASIDE * np.clip(np.abs(x) / np.interp(y, slices, wide), 0, 1)
    left, right = (weights[:, joints] for joints in _LEG_JOINTS)
    mostly_left = left.sum(axis=1) > right.sum(axis=1)
    to_left = np.where(mostly_left, own, 1 - own)[:, None]
    for joints, share in zip(_LEG_JOINTS, (to_left, 1 - to_left), strict=True):
        hung[:, joints] += cloth[:, None] * (share * (left + right) - weights[:, joints])
    return hung
