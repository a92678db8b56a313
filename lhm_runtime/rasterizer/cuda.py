"""Draw an avatar on an NVIDIA card: skinning in torch, splatting by gsplat, output converted before it leaves the card.

The contract is contract.py's with gsplat's stop rule, the only one it has. torch and gsplat come with the ``cuda``
extra and are imported when the first renderer is made.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Float32

from lhm_runtime.avatar import Avatar, pad_expression
from lhm_runtime.body.joints import NUM_JOINTS
from lhm_runtime.errors import BackendError, require_finite, require_shape
from lhm_runtime.rasterizer.contract import EPS2D_PX2, NEAR_M, PixelFormat
from lhm_runtime.rasterizer.renderer import BLACK, mean_rgb, picture_shape
from lhm_runtime.types import Camera

Tensor: TypeAlias = Any
"""torch.Tensor; torch is not imported before it is needed."""

MATTE_FADE = 1 / 255
"""Alpha at which ``i420_alpha`` is half way between the person's colour and the mean colour, as in the kernel."""


class CudaRenderer:
    """One avatar on one device; the same call and pictures as ``Renderer``. Not to be shared between threads."""

    def __init__(self, avatar: Avatar, *, device: str = "cuda") -> None:
        """Copy ``avatar`` to ``device``.

        Raises:
            BackendError: torch or gsplat is not installed, or torch sees no such device.
        """
        try:
            import gsplat  # noqa: PLC0415
            import torch  # noqa: PLC0415
        except ImportError as error:
            raise BackendError(
                f"{error.name} is not installed: pip install 'lhm-live[cuda]', or use the CPU renderer"
            ) from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendError(
                f"torch {torch.__version__} sees no CUDA device: check the driver, or use the CPU renderer"
            )
        self._torch, self._splat = torch, gsplat.rasterization
        self._device = torch.device(device)

        def copy(array: np.ndarray, dtype: Any = torch.float32) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype, device=self._device)

        self._means, self._scales = copy(avatar.gaussians.means), copy(avatar.gaussians.scales)
        self._quat_wxyz = copy(avatar.gaussians.quat_wxyz)
        self._opacity, self._rgb = copy(avatar.gaussians.opacity), copy(avatar.gaussians.rgb)
        self._skin_joints = copy(avatar.skin_joints, torch.int64)
        self._skin_weights = copy(avatar.skin_weights)[:, :, None, None]
        self._constrained = copy(avatar.constrained, torch.bool)[:, None]
        self._moved = copy(avatar.expression_gaussians, torch.int64)
        self._directions = copy(avatar.expression_directions)
        self._matte = copy(np.array(mean_rgb(avatar.gaussians)))

    def render(
        self,
        joint_matrices: Float[np.ndarray, "55 3 4"],
        expression: Float[np.ndarray, " e"] | None,
        camera: Camera,
        *,
        pixel_format: PixelFormat = "rgba",
        background: Sequence[float] = BLACK,
        depth: Float32[np.ndarray, "h w"] | None = None,
    ) -> np.ndarray:
        """Draw one frame; arguments, result and errors as ``Renderer.render``, with gsplat's stop rule."""
        shape = picture_shape(camera, pixel_format)
        means, quat_wxyz = self._warp(joint_matrices, expression)
        torch = self._torch
        K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]], np.float32)
        with torch.inference_mode():
            picture, alpha, _ = self._splat(
                means=means,
                quats=quat_wxyz,
                scales=self._scales,
                opacities=self._opacity,
                colors=self._rgb,
                viewmats=torch.as_tensor(camera.T_camera_world, dtype=torch.float32, device=self._device)[None],
                Ks=torch.as_tensor(K, device=self._device)[None],
                width=camera.width,
                height=camera.height,
                near_plane=NEAR_M,
                eps2d=EPS2D_PX2,
                packed=False,
                render_mode="RGB" if depth is None else "RGB+ED",
            )
            rgb, alpha = picture[0, ..., :3], alpha[0]
            if depth is not None:
                depth[:] = torch.where(alpha > 0, picture[0, ..., 3:], 0.0)[..., 0].cpu().numpy()
            out = convert(rgb, alpha, pixel_format, torch.as_tensor(background, device=self._device), self._matte)
        delivered: np.ndarray = out.cpu().numpy().reshape(shape)
        return delivered

    def _warp(
        self, joint_matrices: Float[np.ndarray, "55 3 4"], expression: Float[np.ndarray, " e"] | None
    ) -> tuple[Tensor, Tensor]:
        """World means [n, 3] and orientations [n, 4]."""
        require_shape("joint_matrices", joint_matrices, (NUM_JOINTS, 3, 4))
        require_finite("joint_matrices", joint_matrices)
        torch, means = self._torch, self._means
        with torch.inference_mode():
            amounts = torch.as_tensor(pad_expression(expression, self._directions.shape[1]), device=self._device)
            means = means.index_add(0, self._moved, torch.einsum("mek,e->mk", self._directions, amounts))
            matrices = torch.as_tensor(joint_matrices, dtype=torch.float32, device=self._device)
            blended = (self._skin_weights * matrices[self._skin_joints]).sum(1)
            A = blended[:, :, :3]
            means = (A @ means[:, :, None])[:, :, 0] + blended[:, :, 3]
            turned = _multiply(_read_quat_wxyz(A), self._quat_wxyz)
            return means, torch.where(self._constrained, self._quat_wxyz, turned)


