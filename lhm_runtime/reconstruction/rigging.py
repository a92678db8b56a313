"""Skin weights and expressions for Gaussians, taken from the nearest point of a body's surface."""

from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64, UInt8
from scipy.spatial import cKDTree

from lhm_runtime.avatar import MAX_INFLUENCES, Avatar, AvatarMetadata, check_gaussians
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.errors import InvalidInputError, require_finite
from lhm_runtime.types import Gaussians

EXPRESSION_FLOOR_M: Final = 1e-4
"""Gaussians that no single expression moves this far, metres, are left out of the expression directions."""

EXPRESSION_REACH_M: Final = (0.01, 0.05)
"""Metres from the skin up to which expressions act fully (beard, glasses) and from which not at all (hat)."""

BODY_MARGIN_M: Final = 0.5
"""Gaussians further than this outside the body's bounding box do not belong to that body at zero pose."""

_CANDIDATES: Final = 8
_CHUNK: Final = 8192


def rig_gaussians(
    gaussians: Gaussians,
    body: BodyModel,
    metadata: AvatarMetadata,
    betas: Float[np.ndarray, " b"] | None = None,
) -> Avatar:
    """Make an avatar of Gaussians that stand in a body's zero pose, such as an imported .ply.

    Raises:
        InvalidInputError: a value outside the contract of ``Gaussians``, metadata that name another body, or
            Gaussians that are mostly elsewhere than the body (another pose, unit or axis convention).
    """
    check_gaussians(gaussians)
    if (metadata.body_model, metadata.body_model_sha256) != (body.name, body.sha256):
        raise InvalidInputError(
            f"metadata name body model {metadata.body_model!r} ({metadata.body_model_sha256[:8]}), "
            f"the one given is {body.name!r} ({body.sha256[:8]})"
        )
    vertices = body.rest_vertices(betas)
    low, high = vertices.min(axis=0) - BODY_MARGIN_M, vertices.max(axis=0) + BODY_MARGIN_M
    astray = int(((gaussians.means < low) | (gaussians.means > high)).any(axis=1).sum())
    if 2 * astray > len(gaussians):
        raise InvalidInputError(
            f"{astray} of {len(gaussians)} Gaussians are over {BODY_MARGIN_M} m off the body: "
            "expected zero pose, metres, y up, facing +z, where the body stands"
        )
    skin_joints, skin_weights, expression_gaussians, expression_directions = bind_to_body(gaussians.means, body, betas)
    return Avatar(
        gaussians=gaussians,
        skin_joints=skin_joints,
        skin_weights=skin_weights,
        constrained=np.zeros(len(gaussians), bool),
        expression_gaussians=expression_gaussians,
        expression_directions=expression_directions,
        expression_names=body.expression_names,
        rest_joints=body.rest_joints(betas),
        metadata=metadata,
    )


def bind_to_body(
    points: Float[np.ndarray, "n 3"], body: BodyModel, betas: Float[np.ndarray, " b"] | None = None
) -> tuple[
    UInt8[np.ndarray, "n k"],
    Float32[np.ndarray, "n k"],
    Int32[np.ndarray, " m"],
    Float32[np.ndarray, "m e 3"],
]:
    """How joints and expressions move points near a body at zero pose, in metres, as ``Avatar`` keeps it.

    Returns:
        ``skin_joints``, ``skin_weights`` (k <= 8: as many as any point needs), ``expression_gaussians`` (the
        points that expressions move noticeably), ``expression_directions``.

    Raises:
        InvalidInputError: a NaN or Inf in ``points``, or betas that the body refuses.
    """
    vertices = body.rest_vertices(betas)
    face_index, barycentric = surface_binding(points, vertices, body.faces)
    corners = body.faces[face_index]
    skin_joints, skin_weights = _heaviest(corners, barycentric, body.skin_weights)

    reach = np.abs(body.expression_directions).max(axis=(1, 2), initial=0)
    moved = np.flatnonzero(reach[corners].max(axis=1, initial=0) >= EXPRESSION_FLOOR_M / np.sqrt(3))
    corners, barycentric = corners[moved], barycentric[moved]
    surface = np.einsum("mvc,mv->mc", vertices[corners], barycentric)
    near, far = EXPRESSION_REACH_M
    distance = np.linalg.norm(points[moved] - surface, axis=1)
    barycentric = barycentric * ((far - distance) / (far - near)).clip(0, 1)[:, None]
    directions = np.zeros((len(moved), body.expression_directions.shape[2], 3))
    for corner, share in zip(corners.T, barycentric.T, strict=True):
        directions += share[:, None, None] * body.expression_directions[corner].swapaxes(1, 2)
    noticeable = np.linalg.norm(directions, axis=2).max(axis=1, initial=0) >= EXPRESSION_FLOOR_M
    return (
        skin_joints,
        skin_weights,
        moved[noticeable].astype(np.int32),
        directions[noticeable].astype(np.float32),
    )


