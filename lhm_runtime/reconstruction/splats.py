"""Which Gaussians make up each pixel of a view, and the colours of theirs that answer the photo best."""

from collections.abc import Sequence

import cv2
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Float32, Int64
from scipy.spatial import cKDTree

from lhm_runtime.avatar import Avatar
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.rasterizer.cpu.colours import pull_colours
from lhm_runtime.rasterizer.cpu.scene import PixelWeights
from lhm_runtime.reconstruction.view import View
from lhm_runtime.types import Camera, Gaussians

_ROUNDS = 20
_RELAXATION = 1.2
_LEAST_WEIGHT = 1e-3
"""Smaller weights are half of all, and 0.3 % of the light."""
_ENOUGH_PIXELS = 1.5
"""Gaussians that show in fewer pixels follow them less: they would overshoot."""
_CERTAIN, _MIXED_PX = 0.9, 2.0
"""Matte that is the person's alone, and how far from its border pixels are still mixed."""
_AROUND, _OVERSHOOT = 12, 0.04
"""Neighbours that say which colours there are; how far beyond them a colour may go."""


def damp_ringing(
    solved: Float32[np.ndarray, "n 3"], before: Gaussians, groups: Sequence[Int64[np.ndarray, " _"]]
) -> Float32[np.ndarray, "n 3"]:
    """Solved colours, those of each group kept within what they and neighbours in it had before, and a bit beyond.

    Least squares sharpen edges by overshooting on both sides, which shows as beads along a hairline when seen closely.
    """
    damped = solved.copy()
    for chosen in groups:
        if len(chosen) == 0:
            continue
        means, rgb = before.means[chosen], before.rgb[chosen]
        around = rgb[cKDTree(means).query(means, k=range(1, min(_AROUND, len(means)) + 1))[1]]
        damped[chosen] = np.clip(solved[chosen], around.min(axis=1) - _OVERSHOOT, around.max(axis=1) + _OVERSHOOT)
    return damped


def unmixed(view: View) -> Bool[np.ndarray, " p"]:
    """Pixels of the person alone: at the outline lenses and matting mix them with what is behind.

    Gaussians that answer for such pixels carry that light as a line down every limb that turns.
    """
    certain = (view.alpha > _CERTAIN).astype(np.uint8)
    well_inside: np.ndarray = cv2.distanceTransform(certain, cv2.DIST_L2, 3).ravel() > _MIXED_PX
    return well_inside


def weigh(view: View, avatar: Avatar) -> sp.csr_array:
    """Share of each Gaussian in each pixel, [h * w, n], as the rasterizer draws the avatar in the view's pose.

    The faintest shares are left out.
    """
    (fx, fy), (cx, cy), (width, height) = view.focal.tolist(), view.centre.tolist(), view.size
    with Renderer(avatar) as renderer:
        found = renderer.weigh(
            view.zero_to_camera,
            view.pose.expression,
            Camera(np.eye(4), fx, fy, cx, cy, width, height),
            least=_LEAST_WEIGHT,
        )
    return sp.csr_array((found.weights, found.gaussians, found.begin), shape=(width * height, len(avatar.gaussians)))


def solve_colours(
    weights: sp.csr_array,
    wanted: Float32[np.ndarray, "p 3"],
    trusted: Float32[np.ndarray, " p"],
    rgb: Float[np.ndarray, "n 3"],
    freedom: Float[np.ndarray, " n"],
    limit: Float[np.ndarray, " n"],
) -> Float32[np.ndarray, "n 3"]:
    """Move colours so that the drawn pixels come nearer to those wanted; equal arguments give equal bits.

    Args:
        weights: of each Gaussian in each pixel; views may be stacked.
        wanted: premultiplied pixels over black.
        trusted: weight of each pixel.
        rgb: to start from.
        freedom: 0 to 1, how far each Gaussian follows.
        limit: furthest move of a channel of each.
    """
    total = weights.T @ trusted
    step = _RELAXATION * freedom * np.clip(total / _ENOUGH_PIXELS, 0, 1) / np.maximum(total, 0.05)
    return pull_colours(
        PixelWeights(weights.indptr.astype(np.int64), weights.indices.astype(np.int32, copy=False), weights.data),
        wanted,
        trusted,
        rgb.astype(np.float32),
        step.astype(np.float32),
        limit.astype(np.float32),
        rounds=_ROUNDS,
    )
