"""The linear map from colours of Gaussians to pixels of a view, and the colours that answer a photo best."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Float32, Float64

from lhm_runtime.rasterizer.contract import ALPHA_MAX, ALPHA_MIN, EPS2D_PX2

_ROUNDS = 20
_RELAXATION = 1.2
_ENOUGH_PIXELS = 1.5
"""Gaussians that show in fewer pixels follow them less: they would overshoot."""


def splat_weights(
    uvz: Float[np.ndarray, "n 3"],
    covariance: Float[np.ndarray, "n 2 2"],
    opacity: Float[np.ndarray, " n"],
    width: int,
    height: int,
) -> sp.csr_array:
    """Share of each Gaussian in each pixel, [h * w, n], as the rasterizer blends them front to back.

    Args:
        uvz: centres, pixels, and depth, metres.
        covariance: projected, square pixels.
    """
    xx = covariance[:, 0, 0] + EPS2D_PX2
    yy = covariance[:, 1, 1] + EPS2D_PX2
    xy = covariance[:, 0, 1]
    determinant = xx * yy - xy * xy
    extent = np.sqrt(2 * np.log(np.maximum(opacity / ALPHA_MIN, 1)))
    left = np.maximum(np.ceil(uvz[:, 0] - extent * np.sqrt(xx) - 0.5), 0).astype(np.int64)
    right = np.minimum(np.floor(uvz[:, 0] + extent * np.sqrt(xx) - 0.5), width - 1).astype(np.int64)
    top = np.maximum(np.ceil(uvz[:, 1] - extent * np.sqrt(yy) - 0.5), 0).astype(np.int64)
    bottom = np.minimum(np.floor(uvz[:, 1] + extent * np.sqrt(yy) - 0.5), height - 1).astype(np.int64)
    drawn = np.flatnonzero((right >= left) & (bottom >= top) & (opacity > ALPHA_MIN) & (uvz[:, 2] > 0.01))
    drawn = drawn[np.argsort(uvz[drawn, 2], kind="stable")]
    columns = (right - left + 1)[drawn]
    pixels = columns * (bottom - top + 1)[drawn]
    owner = np.repeat(np.arange(len(drawn), dtype=np.int32), pixels)
    local = (np.arange(pixels.sum()) - np.repeat(np.cumsum(pixels) - pixels, pixels)).astype(np.int32)
    row = local // columns.astype(np.int32)[owner]
    column = local - row * columns.astype(np.int32)[owner]
    f32 = np.float32
    dx = column + (left[drawn] + 0.5 - uvz[drawn, 0]).astype(f32)[owner]
    dy = row + (top[drawn] + 0.5 - uvz[drawn, 1]).astype(f32)[owner]
    a, b, c = ((value / determinant)[drawn].astype(f32) for value in (-0.5 * yy, xy, -0.5 * xx))
    exponent = a[owner] * dx * dx + b[owner] * dx * dy + c[owner] * dy * dy + np.log(opacity[drawn]).astype(f32)[owner]
    hit = np.flatnonzero(exponent > np.log(ALPHA_MIN))
    alpha = np.minimum(np.exp(exponent[hit]), ALPHA_MAX)
    owner = owner[hit]
    pixel = (row[hit] + top[drawn].astype(np.int32)[owner]) * width + column[hit] + left[drawn].astype(np.int32)[owner]
    # by pixel; within one, the stable sort keeps the order of depth
    order = np.argsort(pixel, kind="stable")
    pixel, alpha, owner = pixel[order], alpha[order], owner[order]
    begin = np.searchsorted(pixel, np.arange(width * height + 1))
    light = np.concatenate([[0.0], np.cumsum(np.log1p(-alpha.astype(np.float64)))])
    transmittance = np.exp(light[:-1] - light[begin[pixel]])
    return sp.csr_array(
        ((alpha * transmittance).astype(np.float32), drawn[owner], begin), shape=(width * height, len(uvz))
    )


def solve_colours(
    weights: sp.csr_array,
    wanted: Float32[np.ndarray, "p 3"],
    trusted: Float32[np.ndarray, " p"],
    rgb: Float[np.ndarray, "n 3"],
    freedom: Float[np.ndarray, " n"],
    limit: Float[np.ndarray, " n"],
) -> Float64[np.ndarray, "n 3"]:
    """Move colours so that the drawn pixels come nearer to those wanted (SIRT; Gregor and Benson 2008).

    Args:
        wanted: premultiplied pixels over black.
        trusted: weight of each pixel.
        freedom: 0 to 1, how far each Gaussian follows.
        limit: furthest move of a channel of each.
    """
    transposed = sp.csr_array(weights.T)
    total = transposed @ trusted
    step = _RELAXATION * freedom * np.clip(total / _ENOUGH_PIXELS, 0, 1) / np.maximum(total, 0.05)
    start, reach = rgb.astype(np.float32), limit.astype(np.float32)[:, None]
    low, high = np.maximum(start - reach, 0), np.minimum(start + reach, 1)
    now = start
    for _ in range(_ROUNDS):
        residual = (wanted - weights @ now) * trusted[:, None]
        now = np.clip(now + step[:, None].astype(np.float32) * (transposed @ residual), low, high)
    return now.astype(np.float64)
