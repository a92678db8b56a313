"""Calm a live stream of poses without making it late.

The filter is One-Euro (Casiez, Roussel and Vogel, CHI 2012): a first-order low pass whose cutoff rises with motion.
Rotations are filtered where they live: the residual is the rotvec from the filtered to the measured rotation, and
the filter walks along that arc, so it cannot overshoot. As in the authors' later reference code, motion is judged
against the *filtered* value; here as the low-passed lag itself, in rad or metres instead of lag per second, which
does not depend on the frame rate. Lag that noise alone explains does not open the filter.

Everything goes by time stamps; a frame more or less changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.body.joints import JAW, LEFT_HAND, NUM_JOINTS, RIGHT_EYE, RIGHT_HAND, ROOT
from lhm_runtime.body.rotations import quat_multiply_wxyz
from lhm_runtime.errors import InvalidInputError, require_finite, require_shape
from lhm_runtime.motion.foot_contact import FootLock
from lhm_runtime.types import SmplxPose

_TRANSL = NUM_JOINTS  # its row among the signals: 55 joints, the translation, the expression
_SAME = 1e-9  # a residual below this is rounding
_NOTHING = 1e-150  # makes 0 / 0 the 1 it is the limit of
_MIN_TRUST = 0.1  # even a joint never seen follows at last: the solver eases it to rest
_GIVE_UP = 3  # times confirm_s: jumps that never agree are believed then
_NOISE_BAND = 2.0  # standard deviations
_PREDICTION_DECAY_S = 0.1  # how long a motion is expected to go on
_MAX_PREDICTION = 0.35  # rad or metres

_CONJUGATE = np.array([1.0, -1.0, -1.0, -1.0])
_PRODUCTS = quat_multiply_wxyz(np.repeat(np.eye(4), 4, axis=0), np.tile(np.eye(4), (4, 1)))  # of i, j, k and 1


@dataclass(frozen=True, slots=True)
class OneEuro:
    """Parameters of one group of signals, whose unit is rad, metres or 1."""

    min_cutoff_hz: float
    """Cutoff at rest: lower is calmer."""
    beta: float
    """Hz of cutoff gained per unit of lag beyond what noise explains: higher is quicker."""
    noise: float
    """Standard deviation of the measurement, as a length over the signal's axes."""
    lag_cutoff_hz: float
    """Cutoff of the low pass on the lag."""


