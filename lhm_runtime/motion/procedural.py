"""Movement made from formulas: a natural stance, breathing, a friendly wave.

Angles are relative to a T-pose with palms down (SMPL-X and the free body), in degrees, and chosen by eye.
Everything repeats seamlessly: the frame after the last is the first.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float64

from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.sequences import MotionSequence
from lhm_runtime.types import SmplxPose

_LEG_M = 0.89  # hip to ankle of the free body: how far hips turn when the pelvis shifts over planted feet
_MIRROR = np.array([1.0, -1.0, -1.0])  # a rotvec seen in the mirror x -> -x
_BREATH_S = 3.6
_BLINK_EVERY_S = 3.0
_BLINK_WIDTH_S = 0.06
_WAVES_PER_S = 1.8
_SWAY_M = 0.004
_MINIMUM_JERK = np.polynomial.Polynomial([0, 0, 0, 10, -15, 6])

_Curve = Float64[np.ndarray, " t"]
_Degrees = Float64[np.ndarray, " t"] | float | int

# sideways turn when spread and when at rest, then the curl of the three joints at rest
_FINGERS_DEG = {
    "index": (-5, 3, 14, 20, 10),
    "middle": (-1, 0, 20, 24, 12),
    "ring": (3, -4, 24, 26, 14),
    "pinky": (7, -9, 26, 26, 14),
}
_THUMB_DEG = (18, 12, 12)


def relaxed_pose(expression_names: Sequence[str] = ()) -> SmplxPose:
    """Stand at ease: arms hanging slightly bent, fingers a little curled, feet turned out a little."""
    return _sequence(_at_ease(), np.zeros((1, 3)), {}, np.zeros(1), expression_names).pose(0)


def breathing(duration_s: float, fps: float, expression_names: Sequence[str] = ()) -> MotionSequence:
    """Stand at ease, breathe, sway and blink for ``duration_s``.

    Raises:
        InvalidInputError: a duration or rate that gives no frame.
    """
    times = _times(duration_s, fps)
    duration_s = len(times) / fps
    rotvec = _relaxed(times)
    transl = _breathe_and_sway(rotvec, times, duration_s, shift_m=np.zeros(len(times)))
    face = {**_both("eyeBlink", _blinks(times, duration_s)), **_both("mouthSmile", np.full(len(times), 0.2))}
    return _sequence(rotvec, transl, face, times, expression_names)


def wave(duration_s: float, fps: float, expression_names: Sequence[str] = ()) -> MotionSequence:
    """Raise the right hand, wave it with a smile, and return to ease within ``duration_s``.

    Raises:
        InvalidInputError: a duration or rate that gives no frame.
    """
    times = _times(duration_s, fps)
    duration_s = len(times) / fps
    phase = times / duration_s
    up = _rise_and_fall(phase, 0.06, 0.28, 0.74, 0.96)
    hand = _rise_and_fall(phase, 0.10, 0.30, 0.72, 0.90)  # fingers and wrist follow the arm
    gaze = _rise_and_fall(phase, 0.02, 0.20, 0.76, 0.98)  # the head leads it
    beats = max(1, round(_WAVES_PER_S * 0.46 * duration_s))
    swing = 2 * np.pi * beats * (phase - 0.28) / 0.46
    side_to_side = hand * np.sin(swing)
    trailing = hand * np.sin(swing - 0.9)

    rotvec = _relaxed(times, raised=up, opened=hand, swing=side_to_side, flick=trailing)
    transl = _breathe_and_sway(rotvec, times, duration_s, shift_m=0.022 * gaze)
    _add(rotvec, "neck", x=-1 * gaze, y=-5 * gaze, z=3 * gaze)
    _add(rotvec, "head", x=-2 * gaze, y=-6 * gaze, z=4 * gaze + 0.8 * trailing)
    for eye in ("left_eye_smplhf", "right_eye_smplhf"):
        _add(rotvec, eye, x=2 * gaze, y=9 * gaze)  # the eyes stay on the viewer
    _add(rotvec, "spine2", y=-2 * gaze, z=-1.5 * gaze + 0.4 * side_to_side)
    _add(rotvec, "spine3", y=-2 * gaze, z=-1 * gaze)

    smile = 0.2 + 0.55 * gaze
    face = {
        **_both("eyeBlink", _blinks(times, duration_s) * (1 - 0.2 * gaze)),
        **_both("mouthSmile", smile),
        **_both("cheekSquint", 0.35 * gaze),
        **_both("browOuterUp", 0.3 * gaze),
        "browInnerUp": 0.25 * gaze,
        "jawOpen": 0.06 * gaze,
    }
    return _sequence(rotvec, transl, face, times, expression_names)


@cache
def _at_ease() -> Float64[np.ndarray, "1 55 3"]:
    """Takes 10 ms, and every session asks for it."""
    rotvec = _relaxed(np.zeros(1))
    rotvec.setflags(write=False)
    return rotvec


def _relaxed(
    times: _Curve,
    *,
    raised: _Curve | float = 0.0,
    opened: _Curve | float = 0.0,
    swing: _Curve | float = 0.0,
    flick: _Curve | float = 0.0,
) -> Float64[np.ndarray, "t 55 3"]:
    """The stance at each time, the right arm ``raised`` and ``opened`` 0 to 1, with ``swing`` and ``flick`` -1 to 1."""
    rotvec = np.zeros((len(times), NUM_JOINTS, 3))
    _set_arm(rotvec, "left", 0.0, 0.0, 0.0)
    _set_arm(rotvec, "right", raised, swing, flick)
    _set_fingers(rotvec, "left", 0.0)
    _set_fingers(rotvec, "right", opened)
    for side, sign in (("left", 1), ("right", -1)):
        _add(rotvec, f"{side}_hip", y=sign * 6)
        _add(rotvec, f"{side}_knee", x=2)
    _add(rotvec, "spine1", x=1.5)
    _add(rotvec, "neck", x=2)
    _add(rotvec, "head", x=-2)
    return rotvec


def _set_arm(
    rotvec: Float64[np.ndarray, "t 55 3"],
    side: str,
    raised: _Curve | float,
    swing: _Curve | float,
    flick: _Curve | float,
) -> None:
    """Blend anatomical angles, not rotations, between hanging and raised: the arm then moves as arms do."""

    def between(hanging: int, lifted: int) -> _Curve | float:
        return hanging + (lifted - hanging) * raised

    mirror = np.ones(3) if side == "left" else _MIRROR
    elbow = between(12, 96) + 20 * swing
    chains = {
        "collar": [(2, -between(4, -4))],
        "shoulder": [(1, -between(14, 24)), (2, -between(69, 18)), (0, between(-6, -62))],
        "elbow": [(1, -elbow), (2, between(-4, 0)), (0, between(-14, -22))],
        "wrist": [(1, between(0, 4) + 9 * flick), (2, between(-3, 3)), (0, between(-6, -6))],
    }
    for joint, turns in chains.items():
        target = rotvec[:, JOINT_INDEX[f"{side}_{joint}"]]
        target[:] = _turn(turns, len(rotvec)) * mirror


def _set_fingers(rotvec: Float64[np.ndarray, "t 55 3"], side: str, opened: _Curve | float) -> None:
    mirror = np.ones(3) if side == "left" else _MIRROR
    curled = 1 - np.asarray(opened)
    for finger, (apart, together, *curls) in _FINGERS_DEG.items():
        for k, curl in enumerate(curls, start=1):
            turns = [(2, -curl * (0.2 + 0.8 * curled))]
            if k == 1:
                turns.insert(0, (1, apart * opened + together * curled))
            rotvec[:, JOINT_INDEX[f"{side}_{finger}{k}"]] = _turn(turns, len(rotvec)) * mirror
    for k, adduction in enumerate(_THUMB_DEG, start=1):
        rotvec[:, JOINT_INDEX[f"{side}_thumb{k}"]] = _turn([(1, adduction * curled)], len(rotvec)) * mirror


def _breathe_and_sway(
    rotvec: Float64[np.ndarray, "t 55 3"], times: _Curve, duration_s: float, shift_m: _Curve
) -> Float64[np.ndarray, "t 3"]:
    """Add breath and sway to ``rotvec`` and return the pelvis path; the feet stay where they are."""
    turn = 2 * np.pi * times / duration_s
    breath = np.sin(turn * max(1, round(duration_s / _BREATH_S)))
    side_m = shift_m + _SWAY_M * np.sin(turn)
    lean = np.degrees(np.arcsin(side_m / _LEG_M))
    for side, sign in (("left", 1), ("right", -1)):
        _add(rotvec, f"{side}_hip", z=-lean)
        _add(rotvec, f"{side}_ankle", z=lean)
        _add(rotvec, f"{side}_collar", z=sign * 0.8 * breath)
    _add(rotvec, "spine2", x=-0.5 * breath)
    _add(rotvec, "spine3", x=-0.7 * breath)
    _add(rotvec, "neck", x=0.9 * breath)
    _add(rotvec, "spine1", z=0.5 * lean)
    drop_m = _LEG_M * (1 - np.cos(np.radians(lean)))
    return np.stack([side_m, -drop_m, np.zeros(len(times))], axis=-1)


def _turn(turns: Sequence[tuple[int, _Degrees]], frames: int) -> Float64[np.ndarray, "t 3"]:
    """Rotvec of turns about x (0), y (1) or z (2) in degrees, the last one applied first."""
    matrix = np.broadcast_to(np.eye(3), (frames, 3, 3))
    for axis, degrees in turns:
        step = np.zeros((frames, 3))
        step[:, axis] = np.radians(degrees)
        matrix = matrix @ rotvec_to_matrix(step)
    return matrix_to_rotvec(matrix)


def _add(
    rotvec: Float64[np.ndarray, "t 55 3"],
    joint: str,
    x: _Degrees = 0,
    y: _Degrees = 0,
    z: _Degrees = 0,
) -> None:
    """Add small turns, in degrees, to one joint; the order does not matter at a few degrees."""
    for axis, degrees in enumerate((x, y, z)):
        rotvec[:, JOINT_INDEX[joint], axis] += np.radians(degrees)


def _rise_and_fall(phase: _Curve, rise: float, risen: float, fall: float, fallen: float) -> _Curve:
    """0 to 1 and back along minimum-jerk curves, which is how hands move (Flash and Hogan 1985)."""

    def step(start: float, end: float) -> _Curve:
        return _MINIMUM_JERK(np.clip((phase - start) / (end - start), 0, 1))

    up_minus_down: _Curve = step(rise, risen) - step(fall, fallen)
    return up_minus_down


def _blinks(times: _Curve, duration_s: float) -> _Curve:
    """Closing of the lids, 0 to 1, in evenly spread short blinks."""
    every = duration_s / max(1, round(duration_s / _BLINK_EVERY_S))
    away = np.abs((times - 0.16 * every + every / 2) % every - every / 2)
    return np.exp(-((away / _BLINK_WIDTH_S) ** 2))


def _both(name: str, values: _Curve) -> dict[str, _Curve]:
    return {f"{name}Left": values, f"{name}Right": values}


def _times(duration_s: float, fps: float) -> _Curve:
    if not (0 < duration_s < np.inf and 0 < fps < np.inf and round(duration_s * fps) >= 1):
        raise InvalidInputError(f"{duration_s} s at {fps} frames a second is no motion; both must be positive")
    return np.arange(round(duration_s * fps)) / fps


def _sequence(
    rotvec: Float64[np.ndarray, "t 55 3"],
    transl: Float64[np.ndarray, "t 3"],
    face: Mapping[str, _Curve],
    times: _Curve,
    expression_names: Sequence[str],
) -> MotionSequence:
    expression = np.zeros((len(times), len(expression_names)), np.float32)
    for column, name in enumerate(expression_names):
        if name in face:  # a face without this shape does without
            expression[:, column] = face[name]
    return MotionSequence(
        rotvec.astype(np.float32), transl.astype(np.float32), expression, times, tuple(expression_names)
    )
