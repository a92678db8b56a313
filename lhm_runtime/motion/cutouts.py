"""Square cutouts of a picture around a person's head and hands: what the face and hand models look at."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from lhm_runtime.motion.landmark_points import EARS, EYES, INDICES, NOSE, PINKIES, WRISTS
from lhm_runtime.motion.person_choice import Body

HEAD_PX = 256
HAND_PX = 192
"""Sides of the cutouts: what MediaPipe's detectors and landmark models are made for."""

_HEAD_M = 0.5
_HAND_M = 0.45
_LEAST_PX = 8.0
_HEAD = [NOSE, *EYES, *EARS]
_HANDS = [list(points) for points in zip(WRISTS, PINKIES, INDICES, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """A square of a picture, upright; it may reach beyond the picture, which is black there."""

    left: float
    top: float
    side: float
    """Pixels of the picture."""

    def cut(self, picture: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
        """The square, resized to ``size`` pixels."""
        box = (self.left, self.top, self.left + self.side, self.top + self.side)
        image = Image.fromarray(picture)
        return np.asarray(image.transform((size, size), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR))

    def place(self, points: Float[np.ndarray, "n c"], size: int = 1) -> Float32[np.ndarray, "n c"]:
        """Points of the cutout, ``size`` wide, as points of the picture; a depth is scaled alike."""
        placed = points * (self.side / size)
        placed[:, :2] += [self.left, self.top]
        return placed.astype(np.float32)

    def find(self, points: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """Points of the picture as points of the cutout, 1 wide: the inverse of ``place``."""
        found = points.astype(np.float64)
        found[:, :2] -= [self.left, self.top]
        return found / self.side


def cutouts_of(body: Body) -> tuple[Cutout, Cutout, Cutout]:
    """Where the face (wide enough for a head that turns), the left and the right hand of ``body`` are, if they are."""
    scale = body.pixels_per_metre
    head = _around(body.image[_HEAD], _HEAD_M * scale)
    left, right = (_around(body.image[points], _HAND_M * scale) for points in _HANDS)
    return head, left, right


def _around(points: Float[np.ndarray, "n 2"], side: float) -> Cutout:
    side = max(side, _LEAST_PX)
    left, top = (points.astype(np.float64).sum(0) / len(points) - side / 2).tolist()
    return Cutout(left, top, side)


def join_cutouts(
    picture: UInt8[np.ndarray, "h w 3"], left: Cutout | None, right: Cutout | None
) -> UInt8[np.ndarray, "HAND_PX 2*HAND_PX 3"]:
    """Both hands in one picture, so that one look is enough: the left one's half first; grey where there is none."""
    joined = np.full((HAND_PX, 2 * HAND_PX, 3), 127, np.uint8)
    for half, cutout in enumerate((left, right)):
        if cutout is not None:
            joined[:, half * HAND_PX : (half + 1) * HAND_PX] = cutout.cut(picture, HAND_PX)
    return joined
