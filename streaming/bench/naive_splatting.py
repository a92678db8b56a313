"""The peer of the rasterizer benchmark: what a user would write in an afternoon with numpy and numba.

Skinning and projection in vectorised numpy, then one compiled loop: Gaussians near to far, each over the pixels of its
box. No tiles, no masks, no early stop but the contract's.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from lhm_runtime.avatar import Avatar
from lhm_runtime.rasterizer.contract import ALPHA_MAX, ALPHA_MIN, EPS2D_PX2, NEAR_M, TRANSMITTANCE_STOP
from lhm_runtime.rasterizer.reference import covariances
from lhm_runtime.types import Camera

Draw = Callable[[Float[np.ndarray, "55 3 4"], Camera], Float[np.ndarray, "h w 4"]]


def naive_renderer(avatar: Avatar) -> Draw:
    """A function from joint matrices and camera to premultiplied RGBA float32. Raises ImportError without numba."""
    import numba  # noqa: PLC0415

    @numba.njit(cache=False)
    def blend(order, mean2d, conic, reach, opacity, rgb, width, height):  # type: ignore[no-untyped-def]
        picture = np.zeros((height, width, 4), np.float32)
        transmittance = np.ones((height, width), np.float32)
        for i in order:
            u, v = mean2d[i, 0], mean2d[i, 1]
            x0, x1 = max(0, int(u - reach[i, 0])), min(width, int(u + reach[i, 0]) + 2)
            y0, y1 = max(0, int(v - reach[i, 1])), min(height, int(v + reach[i, 1]) + 2)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    t = transmittance[y, x]
                    if t <= TRANSMITTANCE_STOP:
                        continue
                    dx, dy = x + np.float32(0.5) - u, y + np.float32(0.5) - v
                    power = conic[i, 0] * dx * dx + 2 * conic[i, 1] * dx * dy + conic[i, 2] * dy * dy
                    alpha = min(opacity[i] * np.exp(np.float32(-0.5) * power), np.float32(ALPHA_MAX))
                    if alpha < ALPHA_MIN:
                        continue
                    for k in range(3):
                        picture[y, x, k] += t * alpha * rgb[i, k]
                    transmittance[y, x] = t * (1 - alpha)
        picture[:, :, 3] = 1 - transmittance
        return picture

    rest, rest_covariances = avatar.gaussians, covariances(avatar.gaussians).astype(np.float32)

    def draw(joint_matrices: Float[np.ndarray, "55 3 4"], camera: Camera) -> Float[np.ndarray, "h w 4"]:
        blended = (avatar.skin_weights[:, :, None, None] * joint_matrices[avatar.skin_joints]).sum(1)
        A = blended[:, :, :3]
        means = (A @ rest.means[:, :, None])[:, :, 0] + blended[:, :, 3]
        R, t = camera.T_camera_world[:3, :3].astype(np.float32), camera.T_camera_world[:3, 3].astype(np.float32)
        x, y, z = (means @ R.T + t).T
        J = np.zeros((len(z), 2, 3), np.float32)
        J[:, 0, 0], J[:, 0, 2], J[:, 1, 1], J[:, 1, 2] = (
            camera.fx / z,
            -camera.fx * x / z**2,
            camera.fy / z,
            -camera.fy * y / z**2,
        )
        to_picture = J @ R @ A
        cov = to_picture @ rest_covariances @ to_picture.swapaxes(1, 2)
        a, b, c = cov[:, 0, 0] + EPS2D_PX2, cov[:, 0, 1], cov[:, 1, 1] + EPS2D_PX2
        conic = np.stack([c, -b, a], 1) / (a * c - b * b)[:, None]
        sigmas = np.sqrt(2 * np.log(np.maximum(rest.opacity / ALPHA_MIN, 1)))
        reach = sigmas[:, None] * np.sqrt(np.stack([a, c], 1))
        mean2d = np.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], 1)
        order = np.argsort(z, kind="stable")
        order = order[(z > NEAR_M)[order]]
        picture: np.ndarray = blend(
            order,
            mean2d.astype(np.float32),
            conic.astype(np.float32),
            reach.astype(np.float32),
            rest.opacity,
            rest.rgb,
            camera.width,
            camera.height,
        )
        return picture

    return draw
