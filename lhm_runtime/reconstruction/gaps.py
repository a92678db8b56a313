"""Background that the matte left between limbs and beside the neck: it is off the body and looks like no garment.

A silhouette knows nothing of the body. Once that is fitted, a pixel of the matte at its rim or beyond can be asked
whether its like, in colour, texture and place, is found behind the person or on them.
"""

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from scipy.spatial import cKDTree

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.matting import distance_to_border
from lhm_runtime.reconstruction.mesh_image import draw_mesh
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.view import make_view

_PX_PER_M = 450.0
_RIM_M, _CORE_M = 0.025, 0.03
"""A gap may reach so far into the body's outline, which a fit misses by as much; what is deeper is the person's."""
_BESIDE_M, _CLEAR_PX = 0.25, 3
"""The background is looked at so near to the matte, and no nearer."""
_SAMPLES, _STRAYS = 6000, 4
"""Pixels that stand for either; how many of them may be the other's."""
_BEHIND_PER_M, _PERSON_PER_M = 0.1, 0.3
"""Difference of colour that a metre of distance counts as: walls go on, garments end."""
_TEXTURE_PX, _TEXTURE = 3, 0.5
"""Pixels that texture is told from, and what it counts as in differences of colour."""
_LIKE, _TIMES, _BEYOND = 0.1, 1.5, 0.05
"""Background is no further than this from what is behind, and so many times and so much further from the person."""
_DARK = 0.15
"""What is darker may be shadow in a crease, and is the person's."""
_LEAST_M, _OFF_BODY, _OPEN = 0.012, 0.3, 0.3
"""Side of the smallest gap; the least share of it that is off the body; and the largest of its rim that is open: what
lies along the outline is for the matte to tell."""


def clear_gaps(photo: Photo, fit: BodyFit, body: BodyModel) -> Photo:
    """The photo with its matte cleared of background in the gaps between limbs; the same photo where there is none.

    A matte that came with the photo is left as it is.
    """
    if photo.matte_given:
        return photo
    bare = body.rest_vertices(fit.betas).astype(np.float64)
    view = make_view(photo, fit, fit.betas, body).limited(_PX_PER_M, bare)
    points = view.posed(bare)
    drawn = draw_mesh(view.project(points), body.faces.astype(np.int64), *view.size, two_sided=True).covered
    gaps = find_gaps(view.rgb, view.alpha, drawn, view.pixels_per_metre(points))
    if not gaps.any():
        return photo
    size = (photo.alpha.shape[1], photo.alpha.shape[0])
    cleared = cv2.resize(gaps.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return replace(photo, alpha=(photo.alpha * (1 - cleared)).astype(np.float32))


def find_gaps(
    rgb: Float32[np.ndarray, "h w 3"], alpha: Float32[np.ndarray, "h w"], drawn: Bool[np.ndarray, "h w"], scale: float
) -> Bool[np.ndarray, "h w"]:
    """Pixels of the matte that show the background.

    Args:
        drawn: what the fitted body covers.
        scale: pixels along a metre of the person.
    """
    inside = alpha > 0.5
    deep = distance_to_border(drawn) / scale
    core = inside & (deep > _CORE_M)
    away = distance_to_border(alpha < 0.05)
    behind = (away > _CLEAR_PX) & (distance_to_border(~inside) < _BESIDE_M * scale)
    asked = inside & (deep < _RIM_M) & (rgb.max(axis=2) > _DARK)
    if min(core.sum(), behind.sum(), asked.sum()) <= _STRAYS:
        return np.zeros_like(inside)
    to_behind, to_person = (
        _unlikeness(looks[asked], looks[known])
        for known, looks in (
            (behind, _describe(rgb, _BEHIND_PER_M / scale)),
            (core, _describe(rgb, _PERSON_PER_M / scale)),
        )
    )
    strange = np.zeros(inside.shape, np.uint8)
    strange[asked] = (to_behind < _LIKE) & (to_person > _TIMES * to_behind + _BEYOND)
    strange = cv2.morphologyEx(strange, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(strange)
    area = stats[:, cv2.CC_STAT_AREA]
    off_body = np.bincount(labels.ravel(), ~drawn.ravel(), count) / np.maximum(area, 1)
    # the pixels around a gap are a mixture of both
    wide = cv2.dilate(labels.astype(np.uint16), np.ones((3, 3), np.uint8))
    rim = (wide > 0) & (labels == 0)
    open_ = np.bincount(wide[rim], ~inside[rim], count) / np.maximum(np.bincount(wide[rim], minlength=count), 1)
    least = (_LEAST_M * scale) ** 2
    gap = (area > least) & (off_body > _OFF_BODY) & (open_ < _OPEN) & (np.arange(count) > 0)
    loose = _cut_off(inside & ~gap[wide], core, least)
    gap[np.unique(wide[cv2.dilate(loose.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0])] = False
    cleared: np.ndarray = inside & gap[wide]
    return cleared


def _cut_off(left: Bool[np.ndarray, "h w"], core: Bool[np.ndarray, "h w"], least: float) -> Bool[np.ndarray, "h w"]:
    """What no longer hangs together with the person: a gap ends at the outline, and what goes on beyond is no gap."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(left.astype(np.uint8))
    loose = stats[:, cv2.CC_STAT_AREA] > least
    loose[np.unique(labels[core & left])] = loose[0] = False
    floating: np.ndarray = loose[labels]
    return floating


def _describe(rgb: Float32[np.ndarray, "h w 3"], per_pixel: float) -> Float64[np.ndarray, "h w 6"]:
    """Colour, texture (deviation of the brightness around) and place of each pixel, in differences of colour."""
    window = (_TEXTURE_PX, _TEXTURE_PX)
    grey = rgb.mean(axis=2)
    mean = cv2.blur(grey, window)
    texture = np.sqrt(np.maximum(cv2.blur(grey * grey, window) - mean * mean, 0))
    return np.dstack([rgb, _TEXTURE * texture, *(per_pixel * np.indices(grey.shape))]).astype(np.float64)


def _unlikeness(looks: Float[np.ndarray, "n 6"], known: Float[np.ndarray, "m 6"]) -> Float64[np.ndarray, " n"]:
    """Distance to the nearest of the known ones, but for a few strays."""
    tree = cKDTree(known[:: max(1, len(known) // _SAMPLES)])
    return np.asarray(tree.query(looks, k=[min(_STRAYS, tree.n)])[0])[:, 0]
