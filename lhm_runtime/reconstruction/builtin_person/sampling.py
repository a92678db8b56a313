"""Evenly spread points on triangle meshes, and the flat Gaussians that cover them."""

from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.spatial import cKDTree

from lhm_runtime.body.rotations import matrix_to_quat_wxyz, quat_wxyz_to_matrix
from lhm_runtime.errors import InvalidInputError

OVERSAMPLING = 4
"""Candidates per sample that ``thin`` needs to space the samples well."""

_RADII = (0.86, 0.82, 0.78, 0.74, 0.70, 0.64, 0.56, 0.4, 0.0)
"""Spacings between darts, from round to round."""

_NEIGHBOURS = 14
"""Candidates looked at around each: a disc of the first radius holds 9 at this oversampling."""

_GROUPS = 8
"""Of candidates with about the same spacing."""

_SIGMA_PER_SPACING = 0.72
"""Discs of opacity 0.95 this wide leave about 1 % of the light through between Poisson-disc samples."""

_SHEET_GAP = 0.006
"""Distance, metres, that a right angle between normals counts for when samples are spaced."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Gaussians of one part, each riding on a triangle of the body."""

    means: Float64[np.ndarray, "n 3"]
    quat_wxyz: Float64[np.ndarray, "n 4"]
    scales: Float64[np.ndarray, "n 3"]
    opacity: Float64[np.ndarray, " n"]
    rgb: Float64[np.ndarray, "n 3"]
    triangles: Int64[np.ndarray, " n"]
    """Triangle of the body whose skin weights and expressions move it."""
    barycentric: Float64[np.ndarray, "n 3"]
    """Where on that triangle."""
    rigid_joint: Int64[np.ndarray, " n"]
    """The only joint that moves it, whatever the triangle says; -1: the triangle decides."""
    expressive: Bool[np.ndarray, " n"]
    """Whether expressions move it with the triangle."""

    def __getitem__(self, index: np.ndarray) -> "Patch":
        """The Gaussians at ``index`` (integers or a mask)."""
        return Patch(**{f.name: getattr(self, f.name)[index] for f in fields(Patch)})

    def riding(self, triangles: Int64[np.ndarray, " n"], rigid_joint: int = -1, expressive: bool = True) -> "Patch":
        """The same Gaussians moved by the middle of other triangles, or by one joint alone."""
        n = len(self.means)
        return replace(
            self,
            triangles=triangles,
            barycentric=np.full((n, 3), 1 / 3),
            rigid_joint=np.full(n, rigid_joint),
            expressive=np.full(n, expressive),
        )


