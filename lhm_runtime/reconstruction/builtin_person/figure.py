"""The bare figure that the built-in person is dressed upon, and the landmarks that place its features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Float64, Int64

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.builtin_person.look import Look

_REST_FACE = {
    "mouthSmileLeft": 0.38,
    "mouthSmileRight": 0.38,
    "browInnerUp": 0.1,
    "browOuterUpLeft": 0.2,
    "browOuterUpRight": 0.2,
    "eyeWideLeft": 0.6,
    "eyeWideRight": 0.6,
}
"""A trace of a smile and open eyes at rest: a face at exactly zero looks stern."""


@dataclass(frozen=True, eq=False)
class Figure:
    """The shaped body at zero pose: v vertices, f triangles."""

    body: BodyModel
    """The model whose weights and expressions everything is bound to."""
    look: Look
    """Colours and cuts."""
    vertices: Float64[np.ndarray, "v 3"]
    """Metres, with the rest face on."""
    normals: Float64[np.ndarray, "v 3"]
    """Unit, outward."""
    faces: Int64[np.ndarray, "f 3"]
    """Counter-clockwise from outside."""
    joints: Float64[np.ndarray, "55 3"]
    """Rest joints, metres."""
    landmarks: Float64[np.ndarray, "478 3"]
    """MediaPipe's face mesh points on this face."""
    neighbours: sp.csr_array
    """[v, v] averages the ring around each vertex; rows sum to 1."""
    stretch: Float64[np.ndarray, " v"]
    """How much more area the skin covers in the widest of the common expressions than at rest, >= 1."""
    shade: Float64[np.ndarray, " v"]
    """Baked ambient light of the bare body, about 0.55 in creases to 1.1 on what faces the sky."""

    def joint(self, name: str) -> Float64[np.ndarray, " 3"]:
        """Rest position of a joint."""
        position: np.ndarray = self.joints[JOINT_INDEX[name]]
        return position

    def weight_of(self, *names: str) -> Float64[np.ndarray, " v"]:
        """Share that the named joints together have in each vertex."""
        share: np.ndarray = self.body.skin_weights[:, [JOINT_INDEX[n] for n in names]].sum(axis=1).astype(np.float64)
        return share


def build_figure(body: BodyModel, look: Look) -> Figure:
    """Shape the body into the person of that look.

    Raises:
        InvalidInputError: the body has no MediaPipe landmarks to place a face by, or cannot blink.
    """
    if body.mediapipe_faces_idx is None or body.mediapipe_bary_coords is None or len(body.mediapipe_faces_idx) != 478:
        raise InvalidInputError(
            f"body model {body.name!r} has no 478 MediaPipe face landmarks, which the built-in person's face is placed "
            "by; pass the bundled body (BodyModel.default())"
        )
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        if name not in body.expression_names:
            raise InvalidInputError(
                f"body model {body.name!r} has no expression {name}, which the built-in person's lashes follow; "
                "pass the bundled body (BodyModel.default())"
            )
    betas = np.array([look.shape.get(name, 0.0) for name in body.beta_names])
    vertices = body.rest_vertices(betas, np.array([_REST_FACE.get(name, 0.0) for name in body.expression_names]))
    vertices = _refine_face(vertices.astype(np.float64), body)
    faces = body.faces.astype(np.int64)
    neighbours = ring_average(faces, len(vertices))
    normals = vertex_normals(vertices, faces)
    corners = vertices[faces[body.mediapipe_faces_idx]]
    return Figure(
        body=body,
        look=look,
        vertices=vertices,
        normals=normals,
        faces=faces,
        joints=body.rest_joints(betas).astype(np.float64),
        landmarks=(corners * body.mediapipe_bary_coords[:, :, None]).sum(axis=1),
        neighbours=neighbours,
        stretch=widest_stretch(body, vertices, faces),
        shade=ambient(vertices, normals, neighbours),
    )


