"""A body in the SMPL-X layout (Pavlakos et al. 2019): shape, expression and pose to joints and vertices."""

import importlib.resources
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32

from lhm_runtime.body.kinematics import forward_kinematics, skinning_matrices
from lhm_runtime.body.model_file import ModelFile
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError, require_finite
from lhm_runtime.types import SmplxPose


@dataclass(frozen=True, eq=False)
class BodyModel:
    """The constants of one body model: v vertices, f triangles, b shape and e expression coefficients."""

    name: str
    """File name without its suffix."""
    sha256: str
    """SHA-256 of the file, hex."""
    v_template: Float32[np.ndarray, "v 3"]
    """Vertices at zero pose, shape and expression, metres."""
    faces: Int32[np.ndarray, "f 3"]
    """Vertex indices of each triangle, counter-clockwise from outside."""
    shape_directions: Float32[np.ndarray, "v 3 b"]
    """Displacement of each vertex per unit of each beta, metres."""
    expression_directions: Float32[np.ndarray, "v 3 e"]
    """Displacement of each vertex per unit of each expression coefficient, metres."""
    pose_directions: Float32[np.ndarray, "v 3 486"] | None
    """Displacement per unit of each entry of R - I of joints 1 to 54, metres; None if there are none."""
    J_regressor: Float32[np.ndarray, "55 v"]
    """Joints as weighted sums of vertices."""
    skin_weights: Float32[np.ndarray, "v 55"]
    """Share of each joint in each vertex, rows sum to 1."""
    left_hand_mean: Float32[np.ndarray, "15 3"]
    """Rotvecs to add to motion that is stored relative to the mean hand."""
    right_hand_mean: Float32[np.ndarray, "15 3"]
    """As ``left_hand_mean``."""
    beta_names: tuple[str, ...]
    """What each shape coefficient does; ``beta0`` ... where the file does not say."""
    expression_names: tuple[str, ...]
    """Name of each expression coefficient; ``expression0`` ... where the file does not say."""
    lmk_faces_idx: Int32[np.ndarray, " l"] | None
    """Triangles of the 51 inner face landmarks (iBUG 68 without the jaw line), if the file has them."""
    lmk_bary_coords: Float32[np.ndarray, "l 3"] | None
    """Their barycentric coordinates."""
    mediapipe_faces_idx: Int32[np.ndarray, " m"] | None
    """Triangles of MediaPipe's face landmarks, if the file has them (478 in the free body)."""
    mediapipe_bary_coords: Float32[np.ndarray, "m 3"] | None
    """Their barycentric coordinates."""

    @staticmethod
    def load(path: Path | str) -> "BodyModel":
        """Read an official ``SMPLX_*.npz`` or the free body; nothing in it is unpickled.

        Shape and expression columns that are zero up to the end and have no name are dropped.

        Raises:
            BodyModelError: not such a file, or a key that is missing or holds something else than expected.
        """
        path = Path(path)
        file = ModelFile(path)
        v_template = file.floats("v_template", (None, 3))
        v = len(v_template)
        faces = file.indices("f", (None, 3), below=v)
        shape_directions, beta_names, expression_directions, expression_names = file.blend_shapes(v)
        file.check_joint_tree()
        lmk_faces_idx, lmk_bary_coords = file.landmarks("lmk", len(faces))
        mediapipe_faces_idx, mediapipe_bary_coords = file.landmarks("mediapipe", len(faces))
        return BodyModel(
            name=path.stem,
            sha256=file.sha256,
            v_template=v_template,
            faces=faces,
            shape_directions=shape_directions,
            expression_directions=expression_directions,
            pose_directions=file.pose_directions(v),
            J_regressor=file.floats("J_regressor", (55, v)),
            skin_weights=file.skin_weights(v),
            left_hand_mean=file.floats("hands_meanl", (45,)).reshape(15, 3),
            right_hand_mean=file.floats("hands_meanr", (45,)).reshape(15, 3),
            beta_names=beta_names,
            expression_names=expression_names,
            lmk_faces_idx=lmk_faces_idx,
            lmk_bary_coords=lmk_bary_coords,
            mediapipe_faces_idx=mediapipe_faces_idx,
            mediapipe_bary_coords=mediapipe_bary_coords,
        )

    @staticmethod
    @cache
    def default() -> "BodyModel":
        """The free body that ships with the package (assets/NOTICE), loaded once."""
        asset = importlib.resources.files("lhm_runtime") / "assets" / "free_body.npz"
        with importlib.resources.as_file(asset) as path:
            return BodyModel.load(path)

    def rest_joints(
        self, betas: Float[np.ndarray, " b"] | None = None, expression: Float[np.ndarray, " e"] | None = None
    ) -> Float32[np.ndarray, "55 3"]:
        """Joints at zero pose, metres. Coefficients left out at the end are zero.

        Raises:
            InvalidInputError: more coefficients than the model has, or one that is not finite.
        """
        template, shape, expressions = self._joint_bases
        joints: np.ndarray = template + _blend(shape, betas, "betas") + _blend(expressions, expression, "expression")
        return joints.astype(np.float32)

    def rest_vertices(
        self, betas: Float[np.ndarray, " b"] | None = None, expression: Float[np.ndarray, " e"] | None = None
    ) -> Float32[np.ndarray, "v 3"]:
        """Vertices at zero pose, metres. Coefficients and errors as in ``rest_joints``."""
        vertices: np.ndarray = self.v_template + _blend(self.shape_directions, betas, "betas")
        vertices += _blend(self.expression_directions, expression, "expression")
        return vertices

    def pose_vertices(
        self, pose: SmplxPose, betas: Float[np.ndarray, " b"] | None = None
    ) -> tuple[Float32[np.ndarray, "v 3"], Float64[np.ndarray, "55 4 4"]]:
        """World vertices and ``T_world_joint`` of a pose with its expression, by linear blend skinning.

        Raises:
            InvalidInputError: as in ``rest_joints``, or a NaN or Inf in the pose.
        """
        rest_joints = self.rest_joints(betas, pose.expression)
        T_world_joint = forward_kinematics(pose.rotvec, rest_joints, pose.transl)
        vertices = self.rest_vertices(betas, pose.expression)
        if self.pose_directions is not None:
            feature = (rotvec_to_matrix(pose.rotvec[1:]) - np.eye(3, dtype=np.float32)).reshape(486)
            vertices += self.pose_directions @ feature
        matrices = skinning_matrices(T_world_joint, rest_joints)
        # one dense product is faster than gathering each vertex's few joints
        blended = (self.skin_weights @ matrices.reshape(55, 12)).reshape(-1, 3, 4)
        return (blended[:, :, :3] @ vertices[:, :, None])[:, :, 0] + blended[:, :, 3], T_world_joint

    @cached_property
    def _joint_bases(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """J_regressor times template, shape and expression: [55,3], [55,3,b], [55,3,e]."""
        template, shape, expressions = (
            np.tensordot(self.J_regressor, basis, axes=1)
            for basis in (self.v_template, self.shape_directions, self.expression_directions)
        )
        return template, shape, expressions


def _blend(directions: np.ndarray, coefficients: np.ndarray | None, name: str) -> np.ndarray:
    """Directions [n,3,k] times the first few of k coefficients -> [n,3]."""
    if coefficients is None:
        return np.zeros(directions.shape[:2], np.float32)
    if len(coefficients) > directions.shape[2]:
        raise InvalidInputError(
            f"{name} has {len(coefficients)} values, this body model takes up to {directions.shape[2]}"
        )
    require_finite(name, coefficients)
    blended: np.ndarray = directions[:, :, : len(coefficients)] @ coefficients.astype(np.float32)
    return blended
