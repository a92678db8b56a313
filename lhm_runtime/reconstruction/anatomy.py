"""What the projection must know of the body's surface: parts, features of the face, and a coarse smooth basis."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float64, Int64
from scipy.sparse.linalg import splu

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.reconstruction.builtin_person.figure import ring_average
from lhm_runtime.reconstruction.landmark_anchors import embed_face
from lhm_runtime.reconstruction.mesh_image import draw_mesh


class Part(IntEnum):
    """Parts of the body that move and are dressed apart."""

    TORSO = 0
    HEAD = 1
    NECK = 2
    LEFT_ARM = 3
    RIGHT_ARM = 4
    LEFT_HAND = 5
    RIGHT_HAND = 6
    LEFT_LEG = 7
    RIGHT_LEG = 8
    LEFT_FOOT = 9
    RIGHT_FOOT = 10


_STIFFNESS = 20.0
HANDS = (Part.LEFT_HAND, Part.RIGHT_HAND)
FEET = (Part.LEFT_FOOT, Part.RIGHT_FOOT)
LEGS = (Part.LEFT_LEG, Part.RIGHT_LEG)
ARMS = (Part.LEFT_ARM, Part.RIGHT_ARM)
_LIMBS = {
    "LEG": ("hip", "knee"),
    "FOOT": ("ankle", "foot"),
    "ARM": ("shoulder", "elbow"),
    "HAND": ("wrist", "index", "middle", "pinky", "ring", "thumb"),
}
OTHER_SIDE = {
    Part.LEFT_ARM: Part.RIGHT_ARM,
    Part.LEFT_HAND: Part.RIGHT_HAND,
    Part.LEFT_LEG: Part.RIGHT_LEG,
    Part.LEFT_FOOT: Part.RIGHT_FOOT,
}
OTHER_SIDE |= {right: left for left, right in OTHER_SIDE.items()}


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Constants of one body model: v vertices, f triangles."""

    faces: Int64[np.ndarray, "f 3"]
    part: Int64[np.ndarray, " v"]
    """``Part`` of each vertex."""
    left_eye: Int64[np.ndarray, " i"]
    """Vertices of the left eyeball."""
    right_eye: Int64[np.ndarray, " j"]
    inside_mouth: Bool[np.ndarray, " f"]
    """Triangles behind the lips: palate, tongue, cheeks."""
    outer: Bool[np.ndarray, " f"]
    """Triangles of the skin that can be seen from outside with the mouth shut."""
    average: sp.csr_array
    """[v, v] means over the ring of neighbours; rows sum to 1."""
    coarse: sp.csr_array
    """[v, c] smooth basis: each vertex as a mean of nearby control points along the surface; rows sum to 1."""
    coarse_bending: sp.csr_array
    """[c, c] bending energy of the basis, stiff on hands and feet, whose fingers and toes would part."""
    coarse_stretching: sp.csr_array
    """[c, c] energy of differences between neighbours: what nothing is said of follows its surroundings, where
    bending alone would carry slopes on."""
    coarse_order: Int64[np.ndarray, " c"]
    """Order in which to eliminate the basis from such systems, that they stay sparse."""
    vertex_order: Int64[np.ndarray, " v"]
    """The same of the vertices, where neighbours are tied."""
    landmarks: sp.csr_array | None
    """[478, v] reads MediaPipe's face landmarks off the vertices; None for a body without them."""
    face: Bool[np.ndarray, " v"]
    """Vertices between the face landmarks."""


def part_of_joint(name: str) -> Part:
    """The part that a joint moves."""
    if name in ("head", "jaw") or "eye" in name:
        return Part.HEAD
    if name == "neck":
        return Part.NECK
    side, _, stem = name.partition("_")
    for suffix, stems in _LIMBS.items():
        if stem.startswith(stems):
            return Part[f"{side.upper()}_{suffix}"]
    return Part.TORSO


@cache
def study(body: BodyModel) -> Anatomy:
    """Work out the anatomy of a body once."""
    faces = body.faces.astype(np.int64)
    count = len(body.v_template)
    joint_part = np.array([part_of_joint(name) for name in JOINT_NAMES])
    part = joint_part[body.skin_weights.argmax(axis=1)]
    average = ring_average(faces, count)
    coarse = _smooth_basis(average)
    bent = average @ coarse - coarse
    bending = sp.csr_array(bent.T @ (sp.diags_array(np.where(np.isin(part, HANDS + FEET), _STIFFNESS, 1.0)) @ bent))
    degree = np.diff(average.indptr).astype(float)
    face = np.zeros(count, bool)
    if body.mediapipe_faces_idx is not None:
        face[faces[body.mediapipe_faces_idx]] = True
    left_eye, right_eye = (
        np.flatnonzero(body.skin_weights[:, JOINT_NAMES.index(f"{side}_eye_smplhf")] > 0.9)
        for side in ("left", "right")
    )
    eyes = np.zeros(count, bool)
    eyes[left_eye] = eyes[right_eye] = True
    outer = _is_outer(body, faces, part == Part.HEAD)
    skin = ~eyes[faces].any(axis=1)
    return Anatomy(
        faces=faces,
        part=part,
        left_eye=left_eye,
        right_eye=right_eye,
        inside_mouth=~outer & skin & _behind_lips(body, faces),
        outer=outer & skin,
        average=average,
        coarse=coarse,
        coarse_bending=bending,
        coarse_stretching=sp.csr_array(coarse.T @ (sp.diags_array(-degree / degree.mean()) @ bent)),
        coarse_order=_sparing_order(bending),
        vertex_order=_sparing_order(average),
        landmarks=_landmark_matrix(body),
        face=face,
    )


