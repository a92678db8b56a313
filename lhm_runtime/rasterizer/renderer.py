"""Draw an avatar in a pose, or Gaussians as they are, on the CPU."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from lhm_runtime.avatar import Avatar, check_gaussians, pad_expression
from lhm_runtime.body.joints import NUM_JOINTS
from lhm_runtime.errors import InvalidInputError, require_finite, require_shape
from lhm_runtime.rasterizer.contract import PIXEL_FORMATS, STOP_RULES, PixelFormat, StopRule
from lhm_runtime.rasterizer.cpu.library import Frame, Isa
from lhm_runtime.rasterizer.cpu.scene import PixelWeights, Scene
from lhm_runtime.types import Camera, Gaussians

BLACK = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class FrameProfile:
    """Where one frame's time went: CPU milliseconds of the calling thread."""

    warp_project_ms: float
    sort_ms: float
    bin_ms: float
    blend_ms: float

    @property
    def total_ms(self) -> float:
        """All stages together."""
        return self.warp_project_ms + self.sort_ms + self.bin_ms + self.blend_ms


class Renderer:
    """One avatar, ready to be drawn in any pose. Threads may share it: its frames are drawn one at a time."""

    def __init__(self, avatar: Avatar, *, threads: int = 1, isa: Isa | Literal["auto"] = "auto") -> None:
        """Hand ``avatar`` (valid: loaded, or ``avatar.validate()``) to the kernel.

        One thread is the default because two were slower whenever something else wanted the cores.
        """
        self._scene = Scene(avatar.gaussians, avatar, threads=threads, isa=isa)
        self._coefficients = avatar.expression_directions.shape[1]
        self._matte_rgb = mean_rgb(avatar.gaussians)

    @property
    def isa(self) -> Isa:
        """The instruction set of the kernel in use."""
        return self._scene.isa

    def render(
        self,
        joint_matrices: Float[np.ndarray, "55 3 4"],
        expression: Float[np.ndarray, " e"] | None,
        camera: Camera,
        *,
        pixel_format: PixelFormat = "rgba",
        background: Sequence[float] = BLACK,
        stop_rule: StopRule = "inclusive",
        out: np.ndarray | None = None,
        depth: Float32[np.ndarray, "h w"] | None = None,
    ) -> np.ndarray:
        """Draw one frame.

        Args:
            joint_matrices: zero pose to world, as ``body.kinematics.joint_matrices`` makes them.
            expression: the first coefficients of the avatar's expression directions; those not given are 0.
            camera: where from, and how large.
            pixel_format: see ``contract.PixelFormat``.
            background: RGB in [0, 1] for the formats that have one.
            stop_rule: see ``contract.StopRule``.
            out: an array to draw into, of the format's shape and type and C-contiguous; made when not given.
            depth: filled with the alpha-weighted mean depth in metres, 0 where nothing is seen.

        Returns:
            ``out``.

        Raises:
            InvalidInputError: a wrong shape, type or value, with the index of a NaN or Inf.
        """
        matrices, coefficients = self._pose(joint_matrices, expression)
        out = _picture(camera, pixel_format, out)
        frame = _frame(camera, pixel_format, background, stop_rule, out, depth)
        self._set_pose(frame, matrices, coefficients)
        self._scene.draw(frame)
        return out

    def weigh(
        self,
        joint_matrices: Float[np.ndarray, "55 3 4"],
        expression: Float[np.ndarray, " e"] | None,
        camera: Camera,
        *,
        least: float = 0.0,
        stop_rule: StopRule = "inclusive",
    ) -> PixelWeights:
        """What each pixel of a frame is made of, instead of its picture.

        The sum of weight times colour over a pixel is what ``render`` draws there as ``float``.

        Args:
            joint_matrices: as in ``render``, like all else here.
            expression: its coefficients.
            camera: where from, and how large.
            least: only larger weights are listed. Half of all are below 1/1000, and together 0.3 % of the light.
            stop_rule: see ``contract.StopRule``.

        Raises:
            InvalidInputError: as ``render``; ``least`` is not in [0, 1); or too many pairs for a gigabyte.
        """
        if not 0 <= least < 1:
            raise InvalidInputError(f"least is {least}, expected a weight from 0 to below 1")
        matrices, coefficients = self._pose(joint_matrices, expression)
        frame = _frame(camera, "float", BLACK, stop_rule, None, None)
        self._set_pose(frame, matrices, coefficients)
        return self._scene.weigh(frame, least)

    def profile(
        self,
        joint_matrices: Float[np.ndarray, "55 3 4"],
        expression: Float[np.ndarray, " e"] | None,
        camera: Camera,
        out: np.ndarray,
        *,
        pixel_format: PixelFormat = "i420",
        stop_rule: StopRule = "inclusive",
    ) -> FrameProfile:
        """``render`` over black into ``out``, saying how long each stage took."""
        matrices, coefficients = self._pose(joint_matrices, expression)
        frame = _frame(camera, pixel_format, BLACK, stop_rule, _picture(camera, pixel_format, out), None)
        stage_ms = np.zeros(4)
        frame.stage_ms = stage_ms.ctypes.data
        self._set_pose(frame, matrices, coefficients)
        self._scene.draw(frame)
        return FrameProfile(*stage_ms.tolist())

    def close(self) -> None:
        """Free the kernel's memory and threads; garbage collection does so too."""
        self._scene.close()

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pose(
        self, joint_matrices: Float[np.ndarray, "55 3 4"], expression: Float[np.ndarray, " e"] | None
    ) -> tuple[Float32[np.ndarray, "55 3 4"], Float32[np.ndarray, " known"]]:
        require_shape("joint_matrices", joint_matrices, (NUM_JOINTS, 3, 4))
        require_finite("joint_matrices", joint_matrices)
        coefficients = pad_expression(expression, self._coefficients)
        return np.ascontiguousarray(joint_matrices, np.float32), coefficients

    def _set_pose(
        self,
        frame: Frame,
        joint_matrices: Float32[np.ndarray, "55 3 4"],
        expression: Float32[np.ndarray, " e"],
    ) -> None:
        frame.joint_matrices, frame.joints = joint_matrices.ctypes.data, NUM_JOINTS
        frame.expression = expression.ctypes.data
        frame.matte_rgb[:] = self._matte_rgb


