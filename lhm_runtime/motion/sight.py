"""What of one frame's landmarks can be used, and which directions they show."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lhm_runtime.motion.directions import cross, smoothstep
from lhm_runtime.motion.landmark_points import (
    ANKLES,
    EARS,
    FINGER_STARTS,
    HEELS,
    HIPS,
    INDICES,
    NOSE,
    PINKIES,
    SHOULDERS,
    TOES,
    WRISTS,
)
from lhm_runtime.motion.placement import Placement
from lhm_runtime.types import Landmarks

PALM_POINTS = np.array([WRISTS, INDICES, PINKIES])
"""[3, 2] body points of the palms: wrists, index and pinky knuckles, left and right."""

_APPEARS, _STAYS = (0.35, 0.65), (0.12, 0.25)
"""Visibility from where a point begins to be in sight to where it wholly is, and where it ceases to be: two ranges,
lest it flickers between them."""
_MARGIN = 0.15
"""How far outside the picture, in its size, nothing is in sight."""
_TRUNK_M, _PALM_M = (0.15, 1.5), (0.02, 0.3)
"""Hips to shoulders, and wrist to middle knuckle: what is smaller or larger is no person."""
_FINGER_POINTS = np.array(FINGER_STARTS)[:, None] + np.arange(4)


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What is usable of one frame; where nothing is, the points are those of the body at rest."""

    points: Float64[np.ndarray, "33 3"]
    seen: Float64[np.ndarray, " 33"]
    """How far each body point is in sight."""
    palms: Float64[np.ndarray, "3 2 3"]
    """Wrist, index and pinky knuckle of both hands."""
    fingers: Float64[np.ndarray, "10 3 3"]
    """Bones."""
    hands: Float64[np.ndarray, " 2"]
    """1 where the hand's own points are usable."""
    face: Float64[np.ndarray, "3 3"] | None
    """Rows: to the left of the face, up, to its front; None if it was not seen."""


def look(
    landmarks: Landmarks,
    rest_points: Float64[np.ndarray, "33 3"],
    placement: Placement,
    seen_before: Float64[np.ndarray, " 33"],
) -> Sight:
    """Sort out of ``landmarks`` what is there, finite and of a person's size; see ``Placement.lift``.

    What was in sight in the frame before stays so a little longer.
    """
    points, seen = _usable_body(landmarks, rest_points, seen_before)
    if landmarks.body_image is not None:
        points = placement.lift(points, landmarks.body_image, seen, landmarks.image_size)
    palms = palms_of(points)
    fingers = np.zeros((2, 5, 3, 3))
    hands = np.zeros(2)
    for side, hand in enumerate((landmarks.left_hand_world, landmarks.right_hand_world)):
        if hand is not None and np.isfinite(hand).all() and _has_length(hand[9] - hand[0], _PALM_M):
            hands[side] = 1.0
            palms[:, side] = hand[[0, 5, 17]]
            fingers[side] = np.diff(hand[_FINGER_POINTS].astype(np.float64), axis=1)
    return Sight(points, seen, palms, fingers.reshape(10, 3, 3), hands, _axes_of(landmarks.T_camera_face))


def _usable_body(
    landmarks: Landmarks, rest_points: np.ndarray, seen_before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """World points [33, 3] and [33] how far each one is in sight."""
    if landmarks.body_world is None:
        return rest_points, np.zeros(33)
    points = landmarks.body_world.astype(np.float64)
    seen: np.ndarray = np.ones(33)
    finite = np.isfinite(points)
    if not finite.all():
        seen = np.asarray(finite.all(1), np.float64)
        points = np.where(seen[:, None] > 0, points, rest_points)
    trunk = points[11] + points[12] - points[23] - points[24]
    if not seen[SHOULDERS].all() or not _has_length(0.5 * trunk, _TRUNK_M):
        return rest_points, np.zeros(33)
    visibility = np.ones(33)
    if landmarks.body_visibility is not None:
        visibility = np.fmax(landmarks.body_visibility.astype(np.float64), 0.0)  # takes what is no number for 0
    if landmarks.body_image is not None:
        share = landmarks.body_image / landmarks.image_size
        outside = np.maximum(np.abs(share - 0.5).max(1) - 0.5, 0)
        visibility = np.fmax(visibility * (1 - outside / _MARGIN), 0.0)
    (low, high), (lost, kept) = _APPEARS, _STAYS
    appears = smoothstep((visibility - low) / (high - low))
    stays = smoothstep((visibility - lost) / (kept - lost))
    return points, seen * np.minimum(np.maximum(seen_before, appears), stays)


def _axes_of(T_camera_face: np.ndarray | None) -> np.ndarray | None:
    """[3, 3] axes of a face, None unless it can be turned there."""
    if T_camera_face is None or not np.isfinite(T_camera_face).all():
        return None
    axes: np.ndarray = T_camera_face[:3, :3].T.astype(np.float64)
    if cross(axes[0], axes[1]) @ axes[2] < 1e-6:
        return None
    return axes


def palms_of(points: Float64[np.ndarray, "33 3"]) -> Float64[np.ndarray, "3 2 3"]:
    """Wrists and knuckles of both hands among the body points."""
    palms: np.ndarray = points[PALM_POINTS]
    return palms


def frame_vectors(
    points: Float64[np.ndarray, "33 3"], palms: Float64[np.ndarray, "3 2 3"]
) -> tuple[Float64[np.ndarray, "7 3"], Float64[np.ndarray, "7 3"]]:
    """The two directions that fix each of pelvis, chest, head, feet and palms (``directions.frame``)."""
    directions = _DIRECTIONS @ np.concatenate([points, palms.reshape(6, 3)])
    return directions[:7], directions[7:]


def _directions() -> Float64[np.ndarray, "14 39"]:
    """Leading, then second directions of the seven frames as sums of body points and, from 33 on, palms."""
    leading, second = np.zeros((7, 39)), np.zeros((7, 39))
    leading[0, HIPS] = leading[1, SHOULDERS] = leading[2, EARS] = 1, -1
    second[0, SHOULDERS], second[0, HIPS] = 1, -1
    second[1] = second[0]
    second[2, NOSE], second[2, EARS] = 2, -1
    for side in range(2):
        leading[3 + side, [TOES[side], HEELS[side]]] = 1, -1  # a sole lies level with the ankle above it
        second[3 + side, [ANKLES[side], HEELS[side]]] = 1, -1
        wrist, index, pinky = 33 + side, 35 + side, 37 + side
        leading[5 + side, [index, pinky, wrist]] = 1, 1, -2
        second[5 + side, [index, pinky]] = 1, -1
    return np.concatenate([leading, second])


_DIRECTIONS = _directions()


def _has_length(v: np.ndarray, between: tuple[float, float]) -> bool:
    return bool(between[0] < np.sqrt(v @ v) < between[1])
