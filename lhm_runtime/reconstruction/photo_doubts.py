"""What a photo shows of a person, and what about it makes the avatar unsure: said before, not discovered after."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, UInt8

from lhm_runtime.avatar import Shown
from lhm_runtime.motion.landmark_points import ANKLES, ELBOWS, HIPS, KNEES, NOSE, SHOULDERS, WRISTS
from lhm_runtime.types import Landmarks

_VISIBLE = 0.5
_SMALL_PERSON = 256
_SMALL_FACE = 40
_COLOURLESS = 6.0  # largest difference from the tint that old photos have, of 255
_SAMPLED = 20_000  # pixels looked at
_DARK = 24  # of 255
_PROFILE_DEG, _BEHIND_DEG = 50.0, 110.0
_LYING_DEG = 50.0


def shot_of(landmarks: Landmarks) -> Shown:
    """How much of the person is seen."""
    if landmarks.body_visibility is None:
        return "head"
    seen = landmarks.body_visibility > _VISIBLE
    if seen[ANKLES].any() or seen[KNEES].all():
        return "full"
    return "half" if seen[HIPS].any() or seen[ELBOWS].all() else "head"


def turn_of(body_world: Float[np.ndarray, "33 3"]) -> float:
    """Degrees from the camera to where the shoulders face: 0 seen from the front, -90 and 90 in profile, 180 behind."""
    across = (body_world[SHOULDERS[0]] - body_world[SHOULDERS[1]]).astype(np.float64)
    return float(np.degrees(np.arctan2(across[2], across[0])))


def list_doubts(
    rgb: UInt8[np.ndarray, "h w 3"],
    alpha: Float32[np.ndarray, "h w"],
    landmarks: Landmarks,
    *,
    people: int,
    scale: float,
) -> tuple[str, ...]:
    """One sentence for each thing that makes the avatar unsure.

    Args:
        rgb: the person's picture.
        alpha: their matte.
        landmarks: in pixels of the picture.
        people: how many were in the photo.
        scale: pixels of the picture along a pixel of the photo it was made of: more than 1 adds no detail.
    """
    doubts = [*_doubts_about_picture(rgb, alpha, people, scale)]
    world, image, visibility = landmarks.body_world, landmarks.body_image, landmarks.body_visibility
    if world is not None and image is not None and visibility is not None:
        seen, turn = visibility > _VISIBLE, abs(turn_of(world))
        doubts += _doubts_about_head(landmarks, bool(seen[NOSE]), turn, scale)
        doubts += _doubts_about_trunk(world, image, seen, turn)
        doubts += _doubts_about_limbs(seen)
    return tuple(doubts)


def _doubts_about_picture(rgb: np.ndarray, alpha: np.ndarray, people: int, scale: float) -> Iterator[str]:
    if people > 1:
        yield f"{people} people are in the photo: what another one hides or touches may be wrong"
    rows = np.flatnonzero((alpha > 0.5).any(axis=1))
    height = round((int(np.ptp(rows)) + 1) / max(scale, 1.0)) if len(rows) else 0
    if height < _SMALL_PERSON:
        yield f"the person is only {height} pixels high: the avatar will be blurred"
    pixels = rgb[alpha > 0.9]
    pixels = pixels[:: len(pixels) // _SAMPLED + 1].astype(np.float64)
    if len(pixels) == 0:
        return
    if _is_colourless(pixels):
        yield "the photo is black and white: so will the avatar be"
    if np.percentile(pixels.max(axis=1), 90) < _DARK:
        yield "the person is a dark silhouette: face and clothes cannot be told"


def _doubts_about_head(landmarks: Landmarks, nose_seen: bool, turn: float, scale: float) -> Iterator[str]:
    face = landmarks.face_image
    if turn > _BEHIND_DEG:
        yield "the person is seen from behind: the face and the whole front are made up"
    elif turn > _PROFILE_DEG:
        yield "the person is seen from the side: the other side is guessed, and a front view would be far better"
    elif not nose_seen and face is None:
        yield "the head is not in view: it is made up"
    elif face is None:
        yield "no face was found: eyes, brows and lips may not move where they should"
    width = 0.0 if face is None else float(np.ptp(face[:, 0])) / max(scale, 1.0)
    if 0 < width < _SMALL_FACE:
        yield f"the face is only {width:.0f} pixels wide: it will be blurred"
    if face is not None and _hand_before_face(landmarks, face):
        yield "a hand is before the face: what it hides is made up"


def _doubts_about_trunk(world: np.ndarray, image: np.ndarray, seen: np.ndarray, turn: float) -> Iterator[str]:
    trunk_seen = seen[[*SHOULDERS, *HIPS]].all()
    spine = world[SHOULDERS].mean(0) - world[HIPS].mean(0)
    lean = np.degrees(np.arccos(spine[1] / max(float(np.linalg.norm(spine)), 1e-6)))
    if trunk_seen and lean > _LYING_DEG:
        yield "the person is lying or bent over: the body's depth is unsure"
    elif seen[[*HIPS, *KNEES]].all() and _is_sitting(world):
        yield "the person is sitting: hips and thighs are seen foreshortened and may be wrong"
    if turn < _PROFILE_DEG and seen[WRISTS].all() and image[WRISTS[0], 0] < image[WRISTS[1], 0]:
        yield "the arms are crossed: the clothes behind them are made up"
    elif turn < _PROFILE_DEG and trunk_seen and _arm_before_trunk(image, seen):
        yield "an arm is before the body: the clothes behind it are made up"


def _doubts_about_limbs(seen: np.ndarray) -> Iterator[str]:
    if not seen[WRISTS].all():
        yield "not all of both arms is in view: the rest of them is made up"
    if not seen[KNEES].any():
        yield "the legs are not in view: they are made up"
    elif not seen[ANKLES].any():
        yield "the feet are not in view: they are made up"


def _is_colourless(pixels: np.ndarray) -> bool:
    """Whether colour depends on brightness alone, as in a grey or a sepia picture."""
    brightness = pixels.mean(axis=1)
    tint = pixels[:, [0, 2]] - brightness[:, None]
    step = (brightness // 16).astype(np.int64)
    for level in np.unique(step):
        tint[step == level] -= np.median(tint[step == level], axis=0)
    return bool(np.percentile(np.abs(tint).max(axis=1), 98) < _COLOURLESS)


def _is_sitting(world: np.ndarray) -> bool:
    thighs = world[KNEES] - world[HIPS]
    steep = -thighs[:, 1] / np.maximum(np.linalg.norm(thighs, axis=1), 1e-6)
    return bool((steep < 0.6).all())


def _arm_before_trunk(image: np.ndarray, seen: np.ndarray) -> bool:
    """Whether a wrist is well inside the trunk's outline (whether before or behind it cannot be told)."""
    left, right = image[[SHOULDERS[0], HIPS[0]]], image[[SHOULDERS[1], HIPS[1]]]
    for wrist in WRISTS:
        if not seen[wrist]:
            continue
        along = (image[wrist, 1] - image[SHOULDERS, 1].mean()) / max(np.ptp(image[[SHOULDERS[0], HIPS[0]], 1]), 1.0)
        if not 0 < along < 0.9:
            continue
        edges = [side[0, 0] + along * (side[1, 0] - side[0, 0]) for side in (left, right)]
        if min(edges) < image[wrist, 0] < max(edges):
            return True
    return False


def _hand_before_face(landmarks: Landmarks, face: np.ndarray) -> bool:
    low, high = face.min(0), face.max(0)
    hands = (landmarks.left_hand_image, landmarks.right_hand_image)
    return any(hand is not None and ((hand > low) & (hand < high)).all(axis=1).sum() >= 3 for hand in hands)
