"""Keep planted feet where they are by moving the whole body a little.

A camera sees depth badly, so a standing person's feet skate. A foot that is low and slow is planted: from then on
the translation is corrected so that its ball stays put. The correction starts at what it was and fades out when no
foot is planted, so it never jumps.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics

_BALLS = [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]]
_PLANT = (0.04, 0.2)  # metres above the ground and metres a second: below both a foot is planted ...
_LIFT = (0.07, 0.5)  # ... and stays so until above either
_MAX_CORRECTION_M = 0.12  # more is the person shuffling, not noise
_FADE_S = 0.25
_GROUND_RISE_M_S = 0.03  # how fast a ground once taken too low is forgotten


@dataclass(slots=True, eq=False)
class _State:
    timestamp_s: float
    balls: Float64[np.ndarray, "2 3"]
    """Where the measured pose has the balls of the feet."""
    ground_m: float
    anchors: Float64[np.ndarray, "2 3"]
    """Where planted ones are kept, NaN for those that are not."""
    correction: Float64[np.ndarray, " 3"]


class FootLock:
    """Foot contact of one stream of poses, left foot first."""

    def __init__(self, rest_joints: Float[np.ndarray, "55 3"]) -> None:
        self._rest_joints = rest_joints
        self._state: _State | None = None

    def reset(self) -> None:
        """Forget the ground and what was planted."""
        self._state = None

    def steady(
        self, rotvec: Float32[np.ndarray, "55 3"], transl: Float32[np.ndarray, " 3"], timestamp_s: float
    ) -> Float32[np.ndarray, " 3"]:
        """The translation that keeps planted feet still; ``timestamp_s`` must rise from call to call."""
        balls = forward_kinematics(rotvec, self._rest_joints, transl)[_BALLS, :3, 3]
        lowest_m = float(balls[:, 1].min())
        state = self._state
        if state is None:
            nowhere = np.full((2, 3), np.nan)
            self._state = _State(timestamp_s, balls, lowest_m, nowhere, np.zeros(3))
            return transl
        dt = timestamp_s - state.timestamp_s
        state.ground_m = min(state.ground_m + _GROUND_RISE_M_S * dt, lowest_m)
        height_m = balls[:, 1] - state.ground_m
        speed_m_s = np.linalg.norm(balls - state.balls, axis=1) / dt
        state.balls, state.timestamp_s = balls, timestamp_s

        was_planted = ~np.isnan(state.anchors[:, 0])
        highest, fastest = (np.where(was_planted, lift, plant) for plant, lift in zip(_PLANT, _LIFT, strict=True))
        reach_m = np.linalg.norm(state.anchors - balls, axis=1)
        # a fresh anchor takes over the correction so far: let most of it fade first
        fits = np.where(was_planted, reach_m, 2 * np.linalg.norm(state.correction)) < _MAX_CORRECTION_M
        planted = (height_m < highest) & (speed_m_s < fastest) & fits
        if (planted != was_planted).any():  # both anchors anew, or the mean over planted feet would jump
            state.anchors = np.where(planted[:, None], balls + state.correction, np.nan)
        if planted.any():
            state.correction = (state.anchors - balls)[planted].mean(0)
        else:
            state.correction = state.correction * np.exp(-dt / _FADE_S)
        steadied: np.ndarray = transl + state.correction
        return steadied.astype(np.float32)
