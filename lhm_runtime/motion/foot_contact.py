"""Keep the planted foot where it is by moving the whole body a little.

A camera sees depth badly, so the feet of a standing person skate. The lower foot bears the body; while its ball is
low and slow, the translation is corrected along the ground so that it stays put. The correction starts from what it
was and fades out when no foot bears, so it never jumps. Height is left as measured: cameras see it well.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics

_BALLS = [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]]
_GROUND = [0, 2]  # the axes that lie in it
_PLANT = (0.04, 0.2)  # metres above the ground and metres a second: a foot below both may begin to bear ...
_LIFT = (0.07, 1.0)  # ... and bears until above either
_LOWER_M = 0.01  # the other foot takes over when lower by this
_MAX_CORRECTION_M = 0.12  # more is the person shuffling, not noise
_FADE_S = 0.25
_GROUND_RISE_M_S = 0.03  # how fast a ground once taken too low is forgotten


@dataclass(slots=True, eq=False)
class _State:
    timestamp_s: float
    balls: Float64[np.ndarray, "2 3"]
    """Where the measured pose has the balls of the feet."""
    ground_m: float
    bearing: int | None
    """The foot that bears the body, 0 left, 1 right."""
    anchor: Float64[np.ndarray, " 2"]
    """Where on the ground it is kept."""
    correction: Float64[np.ndarray, " 2"]


class FootLock:
    """Foot contact of one stream of poses."""

    def __init__(self, rest_joints: Float[np.ndarray, "55 3"]) -> None:
        self._rest_joints = rest_joints
        self._state: _State | None = None

    def reset(self) -> None:
        """Forget the ground and what was planted."""
        self._state = None

    def steady(
        self, rotvec: Float32[np.ndarray, "55 3"], transl: Float32[np.ndarray, " 3"], timestamp_s: float
    ) -> Float32[np.ndarray, " 3"]:
        """The translation that keeps the planted foot still; ``timestamp_s`` must rise from call to call."""
        balls = forward_kinematics(rotvec, self._rest_joints, transl)[_BALLS, :3, 3]
        lowest_m = float(balls[:, 1].min())
        state = self._state
        if state is None:
            self._state = _State(timestamp_s, balls, lowest_m, None, np.zeros(2), np.zeros(2))
            return transl
        dt = timestamp_s - state.timestamp_s
        speed_m_s = np.linalg.norm(balls - state.balls, axis=1) / dt
        state.ground_m = min(state.ground_m + _GROUND_RISE_M_S * dt, lowest_m)
        state.balls, state.timestamp_s = balls, timestamp_s

        self._choose_bearing(state, speed_m_s)
        if state.bearing is None:
            state.correction = state.correction * np.exp(-dt / _FADE_S)
        else:
            state.correction = state.anchor - balls[state.bearing, _GROUND]
        steadied = transl.copy()
        steadied[_GROUND] += state.correction.astype(np.float32)
        return steadied

    @staticmethod
    def _choose_bearing(state: _State, speed_m_s: Float64[np.ndarray, " 2"]) -> None:
        height_m = state.balls[:, 1] - state.ground_m

        def may_bear(foot: int, limits: tuple[float, float]) -> bool:
            return bool(height_m[foot] < limits[0] and speed_m_s[foot] < limits[1])

        foot = state.bearing
        if foot is not None:
            reach_m = np.linalg.norm(state.anchor - state.balls[foot, _GROUND])
            relieved = height_m[foot] > height_m[1 - foot] + _LOWER_M and may_bear(1 - foot, _PLANT)
            if relieved or reach_m > _MAX_CORRECTION_M or not may_bear(foot, _LIFT):
                state.bearing = None
        # a new anchor carries the correction on: let most of it fade first
        if state.bearing is None and np.linalg.norm(state.correction) < _MAX_CORRECTION_M / 2:
            lower = int(height_m.argmin())
            if may_bear(lower, _PLANT):
                state.bearing = lower
                state.anchor = state.balls[lower, _GROUND] + state.correction