@dataclass(frozen=True, slots=True)
class SmoothingConfig:
    """How to smooth; the defaults suit MediaPipe's noise (2 mm on landmarks, 1 to 2 degrees on joints)."""

    body: OneEuro = OneEuro(0.2, 250.0, 0.03, 1.5)
    hands: OneEuro = OneEuro(0.2, 200.0, 0.045, 1.5)
    face: OneEuro = OneEuro(0.5, 300.0, 0.015, 3.0)
    """Jaw and eyes."""
    root: OneEuro = OneEuro(0.2, 250.0, 0.03, 1.5)
    transl: OneEuro = OneEuro(0.2, 150.0, 0.01, 1.5)
    expression: OneEuro = OneEuro(1.0, 60.0, 0.02, 5.0)
    gap_s: float = 0.5
    """Silence, or a clock that went back, of more than this starts afresh from the next pose."""
    max_turn_rad_s: float = 20.0
    """Joints faster than this are outliers until confirmed; a thrown punch reaches about 15."""
    max_speed_m_s: float = 6.0
    """The same for the translation."""
    jump_slack: float = 0.2
    """Rad or metres that noise may add to one step."""
    confirm_s: float = 0.06
    """How long a jump must persist before it is believed."""
    predict_s: float = 0.0
    """How far ahead joints and translation are extrapolated, to hide tracking delay; the face is not."""
    lock_feet: bool = False
    """Hold planted feet still by moving the translation; needs ``rest_joints``."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            parts = [getattr(value, part.name) for part in fields(value)] if isinstance(value, OneEuro) else [value]
            if not all(0 <= part < np.inf for part in parts):
                raise InvalidInputError(f"{field.name} is {value}; every number must be finite and not negative")


@dataclass(slots=True, eq=False)
class _Signals:
    """All that is filtered: rotations, and rows of three plain numbers (translation; one coefficient each)."""

    quat_wxyz: Float64[np.ndarray, "55 4"]
    flat: Float64[np.ndarray, "n 3"]

    @staticmethod
    def of(pose: SmplxPose) -> "_Signals":
        flat = np.zeros((1 + len(pose.expression), 3))
        flat[0] = pose.transl
        flat[1:, 0] = pose.expression
        return _Signals(_quat_of(pose.rotvec), flat)

    def minus(self, *starts: "_Signals") -> list[Float64[np.ndarray, "m 3"]]:
        """The steps that lead here from each start, rotations as rotvecs in its frame."""
        # one batch for all of them: numpy's time goes by calls, not by rows
        inverse = np.array([start.quat_wxyz for start in starts]) * _CONJUGATE
        steps = np.empty((len(starts), NUM_JOINTS + len(self.flat), 3))
        steps[:, :NUM_JOINTS] = _rotvec_of(_multiply(inverse, self.quat_wxyz))
        for step, start in zip(steps, starts, strict=True):
            np.subtract(self.flat, start.flat, out=step[NUM_JOINTS:])
        return list(steps)

    def plus(self, step: Float64[np.ndarray, "m 3"]) -> "_Signals":
        """Where ``step`` leads from here."""
        turned = _multiply(self.quat_wxyz, _quat_of(step[:NUM_JOINTS]))
        return _Signals(turned, self.flat + step[NUM_JOINTS:])

    def where(self, chosen: np.ndarray, other: "_Signals") -> "_Signals":
        """Rows from here where ``chosen``, else from ``other``."""
        rows = chosen[:, None]
        return _Signals(
            np.where(rows[:NUM_JOINTS], self.quat_wxyz, other.quat_wxyz),
            np.where(rows[NUM_JOINTS:], self.flat, other.flat),
        )


@dataclass(slots=True, eq=False)
class _State:
    timestamp_s: float
    filtered: _Signals
    lag: Float64[np.ndarray, "m 3"]
    trusted: _Signals
    """The newest measurement that was no outlier."""
    velocity: Float64[np.ndarray, "m 3"]
    """Of the trusted measurement, per second."""
    suspect: _Signals
    """The newest measurement of all."""
    suspect_since_s: Float64[np.ndarray, " m"]
    """When each signal jumped away from ``trusted``; inf where it did not."""
    output: SmplxPose


class Smoother:
    """Filters one stream of poses; one instance a person, not shared between threads."""

    def __init__(
        self, config: SmoothingConfig = SmoothingConfig(), rest_joints: Float[np.ndarray, "55 3"] | None = None
    ) -> None:
        if config.lock_feet and rest_joints is None:
            raise InvalidInputError("lock_feet needs the body's rest_joints, got None")
        self._config = config
        self._feet = FootLock(rest_joints) if config.lock_feet and rest_joints is not None else None
        self._state: _State | None = None
        self._tuning = _Tuning.of(config, expressions=0)

    def reset(self) -> None:
        """Forget everything: the next pose passes as it is."""
        self._state = None
        if self._feet:
            self._feet.reset()

    def smooth(self, pose: SmplxPose, confidence: Float[np.ndarray, " 55"] | None = None) -> SmplxPose:
        """The calm version of ``pose``, which follows the poses given before.

        A pose that is not newer than the last one is dropped and the last answer given again.

        Args:
            pose: the newest measurement.
            confidence: how sure each joint is, 0 to 1; unsure joints follow more slowly.

        Raises:
            InvalidInputError: a NaN or Inf, with its index, or a confidence outside 0 to 1. The filter is unharmed.
        """
        _check(pose, confidence)
        state, config = self._state, self._config
        dt = np.inf if state is None else pose.timestamp_s - state.timestamp_s
        if state is None or abs(dt) > config.gap_s or pose.expression.shape != state.output.expression.shape:
            return self._start(pose)
        if dt <= 0:
            return state.output

        measured = _Signals.of(pose)
        step, residual = measured.minus(state.trusted, state.filtered)
        held = self._hold_outliers(state, measured, step, pose.timestamp_s, dt)
        state.suspect = measured
        if held.any():
            measured = state.trusted.where(held, measured)
            step[held] = 0
            (residual,) = measured.minus(state.filtered)

        move = self._tuning.gain(state.lag, residual, dt, confidence)[:, None] * residual
        same = np.vecdot(residual, residual) < _SAME**2
        filtered = state.filtered.plus(move)
        if same.any():
            filtered = measured.where(same, filtered)
        velocity = step / dt
        ahead = filtered
        if config.predict_s:
            further = _extrapolate(move / dt, velocity, state.velocity, config.predict_s)
            ahead = filtered.plus(further)
            same &= np.vecdot(further, further) < _SAME**2

        exact = same & ~held
        rotvec = _rotvec_of(ahead.quat_wxyz).astype(np.float32)
        np.copyto(rotvec, pose.rotvec, where=exact[:NUM_JOINTS, None])  # not even rounding moves what stands still
        transl = ahead.flat[0].astype(np.float32)
        if self._feet:
            transl = self._feet.steady(rotvec, transl, pose.timestamp_s)
        state.output = SmplxPose(rotvec, transl, ahead.flat[1:, 0].astype(np.float32), pose.timestamp_s)
        state.filtered, state.trusted, state.velocity = filtered, measured, velocity
        state.timestamp_s = pose.timestamp_s
        return state.output

    def _start(self, pose: SmplxPose) -> SmplxPose:
        self.reset()
        self._tuning = _Tuning.of(self._config, len(pose.expression))
        signals = _Signals.of(pose)
        still = np.zeros((NUM_JOINTS + len(signals.flat), 3))
        self._state = _State(
            timestamp_s=pose.timestamp_s,
            filtered=signals,
            lag=still.copy(),
            trusted=signals,
            velocity=still,
            suspect=signals,
            suspect_since_s=np.full(len(still), np.inf),
            output=pose,
        )
        return pose

    def _hold_outliers(
        self, state: _State, measured: _Signals, step: Float64[np.ndarray, "m 3"], now_s: float, dt: float
    ) -> np.ndarray:
        """[m] which signals jumped and have not been confirmed since."""
        limit = self._tuning.max_speed * dt + self._config.jump_slack
        jumped: np.ndarray = np.vecdot(step, step) > limit * limit
        if not jumped.any():
            state.suspect_since_s.fill(np.inf)
            return jumped
        since = np.where(jumped, np.minimum(state.suspect_since_s, now_s), np.inf)
        state.suspect_since_s = since
        (change,) = measured.minus(state.suspect)
        agrees = np.vecdot(change, change) <= limit * limit
        waited_s = now_s - np.where(jumped, since, now_s)
        confirm_s = self._config.confirm_s
        believed = jumped & ((agrees & (waited_s >= confirm_s)) | (waited_s >= _GIVE_UP * confirm_s))
        since[believed] = np.inf
        still_held: np.ndarray = jumped & ~believed
        return still_held


@dataclass(frozen=True, slots=True, eq=False)
class _Tuning:
    """The configuration spread over the m signals."""

    min_cutoff_hz: Float64[np.ndarray, " m"]
    beta: Float64[np.ndarray, " m"]
    noise: Float64[np.ndarray, " m"]
    lag_cutoff_hz: Float64[np.ndarray, " m"]
    max_speed: Float64[np.ndarray, " m"]

    @staticmethod
    def of(config: SmoothingConfig, expressions: int) -> "_Tuning":
        groups = [config.body] * NUM_JOINTS + [config.transl] + [config.expression] * expressions
        groups[ROOT] = config.root
        groups[JAW.start : RIGHT_EYE.stop] = [config.face] * 3
        groups[LEFT_HAND.start : RIGHT_HAND.stop] = [config.hands] * 30
        max_speed = np.full(len(groups), config.max_turn_rad_s)
        max_speed[_TRANSL] = config.max_speed_m_s
        max_speed[_TRANSL + 1 :] = np.inf  # a blink is a jump

        def spread(value: Callable[[OneEuro], float]) -> Float64[np.ndarray, " m"]:
            return np.array([value(group) for group in groups], np.float64)

        return _Tuning(
            spread(lambda group: group.min_cutoff_hz),
            spread(lambda group: group.beta),
            spread(lambda group: group.noise),
            spread(lambda group: group.lag_cutoff_hz),
            max_speed,
        )

    def gain(
        self,
        lag: Float64[np.ndarray, "m 3"],
        residual: Float64[np.ndarray, "m 3"],
        dt: float,
        confidence: Float[np.ndarray, " 55"] | None,
    ) -> Float64[np.ndarray, " m"]:
        """Update ``lag`` in place; the share of ``residual`` to make good now, 0 to 1."""
        share = _smoothing_factor(self.lag_cutoff_hz, dt)
        lag += share[:, None] * (residual - lag)
        by_noise = _NOISE_BAND * self.noise * np.sqrt(share / (2 - share))  # white noise through this low pass
        excess = np.maximum(np.sqrt(np.vecdot(lag, lag)) - by_noise, 0)
        cutoff_hz = self.min_cutoff_hz + self.beta * excess
        if confidence is not None:
            cutoff_hz[:NUM_JOINTS] *= _MIN_TRUST + (1 - _MIN_TRUST) * confidence
        return _smoothing_factor(cutoff_hz, dt)


def _multiply(a: Float64[np.ndarray, "*b n 4"], b: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "*b n 4"]:
    """``quat_multiply_wxyz`` as one matrix product, 4 times as fast for 55 joints."""
    product: np.ndarray = (a[..., None] * b[:, None]).reshape(*a.shape[:-1], 16) @ _PRODUCTS
    return product


def _quat_of(rotvec: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 4"]:
    """``rotvec_to_quat_wxyz`` with fewer calls."""
    r = 0.5 * rotvec.astype(np.float64)
    half = np.sqrt(np.vecdot(r, r)) + _NOTHING
    quat_wxyz = np.empty((len(r), 4))
    quat_wxyz[:, 0] = np.cos(half)
    quat_wxyz[:, 1:] = (np.sin(half) / half)[:, None] * r
    return quat_wxyz


def _rotvec_of(quat_wxyz: Float64[np.ndarray, "*b 4"]) -> Float64[np.ndarray, "*b 3"]:
    """``quat_wxyz_to_rotvec`` of unit quaternions with fewer calls."""
    w, xyz = quat_wxyz[..., 0], quat_wxyz[..., 1:]
    sine = np.sqrt(np.vecdot(xyz, xyz)) + _NOTHING
    half = np.arctan2(np.copysign(sine, w), np.abs(w))
    rotvec: np.ndarray = (2 * half / sine)[..., None] * xyz
    return rotvec


def _smoothing_factor(cutoff_hz: Float64[np.ndarray, " m"], dt: float) -> Float64[np.ndarray, " m"]:
    """Casiez et al. (2012), equation 4 solved for alpha."""
    turns = 2 * np.pi * dt * cutoff_hz
    alpha: np.ndarray = turns / (1 + turns)
    return alpha


def _extrapolate(
    velocity: Float64[np.ndarray, "m 3"],
    measured: Float64[np.ndarray, "m 3"],
    measured_before: Float64[np.ndarray, "m 3"],
    ahead_s: float,
) -> Float64[np.ndarray, "m 3"]:
    """How far the filtered motion will go on.

    Only as far as the last two measured steps both went its way: what has stopped, or has just jumped, is not
    carried on, so that constants and steps are never overshot.
    """
    square = np.vecdot(velocity, velocity)
    way = np.minimum(np.vecdot(velocity, measured), np.vecdot(velocity, measured_before))
    share = np.clip(np.divide(way, square, out=np.zeros_like(way), where=square > 0), 0, 1)
    share[_TRANSL + 1 :] = 0
    reach_s = _PREDICTION_DECAY_S * (1 - np.exp(-ahead_s / _PREDICTION_DECAY_S))
    step: np.ndarray = (share * reach_s)[:, None] * velocity
    length = np.sqrt(np.vecdot(step, step))
    step *= np.minimum(1, _MAX_PREDICTION / np.maximum(length, _MAX_PREDICTION))[:, None]
    return step


def _check(pose: SmplxPose, confidence: np.ndarray | None) -> None:
    for name in ("rotvec", "transl", "expression"):
        require_finite(name, getattr(pose, name))
    if not np.isfinite(pose.timestamp_s):
        raise InvalidInputError(f"timestamp_s is {pose.timestamp_s}, expected finite seconds")
    if confidence is not None:
        require_shape("confidence", confidence, (NUM_JOINTS,))
        outside = np.flatnonzero(~((confidence >= 0) & (confidence <= 1)))
        if outside.size:
            raise InvalidInputError(f"confidence[{outside[0]}] is {confidence[outside[0]]}, expected 0 to 1")
