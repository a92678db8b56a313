"""The free body's head from the front, upright in the middle of a square picture."""

import numpy as np

from lhm_runtime.reconstruction.view import View
from lhm_runtime.types import Landmarks, SmplxPose


def look_at_head(
    rest: np.ndarray, about: np.ndarray, size: int, focal_px: float, away_m: float, *, rgb: np.ndarray, alpha: float
) -> View:
    """A view of the body at zero pose, ``about`` in its middle; of one colour, and of one alpha."""
    turn = np.diag([1.0, -1, -1])
    offset = np.array([0, 0, away_m]) - turn @ about
    return View(
        rgb=np.tile(np.float32(rgb), (size, size, 1)),
        alpha=np.full((size, size), alpha, np.float32),
        focal=np.array([focal_px, focal_px]),
        centre=np.array([size / 2, size / 2]),
        scale=1.0,
        landmarks=Landmarks(0.0, (size, size)),
        pose=SmplxPose(np.zeros((55, 3), np.float32), np.zeros(3, np.float32), np.zeros(52, np.float32), 0.0),
        linear=np.tile(turn, (len(rest), 1, 1)),
        offset=np.tile(offset, (len(rest), 1)),
        smile=np.zeros_like(rest),
        zero_to_camera=np.tile(np.concatenate([turn, offset[:, None]], axis=1), (55, 1, 1)),
    )
