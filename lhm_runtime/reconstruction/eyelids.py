"""Lids that close: over this person's eyes, wherever the photo has them, in skin that no open eye shows."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.spatial import cKDTree

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import Anatomy, smooth_along
from lhm_runtime.reconstruction.builtin_person.figure import express
from lhm_runtime.reconstruction.builtin_person.sampling import Samples
from lhm_runtime.reconstruction.builtin_person.shading import distance_to_path, smoothstep
from lhm_runtime.reconstruction.builtin_person.skin import EYE_LOWER, EYE_UPPER
from lhm_runtime.reconstruction.discs import BLINKS, vertex_area
from lhm_runtime.reconstruction.view import View

_MIDDLE = slice(2, -2)
"""Of a lid's landmarks: at its ends there is nothing to close."""
_STRENGTH = (0.6, 1.8)
_UNFOLDS, _FEATHER_ROUNDS = (1.4, 2.4), 3
"""Skin is a closed lid's from so many times the photo's area on, fully from the second."""
_LASH_M, _LASH = (0.0004, 0.0013), 0.4
"""Width of the lash line and brightness, in lid's skin's."""
_AROUND_M, _LEAST_AROUND = (0.012, 0.026), 20
_NEAREST, _REACH_M, _USUAL, _UNLIKE = 150, 0.006, 0.85, 0.35
"""A lid's colour comes from so many samples, most from those this near, and from what is about so bright as most of
them, the last as logarithm: neither brow, lash and spectacles nor a nose that shines."""
_FRONT_M, _COVERED_M, _ALL_BUT, _LID_M, _DEEPEST_M = 0.004, 0.0012, 0.95, 0.0012, 0.004
"""An eyeball's front may go back so far at most that lids, which are so thick, lie before it."""


@dataclass(frozen=True, eq=False)
class Lids:
    """Skin of the upper lids: n samples."""

    share: Float64[np.ndarray, "2 n"]
    """How much of each is folded away in the photo, for the right and the left eye, 0 to 1."""
    lash: Float64[np.ndarray, " n"]
    """How much of each is lash."""
    shut: Float64[np.ndarray, "n 3"]
    """Where each is with the eyes shut."""
    around: Bool[np.ndarray, "2 n"]
    """Skin around each eye, which a lid's is like."""

    @property
    def folded(self) -> Bool[np.ndarray, " n"]:
        """What the photo shows too little of to be read."""
        folded: np.ndarray = self.share.max(axis=0) > 0.5
        return folded


def fit_blinks(rest: Float[np.ndarray, "v 3"], body: BodyModel, anatomy: Anatomy) -> BodyModel:
    """The body, whose blinks close the lids of a face of these vertices as they close its own.

    A photo's eyes are wider or narrower than the body's; a lid that moves as far as the body's would stay open, or
    hang over the lower one.
    """
    names = body.expression_names
    if anatomy.landmarks is None or not set(BLINKS) <= set(names):
        return body
    directions = body.expression_directions.copy()
    own = body.v_template.astype(np.float64)
    rings = ([lid[_MIDDLE] for lid in lids] for lids in zip(EYE_UPPER, EYE_LOWER, strict=True))
    for name, (upper, lower) in zip(BLINKS, rings, strict=True):
        column = names.index(name)
        closing = anatomy.landmarks @ directions[:, 1, column].astype(np.float64)
        closes = closing[lower] - closing[upper]
        theirs, ours = ((anatomy.landmarks @ shape[:, 1]) for shape in (rest, own))
        wider = (theirs[upper] - theirs[lower]) - (ours[upper] - ours[lower])
        strength = np.clip(1 + wider / np.maximum(closes, 1e-4), *_STRENGTH)
        across = (anatomy.landmarks @ rest[:, 0])[upper]
        order = np.argsort(across)
        directions[:, :, column] *= np.interp(rest[:, 0], across[order], strength[order])[:, None]
    return replace(body, expression_directions=directions)


