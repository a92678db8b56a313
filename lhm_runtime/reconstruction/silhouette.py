"""Body shape from a matte: where the outline of a posed body lies inside the person's, or outside."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS
from lhm_runtime.reconstruction.builtin_person.figure import vertex_normals
from lhm_runtime.types import Camera, SmplxPose

_LONGEST_SIDE = 640  # outlines are compared at this size, pixels
_CLOTHING_M = 0.008
"""Cloth stands off the skin by about this much."""
_INWARDS_M, _OUTWARDS_M = 0.09, 0.14  # how far the person's outline is looked for
_GRAZING = 0.5  # cosine to the view below which a vertex may be on the outline
_BORDER = 4  # pixels from the picture's edge, where the outline is the edge's
_OUTLIER_M = 0.02
_LOOSE, _TIGHT = 0.6, 1.5  # loose cloth says less than a body that sticks out
_FEWEST = 100
_POINTS, _POINT_M = 60, 0.02  # neighbours tell the same: all points together count as so many, of this deviation
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """What an outline tells of the betas: ``rows @ betas`` should be ``targets``, in deviations."""

    rows: Float64[np.ndarray, "r b"]
    targets: Float64[np.ndarray, " r"]


def measure_outline(
    body: BodyModel,
    pose: SmplxPose,
    betas: Float32[np.ndarray, " b"],
    camera: Camera,
    alpha: Float32[np.ndarray, "h w"],
) -> Outline | None:
    """Compare the outline of trunk and limbs with the matte's; None where too little of it is seen.

    ``camera`` has the size of ``alpha``. Joints are taken to stay where they are: only the surface around them moves.
    """
    vertices, T_world_joint = body.pose_vertices(pose, betas)
    R = camera.T_camera_world[:3, :3]
    seen = vertices @ R.T + camera.T_camera_world[:3, 3]
    scale = min(1.0, _LONGEST_SIDE / max(alpha.shape))
    size = (round(alpha.shape[1] * scale), round(alpha.shape[0] * scale))
    inside = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA) > 0.5
    pixels = scale * (camera.fx * seen[:, :2] / seen[:, 2:] + [camera.cx, camera.cy])
    px_per_m = scale * camera.fx / float(np.median(seen[:, 2]))

    covered = _fill(pixels, body.faces, size)
    normals = vertex_normals(seen, body.faces.astype(np.int64))
    chosen = np.flatnonzero(_on_outline(seen, normals, pixels, covered, px_per_m) & _has_plain_outline(body))
    across = normals[chosen, :2] / np.maximum(np.linalg.norm(normals[chosen, :2], axis=1, keepdims=True), 1e-9)
    offsets = _find_outline(pixels[chosen], across, inside, covered, px_per_m)
    found = np.isfinite(offsets)
    chosen, across = chosen[found], across[found]
    if len(chosen) < _FEWEST:
        return None

    missing_m = offsets[found] * seen[chosen, 2] / (scale * camera.fx) - _CLOTHING_M
    # how the surface moves against its bones, seen across the outline
    b = len(betas)
    joint_shapes = np.tensordot(body.J_regressor, body.shape_directions[:, :, :b], axes=1)
    weights = body.skin_weights[chosen]
    relative = body.shape_directions[chosen, :, :b] - np.tensordot(weights, joint_shapes, axes=1)
    turns = (weights @ (R @ T_world_joint[:, :3, :3]).reshape(NUM_JOINTS, 9)).reshape(-1, 3, 3)
    A = np.einsum("ni,nij,njb->nb", across, turns[:, :2], relative)
    trust = np.where(missing_m > 0, _LOOSE, _TIGHT) * _OUTLIER_M / np.maximum(np.abs(missing_m), _OUTLIER_M)
    scale = np.sqrt(_POINTS * trust / len(chosen)) / _POINT_M
    rows = np.column_stack([A, missing_m + A @ betas]) * scale[:, None]
    condensed = np.linalg.qr(rows).R  # the same least squares in b + 1 rows
    return Outline(condensed[:, :-1], condensed[:, -1])


@lru_cache(maxsize=4)
def _has_plain_outline(body: BodyModel) -> Bool[np.ndarray, " v"]:
    """Vertices of trunk, arms and legs: hair, fingers and shoes hide the shape of the rest."""
    hidden = [JOINT_INDEX[name] for name in ("head", "jaw", "left_eye_smplhf", "right_eye_smplhf")]
    hidden += [JOINT_INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("wrist", "ankle", "foot")]
    plain: np.ndarray = ~np.isin(body.skin_weights.argmax(1), [*hidden, *range(25, NUM_JOINTS)])
    return plain


def _fill(
    pixels: Float64[np.ndarray, "v 2"], faces: Int32[np.ndarray, "f 3"], size: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """What the mesh covers of a picture of ``size`` (width, height)."""
    corners = np.round(pixels * 2**_SUBPIXEL_BITS).astype(np.int32)[faces]
    x, y = np.moveaxis(corners - corners[:, :1], -1, 0)
    towards_camera = x[:, 1] * y[:, 2] < x[:, 2] * y[:, 1]
    covered = np.zeros((size[1], size[0]), np.uint8)
    for triangle in corners[towards_camera]:
        cv2.fillConvexPoly(covered, triangle, 1, cv2.LINE_8, _SUBPIXEL_BITS)
    return covered > 0


def _on_outline(
    seen: np.ndarray, normals: np.ndarray, pixels: np.ndarray, covered: np.ndarray, px_per_m: float
) -> Bool[np.ndarray, " v"]:
    """Vertices at the border of what the mesh covers, away from the picture's edges."""
    size = np.array(covered.shape[::-1])
    within = ((pixels > _BORDER) & (pixels < size - _BORDER)).all(1)
    grazing = np.abs((normals * seen).sum(1)) < _GRAZING * np.linalg.norm(seen, axis=1)
    depth_px = cv2.distanceTransform(np.pad(covered.astype(np.uint8), 1, constant_values=1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    x, y = np.clip(np.nan_to_num(pixels), 0, size - 1).astype(np.int64).T
    border: np.ndarray = within & grazing & (depth_px[y, x] < max(2.5, 0.006 * px_per_m))
    return border


def _find_outline(
    pixels: np.ndarray, across: np.ndarray, inside: np.ndarray, covered: np.ndarray, px_per_m: float
) -> Float64[np.ndarray, " n"]:
    """Pixels to go along ``across`` until the matte begins or ends; NaN where another limb comes first, or nothing."""
    inwards, outwards = int(_INWARDS_M * px_per_m), int(_OUTWARDS_M * px_per_m)
    steps = np.arange(-inwards, outwards + 1)
    size = np.array(inside.shape[::-1])
    ray = np.clip(np.floor(pixels[:, None] + steps[:, None] * across[:, None]), 0, size - 1).astype(np.int64)
    matte, mesh = inside[ray[:, :, 1], ray[:, :, 0]], covered[ray[:, :, 1], ray[:, :, 0]]
    here = matte[:, inwards]
    ends = _first(~matte[:, inwards:])
    gap = max(3, int(0.01 * px_per_m))
    meets = gap + _first(mesh[:, inwards + gap :])
    begins = _first(matte[:, inwards::-1])
    return np.where(here, np.where(ends < meets, ends, np.nan), -begins)


def _first(found: Bool[np.ndarray, "n s"]) -> Float64[np.ndarray, " n"]:
    """Index of the first True of each row, infinite where there is none."""
    return np.where(found.any(1), found.argmax(1), np.inf)
