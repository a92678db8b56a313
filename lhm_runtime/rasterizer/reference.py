"""The slow twin: float64 numpy, every step as the papers write it. Tests compare every backend with it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.rotations import matrix_to_quat_wxyz, quat_wxyz_to_matrix
from lhm_runtime.rasterizer.contract import (
    ALPHA_MAX,
    ALPHA_MIN,
    EPS2D_PX2,
    FOV_MARGIN,
    NEAR_M,
    TRANSMITTANCE_STOP,
    StopRule,
)
from lhm_runtime.types import Camera, Gaussians

ALPHA_BAND = 2e-5
"""Relative distance from ALPHA_MIN within which single precision may decide otherwise."""

STOP_BAND = 1e-3
"""Relative distance from TRANSMITTANCE_STOP within which single precision may decide otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceImage:
    """A picture and where its hard thresholds lie."""

    rgba: Float64[np.ndarray, "h w 4"]
    """Premultiplied colour and alpha."""
    depth: Float64[np.ndarray, "h w"]
    """Alpha-weighted mean depth, metres; 0 where alpha is 0."""
    boundary: Bool[np.ndarray, "h w"]
    """Pixels where some Gaussian's alpha is within ALPHA_BAND of ALPHA_MIN or, under the gsplat rule, the transmittance
    within STOP_BAND of its stop: there two correct backends may differ by that Gaussian."""


def covariances(gaussians: Gaussians) -> Float64[np.ndarray, "n 3 3"]:
    """R diag(scales^2) R^T of each Gaussian."""
    axes = quat_wxyz_to_matrix(gaussians.quat_wxyz.astype(np.float64)) * gaussians.scales.astype(np.float64)[:, None, :]
    return axes @ axes.swapaxes(1, 2)


def warp(
    avatar: Avatar, joint_matrices: Float[np.ndarray, "55 3 4"], expression: Float[np.ndarray, " e"]
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3 3"]]:
    """Means and covariances under linear blend skinning, turned by the blended matrix read as a quaternion."""
    blended = np.einsum(
        "nk,nkij->nij",
        avatar.skin_weights.astype(np.float64),
        joint_matrices.astype(np.float64)[avatar.skin_joints],
    )
    means = avatar.gaussians.means.astype(np.float64)
    means[avatar.expression_gaussians] += np.einsum(
        "mek,e->mk", avatar.expression_directions.astype(np.float64), expression.astype(np.float64)
    )
    R = quat_wxyz_to_matrix(matrix_to_quat_wxyz(blended[:, :, :3]))
    R[avatar.constrained] = np.eye(3)
    return (
        np.einsum("nij,nj->ni", blended[:, :, :3], means) + blended[:, :, 3],
        R @ covariances(avatar.gaussians) @ R.swapaxes(1, 2),
    )


def rasterize_reference(
    means: Float[np.ndarray, "n 3"],
    covs: Float[np.ndarray, "n 3 3"],
    opacity: Float[np.ndarray, " n"],
    rgb: Float[np.ndarray, "n 3"],
    camera: Camera,
    stop_rule: StopRule = "inclusive",
) -> ReferenceImage:
    """Draw posed Gaussians one after the other, near to far, each over all the pixels it reaches.

    Here ``inclusive`` never stops: the sum that is meant.
    """
    R, t = camera.T_camera_world[:3, :3], camera.T_camera_world[:3, 3]
    in_camera = means @ R.T + t
    transmittance = np.ones((camera.height, camera.width))
    colour, depth = np.zeros((camera.height, camera.width, 3)), np.zeros_like(transmittance)
    boundary, stopped = np.zeros(transmittance.shape, bool), np.zeros(transmittance.shape, bool)
    focal, centre = np.array([camera.fx, camera.fy]), np.array([camera.cx, camera.cy])
    size = np.array([camera.width, camera.height])
    margin = FOV_MARGIN * 0.5 * size / focal
    for i in np.argsort(in_camera[:, 2], kind="stable"):
        z = in_camera[i, 2]
        if z <= NEAR_M or opacity[i] <= ALPHA_MIN:
            continue
        slope = in_camera[i, :2] / z
        tx, ty = np.clip(slope, -centre / focal - margin, (size - centre) / focal + margin)
        J = np.array([[camera.fx / z, 0, -camera.fx * tx / z], [0, camera.fy / z, -camera.fy * ty / z]])
        cov2d = J @ R @ covs[i] @ R.T @ J.T + EPS2D_PX2 * np.eye(2)
        mean2d = focal * slope + centre
        reach = np.sqrt(2 * np.log(opacity[i] / ALPHA_MIN) * np.diag(cov2d)) + 1
        x0, y0 = np.clip(np.floor(mean2d - reach), 0, size).astype(int)
        x1, y1 = np.clip(np.ceil(mean2d + reach) + 1, 0, size).astype(int)
        if x0 >= x1 or y0 >= y1:
            continue
        box = np.s_[y0:y1, x0:x1]
        dx, dy = np.arange(x0, x1)[None, :] + 0.5 - mean2d[0], np.arange(y0, y1)[:, None] + 0.5 - mean2d[1]
        conic = np.linalg.inv(cov2d)
        alpha = opacity[i] * np.exp(-0.5 * (conic[0, 0] * dx**2 + 2 * conic[0, 1] * dx * dy + conic[1, 1] * dy**2))
        boundary[box] |= np.abs(alpha - ALPHA_MIN) < ALPHA_BAND * ALPHA_MIN
        alpha = np.where(alpha >= ALPHA_MIN, np.minimum(alpha, ALPHA_MAX), 0)
        after = transmittance[box] * (1 - alpha)
        if stop_rule == "gsplat":
            near_stop = np.abs(after - TRANSMITTANCE_STOP) < STOP_BAND * TRANSMITTANCE_STOP
            boundary[box] |= near_stop & (alpha > 0) & ~stopped[box]
            stopped[box] |= (after <= TRANSMITTANCE_STOP) & (alpha > 0)
            alpha = np.where(stopped[box], 0, alpha)
        weight = transmittance[box] * alpha
        colour[box] += weight[..., None] * rgb[i]
        depth[box] += weight * z
        transmittance[box] -= weight
    seen = 1 - transmittance
    return ReferenceImage(
        np.dstack([colour, seen]), np.divide(depth, seen, out=np.zeros_like(depth), where=seen > 0), boundary
    )
