"""Colours with which Gaussians draw the pixels that are wanted."""

import ctypes
from typing import Literal

import numpy as np
from jaxtyping import Float32

from lhm_runtime.errors import BackendError, InvalidInputError, require_shape
from lhm_runtime.rasterizer.cpu import library
from lhm_runtime.rasterizer.cpu.scene import PixelWeights


def pull_colours(
    made_of: PixelWeights,
    wanted: Float32[np.ndarray, "pixels 3"],
    trust: Float32[np.ndarray, " pixels"],
    rgb: Float32[np.ndarray, "n 3"],
    step: Float32[np.ndarray, " n"],
    limit: Float32[np.ndarray, " n"],
    *,
    rounds: int,
    isa: library.Isa | Literal["auto"] = "auto",
) -> Float32[np.ndarray, "n 3"]:
    """Move colours by the residuals of the pixels they show in, round by round (SIRT; Gregor and Benson 2008).

    Equal arguments give equal bits on the same machine.

    Args:
        made_of: what each pixel is made of; its Gaussians are those of ``rgb``.
        wanted: premultiplied pixels over black.
        trust: share of each pixel's residual that counts.
        rgb: colours to start from, in [0, 1].
        step: move of each Gaussian per unit of its residuals, summed by weight.
        limit: furthest move of a channel of each.
        rounds: how many.
        isa: which kernel.

    Raises:
        InvalidInputError: arrays whose sizes do not fit together.
        BackendError: no memory, or no kernel runs here.
    """
    pixels, count = len(made_of.begin) - 1, len(rgb)
    given = {"wanted": wanted, "trust": trust, "rgb": rgb, "step": step, "limit": limit}
    shapes = ((pixels, 3), (pixels,), (count, 3), (count,), (count,))
    for (name, array), shape in zip(given.items(), shapes, strict=True):
        require_shape(name, array, shape)
    if made_of.gaussians.max(initial=-1) >= count:
        raise InvalidInputError(f"pixels are made of Gaussian {made_of.gaussians.max()}, but rgb has {count}")
    solved = np.empty((count, 3), np.float32)
    pairs = {"pixel_begin": made_of.begin, "gaussian": made_of.gaussians, "weight": made_of.weights}
    arrays = {name: np.ascontiguousarray(array) for name, array in (pairs | given | {"solved": solved}).items()}
    problem = library.ColourProblem(count=count, pixels=pixels, rounds=rounds)
    for name, array in arrays.items():
        setattr(problem, name, array.ctypes.data)
    if library.load(library.choose(isa)).lhm_solve_colours(ctypes.byref(problem)) != library.OK:
        raise BackendError(f"no memory to solve for the colours of {count} Gaussians")
    return solved
