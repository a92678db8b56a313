"""Poses for browsers that draw an avatar themselves, packed small (docs/client_rendering.md).

Little endian, without padding: "LS", u8 version, u8 cast, u32 sequence, f64 time in milliseconds, 3 f32 translation,
u16 number of coefficients; then 55 rotations, 3 u16 each; then the face's coefficients, f16. 464 bytes with 52 of them.
"""

import struct
from typing import Final

import numpy as np

from lhm_runtime.body.rotations import rotvec_to_quat_wxyz
from lhm_runtime.types import SmplxPose
from streaming.smallest_three import pack_quaternions

VERSION: Final = 1
_HEAD: Final = struct.Struct("<2sBBId3fH")
_MAGIC: Final = b"LS"
_BITS: Final = 15
_HALF_MAX: Final = float(np.finfo(np.float16).max)


def encode_pose(pose: SmplxPose, cast: int, sequence: int, time_ms: float) -> bytes:
    """One moment of the avatar on stage; no joint is off by more than 0.009 degrees.

    Args:
        pose: what is shown; its own time is not sent.
        cast: which of a session's avatars it is for, as its scene says; modulo 256.
        sequence: counted up; modulo 2^32.
        time_ms: on the session's steady clock.
    """
    head = _HEAD.pack(
        _MAGIC, VERSION, cast % 256, sequence % 2**32, time_ms, *pose.transl.tolist(), len(pose.expression)
    )
    packed = pack_quaternions(rotvec_to_quat_wxyz(pose.rotvec.astype(np.float64)), _BITS)
    words = packed[:, 1:].astype("<u2")
    left_out = packed[:, 0].astype(np.uint16)  # said by the top bits of the first two words
    words[:, 0] |= (left_out & 1) << _BITS
    words[:, 1] |= (left_out >> 1) << _BITS
    face = np.clip(pose.expression, -_HALF_MAX, _HALF_MAX).astype("<f2")
    return b"".join((head, words.tobytes(), face.tobytes()))
