"""Lips that a photo shows apart are no feature of the person: they are its expression, and shut at rest."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import Anatomy, study
from lhm_runtime.reconstruction.builtin_person.skin import LIPS_INNER
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.view import View, make_view

_CORNERS = (LIPS_INNER[0], LIPS_INNER[-1])
_UPPER, _LOWER = [191, 80, 81, 82, 13, 312, 311, 310, 415], LIPS_INNER[1:-1]
"""Points of the two lips' edges that meet when the mouth is shut, from the person's right."""
_STEADY = [33, 133, 362, 263, 168, 6, 1, 4, 10, 234, 454]
"""Points that no mouth moves: they say how large the face is."""
_WIDEST = 1.2
_FADING_M = 0.04
"""Sealed lips draw so much of the chin along."""


def part_lips(photo: Photo, fit: BodyFit, body: BodyModel) -> BodyFit:
    """The fit with a jaw that parts the lips as far as the photo's landmarks do, which face scores say but roughly.

    Least squares on the gaps between facing points of the lips, across the mouth, for a face of the photo's size.
    Returned as it was where no face was found, or the body lacks face landmarks or a jaw that opens.
    """
    anatomy = study(body)
    if photo.landmarks.face_image is None or anatomy.landmarks is None or "jawOpen" not in body.expression_names:
        return fit
    jaw = body.expression_names.index("jawOpen")
    view = make_view(photo, fit, fit.betas, body)
    on_face = anatomy.landmarks[:468]
    points = on_face @ view.posed(body.rest_vertices(fit.betas))
    opening = body.expression_directions[:, :, jaw].astype(np.float64)
    moves = (on_face @ np.einsum("vij,vj->vi", view.linear, opening))[:, :2]
    pixels = view.focal / np.median(points[:, 2])
    seen, drawn = view.marks(photo.landmarks.face_image[:468]), points[:, :2] * pixels
    size = np.linalg.norm(_centred(seen[_STEADY])) / np.linalg.norm(_centred(drawn[_STEADY]))
    missing = _gaps(seen) @ _upwards(seen) / size - _gaps(drawn) @ _upwards(drawn)
    gained = _gaps(moves * pixels) @ _upwards(drawn)
    expression = fit.pose.expression.copy()
    step = float(gained @ missing) / max(float(gained @ gained), 1e-12)
    expression[jaw] = np.clip(expression[jaw] + step, 0, _WIDEST)
    return replace(fit, pose=replace(fit.pose, expression=expression))


def seal_lips(
    view: View, bare: Float[np.ndarray, "v 3"], rest: Float[np.ndarray, "v 3"], body: BodyModel, anatomy: Anatomy
) -> tuple[View, Float64[np.ndarray, "v 3"]]:
    """Vertices at zero pose whose lips meet as the bare body's, and the view, in which all stays where it was.

    Args:
        bare: vertices of the body before it grew into the matte.
        rest: after that: what then parts the lips, or shoves one over the other, is the photo's expression.
    """
    names = body.expression_names
    if view.landmarks.face_image is None or anatomy.landmarks is None or "jawOpen" not in names:
        return view, rest.astype(np.float64)
    grown = anatomy.landmarks @ (rest - bare)
    places = anatomy.landmarks @ rest.astype(np.float64)
    apart = np.concatenate([np.zeros((1, 3)), _gaps(grown), np.zeros((1, 3))])
    across = places[[_CORNERS[0], *_LOWER, _CORNERS[1]], 0]
    order = np.argsort(across)
    lift = np.stack([np.interp(rest[:, 0], across[order], apart[order, c]) for c in range(3)], axis=1)
    follows = np.abs(body.expression_directions[:, 1, names.index("jawOpen")]).astype(np.float64)
    follows = np.clip(follows / (anatomy.landmarks @ follows)[_LOWER].mean(), 0, 1)
    below = np.clip(places[_LOWER, 1].mean() - rest[:, 1], 0, None)
    lift *= (follows * np.exp(-0.5 * (below / _FADING_M) ** 2))[:, None]
    return replace(view, smile=view.smile - lift), rest + lift


def _gaps(points: Float64[np.ndarray, "m c"]) -> Float64[np.ndarray, "k c"]:
    gaps: np.ndarray = points[_UPPER] - points[_LOWER]
    return gaps


def _centred(points: Float64[np.ndarray, "k 2"]) -> Float64[np.ndarray, "k 2"]:
    centred: np.ndarray = points - points.mean(axis=0)
    return centred


def _upwards(points: Float64[np.ndarray, "m 2"]) -> Float64[np.ndarray, " 2"]:
    """Unit vector across the mouth's line, away from the chin, in a picture whose y points down."""
    right, left = points[[*_CORNERS]]
    along = (left - right) / np.linalg.norm(left - right)
    return np.array([along[1], -along[0]])
