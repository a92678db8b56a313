"""Query points: where on the body each Gaussian begins, and how the network is told.

The published points lie in a .ply beside the checkpoint; they are the same for every person. The checkpoint's buffers
are those of the body vertex nearest to each point, in the order of the file.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32
from scipy.spatial import cKDTree
from torch import Tensor, nn

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.errors import FileFormatError, InvalidInputError, require_finite, require_shape
from lhm_runtime.ply import read_columns

FREQUENCIES: Final = 8
"""Octaves of the embedding; the lowest has a period of 2 m."""

_SAME_ROW: Final = 1e-6


class PointEmbedding(nn.Module):
    """Positions in metres to tokens: sines and cosines, a layer, a norm. Always float32: 128 pi needs its digits."""

    basis: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(3, 3 * FREQUENCIES))
        self.mlp = nn.Linear(6 * FREQUENCIES + 3, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, points: Float[Tensor, "b p 3"]) -> Float[Tensor, "b p c"]:
        """One token for each point."""
        phase = points @ self.basis
        return self.norm(self.mlp(torch.cat([phase.sin(), phase.cos(), points], dim=2)))


def read_points(path: Path, count: int) -> Float32[np.ndarray, "count 3"]:
    """The published points (``1_40000.ply``, for LHM-MINI ``1_20000.ply``) at zero pose, metres.

    Raises:
        FileFormatError: the file is absent, no .ply, or holds another number of points.
    """
    try:
        points = read_columns(path, ("x", "y", "z"), "file of points").astype(np.float32)
        require_finite("points", points)
    except (InvalidInputError, OSError) as error:
        raise FileFormatError(
            f"{path} cannot be read as query points: {error}; expected LHM's 1_{count}.ply, whose order the "
            "checkpoint follows"
        ) from error
    if len(points) != count:
        raise FileFormatError(f"{path} holds {len(points)} points, the checkpoint was made for {count}: 1_{count}.ply")
    return points


def recover_points(
    shape_directions: Float[np.ndarray, "p 3 b"], body: BodyModel, *, seed: int = 0
) -> Float32[np.ndarray, "p 3"]:
    """Points in place of an absent .ply: on the surface, each near the vertex that the checkpoint binds it to.

    The vertex is told by its shape directions, which no two share. So order, skinning and the split into body and
    head stay as trained; only where in its vertex's neighbourhood (about 1 cm) a point lies is drawn anew.

    Args:
        shape_directions: of each point, from the checkpoint.
        body: the checkpoint's own.
        seed: of the draw.

    Raises:
        InvalidInputError: a point whose directions are those of no vertex.
    """
    vertices = nearest_rows(shape_directions, body.shape_directions)
    rng = np.random.default_rng(seed)
    corners, first, counts = _faces_around(body.faces, len(body.v_template))
    lone = counts[vertices] == 0
    pick = first[vertices] + (rng.random(len(vertices)) * np.maximum(counts[vertices], 1)).astype(np.int64)
    triangles = body.v_template[corners[np.minimum(pick, len(corners) - 1)]].astype(np.float64)
    # uniform in a triangle, then its largest weight to the vertex: a third of the triangle belongs to each corner
    weights = -np.sort(-rng.dirichlet(np.ones(3), len(vertices)), axis=1)
    points = np.einsum("pk,pkc->pc", weights, triangles)
    return np.where(lone[:, None], body.v_template[vertices], points).astype(np.float32)


def nearest_rows(rows: Float[np.ndarray, "p 3 b"], table: Float[np.ndarray, "v 3 b"]) -> Int[np.ndarray, " p"]:
    """Index in ``table`` of each of ``rows``; raises InvalidInputError for a row that is not in it."""
    flat = table.reshape(len(table), -1)
    require_shape("shape_directions", rows, (None, *table.shape[1:]))
    distance, index = (np.asarray(found) for found in cKDTree(flat).query(rows.reshape(len(rows), -1)))
    if distance.max(initial=0) > _SAME_ROW:
        worst = int(distance.argmax())
        raise InvalidInputError(
            f"the shape directions of point {worst} are those of no vertex of {table.shape[0]}: buffers and body are "
            "of different checkpoints"
        )
    return index


def _faces_around(
    faces: Int32[np.ndarray, "f 3"], count: int
) -> tuple[Int[np.ndarray, "g 3"], Int[np.ndarray, " v"], Int[np.ndarray, " v"]]:
    """Each face once for each corner, that one first and sorted by it; where every vertex's begin, and how many."""
    turned = np.concatenate([np.roll(faces, -k, axis=1) for k in range(3)])
    turned = turned[np.argsort(turned[:, 0], kind="stable")]
    counts = np.bincount(turned[:, 0], minlength=count)
    return turned, np.cumsum(counts) - counts, counts
