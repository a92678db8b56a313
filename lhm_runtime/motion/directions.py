"""Small geometry of directions and frames, batched over leading axes; made for few rows, where numpy's own calls cost
more than the arithmetic."""

import numpy as np
from jaxtyping import Float64

_ROLL = np.array([1, 2, 0])
_CROSS = -np.cross(np.eye(3)[:, None], np.eye(3)[None, :]).reshape(3, 9)  # v @ _CROSS is [v]x, row by row
_IDENTITY = np.eye(3)
_NEARLY_OPPOSITE = -0.99999


def cross(a: Float64[np.ndarray, "*b 3"], b: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3"]:
    """a x b."""
    rolled: np.ndarray = (a * b.take(_ROLL, -1) - a.take(_ROLL, -1) * b).take(_ROLL, -1)
    return rolled


def dot(a: Float64[np.ndarray, "*b 3"], b: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 1"]:
    """a . b, last axis kept."""
    product: np.ndarray = (a * b).sum(-1, keepdims=True)
    return product


def unit(v: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3"]:
    """v at length 1; zero stays zero."""
    scaled: np.ndarray = v / np.maximum(np.sqrt((v * v).sum(-1, keepdims=True)), 1e-12)
    return scaled


def frame(leading: Float64[np.ndarray, "*b 3"], second: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3 3"]:
    """Rotation whose columns are ``leading``, what is perpendicular to it in ``second``, and their cross product.

    Where the two are parallel or zero, some perpendicular is taken: the result is always a rotation.
    """
    x = unit(leading)
    rest = second - dot(x, second) * x
    length = np.sqrt((rest * rest).sum(-1, keepdims=True))
    if length.min() < 1e-9:
        x = np.where(dot(x, x) < 0.5, _IDENTITY[0], x)
        any_other = _IDENTITY[np.abs(x).argmin(-1)]
        rest = np.where(length < 1e-9, any_other - dot(x, any_other) * x, rest)
    y = unit(rest)
    columns = np.empty((*x.shape, 3))
    columns[..., 0], columns[..., 1], columns[..., 2] = x, y, cross(x, y)
    return columns


def arc(a: Float64[np.ndarray, "*b 3"], b: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3 3"]:
    """Smallest rotation that takes the direction of ``a`` to that of ``b``; half a turn where they are opposite."""
    a, b = unit(a), unit(b)
    axis, cosine = cross(a, b), dot(a, b)
    opposite = cosine < _NEARLY_OPPOSITE
    outer = axis / np.maximum(1 + cosine, 1e-9)
    matrix = outer[..., :, None] * axis[..., None, :]
    matrix += (axis @ _CROSS).reshape(matrix.shape) + cosine[..., None] * _IDENTITY
    if opposite.any():
        half_turn = frame(a, np.zeros_like(a))[..., 1]
        turned = 2 * half_turn[..., :, None] * half_turn[..., None, :] - _IDENTITY
        matrix = np.where(opposite[..., None], turned, matrix)
    return matrix


def small_rotvec(matrix: Float64[np.ndarray, "*b 3 3"]) -> Float64[np.ndarray, "*b 3"]:
    """Rotvec of rotations well below half a turn, at a fraction of the cost of the general conversion."""
    doubled = vee(matrix)
    sine = 0.5 * np.sqrt((doubled * doubled).sum(-1, keepdims=True))
    cosine = 0.5 * (matrix.trace(axis1=-2, axis2=-1)[..., None] - 1)
    angle = np.arctan2(sine, cosine)
    rotvec: np.ndarray = doubled * np.where(sine > 1e-9, 0.5 * angle / np.maximum(sine, 1e-9), 0.5)
    return rotvec


def twist(matrix: Float64[np.ndarray, "*b 3 3"], axis: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 1"]:
    """Turn about the unit ``axis`` in the swing-twist decomposition of a rotation, radians, in (-pi, pi]."""
    half: np.ndarray = np.arctan2(dot(vee(matrix), axis), 1 + matrix.trace(axis1=-2, axis2=-1)[..., None])
    return 2 * half


def vee(matrix: Float64[np.ndarray, "*b 3 3"]) -> Float64[np.ndarray, "*b 3"]:
    """Axis of a rotation times twice the sine of its angle."""
    flat = matrix.reshape(*matrix.shape[:-2], 9)
    return flat.take([7, 2, 3], -1) - flat.take([5, 6, 1], -1)


def wrap(angle: Float64[np.ndarray, "*b"]) -> Float64[np.ndarray, "*b"]:
    """The same angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
