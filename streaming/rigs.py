"""What a rig says of itself in its retained ``meta`` message: JSON, once, before its samples.

    {"version": 1, "skeleton": "unity", "rate_hz": 60, "units": "m", "neutral": {"LeftUpperArm": [w, x, y, z], ...}}

``skeleton`` is landmarks or the convention of its bones (wire/rotations.py). ``neutral`` is what it sends of somebody
who stands in T-pose (SMPL-X: zero pose), where that is not all zero. All but the version may be left out.
"""

import json
import math
from dataclasses import dataclass, replace
from typing import Final, get_args

import numpy as np

from lhm_runtime.body.joints import NUM_JOINTS, PARENTS
from lhm_runtime.body.rotations import quat_multiply_wxyz
from lhm_runtime.motion.retargeting import BoneRotations, Convention
from streaming.errors import ProtocolError
from streaming.wire.limits import MAX_TEXT_BYTES
from streaming.wire.rotations import BONE_NAMES, build_bones

META_VERSION: Final = 1
_SKELETONS: Final = (*get_args(Convention), "landmarks")
_MAX_RATE_HZ: Final = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class RigMeta:
    """A rig's description."""

    skeleton: str | None = None
    """Convention of its bones, or ``landmarks``; None: not said."""
    rate_hz: float | None = None
    """Samples a second that it means to send."""
    neutral: BoneRotations | None = None
    """What it sends in T-pose."""

    def correct(self, bones: BoneRotations) -> BoneRotations:
        """``bones`` as a rig would send them whose T-pose is all zero; of another convention: as they are."""
        if self.neutral is None or bones.convention != self.neutral.convention:
            return bones
        # with the bones' turns in the world G = G_parent L, and GN the same in T-pose, G GN^T is how far each has
        # turned since; its parts relative to the parent are GN_parent L GN^T
        index = {name: joint for joint, name in enumerate(BONE_NAMES[bones.convention])}
        neutral = np.tile([1.0, 0, 0, 0], (NUM_JOINTS, 1))
        neutral[[index[name] for name in self.neutral.names]] = self.neutral.quat_wxyz
        for joint in range(1, NUM_JOINTS):
            neutral[joint] = quat_multiply_wxyz(neutral[PARENTS[joint]], neutral[joint])
        joints = np.array([index[name] for name in bones.names], np.int64)
        parents = neutral[PARENTS[joints]]
        parents[joints == 0] = [1.0, 0, 0, 0]
        turned = quat_multiply_wxyz(
            quat_multiply_wxyz(parents, bones.quat_wxyz.astype(np.float64)), neutral[joints] * [1, -1, -1, -1]
        )
        return replace(bones, quat_wxyz=turned.astype(np.float32))


def read_meta(message: bytes) -> RigMeta:
    """The description in a message from outside; keys that mean nothing here are passed over.

    Raises:
        ProtocolError: anything else than such a JSON object.
    """
    if len(message) > MAX_TEXT_BYTES:
        raise ProtocolError(f"meta of {len(message)} bytes, at most {MAX_TEXT_BYTES} are read")
    try:
        meta = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"meta is no JSON: {error}") from error
    if not isinstance(meta, dict):
        raise ProtocolError(f"meta is a JSON {type(meta).__name__}, expected an object")
    if meta.get("version") != META_VERSION:
        raise ProtocolError(f"meta of version {meta.get('version')!r}, this server reads version {META_VERSION}")
    skeleton = meta.get("skeleton")
    if skeleton is not None and skeleton not in _SKELETONS:
        raise ProtocolError(f"skeleton is {skeleton!r}, expected one of {', '.join(_SKELETONS)}")
    if meta.get("units", "m") != "m":
        raise ProtocolError(f"units are {meta['units']!r}; samples are in metres: m")
    rate_hz = meta.get("rate_hz")
    if rate_hz is not None and not (_is_number(rate_hz) and 0 < rate_hz <= _MAX_RATE_HZ):
        raise ProtocolError(f"rate_hz is {rate_hz!r}, expected a number up to {_MAX_RATE_HZ:g}")
    neutral = meta.get("neutral")
    return RigMeta(
        skeleton,
        None if rate_hz is None else float(rate_hz),
        None if not neutral else _read_neutral(neutral, skeleton),
    )


def _read_neutral(neutral: object, skeleton: object) -> BoneRotations:
    convention = next((known for known in BONE_NAMES if known == skeleton), None)
    if convention is None:
        raise ProtocolError(f"a neutral pose needs a skeleton with bones, one of {', '.join(BONE_NAMES)}")
    if not isinstance(neutral, dict):
        raise ProtocolError(f"neutral is a JSON {type(neutral).__name__}, expected an object of bones")
    rotations = {}
    for name, values in neutral.items():
        if not isinstance(values, list) or len(values) not in {3, 4} or not all(map(_is_number, values)):
            raise ProtocolError(f"neutral.{name[:64]} is {str(values)[:80]}, expected a rotvec or a quaternion wxyz")
        rotations[name] = np.array(values, np.float64)
    return build_bones(0, 0.0, convention, rotations, None, {}).bones


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