def _read_quat_wxyz(m: Tensor) -> Tensor:
    """As body.rotations.matrix_to_quat_wxyz, [n, 3, 3] to [n, 4]; the sign is left as it falls."""
    import torch  # noqa: PLC0415

    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in m.unbind(-2))
    rows = torch.stack(
        [
            *(1 + xx + yy + zz, zy - yz, xz - zx, yx - xy),
            *(zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx),
            *(xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz),
            *(yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz),
        ],
        -1,
    ).reshape(-1, 4, 4)
    best = rows.diagonal(dim1=1, dim2=2).argmax(-1)
    return torch.nn.functional.normalize(rows[torch.arange(len(rows), device=m.device), best], dim=-1)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of wxyz quaternions [n, 4]."""
    import torch  # noqa: PLC0415

    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def convert(rgb: Tensor, alpha: Tensor, pixel_format: PixelFormat, background: Tensor, matte: Tensor) -> Tensor:
    """Premultiplied rgb [h, w, 3] and alpha [h, w, 1] to ``pixel_format``, where they are: uint8, flat for I420."""
    import torch  # noqa: PLC0415

    def codes(values: Tensor) -> Tensor:
        return (values + 0.5).clamp(0, 255).to(torch.uint8)

    match pixel_format:
        case "float":
            return torch.cat([rgb, alpha], -1)
        case "rgba":
            return codes(torch.cat([rgb / alpha.clamp_min(1e-6), alpha], -1) * 255)
        case "rgba_premultiplied":
            return codes(torch.cat([rgb, alpha], -1) * 255)
        case "rgb":
            return codes((rgb + (1 - alpha) * background) * 255)
        case "i420" | "i420_full":
            y, cb, cr = _bt709((rgb + (1 - alpha) * background).clamp(0, 1), full=pixel_format == "i420_full")
            return torch.cat([codes(plane).flatten() for plane in (y, cb, cr)])
        case "i420_alpha":
            straight = (rgb + MATTE_FADE * matte) / (alpha + MATTE_FADE)
            y, cb, cr = _bt709(straight.clamp(0, 1), full=False)
            neutral = torch.full_like(cb, 128.0)
            planes = (y, 219 * alpha[..., 0] + 16, cb, neutral, cr, neutral)
            return torch.cat([codes(plane).flatten() for plane in planes])


def _bt709(rgb: Tensor, *, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Unrounded Y [h, w] and Cb, Cr [h/2, w/2] code values of RGB in [0, 1] (ITU-R BT.709-6)."""
    y_scale, c_scale, y_zero = (255, 255, 0) if full else (219, 224, 16)
    h, w, _ = rgb.shape
    quarter = rgb.reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3))
    luma, small = (0.2126 * p[..., 0] + 0.7152 * p[..., 1] + 0.0722 * p[..., 2] for p in (rgb, quarter))
    cb, cr = (quarter[..., 2] - small) / 1.8556, (quarter[..., 0] - small) / 1.5748
    return luma * y_scale + y_zero, cb * c_scale + 128, cr * c_scale + 128
