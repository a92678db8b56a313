"""Small geometry of directions and frames, batched over leading axes.

Made for a few rows at a time, where a call into numpy costs more than the arithmetic behind it: each is written with
as few calls as possible.
"""

import numpy as np
from jaxtyping import Float64

_ROLL = np.array([1, 2, 0])
_IDENTITY = np.eye(3)
_CROSS = -np.cross(np.eye(3)[:, None], np.eye(3)[None, :]).reshape(3, 9)  # a @ _CROSS is the matrix of a x, row by row
_TINY = 1e-12
_NOTHING = 1e-150
_MOMENT_S = 1e-6
_TRACE = _IDENTITY.ravel()


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
    matrix: np.ndarray = K @ (K / np.maximum(1 + np.vecdot(a, b), _TINY)[..., None, None])
    matrix += K
    matrix += _IDENTITY
    return matrix


def turn(axis: Float64[np.ndarray, "*b 3"], angle: Float64[np.ndarray, "*b"]) -> Float64[np.ndarray, "*b 3 3"]:
    """Rotation about a unit axis (Rodrigues), radians."""
    angle = angle[..., None]
    matrix: np.ndarray = ((1 - np.cos(angle)) * axis)[..., None] * axis[..., None, :]
    matrix += (np.cos(angle) * _TRACE + np.sin(angle) * (axis @ _CROSS)).reshape(matrix.shape)
    return matrix


def twist(matrix: Float64[np.ndarray, "*b 3 3"], axis: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b"]:
    """Turn about the unit ``axis`` in the swing-twist decomposition of a rotation, radians, in [-pi, pi]."""
    flat = matrix.reshape(*matrix.shape[:-2], 9)
    half: np.ndarray = np.arctan2(dot(_vee(flat), axis), 1 + flat @ _TRACE)
    return 2 * half


def matrix_to_rotvec_below_pi(matrix: Float64[np.ndarray, "*b 3 3"]) -> Float64[np.ndarray, "*b 3"]:
    """Rotvec of rotations less than half a turn, at a fraction of the cost of the general conversion.

    The last digits are lost towards half a turn: 1e-6 radians are left a thousandth of a radian before it.
    """
    doubled, twice_sine, angle = _vee_and_angle(matrix)
    rotvec: np.ndarray = doubled * (angle / twice_sine)[..., None]
    return rotvec


def axis_and_angle(
    matrix: Float64[np.ndarray, "*b 3 3"],
) -> tuple[Float64[np.ndarray, "*b 3"], Float64[np.ndarray, "*b"]]:
    """Axis and angle of rotations less than half a turn; without a turn both are zero."""
    doubled, twice_sine, angle = _vee_and_angle(matrix)
    return doubled / twice_sine[..., None], angle * (twice_sine > _TINY)


def wrap(angle: Float64[np.ndarray, "*b"]) -> Float64[np.ndarray, "*b"]:
    """The same angle in [-pi, pi)."""
    wrapped: np.ndarray = (angle + np.pi) % (2 * np.pi) - np.pi
    return wrapped


def smoothstep(x: Float64[np.ndarray, "*b"]) -> Float64[np.ndarray, "*b"]:
    """0 up to 0, 1 from 1 on, smooth in between."""
    t = np.minimum(np.maximum(x, 0.0), 1.0)
    smooth: np.ndarray = t * t * (3 - 2 * t)
    return smooth


def ease(passed_s: float, tau_s: Float64[np.ndarray, "*b"]) -> Float64[np.ndarray, "*b"]:
    """Share of the way a first-order low pass goes in this time; all of it where ``tau_s`` is 0."""
    share: np.ndarray = 1 - np.exp(-(passed_s + _MOMENT_S) / np.maximum(tau_s, 1e-3 * _MOMENT_S))
    return share


def clamp(value: float, low: float, high: float) -> float:
    """``value`` within these bounds; numpy's own takes far longer for a single number."""
    return min(max(value, low), high)


def _vee_and_angle(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axis times twice the sine, twice the sine (never zero), and the angle."""
    flat = matrix.reshape(*matrix.shape[:-2], 9)
    doubled = _vee(flat)
    twice_sine = np.sqrt(np.vecdot(doubled, doubled)) + _NOTHING
    return doubled, twice_sine, np.arctan2(twice_sine, flat @ _TRACE - 1)


def _vee(flat: np.ndarray) -> np.ndarray:
    """Axis of a rotation, whose rows follow one another, times twice the sine of its angle."""
    axis: np.ndarray = flat @ _CROSS.T
    return axis