def find_lids(view: View, rest: Float[np.ndarray, "v 3"], samples: Samples, body: BodyModel, anatomy: Anatomy) -> Lids:
    """Where the upper lids are, and what the photo has of them: a lid that is shut in it is there to be read."""
    assert anatomy.landmarks is not None  # noqa: S101 (project checked)
    shut = express(rest, body, BLINKS)
    outer = anatomy.faces[anatomy.outer]
    unfolded = vertex_area(shut, outer) / np.maximum(vertex_area(rest + view.smile, outer), 1e-12)
    unfolds = smoothstep(
        *_UNFOLDS, samples.interpolate(anatomy.faces, smooth_along(anatomy.average, unfolded, _FEATHER_ROUNDS))
    )
    points, marks = samples.interpolate(anatomy.faces, shut), anatomy.landmarks @ shut
    share, around, lash = [], [], np.zeros(len(points))
    for upper, lower in zip(EYE_UPPER, EYE_LOWER, strict=True):
        middle = marks[[*upper, *lower]].mean(axis=0)
        away = np.linalg.norm((points - middle)[:, :2] * [1, 1.4], axis=1)
        own = unfolds * (away < _AROUND_M[1])
        share.append(own)
        around.append((away > _AROUND_M[0]) & (away < _AROUND_M[1]) & (unfolds == 0))
        lash = np.maximum(lash, own * smoothstep(*_LASH_M[::-1], distance_to_path(points[:, :2], marks[upper, :2])))
    return Lids(np.array(share), lash, points, np.array(around))


def paint_lids(
    rgb: Float[np.ndarray, "n 3"], confidence: Float[np.ndarray, " n"], lids: Lids
) -> Float64[np.ndarray, "n 3"]:
    """Colours with lids like the skin around them, and lashes along their edges."""
    painted = rgb.astype(np.float64)
    for share, around in zip(lids.share, lids.around, strict=True):
        skin = np.flatnonzero(around & (confidence > 0))
        if len(skin) < _LEAST_AROUND:
            continue
        bright = rgb[skin].sum(axis=1)
        skin = skin[np.abs(np.log(np.maximum(bright, 1e-3) / max(np.median(bright), 1e-3) / _USUAL)) < _UNLIKE]
        if len(skin) == 0:
            continue
        lid = np.flatnonzero(share > 0)
        apart, near = cKDTree(lids.shut[skin]).query(lids.shut[lid], k=[*range(1, min(_NEAREST, len(skin)) + 1)])
        weight = 1 / (np.asarray(apart)[:, :, None] ** 2 + _REACH_M**2) ** 2
        tone = (weight * rgb[skin][np.asarray(near)]).sum(axis=1) / weight.sum(axis=1)
        painted[lid] += share[lid, None] * (tone - painted[lid])
    return painted * (1 - (1 - _LASH) * lids.lash)[:, None]


def sink_behind_lids(
    eyes: Float[np.ndarray, "e 3"], rest: Float[np.ndarray, "v 3"], body: BodyModel, anatomy: Anatomy
) -> float:
    """How far points of an eyeball must go back, metres, for none to stick out of lids that close."""
    ahead = eyes[:, 2] > eyes[:, 2].max() - _FRONT_M
    front, back = eyes[ahead], 0.0
    for amount in (0.5, 1.0):
        shape = express(rest, body, BLINKS, amount)
        skin = shape[anatomy.faces[anatomy.outer]].mean(axis=1)
        near = np.linalg.norm(skin - eyes.mean(axis=0), axis=1) < _AROUND_M[1]
        if not near.any():
            continue
        away, at = cKDTree(skin[near, :2]).query(front[:, :2])
        out = (front[:, 2] - skin[near][at, 2])[away < _COVERED_M]
        if len(out):
            back = max(back, float(np.quantile(out, _ALL_BUT)) + _LID_M)
    return float(np.clip(back, 0, _DEEPEST_M))
