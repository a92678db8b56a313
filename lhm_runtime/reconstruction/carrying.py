"""Gaussians that ride on the body's triangles: how joints and expressions move them, in photos and in the avatar."""

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.avatar import MAX_INFLUENCES, Avatar, AvatarMetadata
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.rotations import quat_wxyz_to_matrix
from lhm_runtime.reconstruction.anatomy import Anatomy
from lhm_runtime.reconstruction.builtin_person.sampling import Patch
from lhm_runtime.reconstruction.rigging import EXPRESSION_FLOOR_M
from lhm_runtime.reconstruction.view import View
from lhm_runtime.types import Gaussians


def carried_weights(
    patch: Patch, vertex_weights: Float[np.ndarray, "v 55"], anatomy: Anatomy
) -> Float64[np.ndarray, "n 55"]:
    """Share of each joint in each Gaussian; rows sum to 1."""
    corners = anatomy.faces[patch.triangles]
    weights = np.zeros((len(corners), vertex_weights.shape[1]))
    for corner, share in zip(corners.T, patch.barycentric.T, strict=True):
        weights += share[:, None] * vertex_weights[corner]
    rigid = np.flatnonzero(patch.rigid_joint >= 0)
    weights[rigid] = 0
    weights[rigid, patch.rigid_joint[rigid]] = 1
    return weights


def pose_patch(
    view: View, patch: Patch, weights: Float[np.ndarray, "n 55"], anatomy: Anatomy
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3 3"]]:
    """Centres in the camera's frame of a view, and what turned them there."""
    blended = (weights @ view.zero_to_camera.reshape(55, 12)).reshape(-1, 3, 4)
    corners = anatomy.faces[patch.triangles]
    smile = (view.smile[corners] * patch.barycentric[:, :, None]).sum(axis=1) * patch.expressive[:, None]
    linear = blended[:, :, :3]
    return np.einsum("nij,nj->ni", linear, patch.means + smile) + blended[:, :, 3], linear


def image_covariance(
    view: View,
    points: Float[np.ndarray, "n 3"],
    linear: Float[np.ndarray, "n 3 3"],
    patch: Patch,
) -> Float64[np.ndarray, "n 2 2"]:
    """Covariances projected into a view, square pixels (EWA, Zwicker et al. 2001)."""
    x, y, z = points.T
    fx, fy = view.focal
    jacobian = np.zeros((len(points), 2, 3))
    jacobian[:, 0, 0], jacobian[:, 0, 2] = fx / z, -fx * x / z**2
    jacobian[:, 1, 1], jacobian[:, 1, 2] = fy / z, -fy * y / z**2
    axes = jacobian @ linear @ (quat_wxyz_to_matrix(patch.quat_wxyz) * patch.scales[:, None, :])
    covariance: np.ndarray = axes @ axes.swapaxes(1, 2)
    return covariance


def rig_patch(
    patch: Patch,
    weights: Float[np.ndarray, "n 55"],
    rest_joints: Float[np.ndarray, "55 3"],
    body: BodyModel,
    anatomy: Anatomy,
    metadata: AvatarMetadata,
) -> Avatar:
    """The avatar these Gaussians make."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :MAX_INFLUENCES]
    heaviest = np.take_along_axis(weights, order, axis=1)
    heaviest /= heaviest.sum(axis=1, keepdims=True)
    needed = max(1, int((heaviest > 0).any(axis=0).sum()))
    corners = anatomy.faces[patch.triangles]
    reach = np.linalg.norm(body.expression_directions, axis=1).max(axis=1)
    moved = np.flatnonzero((reach[corners] > EXPRESSION_FLOOR_M).any(axis=1) & patch.expressive)
    directions = np.zeros((len(moved), body.expression_directions.shape[2], 3))
    for corner, share in zip(corners[moved].T, patch.barycentric[moved].T, strict=True):
        directions += share[:, None, None] * body.expression_directions[corner].swapaxes(1, 2)
    return Avatar(
        gaussians=Gaussians(
            means=patch.means.astype(np.float32),
            quat_wxyz=patch.quat_wxyz.astype(np.float32),
            scales=patch.scales.astype(np.float32),
            opacity=patch.opacity.astype(np.float32),
            rgb=np.clip(patch.rgb, 0, 1).astype(np.float32),
        ),
        skin_joints=order[:, :needed].astype(np.uint8),
        skin_weights=heaviest[:, :needed].astype(np.float32),
        constrained=np.zeros(len(weights), bool),
        expression_gaussians=moved.astype(np.int32),
        expression_directions=directions.astype(np.float32),
        expression_names=body.expression_names,
        rest_joints=rest_joints.astype(np.float32),
        metadata=metadata,
    )
