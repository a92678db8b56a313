"""Small geometry of directions and frames, batched over leading axes.

Made for a few rows at a time, where a call into numpy costs more than the arithmetic behind it: each is written with
as few calls as possible.
"""

import numpy as np
from jaxtyping import Float64

_ROLL = np.array([1, 2, 0])
_IDENTITY = np.eye(3)
_TINY = 1e-12


def dot(a: Float64[np.ndarray, "*b n 3"], b: Float64[np.ndarray, "*b n 3"]) -> Float64[np.ndarray, "*b n"]:
    """a . b of each row."""
    product: np.ndarray = np.vecdot(a, b)
    return product


def cross(a: Float64[np.ndarray, "*b 3"], b: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3"]:
    """a x b."""
    rolled: np.ndarray = (a * b.take(_ROLL, -1) - a.take(_ROLL, -1) * b).take(_ROLL, -1)
    return rolled


def unit(v: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3"]:
    """v at length 1; zero stays zero."""
    scaled: np.ndarray = v / np.sqrt(np.vecdot(v, v) + _TINY**2)[..., None]
    return scaled


def rotate(R: Float64[np.ndarray, "*b 3 3"], v: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3"]:
    """Each rotation applied to its vector."""
    rotated: np.ndarray = np.matvec(R, v)
    return rotated


def frame(leading: Float64[np.ndarray, "*b 3"], second: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3 3"]:
    """Rotation whose columns are ``leading``, what is perpendicular to it in ``second``, and their cross product.

    Where the two are parallel or zero, columns are zero, which the conversions to rotvecs take for no rotation.
    """
    columns = np.empty((*leading.shape, 3))
    x = unit(leading)
    z = unit(cross(x, second))
    columns[..., 0], columns[..., 1], columns[..., 2] = x, cross(z, x), z
    return columns


def arc(a: Float64[np.ndarray, "*b 3"], b: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3 3"]:
    """Smallest rotation that takes the direction of ``a`` to that of ``b``; as ``unit_arc``."""
    turn: np.ndarray = unit_arc(unit(a), unit(b))
    return turn


def unit_arc(a: Float64[np.ndarray, "*b 3"], b: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3 3"]:
    """Smallest rotation that takes the unit vector ``a`` to ``b``; none where they are opposite and there are many.

    I + K + K^2 / (1 + a.b) with K = b a^T - a b^T, the matrix of the cross product with a x b.
    """
    K = b[..., :, None] * a[..., None, :]
    K = K - K.swapaxes(-1, -2)
    matrix: np.ndarray = K @ K / np.maximum(1 + np.vecdot(a, b), _TINY)[..., None, None] + K + _IDENTITY
    return matrix


def twist(matrix: Float64[np.ndarray, "*b 3 3"], axis: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b"]:
    """Turn about the unit ``axis`` in the swing-twist decomposition of a rotation, radians, in [-pi, pi]."""
    half: np.ndarray = np.arctan2(dot(_vee(matrix), axis), 1 + matrix.trace(axis1=-2, axis2=-1))
    return 2 * half


def matrix_to_rotvec_below_pi(matrix: Float64[np.ndarray, "*b 3 3"]) -> Float64[np.ndarray, "*b 3"]:
    """Rotvec of rotations less than half a turn, at a fraction of the cost of the general conversion.

    The last digits are lost towards half a turn: 1e-6 radians are left a thousandth of a radian before it.
    """
    doubled = _vee(matrix)
    sine = 0.5 * np.sqrt(dot(doubled, doubled))
    angle = np.arctan2(sine, 0.5 * (matrix.trace(axis1=-2, axis2=-1) - 1))
    ratio = 0.5 * np.divide(angle, sine, out=np.ones_like(angle), where=sine > _TINY)
    rotvec: np.ndarray = doubled * ratio[..., None]
    return rotvec


def wrap(angle: Float64[np.ndarray, "*b"]) -> Float64[np.ndarray, "*b"]:
    """The same angle in [-pi, pi)."""
    wrapped: np.ndarray = (angle + np.pi) % (2 * np.pi) - np.pi
    return wrapped


def _vee(matrix: np.ndarray) -> np.ndarray:
    """Axis of a rotation times twice the sine of its angle."""
    flat = matrix.reshape(*matrix.shape[:-2], 9)
    axis: np.ndarray = flat.take([7, 2, 3], -1) - flat.take([5, 6, 1], -1)
    return axis
