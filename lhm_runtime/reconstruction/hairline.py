"""Where hair lies over temples, ears and the border of the face: as a photo shows it there."""

import numpy as np
from jaxtyping import Bool

from lhm_runtime.reconstruction.anatomy import Anatomy, Part
from lhm_runtime.reconstruction.builtin_person.sampling import Patch
from lhm_runtime.reconstruction.colouring import Observation, smooth_over, strange_rims
from lhm_runtime.reconstruction.discs import sample_normals
from lhm_runtime.reconstruction.filling import Surface
from lhm_runtime.reconstruction.hair import HairImage, Head, under_hair
from lhm_runtime.reconstruction.mesh_image import MeshImage
from lhm_runtime.reconstruction.view import View

_SLACK_M = 0.012
"""What is this little behind the surface that is drawn shows all the same."""
_HEARD = (0.05, 0.4)
"""Cosines to the view from which on a sample is heard, and heard fully."""
_ROUNDS = 10
"""Rings of the surface over which samples agree, a centimetre or two on a head."""
_SQUARE, _RIM = 0.3, 0.5
"""Cosines to the view: face that is turned to the camera more squarely than the first is as the photo shows it; what
is turned less than the second lies on a rim, where the fit's few millimetres tell."""
_TEMPLE_M = (0.018, 0.06)
"""Beside the head hair begins so far above the eyes and so far behind them, over the ears, unless squarely seen."""


_LOBE_M = 0.045
"""So far below the eyes ears end; hair that covers what is lower hangs, see curtain.py."""


def falls_over(
    view: View, mesh: MeshImage, hair: HairImage | None, surface: Surface, anatomy: Anatomy
) -> Bool[np.ndarray, " n"]:
    """Samples of the head beside and below the scalp that lie under hair: none where the photo tells of no hair.

    Args:
        view: the photo that ``hair`` was found in.
        mesh: the surface as that view sees it.
        hair: where the photo shows hair.
        surface: the samples.
        anatomy: of the body that the samples lie on.
    """
    head = surface.part == Part.HEAD
    if hair is None:
        return np.zeros(len(head), bool)
    posed = view.posed(surface.rest)
    points = surface.samples.interpolate(anatomy.faces, posed)
    cosine = -(sample_normals(posed, surface.samples, anatomy) * points).sum(axis=1) / np.linalg.norm(points, axis=1)
    image = view.project(points)
    x, y = image[:, 0].astype(int), image[:, 1].astype(int)
    within = (x >= 0) & (x < view.size[0]) & (y >= 0) & (y < view.size[1])
    x, y = x.clip(0, view.size[0] - 1), y.clip(0, view.size[1] - 1)
    shows = head & within & (view.alpha[y, x] > 0.5) & (image[:, 2] < mesh.depth[y, x] + _SLACK_M)
    low, high = _HEARD
    heard = shows * np.clip((cosine - low) / (high - low), 0, 1)
    # where nobody is heard, a sample says what it would say: nothing
    said = (hair.at(image[:, :2]) & (heard > 0)).astype(np.float64)
    hairy = smooth_over(surface.samples, said[:, None], heard, _ROUNDS, anatomy)[:, 0] > 0.5
    eyes = surface.rest[np.concatenate([anatomy.left_eye, anatomy.right_eye])].mean(axis=0)
    _, above, ahead = (surface.samples.points - eyes).T
    lowest, foremost = _TEMPLE_M
    temple = ~surface.face & (above > lowest) & (-ahead > foremost) & (cosine < _SQUARE)
    beside = (above > -_LOBE_M) & (~surface.face | (cosine < _SQUARE))
    over: np.ndarray = head & (temple | (hairy & beside))
    return over


def hung_over(hung: Patch, surface: Surface, anatomy: Anatomy) -> Bool[np.ndarray, " n"]:
    """Samples of head and neck, but for the face, that hanging hair covers."""
    bare = np.isin(surface.part, (Part.HEAD, Part.NECK)) & ~surface.face
    under: np.ndarray = bare & under_hair(surface.samples.points, hung, Head.of(surface.rest, anatomy))
    return under


def shown_as_hair(
    view: View, hair: HairImage | None, seen: Observation, surface: Surface, anatomy: Anatomy
) -> Bool[np.ndarray, " n"] | None:
    """Samples where a photo shows nothing but hair, if it shows them; None where it tells of no hair.

    Args:
        view: the photo that ``hair`` was found in.
        hair: where the photo shows hair.
        seen: what the photo says of the samples.
        surface: the samples.
        anatomy: of the body that the samples lie on.
    """
    if hair is None:
        return None
    points = surface.samples.interpolate(anatomy.faces, view.posed(surface.rest))
    shown: np.ndarray = (seen.confidence == 0) | hair.at(view.project(points)[:, :2])
    return shown


def strange_to_hair(
    seen: Observation,
    strands: Bool[np.ndarray, " n"] | None,
    hairy: Bool[np.ndarray, " n"],
    under: Bool[np.ndarray, " n"],
    surface: Surface,
) -> Bool[np.ndarray, " n"]:
    """Samples on rims that must be hair, or hung over by it, where the photo shows something else: an ear seen through
    hair, or light beside a head, that is like nothing nearby.

    Args:
        seen: what the photo says of the samples.
        strands: samples where it shows nothing but hair; None where it tells of no hair.
        hairy: samples of hair.
        under: samples that hanging hair covers.
        surface: the samples.
    """
    if strands is None:
        return np.zeros(len(hairy), bool)
    other = ~strands & (seen.facing < _RIM)
    strange = under & other
    head = np.isin(surface.part, (Part.HEAD, Part.NECK))
    strange[strange_rims(seen.rgb, seen.confidence, hairy & other, surface.samples.points, head)] = True
    return strange
