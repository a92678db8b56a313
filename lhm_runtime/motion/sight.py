"""What of one frame's landmarks can be used, and which directions they show."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lhm_runtime.motion.directions import frame
from lhm_runtime.motion.landmark_points import (
    ANKLES,
    EARS,
    FINGER_STARTS,
    HEELS,
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

_VISIBILITY = (0.35, 0.65)
"""Below the first a point counts as unseen, above the second as seen."""
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
    head: Float64[np.ndarray, "3 3"] | None
    """Rotation of the face, if it was seen."""


def look(landmarks: Landmarks, rest_points: Float64[np.ndarray, "33 3"], placement: Placement) -> Sight:
    """Sort out of ``landmarks`` what is there, finite and of a person's size; see ``Placement.lift``."""
    points, seen = _usable_body(landmarks, rest_points)
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
    return Sight(points, seen, palms, fingers.reshape(10, 3, 3), hands, _rotation_of(landmarks.T_camera_face))


def _usable_body(landmarks: Landmarks, rest_points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points [33, 3] and [33] how far each one is in sight."""
    if landmarks.body_world is None:
        return rest_points, np.zeros(33)
    points = landmarks.body_world.astype(np.float64)
    finite = np.asarray(np.isfinite(points).all(1))
    if not finite.all():
        points = np.where(finite[:, None], points, rest_points)
    trunk = points[11] + points[12] - points[23] - points[24]
    if not finite[SHOULDERS].all() or not _has_length(0.5 * trunk, _TRUNK_M):
        return rest_points, np.zeros(33)
    seen: np.ndarray = finite.astype(np.float64)
    if landmarks.body_visibility is not None:
        low, high = _VISIBILITY
        seen *= smoothstep((np.nan_to_num(landmarks.body_visibility).astype(np.float64) - low) / (high - low))
    if landmarks.body_image is not None:
        image = landmarks.body_image
        seen *= ((image >= 0) & (image <= landmarks.image_size)).all(1)
    return points, seen


def _rotation_of(T_camera_face: np.ndarray | None) -> np.ndarray | None:
    """[3, 3] rotation of a face, None unless it is one."""
    if T_camera_face is None or not np.isfinite(T_camera_face).all():
        return None
    columns = T_camera_face[:3, :3].astype(np.float64)
    if np.linalg.det(columns) < 1e-6:
        return None
    return frame(columns[:, 0], columns[:, 1])


def palms_of(points: Float64[np.ndarray, "33 3"]) -> Float64[np.ndarray, "3 2 3"]:
    """Wrists and knuckles of both hands among the body points."""
    palms: np.ndarray = points[PALM_POINTS]
    return palms


def frame_vectors(
    points: Float64[np.ndarray, "33 3"], palms: Float64[np.ndarray, "3 2 3"]
) -> tuple[Float64[np.ndarray, "7 3"], Float64[np.ndarray, "7 3"]]:
    """The two directions that fix each of pelvis, chest, head, feet and palms (``directions.frame``)."""
    leading, second = np.empty((7, 3)), np.empty((7, 3))
    leading[0] = points[23] - points[24]
    leading[1] = points[11] - points[12]
    second[:2] = points[11] + points[12] - points[23] - points[24]
    leading[2] = points[EARS[0]] - points[EARS[1]]
    second[2] = 2 * points[NOSE] - points[EARS[0]] - points[EARS[1]]
    leading[3:5] = points[TOES] - points[HEELS]  # a sole lies level with the ankle above it
    second[3:5] = points[ANKLES] - points[HEELS]
    wrist, index, pinky = palms
    leading[5:] = index + pinky - 2 * wrist
    second[5:] = index - pinky
    return leading, second


def smoothstep(x: Float64[np.ndarray, "*b"]) -> Float64[np.ndarray, "*b"]:
    """0 up to 0, 1 from 1 on, smooth in between."""
    t = np.minimum(np.maximum(x, 0.0), 1.0)
    smooth: np.ndarray = t * t * (3 - 2 * t)
    return smooth


def _has_length(v: np.ndarray, between: tuple[float, float]) -> bool:
    return bool(between[0] < np.sqrt(v @ v) < between[1])
