"""Where a picture surely shows a person's own body: around a pose's bones, no farther than anyone's flesh reaches."""

import cv2
import numpy as np
from jaxtyping import Bool

from lhm_runtime.motion.landmark_points import ANKLES, EARS, ELBOWS, EYES, HIPS, KNEES, SHOULDERS, WRISTS
from lhm_runtime.motion.person_choice import Body

_VISIBLE = 0.5
_MOUTH = [9, 10]
_SKULL_M, _SKULL_RISE_M = (0.085, 0.12), 0.02
"""Half its width and height; how far its middle is above the ears."""
_LIMBS_M = ((SHOULDERS, ELBOWS, 0.035), (ELBOWS, WRISTS, 0.025), (HIPS, KNEES, 0.05), (KNEES, ANKLES, 0.035))
"""Radii, those of slim people: points are some centimetres off, and in profile trunks are narrow."""
_KNUCKLES, _HAND, _HAND_M = [19, 20], 1.6, 0.025
"""Of the index fingers; hands reach so many times as far from the wrist, in a stripe of this radius."""


def draw_flesh(body: Body, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Skull, trunk and limbs as far as they are seen, in a picture of ``shape`` (height, width)."""
    drawn = np.zeros(shape, np.uint8)
    scale = body.pixels_per_metre
    seen, points = body.visibility > _VISIBLE, np.rint(body.image).astype(int)
    if seen[EARS].any():
        _draw_skull(drawn, body.image.astype(np.float64), scale)
    if seen[[*SHOULDERS, *HIPS]].all():
        cv2.fillConvexPoly(drawn, cv2.convexHull(points[[*SHOULDERS, *HIPS]].astype(np.int32)), (1,))
    for starts, ends, radius in _LIMBS_M:
        for start, end in zip(starts, ends, strict=True):
            if seen[start] and seen[end]:
                thickness = max(round(2 * radius * scale), 1)
                cv2.line(drawn, points[start].tolist(), points[end].tolist(), (1,), thickness)
    for wrist, knuckle in zip(WRISTS, _KNUCKLES, strict=True):
        if seen[wrist]:
            tips = points[wrist] + _HAND * (points[knuckle] - points[wrist])
            thickness = max(round(2 * _HAND_M * scale), 1)
            cv2.line(drawn, points[wrist].tolist(), np.rint(tips).astype(int).tolist(), (1,), thickness)
    return drawn > 0


def _draw_skull(drawn: np.ndarray, points: np.ndarray, scale: float) -> None:
    up = points[EYES].mean(0) - points[_MOUTH].mean(0)
    up /= max(float(np.linalg.norm(up)), 1e-6)
    middle = points[EARS].mean(0) + _SKULL_RISE_M * scale * up
    half_width, half_height = (max(round(half * scale), 1) for half in _SKULL_M)
    lean = float(np.degrees(np.arctan2(up[0], -up[1])))
    cv2.ellipse(drawn, np.rint(middle).astype(int).tolist(), (half_width, half_height), lean, 0, 360, (1,), -1)
