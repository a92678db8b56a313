"""Skin of the head where it turns away from the camera: in the photo's light and shade, but without streaks."""

import numpy as np
from jaxtyping import Bool, Float, Float32

from lhm_runtime.reconstruction.anatomy import Anatomy
from lhm_runtime.reconstruction.builtin_person.sampling import Samples
from lhm_runtime.reconstruction.colouring import colour_change, smooth_over

_TURNED = (0.15, 0.5)
"""Cosines to the view up to which skin is evened out wholly, and from which on it is as the photo has it."""
_ROUNDS, _BROAD_ROUNDS = 10, 40
"""Rings of the surface over which it is evened out, and over which it is told what colour is strange there."""
_STRANGE, _SHADE_COUNTS, _LEAST_WEIGHT = 0.08, 0.5, 1e-3
"""A colour that differs by this from those around counts for little; of differences in brightness alone, this share;
and the weight of the strangest, so that there always is a mean."""
_REDDEST, _RED, _ENOUGH = 0.08, np.array([1.0, -0.5, -0.5]) / np.sqrt(1.5), 50
"""Most that skin beside a face is redder than the face, which direction in colours that is, and how many samples of a
face tell its tone: light that comes through an ear from behind is no colour of its own."""


def even_out(
    rgb: Float[np.ndarray, "n 3"],
    skin: Bool[np.ndarray, " n"],
    face: Bool[np.ndarray, " n"],
    facing: Float[np.ndarray, " n"],
    samples: Samples,
    anatomy: Anatomy,
) -> Float32[np.ndarray, "n 3"]:
    """Colours of which those of skin that turns away are means of the skin around it.

    There a pixel lies over centimetres of surface, so that what a fit is off by is drawn out to streaks on cheeks.

    Args:
        rgb: colours of the samples.
        skin: samples on bare skin, which alone are changed and alone are heard.
        face: samples on the face.
        facing: cosine of the angle between normal and view.
        samples: where on the surface they are.
        anatomy: of the body that the samples lie on.
    """
    around = smooth_over(samples, rgb, skin.astype(np.float64), _BROAD_ROUNDS, anatomy)
    alike = np.exp(-np.square(colour_change(rgb, around, _SHADE_COUNTS) / _STRANGE))
    even = smooth_over(samples, rgb, skin * (alike + _LEAST_WEIGHT), _ROUNDS, anatomy)
    low, high = _TURNED
    share = (skin * np.clip((high - facing) / (high - low), 0, 1))[:, None]
    evened = rgb + share * (even - rgb)
    return _less_red(evened, skin, face).astype(np.float32)


def _less_red(
    rgb: Float[np.ndarray, "n 3"], skin: Bool[np.ndarray, " n"], face: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    """Skin beside the face no redder than this, as bright as it was."""
    if (skin & face).sum() < _ENOUGH:
        return rgb
    tone = np.median(rgb[skin & face], axis=0)
    redder = (rgb - rgb.mean(axis=1, keepdims=True) * tone / max(float(tone.mean()), 1e-9)) @ _RED
    excess = np.where(skin & ~face, np.maximum(redder - _REDDEST, 0), 0)
    less: np.ndarray = np.clip(rgb - excess[:, None] * _RED, 0, 1)
    return less