def surface_binding(
    points: Float[np.ndarray, "n 3"], vertices: Float[np.ndarray, "v 3"], faces: Int32[np.ndarray, "f 3"]
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 3"]]:
    """Nearest point on a triangle mesh to each point: its face and the weights of its corners (sum 1).

    Searched among the triangles with the nearest centroids, 8 of each power-of-two class of size, so that a
    large triangle is not hidden by small ones beside it; the cost does not grow with the distance. Not always
    the very nearest: on the free body 1 point in 2,000 gets another triangle, less than 0.1 mm further away.

    Raises:
        InvalidInputError: a NaN or Inf in points or vertices, or no faces.
    """
    require_finite("points", points)
    require_finite("vertices", vertices)
    if len(faces) == 0:
        raise InvalidInputError("the mesh has no faces to bind points to")
    triangles = vertices[faces].astype(np.float64)
    centroids = triangles.mean(axis=1)
    radius = np.linalg.norm(triangles - centroids[:, None], axis=2).max(axis=1)
    size_class = np.frexp(radius)[1]
    classes = [np.flatnonzero(size_class == size) for size in np.unique(size_class)]
    trees = [(members, cKDTree(centroids[members])) for members in classes]

    face_index = np.empty(len(points), np.int64)
    barycentric = np.empty((len(points), 3))
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        chunk = points[part].astype(np.float64)
        nearby = [
            members[tree.query(chunk, np.arange(1, min(_CANDIDATES, len(members)) + 1))[1]] for members, tree in trees
        ]
        candidates = np.concatenate(nearby, axis=1)
        weights = _closest_on_triangle(chunk[:, None], triangles[candidates])
        offset = np.einsum("ncvd,ncv->ncd", triangles[candidates], weights) - chunk[:, None]
        best = np.einsum("ncd,ncd->nc", offset, offset).argmin(axis=1)
        rows = np.arange(len(chunk))
        face_index[part], barycentric[part] = candidates[rows, best], weights[rows, best]
    return face_index, barycentric


def _heaviest(
    corners: Int32[np.ndarray, "n 3"],
    barycentric: Float64[np.ndarray, "n 3"],
    vertex_weights: Float32[np.ndarray, "v 55"],
) -> tuple[UInt8[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """Blend the skin weights of each face's corners; keep the heaviest joints and let them sum to 1."""
    blended = np.zeros((len(corners), vertex_weights.shape[1]))
    for corner, share in zip(corners.T, barycentric.T, strict=True):
        blended += share[:, None] * vertex_weights[corner]
    joints = np.argsort(-blended, axis=1, kind="stable")[:, :MAX_INFLUENCES]
    weights = np.take_along_axis(blended, joints, axis=1)
    needed = max(1, int((weights > 0).any(axis=0).sum()))
    weights /= weights.sum(axis=1, keepdims=True)
    return joints[:, :needed].astype(np.uint8), weights[:, :needed].astype(np.float32)


def _closest_on_triangle(
    points: Float64[np.ndarray, "n 1 3"], triangles: Float64[np.ndarray, "n c 3 3"]
) -> Float64[np.ndarray, "n c 3"]:
    """Barycentric coordinates of the point of each triangle nearest to its point (Ericson 2005, 5.1.5)."""
    a = triangles[:, :, 0]
    ab, ac, ap = triangles[:, :, 1] - a, triangles[:, :, 2] - a, points - a
    # d1 = ab.ap, d2 = ac.ap, and the same seen from b (d3, d4) and from c (d5, d6)
    d1, d2 = (ab * ap).sum(-1), (ac * ap).sum(-1)
    ab_ac = (ab * ac).sum(-1)
    d3, d4 = d1 - (ab * ab).sum(-1), d2 - ab_ac
    d5, d6 = d1 - ab_ac, d2 - (ac * ac).sum(-1)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    inside = va + vb + vc
    with np.errstate(divide="ignore", invalid="ignore"):  # the quotients of regions not chosen
        along_bc = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        # an edge of length 0 (d1 = d3 and so on) has no region: the other two cover it
        regions = [
            ((d1 <= 0) & (d2 <= 0), 0, 0),  # corner a
            ((d3 >= 0) & (d4 <= d3), 1, 0),  # corner b
            ((d6 >= 0) & (d5 <= d6), 0, 1),  # corner c
            ((vc <= 0) & (d1 >= 0) & (d3 <= 0) & (d1 > d3), d1 / (d1 - d3), 0),  # edge ab
            ((vb <= 0) & (d2 >= 0) & (d6 <= 0) & (d2 > d6), 0, d2 / (d2 - d6)),  # edge ac
            ((va <= 0) & (d4 >= d3) & (d5 >= d6), 1 - along_bc, along_bc),  # edge bc
            (inside != 0, vb / inside, vc / inside),
        ]
        chosen, at_b, at_c = zip(*regions, strict=True)
        b = np.select(chosen, at_b).clip(0, 1)  # rounding in a needle may leave the triangle
        c = np.select(chosen, at_c).clip(0, 1 - b)
    return np.stack([1 - b - c, b, c], axis=-1)
