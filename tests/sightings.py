"""Landmarks of a body whose pose, shape and camera are known: what a perfect tracker would see."""

import numpy as np

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.reconstruction.landmark_anchors import find_anchors, pose_anchors
from lhm_runtime.types import Camera, Landmarks

WIDTH, HEIGHT = 720, 960


def camera_looking_down(pitch: float, *, width: int = WIDTH, height: int = HEIGHT) -> Camera:
    T_camera_world = np.eye(4)
    T_camera_world[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ rotvec_to_matrix(np.array([pitch, 0.0, 0.0]))
    focal_px = 1.2 * max(width, height)
    return Camera(T_camera_world, focal_px, focal_px, width / 2, height / 2, width, height)


def standing_rotvec(rng: np.random.Generator, *, yaw: float = 0.0) -> np.ndarray:
    """[55, 3] someone who stands on nearly straight legs and does something with their arms."""
    rotvec = relaxed_pose().rotvec.astype(np.float64)
    for side, sign in (("left", 1), ("right", -1)):
        rotvec[JOINT_INDEX[f"{side}_shoulder"]] += rng.normal(size=3) * [0.2, 0.3, 0.3] + [
            0,
            0,
            sign * rng.uniform(0, 1),
        ]
        rotvec[JOINT_INDEX[f"{side}_elbow"], 1] = -sign * rng.uniform(0.1, 1.6)
        rotvec[JOINT_INDEX[f"{side}_hip"]] += rng.normal(size=3) * 0.08
        rotvec[JOINT_INDEX[f"{side}_knee"], 0] = rng.uniform(0, 0.2)
    for name in ("spine1", "spine2", "spine3", "neck", "head"):
        rotvec[JOINT_INDEX[name]] += rng.normal(size=3) * 0.06
    rotvec[0] = [0, yaw, 0]
    return rotvec


def see(
    body: BodyModel,
    rotvec: np.ndarray,
    transl: np.ndarray,
    betas: np.ndarray,
    camera: Camera,
    *,
    hands: bool = True,
    face: bool = True,
) -> Landmarks:
    anchors = find_anchors(body)
    world = pose_anchors(anchors, rotvec, transl, betas).points
    R = camera.T_camera_world[:3, :3]
    seen = world @ R.T + camera.T_camera_world[:3, 3]
    pixels = camera.fx * seen[:, :2] / seen[:, 2:] + [camera.cx, camera.cy]
    axes = (seen * [1, -1, -1]).astype(np.float32)
    pixels = pixels.astype(np.float32)
    face_image = np.zeros((478, 2), np.float32)
    face_image[anchors.face_points] = pixels[75:]
    return Landmarks(
        timestamp_s=0.0,
        image_size=(camera.width, camera.height),
        body_world=axes[:33] - axes[23:25].mean(0),
        body_image=pixels[:33],
        body_visibility=np.ones(33, np.float32),
        left_hand_world=axes[33:54] if hands else None,
        left_hand_image=pixels[33:54] if hands else None,
        right_hand_world=axes[54:75] if hands else None,
        right_hand_image=pixels[54:75] if hands else None,
        face_image=face_image if face else None,
    )
