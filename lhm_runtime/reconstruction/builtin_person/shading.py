"""Small scalar functions that procedural colour is made of."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float64

Rgb = tuple[float, float, float]


def smoothstep(low: float, high: float, x: Float[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """0 below ``low``, 1 above ``high``, smooth between; ``low > high`` falls instead of rising."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    step: np.ndarray = t * t * (3 - 2 * t)
    return step


def bump(distance: Float[np.ndarray, " n"], width: float) -> Float64[np.ndarray, " n"]:
    """exp(-d^2 / 2 width^2)."""
    height: np.ndarray = np.exp(-0.5 * np.square(distance / width))
    return height


def mix(base: Float[np.ndarray, "n 3"], colour: Rgb, share: Float[np.ndarray, " n"]) -> Float64[np.ndarray, "n 3"]:
    """``base`` with ``share`` of ``colour`` laid over it."""
    mixed: np.ndarray = base + share[:, None] * (np.array(colour) - base)
    return mixed


def noise(points: Float[np.ndarray, "n d"], seed: int) -> Float64[np.ndarray, " n"]:
    """Smooth noise in [-1, 1], features one unit wide: random values on a lattice, interpolated (Perlin 1985)."""
    dimensions = points.shape[1]
    cell = np.floor(points).astype(np.int64)
    t = points - cell
    t = t * t * (3 - 2 * t)
    table = np.random.default_rng(seed).uniform(-1, 1, 1024)
    primes = np.array([73856093, 19349663, 83492791])[:dimensions]
    total = np.zeros(len(points))
    for corner in np.ndindex((2,) * dimensions):
        offset = np.array(corner)
        key = np.bitwise_xor.reduce((cell + offset) * primes, axis=1) & 1023
        total += table[key] * np.prod(np.where(offset, t, 1 - t), axis=1)
    return total


def distance_to_path(points: Float[np.ndarray, "n d"], path: Float[np.ndarray, "k d"]) -> Float64[np.ndarray, " n"]:
    """Distance to a polyline."""
    best = np.full(len(points), np.inf)
    for a, b in pairwise(path):
        span = b - a
        t = np.clip((points - a) @ span / max(span @ span, 1e-18), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - a - t[:, None] * span, axis=1))
    return best


def signed_distance(points: Float[np.ndarray, "n 2"], ring: Float[np.ndarray, "k 2"]) -> Float64[np.ndarray, " n"]:
    """Distance to a closed polygon's border, positive inside (even-odd rule)."""
    closed = np.concatenate([ring, ring[:1]])
    inside = np.zeros(len(points), bool)
    for a, b in pairwise(closed):
        spans = (a[1] > points[:, 1]) != (b[1] > points[:, 1])
        height = b[1] - a[1]
        crossing = a[0] + (points[:, 1] - a[1]) / (height if height != 0 else 1.0) * (b[0] - a[0])
        inside ^= spans & (points[:, 0] < crossing)
    signed: np.ndarray = np.where(inside, 1.0, -1.0) * distance_to_path(points, closed)
    return signed


def resample(path: Float[np.ndarray, "k d"], count: int) -> Float64[np.ndarray, "count d"]:
    """``count`` points evenly along a polyline."""
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    at = np.linspace(0, along[-1], count)
    return np.stack([np.interp(at, along, path[:, k]) for k in range(path.shape[1])], axis=1)
