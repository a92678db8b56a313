"""Cameras: look-at, orbit, and framings that fit a person."""

from typing import Literal, assert_never

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError, require_finite
from lhm_runtime.types import Camera

Framing = Literal["full", "half", "head"]
"""How much of the person is in the picture: head to toe, hips upwards, or head and shoulders."""

_ABOVE_HEAD_M = 0.24
"""From the head joint (where the skull sits on the neck) to above the hair."""
_BELOW_FOOT_M = 0.10
_BEYOND_WRIST_M = 0.22
"""Hands with fingers stretched."""
_MARGIN = 1.06


def look_at(
    eye: Float[np.ndarray, " 3"],
    target: Float[np.ndarray, " 3"],
    width: int,
    height: int,
    fov_y_deg: float = 25.0,
) -> Camera:
    """Camera at ``eye`` (metres, world) that sees ``target`` in the middle of its picture, world up upwards.

    Raises InvalidInputError when eye and target coincide, lie on one vertical line, or the angle is not in (0, 170).
    """
    require_finite("eye", eye)
    require_finite("target", target)
    if not 0 < fov_y_deg < 170:
        raise InvalidInputError(f"fov_y_deg is {fov_y_deg}, expected an angle between 0 and 170 degrees")
    forward = np.asarray(target, np.float64) - eye
    right = np.cross(forward, [0.0, 1.0, 0.0])
    if np.linalg.norm(right) < 1e-9:
        raise InvalidInputError(f"eye {eye} and target {target} give no direction to look in with y upwards")
    right /= np.linalg.norm(right)
    forward /= np.linalg.norm(forward)
    R = np.stack([right, np.cross(forward, right), forward])
    T_camera_world = np.eye(4)
    T_camera_world[:3, :3] = R
    T_camera_world[:3, 3] = -R @ eye
    focal_px = 0.5 * height / np.tan(0.5 * np.radians(fov_y_deg))
    return Camera(T_camera_world, focal_px, focal_px, width / 2, height / 2, width, height)


def orbit(
    target: Float[np.ndarray, " 3"],
    distance_m: float,
    width: int,
    height: int,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    fov_y_deg: float = 25.0,
) -> Camera:
    """Camera that looks at ``target`` from ``distance_m``: yaw 0 sees the face, pi/2 the person's left side.

    yaw and pitch in radians; a positive pitch looks down from above.
    """
    if not 0 < distance_m < np.inf:
        raise InvalidInputError(f"distance_m is {distance_m}, expected a positive number of metres")
    away = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    return look_at(np.asarray(target, np.float64) + distance_m * away, target, width, height, fov_y_deg)


def frame_person(
    joints: Float[np.ndarray, "55 3"],
    framing: Framing,
    width: int,
    height: int,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    fov_y_deg: float = 25.0,
) -> Camera:
    """Camera that fits the person whose joints (metres, world) these are; the same distance from every side."""
    require_finite("joints", joints)
    low, high, radius = _bounds(np.asarray(joints, np.float64), framing)
    target = joints[JOINT_INDEX["pelvis"]].astype(np.float64)
    if framing == "head":
        target = joints[JOINT_INDEX["head"]].astype(np.float64)
    target[1] = 0.5 * (low + high)
    half_angle = np.tan(0.5 * np.radians(fov_y_deg))
    half_size = max(0.5 * (high - low), radius * height / width) * _MARGIN
    return orbit(target, half_size / half_angle, width, height, yaw=yaw, pitch=pitch, fov_y_deg=fov_y_deg)


def _bounds(joints: Float64[np.ndarray, "55 3"], framing: Framing) -> tuple[float, float, float]:
    """Lowest and highest y to show, and how far to the sides of the middle."""
    at = JOINT_INDEX
    top = joints[at["head"], 1] + _ABOVE_HEAD_M
    if framing == "head":
        return joints[at["neck"], 1] - 0.12, top, 0.16
    shoulders = float(np.linalg.norm(joints[at["left_shoulder"]] - joints[at["right_shoulder"]]))
    if framing == "half":
        return joints[at["pelvis"], 1], top, 0.5 * shoulders + 0.12
    if framing == "full":
        aside = np.linalg.norm(joints[:, [0, 2]] - joints[at["pelvis"], [0, 2]], axis=1)
        wrists = [at["left_wrist"], at["right_wrist"]]
        highest = max(top, joints[wrists, 1].max() + _BEYOND_WRIST_M)
        return (
            joints[:, 1].min() - _BELOW_FOOT_M,
            highest,
            max(aside.max() + 0.1, aside[wrists].max() + _BEYOND_WRIST_M),
        )
    assert_never(framing)
