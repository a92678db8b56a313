"""Palms that keep calm: a tracker's own hand points are believed, what the body's points say of a palm is eased in.

Three points of the body show each palm: wrist, index and pinky knuckle, a few centimetres apart and no surer than any
other. They flip where the palm is seen edge on or moves fast. So between two looks at a hand the palm stays with its
forearm and only drifts towards what they say, the slower the less they can be believed.
"""

import math

import numpy as np
from jaxtyping import Float64

from lhm_runtime.motion.directions import axis_and_angle, clamp, cross, ease, turn

_HAND_S = 0.2
"""How long a hand must be followed until it is believed at once: detections that flash up are often wrong."""
_BODY_S = 0.2
"""Time constant of the way towards a palm that the body's points show as well as they can."""
_FORGOTTEN_S = 0.4
"""A palm out of sight for longer than this is taken as it is when it comes back."""
_NEVER_S = 1e9
_DOUBTFUL = np.radians(45.0)
"""Turns this far off are followed at half the speed, larger ones ever slower."""
_FLAT, _FULL = 0.25, 0.75
"""Shape of the triangle of a palm, in that at rest: below the first it shows nothing, from the second on all it can."""


class Palms:
    """Both palms of one person, from frame to frame."""

    def __init__(self, rest_points: Float64[np.ndarray, "3 2 3"]) -> None:
        """Wrists, index and pinky knuckles at rest (``sight.palms_of``)."""
        self._shape_at_rest = _shape(rest_points)
        self.reset()

    def reset(self) -> None:
        """Forget both."""
        self._followed = [0.0, 0.0]
        self._unseen_s = [math.inf, math.inf]
        self._relative = np.tile(np.eye(3), (2, 1, 1))

    def follow(
        self,
        palms: Float64[np.ndarray, "2 3 3"],
        forearms: Float64[np.ndarray, "2 3 3"],
        points: Float64[np.ndarray, "3 2 3"],
        seen: Float64[np.ndarray, " 2"],
        hands: Float64[np.ndarray, " 2"],
        passed_s: float,
    ) -> Float64[np.ndarray, "2 3 3"]:
        """World rotations of the palms, given those of this frame and the points they come from.

        Args:
            palms: as this frame has them.
            forearms: world rotations; the palms keep still in these frames.
            points: wrists, index and pinky knuckles.
            seen: how far the body's points of each palm are in sight.
            hands: 1 where the hand's own points are known.
            passed_s: time since the frame before; inf if there was none.
        """
        measured = forearms.swapaxes(1, 2) @ palms
        axis, off = axis_and_angle(self._relative.swapaxes(1, 2) @ measured)
        shape = _shape(points) / self._shape_at_rest
        each = zip(off.tolist(), shape.tolist(), seen.tolist(), (hands > 0).tolist(), strict=True)
        tau_s = np.array([self._lag(i, *now, passed_s) for i, now in enumerate(each)])
        self._relative = self._relative @ turn(axis, ease(passed_s, tau_s) * off)
        self._relative[tau_s == 0] = measured[tau_s == 0]
        calm: np.ndarray = forearms @ self._relative
        return calm

    def _lag(self, side: int, off: float, shape: float, seen: float, hand: bool, passed_s: float) -> float:
        """Time constant with which a palm follows what is seen of it, ``off`` radians away."""
        step = passed_s / _HAND_S
        followed = self._followed[side] = clamp(self._followed[side] + (step if hand else -step), 0.0, 1.0)
        unseen_s = self._unseen_s[side]
        if not hand and seen <= 0:
            self._unseen_s[side] += passed_s
            return _NEVER_S
        self._unseen_s[side] = 0.0
        if unseen_s > _FORGOTTEN_S:
            return 0.0
        if hand:
            return _HAND_S * (1 - followed)
        clear = clamp((min(shape, 1 / (shape + 1e-9)) - _FLAT) / (_FULL - _FLAT), 0.0, 1.0)
        believed = seen * clear / (1 + (off / _DOUBTFUL) ** 2)
        return _BODY_S / believed if believed > 0 else _NEVER_S


def _shape(points: np.ndarray) -> np.ndarray:
    """Widths of palms in their lengths."""
    wrist, index, pinky = points
    along, across = index + pinky - 2 * wrist, index - pinky
    area = cross(along, across)
    shape: np.ndarray = np.sqrt(np.vecdot(area, area)) / (np.vecdot(along, along) + 1e-12)
    return shape
