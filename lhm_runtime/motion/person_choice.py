"""Which of the people in a picture is meant, how much of them is seen, and which hand is whose."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from lhm_runtime.motion.landmark_points import ANKLES, KNEES, NOSE, WRISTS

View = Literal["body", "webcam"]
"""From afar, head to toe or nearly so; or a head and shoulders close to the camera."""

WEBCAM_ABOVE = 0.65
BODY_BELOW = 0.55
"""Closeness where the view changes. MediaPipe's face detector, which looks at a whole picture, finds every face from
0.65 on, fails at times below 0.5 and always below 0.37 (measured: one face, nine sizes, both orientations)."""

_UPPER = slice(0, 13)  # head and shoulders: what every view has
_VISIBLE = 0.5
_FACE_REACH_M = 0.2
_HAND_REACH_M = 0.3
_BOX_MARGIN = 0.2
_GREY = 127
_HIP_CENTRE_REACH = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """One person as MediaPipe's pose model sees them, in the picture that was looked at."""

    world: Float32[np.ndarray, "33 3"]
    """As ``Landmarks.body_world``."""
    image: Float32[np.ndarray, "33 2"]
    """Pixels."""
    visibility: Float32[np.ndarray, " 33"]
    """As ``Landmarks.body_visibility``."""

    @property
    def box(self) -> Float64[np.ndarray, " 4"]:
        """Left, top, right, bottom of the points in the picture, pixels; of all where none is."""
        seen = self.visibility > _VISIBLE
        points = self.image[seen if seen.any() else slice(None)].astype(np.float64)
        return np.concatenate([points.min(0), points.max(0)])

    @property
    def pixels_per_metre(self) -> float:
        """Size of the person in the picture; that of head and shoulders, so that it holds for every view."""
        world, image = self.world[_UPPER, :2].astype(np.float64), self.image[_UPPER].astype(np.float64)
        spread = float(np.linalg.norm(world - world.mean(0)))
        return float(np.linalg.norm(image - image.mean(0))) / max(spread, 1e-6)


def choose_person(people: Sequence[Body], last: Body | None) -> Body | None:
    """The one nearest to where ``last`` was, the largest without one; None of nobody."""
    if not people:
        return None
    if last is None:
        return max(people, key=lambda person: person.pixels_per_metre)
    return min(people, key=lambda person: _distance(person, last))


def is_same_person(person: Body, other: Body) -> bool:
    """Whether two bodies, of one moment or of two in succession, are near enough to be one person."""
    reach = _HIP_CENTRE_REACH * 0.5 * (person.pixels_per_metre + other.pixels_per_metre)
    return _distance(person, other) < reach


def view_of(body: Body, size: tuple[int, int], before: View | None) -> View:
    """How a picture of ``size`` (width, height) shows ``body``; between the two limits it stays as ``before``."""
    legs = body.visibility[[*KNEES, *ANKLES]]
    closeness = body.pixels_per_metre / max(size)  # pictures' long sides a metre
    if np.count_nonzero(legs > _VISIBLE) >= 2 or closeness < BODY_BELOW:
        return "body"
    if closeness > WEBCAM_ABOVE:
        return "webcam"
    return before or "webcam"


def owns_face(body: Body, face: Float[np.ndarray, "478 2"]) -> bool:
    """Whether a face (image points, pixels) is on this body's neck."""
    return bool(np.linalg.norm(face[1] - body.image[NOSE]) < _FACE_REACH_M * body.pixels_per_metre)


def sort_hands(body: Body, hands: Sequence[Float[np.ndarray, "21 2"]]) -> tuple[int | None, int | None]:
    """Which of ``hands`` (image points, pixels) is the left one of ``body``, and which the right one.

    By the wrists of the body, so that neither a mirrored picture nor the hands of others can mislead.
    """
    reach = _HAND_REACH_M * body.pixels_per_metre
    wrists = body.image[WRISTS].astype(np.float64)
    candidates: list[int | None] = [*range(len(hands)), None, None]

    def cost(left_right: tuple[int | None, ...]) -> float:
        distances = (
            reach if hand is None else float(np.linalg.norm(hands[hand][0] - wrist))
            for hand, wrist in zip(left_right, wrists, strict=True)
        )
        return sum(distances)

    left, right = min(permutations(candidates, 2), key=cost)
    return left, right


def shows_wrists(body: Body) -> bool:
    """Whether looking for hands is worth its time."""
    return bool(body.visibility[WRISTS].max() > 0.3)


def hide_others(picture: UInt8[np.ndarray, "h w 3"], person: Body) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with all but ``person`` painted grey."""
    height, width = picture.shape[:2]
    left, top, right, bottom = person.box
    margin = _BOX_MARGIN * max(right - left, bottom - top)
    top -= 0.15 * person.pixels_per_metre  # the body's points end at the eyes
    x = np.clip([left - margin, right + margin], 0, width).astype(int)
    y = np.clip([top - margin, bottom + margin], 0, height).astype(int)
    hidden = np.full_like(picture, _GREY)
    hidden[y[0] : y[1], x[0] : x[1]] = picture[y[0] : y[1], x[0] : x[1]]
    return hidden


def _distance(person: Body, other: Body) -> float:
    """Pixels between two people's heads and shoulders."""
    return float(np.linalg.norm(person.image[_UPPER].mean(0) - other.image[_UPPER].mean(0)))
