"""Gaussians handed to the kernel once, and drawn from then on without another allocation."""

import ctypes
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.rasterizer.cpu import library
from lhm_runtime.rasterizer.reference import covariances
from lhm_runtime.types import Gaussians

MAX_THREADS = 64
"""Most threads a scene may be asked to blend with."""

MAX_PAIRS = 1 << 27
"""Most pairs of a pixel and a Gaussian that are listed: a gigabyte of them."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelWeights:
    """What each pixel of a picture is made of, as a sparse matrix in rows (CSR)."""

    begin: Int64[np.ndarray, " begins"]
    """Where the pairs of each pixel begin, the pixels row by row; last, how many there are."""
    gaussians: Int32[np.ndarray, " pairs"]
    """Which Gaussians show in it, near to far."""
    weights: Float32[np.ndarray, " pairs"]
    """How much of each: alpha times the transmittance of what is nearer."""


class Scene:
    """One ``lhm_scene`` of the kernel. Threads may share it: its frames are drawn one at a time."""

    def __init__(
        self, gaussians: Gaussians, avatar: Avatar | None, *, threads: int, isa: library.Isa | Literal["auto"]
    ) -> None:
        """Copy Gaussians into the kernel, and what moves them when they are those of ``avatar``.

        Raises:
            InvalidInputError: ``threads`` is out of range.
            BackendError: no kernel runs here, or it got no memory or threads.
        """
        if not 1 <= threads <= MAX_THREADS:
            raise InvalidInputError(f"threads is {threads}, expected 1 to {MAX_THREADS}")
        self.isa = library.choose(isa)
        self._library = library.load(self.isa)
        self._lock = threading.Lock()
        # an avatar is drawn many times: neighbours in space become neighbours in memory
        order = np.arange(len(gaussians)) if avatar is None else morton_order(gaussians.means)
        self._given_index = order.astype(np.int32)
        rows, columns = np.triu_indices(3)  # xx xy xz yy yz zz
        arrays: dict[str, np.ndarray] = {
            "means": gaussians.means[order],
            "covariances": covariances(gaussians)[order][:, rows, columns].astype(np.float32),
            "opacity": gaussians.opacity[order],
            "rgb": gaussians.rgb[order],
        }
        desc = library.SceneDesc(count=len(gaussians), threads=threads)
        if avatar is not None:
            place = np.empty(len(order), np.int32)
            place[order] = np.arange(len(order), dtype=np.int32)
            moved = place[avatar.expression_gaussians]
            by_place = np.argsort(moved)
            arrays |= {
                "skin_joints": avatar.skin_joints[order],
                "skin_weights": avatar.skin_weights[order],
                "constrained": avatar.constrained[order].astype(np.uint8),
                "moved": moved[by_place],
                "directions": avatar.expression_directions[by_place],
            }
            desc.influences = avatar.skin_joints.shape[1]
            desc.moved_count, desc.coefficients = avatar.expression_directions.shape[:2]
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            setattr(desc, name, array.ctypes.data)
        handle = self._library.lhm_scene_create(ctypes.byref(desc))
        if not handle:
            raise BackendError(f"no memory or threads for {len(gaussians)} Gaussians and {threads} threads")
        self._handle = handle
        self.close = weakref.finalize(self, self._library.lhm_scene_destroy, handle)

    def draw(self, frame: library.Frame) -> None:
        """Draw one frame, whose arguments and buffers are already validated.

        Raises:
            InvalidInputError: the scene covers so many tiles that listing them would take more than a gigabyte.
            BackendError: no memory, or the scene is closed.
        """
        self._call(frame, lambda handle: self._library.lhm_scene_render(handle, ctypes.byref(frame)))

    def weigh(self, frame: library.Frame, least: float) -> PixelWeights:
        """List weights above ``least`` (not negative) in one frame, whose pixels and depth are not written.

        Raises:
            InvalidInputError: as ``draw``, or the list would take more than a gigabyte.
            BackendError: as ``draw``.
        """
        begin = np.empty(frame.width * frame.height + 1, np.int64)
        gaussians, weights = np.empty(0, np.int32), np.empty(0, np.float32)

        def list_pairs(handle: int) -> int:
            out = (array.ctypes.data for array in (begin, gaussians, weights))
            status: int = self._library.lhm_scene_weigh(handle, ctypes.byref(frame), least, len(weights), *out)
            return status

        if self._call(frame, list_pairs) == library.TOO_SMALL:
            if begin[-1] > MAX_PAIRS:
                raise InvalidInputError(
                    f"{frame.width}x{frame.height} pixels are made of {begin[-1]} Gaussians, {MAX_PAIRS} at most can "
                    "be listed: the picture or the scales are too large"
                )
            gaussians, weights = np.empty(begin[-1], np.int32), np.empty(begin[-1], np.float32)
            self._call(frame, list_pairs)
        return PixelWeights(begin, self._given_index[gaussians], weights)

    def _call(self, frame: library.Frame, function: Callable[[int], int]) -> int:
        """What the kernel answers, unless it is an error; one call at a time."""
        counts = (ctypes.c_int64 * 2)()
        frame.counts = ctypes.addressof(counts)
        with self._lock:
            if not self.close.alive:
                raise BackendError("this renderer is closed")
            status = function(self._handle)
        if status == library.TOO_DENSE:
            raise InvalidInputError(
                f"{counts[0]} Gaussians in view cover {counts[1]} tiles of {frame.width}x{frame.height}: the scales "
                "are too large for a person, or the picture is too large for them"
            )
        if status == library.OUT_OF_MEMORY:
            raise BackendError(f"no memory to draw {counts[0]} Gaussians at {frame.width}x{frame.height}")
        return status


def morton_order(points: Float[np.ndarray, "n 3"]) -> Int64[np.ndarray, " n"]:
    """Indices that sort points along a Z-order curve of 1024 cells a side (Morton 1966)."""
    if len(points) == 0:
        return np.zeros(0, np.int64)
    low = points.min(axis=0)
    extent = max(float((points.max(axis=0) - low).max()), 1e-9)
    cell = ((points - low) * (1023 / extent)).astype(np.uint32)
    code = np.zeros(len(points), np.uint32)
    for bit in range(10):
        for axis in range(3):
            code |= ((cell[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")
