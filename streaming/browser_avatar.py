"""An avatar as browsers get it to draw it themselves: quantised, compressed (docs/client_rendering.md has the format).

Only what a picture needs: no name, licence or source. Poses, opposed to pixels, give the avatar away: who may have it
is for callers to say.
"""

import gzip
import struct
from typing import Final

import numpy as np
from jaxtyping import Float, Int, UInt8

from lhm_runtime.avatar import MAX_INFLUENCES, Avatar
from lhm_runtime.body.joints import PARENTS
from streaming.smallest_three import pack_quaternions

VERSION: Final = 1
_HEAD: Final = struct.Struct("<4sHHII3f3f2f")
_MAGIC: Final = b"LLBA"
_NO_PARENT: Final = 255
_FAINTEST: Final = 1 / 255
"""No renderer draws what is fainter (rasterizer/contract.py)."""
_THINNEST_M: Final = 1e-5
_LEAST_MOVE_M: Final = 2e-5
"""A Gaussian that no expression moves further than this stays where it is: a fiftieth of a pixel."""
_COMPRESSION: Final = 6


def pack_avatar(avatar: Avatar) -> bytes:
    """The file, compressed by gzip: about 1 MB for 40,000 Gaussians."""
    return gzip.compress(encode_avatar(avatar), _COMPRESSION, mtime=0)


def encode_avatar(avatar: Avatar) -> bytes:
    """The file as it is defined, not compressed.

    Centres are off by up to half a 65,535th of the avatar's extent (0.015 mm), lengths of axes by 1.5 %, axes by 0.28
    degrees, colours and weights by half a 255th, an expression's effect by half a 127th of its largest.
    """
    rest = avatar.gaussians
    move = np.zeros(len(avatar), np.float64)
    move[avatar.expression_gaussians] = np.abs(avatar.expression_directions).max(axis=(1, 2), initial=0)
    order = _order(rest.means, rest.opacity >= _FAINTEST, move >= _LEAST_MOVE_M)
    moved = int((move[order] >= _LEAST_MOVE_M).sum())

    means, low, step = _quantise(rest.means[order].astype(np.float64), 65535)
    lengths = np.log(np.maximum(rest.scales[order].astype(np.float64), _THINNEST_M))
    scales, scale_low, scale_step = _quantise(lengths.reshape(-1, 1), 255)
    quaternions = pack_quaternions(rest.quat_wxyz[order], 10)
    rgba = np.column_stack([rest.rgb, rest.opacity])[order]
    joints, weights = _influences(avatar, order)
    moves, move_steps = _directions(avatar, order[:moved])
    parents = np.where(PARENTS < 0, _NO_PARENT, PARENTS).astype(np.uint8)

    head = _HEAD.pack(
        _MAGIC,
        VERSION,
        len(avatar.expression_names),
        len(order),
        moved,
        *low.tolist(),
        *step.tolist(),
        scale_low.item(),
        scale_step.item(),
    )
    shifts = np.array([30, 20, 10, 0], np.uint32)
    return b"".join(
        (
            head,
            avatar.rest_joints.astype("<f4").tobytes(),
            move_steps.astype("<f4").tobytes(),
            (quaternions << shifts).sum(axis=1, dtype=np.uint32).astype("<u4").tobytes(),
            means.T.astype("<u2").tobytes(),
            scales.reshape(-1, 3).T.astype(np.uint8).tobytes(),
            np.rint(255 * rgba).T.astype(np.uint8).tobytes(),
            joints.T.tobytes(),
            weights.T.tobytes(),
            avatar.constrained[order].astype(np.uint8).tobytes(),
            moves.tobytes(),
            parents.tobytes(),
        )
    )


def _order(means: Float[np.ndarray, "n 3"], kept: np.ndarray, moved: np.ndarray) -> Int[np.ndarray, " m"]:
    """Indices of those kept: the moved first; neighbours in space near each other, which compresses better."""
    extent = np.maximum(np.ptp(means, axis=0).max(initial=0), 1e-6)
    cells = ((means - means.min(axis=0, initial=np.inf)) * (1023 / extent)).astype(np.uint32)
    code = np.zeros(len(means), np.uint32)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    order = np.lexsort((code, ~moved))
    found: np.ndarray = order[kept[order]]
    return found


def _quantise(values: Float[np.ndarray, "n c"], most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole numbers from 0 to ``most``, the lowest value of each column and what one step is."""
    low = values.min(axis=0).astype(np.float32)
    step = np.maximum((values.max(axis=0) - low) / most, 1e-9).astype(np.float32)
    return np.clip(np.rint((values - low) / step), 0, most), low, step


def _influences(avatar: Avatar, order: np.ndarray) -> tuple[UInt8[np.ndarray, "m 8"], UInt8[np.ndarray, "m 8"]]:
    """Joints and weights of each; weights sum to 255, and joints without weight are joint 0."""
    k = avatar.skin_joints.shape[1]
    weights = np.zeros((len(order), MAX_INFLUENCES), np.int64)
    weights[:, :k] = np.rint(255 * avatar.skin_weights[order])
    weights[:, 0] += 255 - weights.sum(axis=1)  # the heaviest bears the rounding
    joints = np.zeros((len(order), MAX_INFLUENCES), np.uint8)
    joints[:, :k] = avatar.skin_joints[order]
    joints[weights == 0] = 0
    return joints, weights.astype(np.uint8)


def _directions(avatar: Avatar, moved: np.ndarray) -> tuple[np.ndarray, Float[np.ndarray, " e"]]:
    """[e, 3, m] int8, and metres per step of each expression."""
    rows = np.searchsorted(avatar.expression_gaussians, moved)
    directions = avatar.expression_directions[rows].astype(np.float64)
    steps = np.maximum(np.abs(directions).max(axis=(0, 2), initial=0) / 127, 1e-9).astype(np.float32)
    return np.rint(directions / steps[None, :, None]).transpose(1, 2, 0).astype(np.int8), steps
