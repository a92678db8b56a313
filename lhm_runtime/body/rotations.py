"""Conversions between the four ways we write a rotation, batched over leading axes.

rotvec [3]: axis times angle, radians. matrix [3, 3]: acts on column vectors. quat_wxyz [4]: unit, w first.
rot6d [6]: the first two *columns* of the matrix, one after the other (Zhou et al. 2019, "On the Continuity
of Rotation Representations in Neural Networks"; some libraries take rows).

All are stable near 0 and near pi, compute in float64 and return the dtype they were given.
"""

import numpy as np
from jaxtyping import Float

from lhm_runtime.errors import InvalidInputError

_IDENTITY = np.eye(3).reshape(9)
_CROSS = -np.cross(np.eye(3)[:, None], np.eye(3)[None, :]).reshape(3, 9)  # r @ _CROSS is [r]x, row by row


def rotvec_to_matrix(rotvec: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3 3"]:
    """Rodrigues' formula: cos(a) I + sin(a)/a [r]x + (1 - cos(a))/a^2 r r^T, with a = |r|."""
    r = rotvec.astype(np.float64)
    angle = np.sqrt((r * r).sum(-1))[..., None]
    # both quotients by way of sin(x)/x, which has no cancellation at 0
    sine = _sin_over(angle)
    versine = 0.5 * np.square(_sin_over(0.5 * angle))
    matrix: np.ndarray = (versine * r)[..., :, None] * r[..., None, :]
    matrix += ((sine * r) @ _CROSS + np.cos(angle) * _IDENTITY).reshape(matrix.shape)
    return matrix.astype(rotvec.dtype)


def matrix_to_rotvec(matrix: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b 3"]:
    """Shortest rotvec (angle <= pi) of a rotation matrix."""
    return quat_wxyz_to_rotvec(matrix_to_quat_wxyz(matrix.astype(np.float64))).astype(matrix.dtype)


def rotvec_to_quat_wxyz(rotvec: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 4"]:
    """Unit quaternion of a rotvec; w >= 0 for angles up to pi."""
    r = rotvec.astype(np.float64)
    half = 0.5 * np.linalg.norm(r, axis=-1, keepdims=True)
    return np.concatenate([np.cos(half), 0.5 * _sin_over(half) * r], axis=-1).astype(rotvec.dtype)


def quat_wxyz_to_rotvec(quat_wxyz: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b 3"]:
    """Shortest rotvec (angle <= pi) of a quaternion of any length but zero."""
    q = quat_wxyz.astype(np.float64)
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(q[..., :1] < 0, -q, q)
    w, xyz = q[..., :1], q[..., 1:]
    sin_half = np.linalg.norm(xyz, axis=-1, keepdims=True)
    half = np.arctan2(sin_half, w)
    rotvec: np.ndarray = 2 * xyz / _sin_over(half)
    return rotvec.astype(quat_wxyz.dtype)


def quat_wxyz_to_matrix(quat_wxyz: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b 3 3"]:
    """Rotation matrix of a quaternion of any length but zero."""
    q = quat_wxyz.astype(np.float64)
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2).astype(quat_wxyz.dtype)


def matrix_to_quat_wxyz(matrix: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b 4"]:
    """Unit quaternion with w >= 0 of a rotation matrix (Shepperd 1978)."""
    m = matrix.astype(np.float64)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (tuple(m[..., i, j] for j in range(3)) for i in range(3))
    # row i is 4 q_i q: the row of the largest |q_i| loses no digits
    rows = [
        [1 + xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx],
        [xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz],
        [yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz],
    ]
    candidates = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    best = np.argmax(np.diagonal(candidates, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(candidates, best[..., None, None], axis=-2)[..., 0, :]
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q).astype(matrix.dtype)


def matrix_to_rot6d(matrix: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b 6"]:
    """First two columns of a rotation matrix."""
    return np.concatenate([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)


def rot6d_to_matrix(rot6d: Float[np.ndarray, "*b 6"]) -> Float[np.ndarray, "*b 3 3"]:
    """Rotation matrix from two columns that need not be unit or orthogonal (Gram-Schmidt, the first leading).

    Raises:
        InvalidInputError: where the two are zero, parallel or not finite, which fixes no rotation.
    """
    d = rot6d.astype(np.float64)
    first, second = d[..., :3], d[..., 3:]
    length = np.linalg.norm(first, axis=-1, keepdims=True)
    x = first / np.where(length > 0, length, 1)
    rest = second - (x * second).sum(-1, keepdims=True) * x
    rest_length = np.linalg.norm(rest, axis=-1, keepdims=True)
    usable = (
        (length > 0) & (rest_length > 1e-12 * np.linalg.norm(second, axis=-1, keepdims=True)) & np.isfinite(rest_length)
    )
    if not usable.all():
        index = [int(i) for i in np.argwhere(~usable[..., 0])[0]]
        raise InvalidInputError(
            f"rot6d{index or ''} is {rot6d[tuple(index)]}; its two columns must be finite and not parallel"
        )
    y = rest / rest_length
    return np.stack([x, y, np.cross(x, y)], axis=-1).astype(rot6d.dtype)


def quat_multiply_wxyz(a: Float[np.ndarray, "*b 4"], b: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b 4"]:
    """Hamilton product: the rotation ``b`` first, then ``a``."""
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def _sin_over(x: np.ndarray) -> np.ndarray:
    """sin(x) / x, 1 at 0."""
    quotient: np.ndarray = np.divide(np.sin(x), x, out=np.ones_like(x), where=x != 0)
    return quotient
