"""How dressing changes a bare body: shoes instead of toes, a plain chest and back, trousers on unseen legs."""

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.spatial import ConvexHull

from lhm_runtime.reconstruction.anatomy import FEET, LEGS, Anatomy, Part, smooth_along
from lhm_runtime.reconstruction.builtin_person.figure import vertex_normals

_CHEST_M = (0.30, 0.02)
"""The chest ends so far below the top of the trunk, and begins so far below it."""
_CHEST_ROUNDS, _CHEST_SHARE = 60, 0.6
_SPANNED = 0.2
"""How far the back of the trunk grows towards the convex hull of its profile."""
_COLLAR_M, _BELOW_CROTCH_M = 0.03, 0.12
"""The profile ends so far below the top of the trunk, and so far below its lower end."""
_SLICE_M = 0.015
_FLAT = np.array([0, 2])
"""The horizontal axes."""
_HEM_RADIUS, _THIGH_RADIUS = 0.085, 0.10
"""Half the width of trousers at hem and thigh, in lengths of the leg from hip to ankle."""
_SLACK_M, _FADE = 0.006, 0.25
"""Cloth stands off the skin by so much at least, but for the uppermost quarter, where it fades in."""
_TROUSER_ROUNDS = 6
_SHOE, _MOST_SHOD_M = 0.95, 0.02
"""How far a foot grows towards its convex hull, as a share and at most."""
_HEEL_M, _BALL_M = 0.04, 0.075
"""The line that it grows away from ends so far before the back of the heel and the tip of the toes."""


def shoe_and_flatten(bare: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, "v 3"]:
    """The body at zero pose as shoes and a shirt show it: no toes, and a chest that is no one's in particular."""
    return _flatten_chest(shoe(bare.astype(np.float64), anatomy), anatomy)


def shoe(rest: Float64[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, "v 3"]:
    """Feet at zero pose grown towards their convex hull, away from a line through heel and ball: no toes are left."""
    shod = rest.copy()
    for part in FEET:
        foot = np.flatnonzero(anatomy.part == part)
        points = rest[foot]
        planes = ConvexHull(points).equations
        (_, sole, heel), (_, _, tip) = points.min(axis=0), points.max(axis=0)
        line = np.tile(points.mean(axis=0), (len(points), 1))
        line[:, 1] = 0.5 * (sole + line[:, 1])
        line[:, 2] = np.clip(points[:, 2], heel + _HEEL_M, max(tip - _BALL_M, heel + _HEEL_M))
        outward = points - line
        outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
        speed = outward @ planes[:, :3].T
        room = -(points @ planes[:, :3].T + planes[:, 3])
        reach = np.where(speed > 1e-6, room / np.maximum(speed, 1e-6), np.inf).min(axis=1)
        below_ankle = np.clip((points[:, 1].max() - points[:, 1]) / 0.03, 0, 1)
        shod[foot] += (_SHOE * below_ankle * np.clip(reach, 0, _MOST_SHOD_M))[:, None] * outward
    return shod


def widen_trousers(
    bare: Float[np.ndarray, "v 3"], unseen: Bool[np.ndarray, " v"], anatomy: Anatomy
) -> Float64[np.ndarray, "v 3"]:
    """Trousers on legs that no photo shows: from the thigh's width, straight down to the hem."""
    dressed = bare.astype(np.float64)
    if not unseen[np.isin(anatomy.part, LEGS)].any():
        return dressed
    normals = vertex_normals(dressed, anatomy.faces)
    share = smooth_along(anatomy.average, unseen.astype(np.float64), _TROUSER_ROUNDS)
    for part in LEGS:
        leg = np.flatnonzero(anatomy.part == part)
        points, flat = dressed[leg], normals[leg][:, _FLAT]
        heights = np.arange(points[:, 1].min(), points[:, 1].max(), _SLICE_M)
        near = np.abs(points[:, 1] - heights[:, None]) < 2 * _SLICE_M
        axis = (near @ points) / near.sum(axis=1, keepdims=True)
        aside, ahead = (points[:, c] - np.interp(points[:, 1], heights, axis[:, c]) for c in (0, 2))
        radius = np.hypot(aside, ahead)
        length = np.ptp(points[:, 1])
        up = (points[:, 1] - points[:, 1].min()) / length
        lacking = length * (_HEM_RADIUS + up * (_THIGH_RADIUS - _HEM_RADIUS)) - radius
        grown = np.maximum(lacking, _SLACK_M) * np.clip((1 - up) / _FADE, 0, 1)
        outward = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
        dressed[leg[:, None], _FLAT] += (share[leg] * grown)[:, None] * outward
    return dressed


def span_back(bare: Float64[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, "v 3"]:
    """Cloth hangs over the hollows of the back: its profile grows towards its convex hull."""
    trunk = anatomy.part == Part.TORSO
    top, crotch = bare[trunk, 1].max() - _COLLAR_M, bare[trunk, 1].min()
    over = np.flatnonzero(
        (trunk | np.isin(anatomy.part, LEGS)) & (bare[:, 1] < top) & (bare[:, 1] > crotch - _BELOW_CROTCH_M)
    )
    x, y, z = bare[over].T
    x = np.abs(x - 0.5 * (x.min() + x.max()))
    normals = vertex_normals(bare, anatomy.faces)[over]
    # the mesh is coarse here: a vertex counts for the slices around its own
    heights = np.arange(y.min(), y.max(), _SLICE_M)
    near = np.abs(y - heights[:, None]) < 2 * _SLICE_M
    wide, behind = (np.where(near, value, -np.inf).max(axis=1) for value in (x, -z))
    hollow = np.interp(heights, *_upper_hull(heights, behind)) - behind
    across = np.sqrt(np.clip(1 - (x / np.interp(y, heights, wide)) ** 2, 0, 1))
    spanned = bare.copy()
    spanned[over, 2] -= _SPANNED * np.interp(y, heights, hollow) * across * np.clip(-2 * normals[:, 2], 0, 1)
    return spanned


def _upper_hull(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Corners of the upper convex hull, by rising x (Andrew 1979)."""
    hull: list[int] = []
    for k in np.lexsort((y, x)):
        while len(hull) >= 2:
            a, b = hull[-2:]
            if (x[b] - x[a]) * (y[k] - y[a]) < (y[b] - y[a]) * (x[k] - x[a]):
                break
            hull.pop()
        hull.append(int(k))
    return x[hull], y[hull]


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
