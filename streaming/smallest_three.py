"""Unit quaternions in few bits: the largest component is left out, for the other three fix it (q and -q turn alike)."""

import numpy as np
from jaxtyping import Float, UInt32

_LARGEST = 2**-0.5
"""No component but the largest is larger."""


def pack_quaternions(quat_wxyz: Float[np.ndarray, "n 4"], bits: int) -> UInt32[np.ndarray, "n 4"]:
    """Which component (wxyz) is left out, then the others in order, each 0 to 2^bits - 1 for -2^-0.5 to 2^-0.5.

    What is packed so is not turned by more than 2 6^0.5 / (2^bits - 1) radians: 0.28 degrees with 10 bits, 0.009 with
    15. Quaternions may have any length but zero.
    """
    q = quat_wxyz.astype(np.float64)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    rows = np.arange(len(q))
    left_out = np.argmax(np.abs(q), axis=1)
    q *= np.where(q[rows, left_out] < 0, -1.0, 1.0)[:, None]
    others = q[np.arange(4) != left_out[:, None]].reshape(-1, 3)
    most = 2**bits - 1
    steps = np.clip(np.rint((others / _LARGEST + 1) * (0.5 * most)), 0, most)
    return np.column_stack([left_out, steps]).astype(np.uint32)