@dataclass(frozen=True, eq=False)
class Samples:
    """Points on a mesh."""

    points: Float64[np.ndarray, "n 3"]
    normals: Float64[np.ndarray, "n 3"]
    """Of the flat triangles."""
    triangles: Int64[np.ndarray, " n"]
    """Index into the faces that were sampled."""
    barycentric: Float64[np.ndarray, "n 3"]
    spacing: Float64[np.ndarray, " n"]
    """Distance at which points of this density stand apart, metres."""

    def __getitem__(self, index: np.ndarray) -> "Samples":
        """The samples at ``index`` (integers or a mask)."""
        return Samples(**{f.name: getattr(self, f.name)[index] for f in fields(Samples)})

    def on(self, faces: Int64[np.ndarray, " f"]) -> "Samples":
        """The same samples, their triangles renamed to ``faces[triangles]``."""
        return replace(self, triangles=faces[self.triangles])

    def gradient(
        self,
        vertices: Float[np.ndarray, "v 3"],
        faces: Int64[np.ndarray, "f 3"],
        values: Float[np.ndarray, " v"],
    ) -> Float64[np.ndarray, "n 3"]:
        """Slope of per-vertex values within each sample's triangle, per metre."""
        a, b, c = (vertices[faces[self.triangles, k]] for k in range(3))
        fa, fb, fc = (values[faces[self.triangles, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        slope = np.cross(normal, a - c) * (fb - fa)[:, None] + np.cross(normal, b - a) * (fc - fa)[:, None]
        result: np.ndarray = slope / np.maximum((normal**2).sum(axis=1), 1e-30)[:, None]
        return result

    def interpolate(self, faces: Int64[np.ndarray, "f 3"], values: np.ndarray) -> np.ndarray:
        """Per-vertex values, [v] or [v, c], at the samples."""
        corners = values[faces[self.triangles]]
        weights = self.barycentric if values.ndim == 1 else self.barycentric[:, :, None]
        result: np.ndarray = (corners * weights).sum(axis=1)
        return result


def scatter(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int64[np.ndarray, "f 3"],
    density: Float[np.ndarray, " v"],
    count: int,
    seed: int,
) -> Samples:
    """Candidates for ``thin``: ``count`` points, their number in proportion to area times relative density.

    Stratified along the triangle list, with the R2 sequence (Roberts 2018) inside the triangles.
    """
    corners = vertices[faces]
    crossed = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = 0.5 * np.linalg.norm(crossed, axis=1)
    cumulative = np.cumsum(area * density[faces].mean(axis=1))
    strata = (np.arange(count) + np.random.default_rng(seed).random(count)) / count
    triangles = np.minimum(np.searchsorted(cumulative, strata * cumulative[-1]), len(faces) - 1)
    u, v = (np.arange(1, count + 1)[:, None] * [0.7548776662466927, 0.5698402909980532] % 1.0).T
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    barycentric = np.stack([1 - u - v, u, v], axis=1)
    points = (corners[triangles] * barycentric[:, :, None]).sum(axis=1)
    spacing = np.sqrt(cumulative[-1] / (count * density[faces].mean(axis=1)[triangles]))
    return Samples(points, crossed[triangles] / (2 * area[triangles, None]), triangles, barycentric, spacing)


def thin(candidates: Samples, count: int, seed: int) -> Samples:
    """Keep exactly ``count`` candidates, as far apart as their density allows (Poisson-disc sampling).

    Rounds of parallel dart throwing (each takes the candidates that beat all their rivals: Luby's independent set)
    with a shrinking radius; the last one stops at ``count``. Surfaces back to back do not compete.

    Raises:
        InvalidInputError: fewer candidates than ``count``.
    """
    total = len(candidates.points)
    if total < count:
        raise InvalidInputError(f"{total} candidates cannot give {count} samples; scatter more")
    spacing = candidates.spacing * np.sqrt(total / count)
    place = np.concatenate([candidates.points, _SHEET_GAP * candidates.normals], axis=1)
    near, reach = _find_rivals(place, _RADII[0] * spacing)
    priority = np.random.default_rng(seed).permutation(total)
    taken, free = np.zeros(total, bool), np.zeros(total, bool)
    for radius in _RADII:
        at = np.flatnonzero(~taken)
        around, rivals = near[at], reach[at] < radius * spacing[at, None]
        while True:
            still = ~taken[at] & ~(rivals & taken[around]).any(axis=1)
            at, around, rivals = at[still], around[still], rivals[still]
            left = count - np.count_nonzero(taken)
            if len(at) == 0 or left == 0:
                break
            free[:] = False
            free[at] = True
            bar = np.where(rivals & free[around], priority[around], total).min(axis=1)
            taken[at[priority[at] < bar][:left]] = True
    kept = np.flatnonzero(taken)
    return replace(candidates[kept], spacing=spacing[kept])


def _find_rivals(
    place: Float64[np.ndarray, "n d"], radius: Float64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, "n k"], Float64[np.ndarray, "n k"]]:
    """The nearest other places and how far they are; what lies beyond its radius is infinitely far, whichever it is."""
    tree, total = cKDTree(place), len(place)
    near = np.zeros((total, min(_NEIGHBOURS, total)), np.int64)
    reach = np.full(near.shape, np.inf)
    # a tree is searched far sooner within a bound, of which it takes one a call
    for group in np.array_split(np.argsort(radius), _GROUPS):
        if len(group):
            within = radius[group[-1]]
            reach[group], near[group] = tree.query(place[group], k=near.shape[1], distance_upper_bound=within)
    none = np.isinf(reach) | (near == np.arange(total)[:, None])
    near[none], reach[none] = 0, np.inf
    return near, reach


def cover(
    samples: Samples, normals: Float[np.ndarray, "n 3"], rgb: Float[np.ndarray, "n 3"], thickness: float
) -> Patch:
    """Discs that close the surface between samples, ``thickness`` metres (sigma) across it."""
    n = len(samples.points)
    flat = _SIGMA_PER_SPACING * samples.spacing
    return Patch(
        means=samples.points,
        quat_wxyz=normals_to_quat(normals),
        scales=np.stack([flat, flat, np.minimum(thickness, 0.5 * flat)], axis=1),
        opacity=np.full(n, 0.95),
        rgb=rgb,
        triangles=samples.triangles,
        barycentric=samples.barycentric,
        rigid_joint=np.full(n, -1),
        expressive=np.ones(n, bool),
    )


def lay_along(patch: Patch, along: Float[np.ndarray, "n 3"], share: Float[np.ndarray, " n"]) -> Patch:
    """Discs drawn out along a direction in their plane where ``share`` is 1, so that they end in a clean edge."""
    normals = quat_wxyz_to_matrix(patch.quat_wxyz)[:, :, 2]
    edge = share > 0.02
    quat, scales = patch.quat_wxyz.copy(), patch.scales.copy()
    quat[edge] = frames_to_quat(along[edge], normals[edge])
    scales[:, 0] *= 1 + 0.35 * share
    scales[:, 1] *= 1 - 0.38 * share
    return replace(patch, quat_wxyz=quat, scales=scales)


def strokes(
    means: Float[np.ndarray, "n 3"],
    along: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    scales: Float[np.ndarray, "n 3"],
    rgb: Float[np.ndarray, "n 3"],
    opacity: float,
) -> Patch:
    """Long Gaussians: ``scales`` along, across and through the surface. They ride on nothing yet (``Patch.riding``)."""
    n = len(means)
    return Patch(
        means=means,
        quat_wxyz=frames_to_quat(along, normals),
        scales=scales,
        opacity=np.full(n, opacity),
        rgb=rgb,
        triangles=np.zeros(n, np.int64),
        barycentric=np.full((n, 3), 1 / 3),
        rigid_joint=np.full(n, -1),
        expressive=np.ones(n, bool),
    )


def normals_to_quat(normals: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 4"]:
    """Shortest rotation that takes +z to each unit normal."""
    quat = np.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], np.zeros(len(normals))], axis=1)
    quat[normals[:, 2] < -1 + 1e-9] = [0, 1, 0, 0]
    unit: np.ndarray = quat / np.linalg.norm(quat, axis=1, keepdims=True)
    return unit


def frames_to_quat(along: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 4"]:
    """Orientation whose x axis is ``along`` and whose z axis is as near to ``normals`` as that allows."""
    x = along / np.linalg.norm(along, axis=1, keepdims=True)
    y = np.cross(normals, x)
    length = np.linalg.norm(y, axis=1, keepdims=True)
    sideways = np.cross(np.where(np.abs(x[:, :1]) < 0.9, [1.0, 0, 0], [0, 1.0, 0]), x)
    y = np.where(length > 1e-6, y, sideways)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return matrix_to_quat_wxyz(np.stack([x, y, np.cross(x, y)], axis=-1))


def concatenate(patches: list[Patch]) -> Patch:
    """One patch of all."""
    return Patch(**{f.name: np.concatenate([getattr(p, f.name) for p in patches]) for f in fields(Patch)})