def _refine_face(vertices: Float64[np.ndarray, "v 3"], body: BodyModel) -> Float64[np.ndarray, "v 3"]:
    """Larger eyes, and a narrower nose and jaw, than the shape space offers; the eye joints stay where they are."""
    assert body.mediapipe_faces_idx is not None  # noqa: S101 (build_figure checked)
    nose, lip, chin = (vertices[body.faces[body.mediapipe_faces_idx[k]]].mean(axis=0) for k in (4, 13, 152))
    head = body.skin_weights[:, [JOINT_INDEX["head"], JOINT_INDEX["jaw"]]].sum(axis=1)
    for centre in body.J_regressor[[JOINT_INDEX["left_eye_smplhf"], JOINT_INDEX["right_eye_smplhf"]]] @ vertices:
        offset = vertices - centre
        vertices = vertices + 0.13 * np.exp(-0.5 * (offset**2).sum(axis=1, keepdims=True) / 0.021**2) * offset
    x, y, z = vertices.T
    around_nose = np.exp(-0.5 * (((vertices - nose) / [0.022, 0.017, 0.020]) ** 2).sum(axis=1))
    low = (
        np.clip((lip[1] + 0.03 - y) / 0.05, 0, 1)
        * np.clip((z - chin[2] + 0.10) / 0.06, 0, 1)
        * np.clip((y - chin[1] + 0.03) / 0.03, 0, 1)
    )
    narrower = 1 - head * (0.24 * around_nose + 0.06 * low)
    flatter = nose[2] - 0.022 + (z - nose[2] + 0.022) * (1 - 0.10 * around_nose * head)
    return np.stack([x * narrower, y, np.where(around_nose > 0.01, flatter, z)], axis=1)


def express(
    vertices: Float[np.ndarray, "v 3"], body: BodyModel, names: Sequence[str], amount: float = 1.0
) -> Float[np.ndarray, "v 3"]:
    """Vertices with these expressions on, as far as the body has them."""
    columns = [body.expression_names.index(name) for name in names if name in body.expression_names]
    moved: np.ndarray = vertices + amount * body.expression_directions[:, :, columns].sum(axis=2)
    return moved


def widest_stretch(
    body: BodyModel, vertices: Float[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]
) -> Float64[np.ndarray, " v"]:
    """Area around each vertex under blink, open jaw, smile and pucker over that at rest, at most 9."""
    moved = np.flatnonzero((np.abs(body.expression_directions).max(axis=(1, 2)) > 1e-4)[faces].any(axis=1))
    corners = faces[moved]
    count = len(vertices)

    def area_around(shape: np.ndarray) -> np.ndarray:
        a, b, c = (shape[corners[:, k]] for k in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        return np.bincount(corners.ravel(), np.repeat(area, 3), count) + 1e-9

    rest = area_around(vertices)
    widest: np.ndarray = rest
    for expression in (
        ("eyeBlinkLeft", "eyeBlinkRight"),
        ("jawOpen",),
        ("mouthSmileLeft", "mouthSmileRight"),
        ("mouthFunnel",),
    ):
        widest = np.maximum(widest, area_around(express(vertices, body, expression)))
    stretch: np.ndarray = np.minimum(widest / rest, 9.0)
    return stretch


def ring_average(faces: Int64[np.ndarray, "f 3"], count: int) -> sp.csr_array:
    """Matrix that replaces each vertex value by the mean over its edges' other ends; rows sum to 1."""
    i = np.concatenate([faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()])
    j = np.concatenate([faces[:, [1, 2, 0]].ravel(), faces[:, [0, 1, 2]].ravel()])
    adjacency = sp.csr_array((np.ones(len(i)), (i, j)), shape=(count, count))
    adjacency.data[:] = 1.0
    valence = np.maximum(adjacency.sum(axis=1), 1.0)
    return sp.csr_array(sp.diags_array(1.0 / valence) @ adjacency)


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]) -> Float64[np.ndarray, "v 3"]:
    """Area-weighted unit normals; +y where a vertex has no triangle."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area_normals = np.cross(b - a, c - a)
    normals = np.stack(
        [np.bincount(faces.ravel(), np.repeat(area_normals[:, k], 3), len(vertices)) for k in range(3)],
        axis=1,
    )
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / np.maximum(length, 1e-30), [0.0, 1.0, 0.0])


def ambient(
    vertices: Float[np.ndarray, "v 3"], normals: Float[np.ndarray, "v 3"], neighbours: sp.csr_array
) -> Float64[np.ndarray, " v"]:
    """Sky light from the normal, darkened in hollows: a vertex under the mean of its surroundings sees less sky.

    The hollows are measured at three widths of smoothing, so that creases and broad cavities both show.
    """
    sky: np.ndarray = 0.90 + 0.13 * normals[:, 1] + 0.05 * np.maximum(normals[:, 2], 0)
    around = neighbours @ vertices
    edge = np.sqrt((neighbours @ vertices**2 - 2 * vertices * around + vertices**2).sum(axis=1))
    smooth, done = vertices, 0
    for rounds, share in ((3, 0.12), (12, 0.13), (40, 0.09)):
        for _ in range(rounds - done):
            smooth = neighbours @ smooth
        done = rounds
        depth = ((smooth - vertices) * normals).sum(axis=1) / (0.42 * edge * np.sqrt(rounds))
        sky = sky * (1 - share * np.clip(depth, -0.3, 1.0))
    return sky