def _is_outer(body: BodyModel, faces: Int64[np.ndarray, "f 3"], head: Bool[np.ndarray, " v"]) -> Bool[np.ndarray, " f"]:
    """Triangles that can be seen from outside: all but those in the head that no view of the zero pose shows."""
    vertices = body.v_template.astype(np.float64)
    middle = (vertices[head].min(axis=0) + vertices[head].max(axis=0)) / 2
    half_px = 150
    scale = half_px / (1.05 * np.abs(vertices[head] - middle).max())
    seen = ~head[faces].all(axis=1)
    for pitch, turns in ((-1.3, 2), (-0.6, 4), (0.0, 8), (0.6, 4), (1.3, 2)):
        for yaw in np.arange(turns) * 2 * np.pi / turns + 0.3 * pitch:
            away = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
            right = np.array([np.cos(yaw), 0, -np.sin(yaw)])
            local = (vertices - middle) @ np.stack([right, np.cross(right, away), -away], axis=1)
            image = np.concatenate([local[:, :2] * scale + half_px, local[:, 2:] + 10], axis=1)
            drawn = draw_mesh(image, faces, 2 * half_px, 2 * half_px)
            seen[np.unique(drawn.face[drawn.covered])] = True
    # a triangle too small for a pixel, or edge on in every view, is outside if its neighbours are
    corner_seen = np.zeros(len(vertices), bool)
    corner_seen[faces[seen]] = True
    outer: np.ndarray = seen | corner_seen[faces].all(axis=1)
    return outer


def _behind_lips(body: BodyModel, faces: Int64[np.ndarray, "f 3"]) -> Bool[np.ndarray, " f"]:
    """Triangles in the box of the mouth."""
    if body.mediapipe_faces_idx is None:
        return np.zeros(len(faces), bool)
    nose, chin, left, right = (
        body.v_template[faces[body.mediapipe_faces_idx[k]]].mean(axis=0) for k in (2, 152, 454, 234)
    )
    middle = body.v_template[faces].mean(axis=1)
    behind: np.ndarray = (
        (middle[:, 1] > chin[1])
        & (middle[:, 1] < nose[1] + 0.02)
        & (np.abs(middle[:, 0]) < 0.8 * (left[0] - right[0]) / 2)
        & (middle[:, 2] > chin[2] - 0.11)
    )
    return behind


def _smooth_basis(average: sp.csr_array) -> sp.csr_array:
    """Smoothed aggregation (Vanek et al. 1996): an independent set of control points, spread by the surface's own
    averaging, so that nothing leaks between limbs that merely come close."""
    count = average.shape[0]
    priority = np.random.default_rng(0).permutation(count)
    rows, columns = average.nonzero()
    undecided, chosen = np.ones(count, bool), np.zeros(count, bool)
    while undecided.any():
        rival = np.full(count, count)
        live = undecided[rows] & undecided[columns]
        np.minimum.at(rival, rows[live], priority[columns[live]])
        winners = undecided & (priority < rival)
        chosen |= winners
        undecided &= ~winners
        touched = np.zeros(count, bool)
        touched[columns[winners[rows]]] = True
        undecided &= ~touched
    control = np.flatnonzero(chosen)
    select = sp.csr_array((np.ones(len(control)), (control, np.arange(len(control)))), shape=(count, len(control)))
    around = sp.csr_array(average @ select)
    shares = np.where(chosen, 1.0, 1 / np.maximum(around.sum(axis=1), 1e-12))
    around.data[np.repeat(chosen, np.diff(around.indptr))] = 0
    basis = sp.csr_array(sp.diags_array(shares) @ (around + select))
    keep_half = 0.5 * (average + sp.eye_array(count))
    smooth = sp.csr_array(keep_half @ (keep_half @ basis))
    smooth.eliminate_zeros()
    return sp.csr_array(sp.diags_array(1 / smooth.sum(axis=1)) @ smooth)


def _sparing_order(pattern: sp.csr_array) -> Int64[np.ndarray, " n"]:
    """Order of elimination with little fill-in for matrices of this symmetric pattern (minimum degree, Liu 1985)."""
    dominant = sp.csr_array((np.full(pattern.nnz, -1.0), pattern.indices, pattern.indptr), shape=pattern.shape)
    diagonal = sp.diags_array(2.0 * np.diff(pattern.indptr) + 1)
    factors = splu(sp.csc_array(dominant + diagonal), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    return np.argsort(factors.perm_c).astype(np.int64)


def _landmark_matrix(body: BodyModel) -> sp.csr_array | None:
    embedding = embed_face(body)
    if embedding is None:
        return None
    corners, bary = embedding
    marks = len(corners)
    return sp.csr_array(
        (bary.ravel(), (np.repeat(np.arange(marks), 3), corners.ravel())),
        shape=(marks, len(body.v_template)),
    )


def smooth_along(
    average: sp.csr_array, values: Float64[np.ndarray, "v ..."], rounds: int
) -> Float64[np.ndarray, "v ..."]:
    """Average per-vertex values over their neighbourhood, ``rounds`` rings wide."""
    for _ in range(rounds):
        values = 0.5 * (values + average @ values)
    return values
