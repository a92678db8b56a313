"""Where the Gaussians of a projected person lie, and how they lie on the surface."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.spatial import cKDTree

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import FEET, HANDS, Anatomy, Part, smooth_along
from lhm_runtime.reconstruction.builtin_person.figure import express, vertex_normals
from lhm_runtime.reconstruction.builtin_person.sampling import Patch, Samples, cover, scatter, thin

_OVERSAMPLING = 3.5
"""With fewer candidates gaps stay between the samples, through which the other side shows as freckles."""
_SHARE = {"head": 0.25, "hands": 0.07, "feet": 0.07}
_FACE, _SEEN = 2.5, 1.8
"""How much denser the face is than the head, and what a photo shows than what none does."""
_BY_PIXELS = 0.75
"""Share of the Gaussians that go where the photo has pixels; the others go by area."""
_EYES, _LIPS = 3.0, 2.0
_NEIGHBOURS = 5
_SIGMA_PER_GAP = 0.64
_SIZES_M = (0.0008, 0.02)
BLINKS = ("eyeBlinkRight", "eyeBlinkLeft")
"""The person's right first, as in the rings of landmarks."""
_UNFOLDED, _LID_SIGMA_PER_GAP, _LARGEST_LID_M = 1.5, 0.8, 0.0025
"""Skin is a lid's where it becomes so much larger when the eyes are shut; deviations of its discs."""
_FLAT = np.array([1.0, 1.0, 0.25])
"""Sizes of a disc along and across the surface."""


def spread(
    rest: Float[np.ndarray, "v 3"],
    pixels: Float[np.ndarray, " v"],
    count: int,
    stretch: Float[np.ndarray, " v"],
    body: BodyModel,
    anatomy: Anatomy,
) -> Samples:
    """``count`` points, evenly apart for their density, over the outer skin at zero pose.

    Args:
        pixels: photo pixels per square metre of surface at each vertex, 0 where no photo shows it.
        stretch: most that expressions multiply the area around each vertex by.
    """
    outer = np.flatnonzero(anatomy.outer)
    faces = anatomy.faces[outer]
    area = vertex_area(rest, faces)
    weight = np.where(pixels > 0, _SEEN, 1.0)
    if body.mediapipe_faces_idx is not None:
        weight[np.unique(body.faces[body.mediapipe_faces_idx])] *= _FACE
    density = np.zeros(len(rest))
    regions = {
        "head": np.isin(anatomy.part, (Part.HEAD, Part.NECK)),
        "hands": np.isin(anatomy.part, HANDS),
        "feet": np.isin(anatomy.part, FEET),
    }
    others = ~np.logical_or.reduce(list(regions.values()))
    for region, share in [
        *((regions[name], share) for name, share in _SHARE.items()),
        (others, 1 - sum(_SHARE.values())),
    ]:
        density[region] = share * weight[region] / max((weight * area)[region].sum(), 1e-12)
    if pixels.any():
        density = (1 - _BY_PIXELS) * density + _BY_PIXELS * pixels / (pixels * area).sum()
    density *= stretch * _features(rest, anatomy)
    density = smooth_along(anatomy.average, density, 1)
    candidates = scatter(rest, faces, density, int(_OVERSAMPLING * count), seed=0).on(outer)
    return thin(candidates, count, seed=0)


def lay_discs(
    samples: Samples,
    rest: Float[np.ndarray, "v 3"],
    rgb: Float[np.ndarray, "n 3"],
    stretch: Float[np.ndarray, " v"],
    body: BodyModel,
    anatomy: Anatomy,
) -> Patch:
    """Discs of these colours at the samples, flat on the surface and large enough to close it.

    Discs neither turn nor grow with expressions: lids, which are folded away at rest, lie as they do with the eyes
    shut, and are as large as that needs.
    """
    normals = sample_normals(rest, samples, anatomy)
    sizes = disc_sizes(samples, normals, stretch, anatomy)
    shut = express(rest, body, BLINKS)
    unfolded = vertex_area(shut, anatomy.faces) / np.maximum(vertex_area(rest, anatomy.faces), 1e-12)
    lids = np.flatnonzero(samples.interpolate(anatomy.faces, unfolded) > _UNFOLDED)
    if len(lids) > _NEIGHBOURS:
        there = samples[lids].interpolate(anatomy.faces, shut)
        gaps = np.asarray(cKDTree(there).query(there, k=_NEIGHBOURS + 1)[0])[:, 1:].mean(axis=1)
        sizes[lids] = np.maximum(sizes[lids], np.minimum(_LID_SIGMA_PER_GAP * gaps, _LARGEST_LID_M))
        normals[lids] = sample_normals(shut, samples[lids], anatomy)
    return replace(cover(samples, normals, rgb, thickness=1.0), scales=sizes[:, None] * _FLAT)


def disc_sizes(
    samples: Samples,
    normals: Float[np.ndarray, "n 3"],
    stretch: Float[np.ndarray, " v"],
    anatomy: Anatomy,
) -> Float64[np.ndarray, " n"]:
    """Standard deviations, metres, with which discs close the surface between the samples, in every expression."""
    reach, near = cKDTree(samples.points).query(samples.points, k=_NEIGHBOURS + 3)
    # the other side of a thin sheet is no neighbour
    reach = np.where((normals[near] * normals[:, None]).sum(axis=2) > 0.2, reach, np.inf)[:, 1:]
    nearest = np.partition(reach, _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]
    found = np.isfinite(nearest)
    mean = np.where(found, nearest, 0).sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    size: np.ndarray = _SIGMA_PER_GAP * np.where(found.any(axis=1), mean, samples.spacing)
    return np.clip(size * samples.interpolate(anatomy.faces, stretch) ** 0.5, *_SIZES_M)


def vertex_area(vertices: Float[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]) -> Float64[np.ndarray, " v"]:
    """A third of the area of the triangles around each vertex, square metres."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(faces.ravel(), np.repeat(area, 3), len(vertices))


def _features(rest: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, " v"]:
    """Extra density at eyes and lips."""
    extra = np.ones(len(rest))
    for ball in (anatomy.left_eye, anatomy.right_eye):
        extra += _EYES * np.exp(-0.5 * (np.linalg.norm(rest - rest[ball].mean(axis=0), axis=1) / 0.016) ** 2)
    if anatomy.landmarks is not None:
        lips = (anatomy.landmarks[[13, 14]] @ rest).mean(axis=0)
        extra += _LIPS * np.exp(-0.5 * (np.linalg.norm((rest - lips) * [0.6, 1, 1], axis=1) / 0.012) ** 2)
    return np.where(anatomy.part == Part.HEAD, extra, 1.0)


def sample_normals(rest: Float[np.ndarray, "v 3"], samples: Samples, anatomy: Anatomy) -> Float64[np.ndarray, "n 3"]:
    """Smooth unit normals at the samples."""
    normals = samples.interpolate(anatomy.faces, vertex_normals(rest, anatomy.faces))
    unit: np.ndarray = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return unit
