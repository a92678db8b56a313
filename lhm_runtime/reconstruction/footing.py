"""Where the feet of who stands are, by the matte: MediaPipe has long or foreshortened legs end too early.

A foot that is nearer to the camera stands lower in the picture. Its points are put down to where the matte ends below
them, less what shoes explain; the bones' lengths then tell how much nearer it is.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lhm_runtime.motion.landmark_points import ANKLES, HEELS, TOES
from lhm_runtime.reconstruction.pose_refinement import Evidence

_SOLE_M = 0.06
"""Shoes end so far below the points of heel and toes that are right: 0.014 to 0.055 on three photos and four drawn
people who stand with their feet side by side."""
_FURTHEST_M = 0.25
"""What ends further below is no foot."""
_HALF_WIDTH_M = 0.05
"""What is so far beside a foot's points and not nearer to the other foot is this one's."""
_LOWEST = 0.8
"""A foot ends where this share of its columns of the matte has ended: its outline is round."""
_INSIDE = 0.5


def stand_on_matte(
    evidence: Evidence, points: Float64[np.ndarray, "p 3"], alpha: Float32[np.ndarray, "h w"]
) -> Evidence:
    """The same evidence with the points of each foot where the matte says it stands; as it was for who does not stand.

    Args:
        evidence: of the picture that ``alpha`` is the matte of; body points have their own numbers.
        points: the anchors of the body fitted so far, in the camera's axes.
        alpha: matte of the person, 0 to 1.
    """
    if not len(evidence.plumb):
        return evidence
    height, width = alpha.shape
    count = evidence.body_count
    feet = [np.flatnonzero(np.isin(evidence.points[:count], of)) for of in zip(ANKLES, HEELS, TOES, strict=True)]
    if min(len(foot) for foot in feet) < 3:
        return evidence
    pixels = evidence.pixels.copy()
    in_matte = evidence.pixels * [1, -1] + [0.5 * width, 0.5 * height]
    middles = [in_matte[foot, 0].mean() for foot in feet]
    for side, (foot, ankle) in enumerate(zip(feet, ANKLES, strict=True)):
        px_per_m = evidence.focal_px / -points[ankle, 2]
        beside = _HALF_WIDTH_M * px_per_m
        low, high = in_matte[foot, 0].min() - beside, in_matte[foot, 0].max() + beside
        columns = np.arange(max(0, int(low)), min(width, int(high) + 1))
        columns = columns[np.abs(columns - middles[side]) <= np.abs(columns - middles[1 - side])]
        below = _room_below(in_matte[foot, 1].max(), columns, alpha, _FURTHEST_M * px_per_m)
        pixels[foot, 1] -= max(0.0, below - _SOLE_M * px_per_m)
    return replace(evidence, pixels=pixels)


def _room_below(
    start: float, columns: Int64[np.ndarray, " c"], alpha: Float32[np.ndarray, "h w"], furthest: float
) -> float:
    """Pixels from a row straight down to where the matte ends; 0 where that is nowhere near."""
    rows = np.arange(max(0, int(start)), min(len(alpha), int(start + furthest) + 1))
    if not len(columns) or not len(rows):
        return 0.0
    ends: Int64[np.ndarray, " c"] = (alpha[rows[:, None], columns] < _INSIDE).argmax(axis=0)
    return float(np.quantile(ends, _LOWEST))
