"""What sticks out beyond the draped body (hat brim, bag, flying hair) becomes a sheet hung on the nearest part."""

import cv2
import numpy as np
from jaxtyping import Float, Int64
from scipy.spatial import cKDTree

from lhm_runtime.body.rotations import matrix_to_quat_wxyz
from lhm_runtime.reconstruction.anatomy import Anatomy
from lhm_runtime.reconstruction.builtin_person.sampling import Patch
from lhm_runtime.reconstruction.mesh_image import MeshImage
from lhm_runtime.reconstruction.view import View

MOST_SHARE = 0.12
"""Of all Gaussians, at most so many."""

_REACH_M = 0.18
"""Pixels of the matte further than this from the body are left out."""
_LEAST_SIZE_M = 0.04
"""Side of the smallest piece worth a sheet."""
_LEAST_SCRAP_M = 0.025
"""Side of the smallest scrap of one that hangs on a part of its own."""
_CLEARANCE_M, _THICKNESS_M = 0.01, 0.004
_BODY_BAND_M = 0.03
_NEIGHBOURS = 24
_FINEST_PX_PER_M = 280.0


def attach_rest(
    view: View,
    mesh: MeshImage,
    most: int,
    vertex_weights: Float[np.ndarray, "v 55"],
    anatomy: Anatomy,
) -> Patch:
    """At most ``most`` Gaussians for the pixels of the matte that the mesh does not cover."""
    height, width = view.alpha.shape
    covered = mesh.covered
    nothing = _sheet(np.zeros((0, 3)), np.zeros((0, 3, 3)), np.zeros(0), np.zeros((0, 3)), np.zeros(0, np.int64))
    if not covered.any():
        return nothing
    scale = view.focal[0] / float(np.median(mesh.depth[covered]))
    distance = cv2.distanceTransform((~covered).astype(np.uint8), cv2.DIST_L2, 5) / scale
    open_ = ((view.alpha > 0.5) & ~covered & (distance < _REACH_M)).astype(np.uint8)
    side = max(3, round(0.010 * scale) | 1)
    open_ = cv2.morphologyEx(open_, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    _, label, stats, _ = cv2.connectedComponentsWithStats(open_)
    large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] > (_LEAST_SIZE_M * scale) ** 2)
    wanted = np.isin(label, large[large > 0])
    if not wanted.any():
        return nothing
    step = max(1.0, np.sqrt(1.1 * wanted.sum() / most), scale / _FINEST_PX_PER_M)
    y, x = (grid.ravel() for grid in np.mgrid[step / 2 : height : step, step / 2 : width : step])
    inside = wanted[y.astype(int), x.astype(int)]
    x, y = x[inside][:most], y[inside][:most]

    # depth and motion come from the nearest part of the body's border, and from that part alone: weights blended
    # across limbs would tear the sheet apart
    to_edge = cv2.distanceTransform(covered.astype(np.uint8), cv2.DIST_L2, 3)
    rows, columns = np.nonzero(covered & (to_edge < _BODY_BAND_M * scale))
    thin = slice(None, None, max(1, len(rows) // 20_000))
    rows, columns = rows[thin], columns[thin]
    k = min(_NEIGHBOURS, len(rows))
    found = cKDTree(np.stack([columns, rows], axis=1) + 0.5).query(np.stack([x, y], axis=1), k=k)
    reach, near = (np.asarray(values).reshape(-1, k) for values in found)
    part = anatomy.part[anatomy.faces[mesh.face[rows, columns], 0]]
    # a scrap of a piece that hangs on another limb than the rest of it would stay behind when that limb leaves
    hung_on = np.stack([label[y.astype(int), x.astype(int)], part[near[:, 0]]], axis=1)
    _, which, count = np.unique(hung_on, axis=0, return_inverse=True, return_counts=True)
    whole = count[which] * step**2 > (_LEAST_SCRAP_M * scale) ** 2
    x, y, reach, near = x[whole], y[whole], reach[whole], near[whole]
    share = (part[near] == part[near[:, :1]]) / (reach + 0.01 * scale) ** 2
    share /= share.sum(axis=1, keepdims=True)
    depth = (mesh.depth[rows, columns][near] * share).sum(axis=1) + _CLEARANCE_M
    points = np.stack(
        [(x - view.centre[0]) / view.focal[0] * depth, (y - view.centre[1]) / view.focal[1] * depth, depth], axis=1
    )
    triangles = mesh.face[rows, columns][near[:, 0]].astype(np.int64)
    weights = vertex_weights[anatomy.faces[triangles]].mean(axis=1)
    blended = (weights @ view.zero_to_camera.reshape(55, 12)).reshape(-1, 3, 4)
    means = np.linalg.solve(blended[:, :, :3], (points - blended[:, :, 3])[:, :, None])[:, :, 0]
    left, _, right = np.linalg.svd(np.linalg.inv(blended[:, :, :3]))
    sizes = 0.65 * step * depth / view.focal[0]
    return _sheet(means, left @ right, sizes, view.extended[y.astype(int), x.astype(int)].astype(np.float64), triangles)


def _sheet(
    means: Float[np.ndarray, "n 3"],
    axes: Float[np.ndarray, "n 3 3"],
    sizes: Float[np.ndarray, " n"],
    rgb: Float[np.ndarray, "n 3"],
    triangles: Int64[np.ndarray, " n"],
) -> Patch:
    n = len(means)
    return Patch(
        means=means,
        quat_wxyz=matrix_to_quat_wxyz(axes),
        scales=np.stack([sizes, sizes, np.full(n, _THICKNESS_M)], axis=1),
        opacity=np.full(n, 0.9),
        rgb=rgb,
        triangles=triangles,
        barycentric=np.full((n, 3), 1 / 3),
        rigid_joint=np.full(n, -1),
        expressive=np.zeros(n, bool),
    )
