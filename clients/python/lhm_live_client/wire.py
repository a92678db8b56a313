"""Bone samples as bytes: kind 2, version 1 of the wire format, rotations as rotvec in full precision."""

import struct
from collections.abc import Mapping, Sequence
from typing import Final

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")

JOINT_NAMES: Final = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder"),
    *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("jaw", "left_eye_smplhf", "right_eye_smplhf"),
    *(f"{side}_{finger}{k}" for side in ("left", "right") for finger in _FINGERS for k in (1, 2, 3)),
)
"""The 55 joints of SMPL-X, in their order."""

_ROTVEC, _ROOT, _SHAPES = 1, 8, 32


def pack_bones(
    sequence: int,
    captured_ms: float,
    rotvec: Mapping[str, Sequence[float]],
    root: Sequence[float] | None = None,
    expression: Mapping[str, float] | None = None,
) -> bytes:
    """One moment of an SMPL-X skeleton.

    Args:
        sequence: counted up by the sender, modulo 2**32.
        captured_ms: when it was so, milliseconds on the sender's clock.
        rotvec: axis times angle of joints in their parents, radians, by name; those left out are at rest.
        root: SMPL-X's ``transl``, metres.
        expression: scores of face shapes by ARKit or VRM names, 0 to 1.

    Raises:
        KeyError: a joint that SMPL-X has not.
    """
    joints = sorted((JOINT_NAMES.index(name), values) for name, values in rotvec.items() if name in JOINT_NAMES)
    if len(joints) != len(rotvec):
        raise KeyError(f"no joints of SMPL-X: {', '.join(sorted(set(rotvec) - set(JOINT_NAMES)))}")
    parts, payload = 0, bytearray(b"\0")
    if joints:
        parts |= _ROTVEC
        payload += struct.pack("<Q", sum(1 << joint for joint, _ in joints))
        payload += b"".join(struct.pack("<3f", *values) for _, values in joints)
    if root is not None:
        parts |= _ROOT
        payload += struct.pack("<3f", *root)
    if expression:
        parts |= _SHAPES
        payload.append(len(expression))
        for name, score in expression.items():
            text = name.encode()
            payload += bytes([len(text)]) + text + struct.pack("<e", score)
    return struct.pack("<2sBBHId", b"LL", 1, 2, parts, sequence % 2**32, captured_ms) + bytes(payload)
