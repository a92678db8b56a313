"""From LHM's canonical Gaussians to an avatar: the opened hips undone, the shape added, skinning and expressions kept.

The network places Gaussians on a body with legs apart and without shape. Per frame LHM undoes the legs, adds the
shape, and poses; here the first two happen once. ``deform`` is the published rule in one piece, the slow twin that
avatars are tested against.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from scipy.spatial import cKDTree

from lhm_runtime.avatar import MAX_INFLUENCES, Avatar, AvatarMetadata
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES, NUM_JOINTS
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices, skinning_matrices
from lhm_runtime.body.rotations import matrix_to_quat_wxyz, quat_multiply_wxyz
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.lhm.points import nearest_rows
from lhm_runtime.types import Gaussians, SmplxPose

HIP_TURN_RAD: Final = np.pi / 9
"""How far each leg is turned outwards in the canonical pose."""

_EXPRESSION_FLOOR_M = 1e-7  # metres per unit of a coefficient
_LOWER_BODY_OR_HEAD: Final[Collection[str]] = {
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_foot", "right_foot"),
    *("neck", "head", "jaw", "left_eye_smplhf", "right_eye_smplhf"),
}
_IS_UPPER_BODY = np.array([name not in _LOWER_BODY_OR_HEAD for name in JOINT_NAMES])


@dataclass(frozen=True, slots=True, eq=False)
class PointRig:
    """What the query points have from the body vertex nearest to each."""

    skin_weights: Float32[np.ndarray, "p 55"]
    shape_directions: Float32[np.ndarray, "p 3 b"]
    """Metres per unit of each beta."""
    expression_directions: Float32[np.ndarray, "p 3 e"]
    """Metres per unit of each expression coefficient, in the canonical pose."""
    is_upper_body: Bool[np.ndarray, " p"]
    """Points of trunk, arms and hands, whose Gaussians are kept small."""
    is_constrained: Bool[np.ndarray, " p"]
    """Points whose Gaussians never rotate."""


def rig_points(points: Float[np.ndarray, "p 3"], body: BodyModel, published: PointRig) -> PointRig:
    """The rig of points other than the published ones, made as the published one was.

    Args:
        points: at zero pose without shape, metres.
        body: the checkpoint's own.
        published: the checkpoint's, which alone tells the vertices that never rotate.

    Raises:
        InvalidInputError: a published rig of another body.
    """
    vertices = cKDTree(body.v_template).query(points)[1]
    never_rotate = np.zeros(len(body.v_template), bool)
    never_rotate[nearest_rows(published.shape_directions[published.is_constrained], body.shape_directions)] = True
    return PointRig(
        skin_weights=body.skin_weights[vertices],
        shape_directions=body.shape_directions[vertices],
        expression_directions=body.expression_directions[vertices],
        is_upper_body=_IS_UPPER_BODY[body.skin_weights[vertices].argmax(axis=1)],
        is_constrained=never_rotate[vertices],
    )


def open_hips(points: Float[np.ndarray, "p 3"], rig: PointRig, body: BodyModel) -> Float32[np.ndarray, "p 3"]:
    """Query points in the canonical pose: those of zero pose with each leg turned outwards by 20 degrees."""
    opened = skinning_matrices(_opened_joints(body), body.rest_joints().astype(np.float64))
    return _move(_blend(rig, opened), points).astype(np.float32)


def closing_matrices(body: BodyModel) -> Float32[np.ndarray, "55 3 4"]:
    """Skinning matrices from the canonical pose to zero pose (LHM's ``transform_mat_neutral_pose``)."""
    joints = _opened_joints(body)[:, :3, 3]
    closed = forward_kinematics(-_canonical_rotvec(), joints, np.zeros(3))
    return skinning_matrices(closed, joints)


def make_avatar(
    canonical: Gaussians,
    rig: PointRig,
    body: BodyModel,
    metadata: AvatarMetadata,
    betas: Float[np.ndarray, " b"] | None = None,
) -> Avatar:
    """An avatar of the network's Gaussians.

    Its centres are exactly LHM's in every pose. Its orientations are LHM's at zero pose; elsewhere they differ where
    LHM reads a quaternion off the product of two blended matrices and an avatar off each of them: around the hips.

    Args:
        canonical: as the network gives them, around ``open_hips``.
        rig: of the query points.
        body: the checkpoint's own.
        metadata: of the avatar.
        betas: shape of the person; the published one's average where None.

    Raises:
        InvalidInputError: not one Gaussian for each point, or more betas than the body has.
    """
    _require_one_each(canonical, rig)
    closing = _blend(rig, closing_matrices(body))
    means = _move(closing, canonical.means) + _shape_offset(rig, betas)
    directions = np.einsum("pab,pbe->pea", closing[:, :, :3], rig.expression_directions)
    moved = np.flatnonzero(np.abs(directions).max(axis=(1, 2), initial=0) > _EXPRESSION_FLOOR_M)
    skin_joints = np.argsort(-rig.skin_weights, axis=1, kind="stable")[:, :MAX_INFLUENCES]
    skin_weights = np.take_along_axis(rig.skin_weights, skin_joints, axis=1)
    needed = max(1, int((skin_weights > 0).any(axis=0).sum()))
    skin_weights = skin_weights[:, :needed] / skin_weights[:, :needed].sum(axis=1, keepdims=True)
    return Avatar(
        gaussians=Gaussians(
            means=means.astype(np.float32),
            quat_wxyz=_turn(closing, canonical, rig),
            scales=canonical.scales,
            opacity=canonical.opacity,
            rgb=canonical.rgb,
        ),
        skin_joints=skin_joints[:, :needed].astype(np.uint8),
        skin_weights=skin_weights,
        constrained=rig.is_constrained,
        expression_gaussians=moved.astype(np.int32),
        expression_directions=np.ascontiguousarray(directions[moved], np.float32),
        expression_names=body.expression_names,
        rest_joints=body.rest_joints(betas),
        metadata=metadata,
    )


def deform(
    canonical: Gaussians,
    rig: PointRig,
    body: BodyModel,
    pose: SmplxPose,
    betas: Float[np.ndarray, " b"] | None = None,
) -> Gaussians:
    """LHM's own rule for one pose: expression, legs closed, shape, pose; quaternions off the blended product.

    Raises:
        InvalidInputError: as ``make_avatar``; a NaN or Inf in the pose.
    """
    _require_one_each(canonical, rig)
    closing = _blend(rig, closing_matrices(body))
    posing = _blend(rig, joint_matrices(pose, body.rest_joints(betas)))
    expressed = canonical.means + rig.expression_directions[:, :, : len(pose.expression)] @ pose.expression
    means = _move(posing, _move(closing, expressed) + _shape_offset(rig, betas))
    turning = posing[:, :, :3] @ closing[:, :, :3]
    return Gaussians(
        means=means.astype(np.float32),
        quat_wxyz=_turn(turning, canonical, rig),
        scales=canonical.scales,
        opacity=canonical.opacity,
        rgb=canonical.rgb,
    )


def _canonical_rotvec() -> Float64[np.ndarray, "55 3"]:
    rotvec = np.zeros((NUM_JOINTS, 3))
    rotvec[JOINT_INDEX["left_hip"], 2] = HIP_TURN_RAD
    rotvec[JOINT_INDEX["right_hip"], 2] = -HIP_TURN_RAD
    return rotvec


def _opened_joints(body: BodyModel) -> Float64[np.ndarray, "55 4 4"]:
    """``T_world_joint`` of the canonical pose, of the body without shape."""
    return forward_kinematics(_canonical_rotvec(), body.rest_joints(), np.zeros(3))


def _blend(rig: PointRig, matrices: Float[np.ndarray, "55 3 4"]) -> Float64[np.ndarray, "p 3 4"]:
    blended: np.ndarray = rig.skin_weights.astype(np.float64) @ matrices.reshape(NUM_JOINTS, 12)
    return blended.reshape(-1, 3, 4)


def _move(matrices: Float64[np.ndarray, "p 3 4"], points: Float[np.ndarray, "p 3"]) -> Float64[np.ndarray, "p 3"]:
    moved: np.ndarray = np.einsum("pab,pb->pa", matrices[:, :, :3], points) + matrices[:, :, 3]
    return moved


def _turn(matrices: Float64[np.ndarray, "p 3 _"], canonical: Gaussians, rig: PointRig) -> Float32[np.ndarray, "p 4"]:
    """Orientations turned by the matrices, w >= 0; those of constrained points as they are."""
    still = rig.is_constrained[:, None]
    rigid = np.where(still, [1.0, 0.0, 0.0, 0.0], matrix_to_quat_wxyz(matrices[:, :, :3]))
    turned = quat_multiply_wxyz(rigid, canonical.quat_wxyz.astype(np.float64))
    return np.where(turned[:, :1] < 0, -turned, turned).astype(np.float32)


def _shape_offset(rig: PointRig, betas: Float[np.ndarray, " b"] | None) -> Float64[np.ndarray, "p 3"]:
    if betas is None:
        return np.zeros(rig.shape_directions.shape[:2])
    if len(betas) > rig.shape_directions.shape[2]:
        raise InvalidInputError(f"{len(betas)} betas, the rig takes up to {rig.shape_directions.shape[2]}")
    offset: np.ndarray = rig.shape_directions[:, :, : len(betas)] @ betas.astype(np.float64)
    return offset


def _require_one_each(canonical: Gaussians, rig: PointRig) -> None:
    if len(canonical) != len(rig.skin_weights):
        raise InvalidInputError(f"{len(canonical)} Gaussians for a rig of {len(rig.skin_weights)} points")