def rasterize(
    gaussians: Gaussians,
    camera: Camera,
    *,
    pixel_format: PixelFormat = "rgba",
    background: Sequence[float] = BLACK,
    stop_rule: StopRule = "inclusive",
    depth: Float32[np.ndarray, "h w"] | None = None,
    threads: int = 1,
    isa: Isa | Literal["auto"] = "auto",
) -> np.ndarray:
    """Draw Gaussians where they are, once; arguments and result as those of ``Renderer.render``.

    Raises:
        InvalidInputError: a wrong shape, type or value, with its index.
    """
    check_gaussians(gaussians)
    out = _picture(camera, pixel_format, None)
    frame = _frame(camera, pixel_format, background, stop_rule, out, depth)
    frame.matte_rgb[:] = mean_rgb(gaussians)
    Scene(gaussians, None, threads=threads, isa=isa).draw(frame)
    return out


def picture_shape(camera: Camera, pixel_format: PixelFormat) -> tuple[int, ...]:
    """Shape of the array a picture is delivered in; raises InvalidInputError for I420 of odd size."""
    w, h = camera.width, camera.height
    if pixel_format.startswith("i420") and (w % 2 or h % 2):
        raise InvalidInputError(f"{pixel_format} needs even sizes, got {w}x{h}: use {w + w % 2}x{h + h % 2}")
    shapes: dict[PixelFormat, tuple[int, ...]] = {
        "rgba": (h, w, 4),
        "rgba_premultiplied": (h, w, 4),
        "rgb": (h, w, 3),
        "i420": (h * 3 // 2, w),
        "i420_full": (h * 3 // 2, w),
        "i420_alpha": (h * 3, w),
        "float": (h, w, 4),
    }
    if pixel_format not in shapes:
        raise InvalidInputError(f"pixel_format is {pixel_format!r}, expected one of {', '.join(PIXEL_FORMATS)}")
    return shapes[pixel_format]


def _picture(camera: Camera, pixel_format: PixelFormat, out: np.ndarray | None) -> np.ndarray:
    shape, dtype = picture_shape(camera, pixel_format), np.float32 if pixel_format == "float" else np.uint8
    if out is None:
        return np.empty(shape, dtype)
    _require_buffer("out", out, shape, dtype)
    return out


def _require_buffer(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise InvalidInputError(
            f"{name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape} for this camera and format"
        )
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise InvalidInputError(f"{name} must be C-contiguous and writeable")


def _frame(
    camera: Camera,
    pixel_format: PixelFormat,
    background: Sequence[float],
    stop_rule: StopRule,
    out: np.ndarray | None,
    depth: np.ndarray | None,
) -> Frame:
    """The kernel's frame for this camera and these buffers, still without a pose."""
    if len(background) != 3 or not all(0 <= channel <= 1 for channel in background):
        raise InvalidInputError(f"background is {tuple(background)}, expected three numbers from 0 to 1")
    if stop_rule not in STOP_RULES:
        raise InvalidInputError(f"stop_rule is {stop_rule!r}, expected one of {', '.join(STOP_RULES)}")
    frame = Frame(
        fx=camera.fx,
        fy=camera.fy,
        cx=camera.cx,
        cy=camera.cy,
        width=camera.width,
        height=camera.height,
        pixel_format=PIXEL_FORMATS.index(pixel_format),
        stop_rule=STOP_RULES.index(stop_rule),
        pixels=None if out is None else out.ctypes.data,
    )
    frame.R_camera_world[:] = camera.T_camera_world[:3, :3].ravel().tolist()
    frame.t_camera_world[:] = camera.T_camera_world[:3, 3].tolist()
    frame.background[:] = background
    if depth is not None:
        _require_buffer("depth", depth, (camera.height, camera.width), np.float32)
        frame.depth = ctypes.c_void_p(depth.ctypes.data)
    return frame


def mean_rgb(gaussians: Gaussians) -> list[float]:
    """Mean colour by visible area: what a matte fades to."""
    if len(gaussians) == 0:
        return list(BLACK)
    weight = gaussians.opacity.astype(np.float64) * np.sort(gaussians.scales, axis=1)[:, 1:].prod(axis=1) + 1e-30
    mean: list[float] = (weight @ gaussians.rgb / weight.sum()).tolist()
    return mean
