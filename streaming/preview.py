"""One sheet of pictures that shows how good a reconstructed avatar is, and where it is not."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Framing, Renderer, frame_person
from lhm_runtime.reconstruction import Reconstruction
from lhm_runtime.types import SmplxPose

TILE = (384, 512)
"""Width and height of one picture."""
COLUMNS = 6

_BACKGROUND = (0.914, 0.925, 0.937)
_ARMS_UP_DEG = 65.0
_HEAD_TURN_DEG = 45.0
_FACES: Mapping[str, Mapping[str, float]] = {
    "smile": {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5},
    "blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "mouth open": {"jawOpen": 1.0},
}


@dataclass(frozen=True, slots=True, eq=False)
class _Shot:
    """What one tile shows."""

    caption: str
    pose: SmplxPose
    framing: Framing
    yaw_deg: float = 0.0


def draw_preview(made: Reconstruction, threads: int = 1) -> list[np.ndarray]:
    """Tiles of TILE pixels, uint8 RGB, COLUMNS a row: the photo, the same view, other sides, poses and expressions."""
    avatar, photo = made.avatar, made.photos[0]
    with Renderer(avatar, threads=threads) as renderer:
        fit = made.fits[0]
        same = renderer.render(
            joint_matrices(fit.pose, avatar.rest_joints),
            fit.pose.expression,
            fit.camera,
            pixel_format="rgb",
            background=_BACKGROUND,
        )
        tiles = [_caption(_letterbox(photo.rgb), "photo"), _caption(_letterbox(same), "same view")]
        tiles += [_caption(_draw(renderer, avatar, shot), shot.caption) for shot in _plan(avatar)]
    return tiles


def _plan(avatar: Avatar) -> list[_Shot]:
    framing = avatar.metadata.shown
    ease = relaxed_pose(avatar.expression_names)
    zero = replace(ease, rotvec=np.zeros_like(ease.rotvec))
    sides = [_Shot(f"{yaw:+d}°" if yaw < 180 else "180°", ease, framing, float(yaw)) for yaw in (-30, 30, 90, 180)]
    poses = [
        _Shot("T-pose", zero, "full"),
        _Shot("arms up", _turn(zero, left_shoulder=_ARMS_UP_DEG, right_shoulder=-_ARMS_UP_DEG, axis=2), "full"),
        _Shot("head turned", _turn(ease, neck=_HEAD_TURN_DEG / 2, head=_HEAD_TURN_DEG / 2, axis=1), "head"),
    ]
    faces = [
        _Shot(name, replace(ease, expression=_expression(avatar, scores)), "head") for name, scores in _FACES.items()
    ]
    return [*sides, *poses, *faces]


def _turn(pose: SmplxPose, *, axis: int, **degrees: float) -> SmplxPose:
    rotvec = pose.rotvec.copy()
    for joint, angle in degrees.items():
        rotvec[JOINT_INDEX[joint], axis] += np.radians(angle)
    return replace(pose, rotvec=rotvec)


def _expression(avatar: Avatar, scores: Mapping[str, float]) -> np.ndarray:
    return np.array([scores.get(name, 0.0) for name in avatar.expression_names], np.float32)


def _draw(renderer: Renderer, avatar: Avatar, shot: _Shot) -> np.ndarray:
    joints = forward_kinematics(shot.pose.rotvec, avatar.rest_joints, shot.pose.transl)[:, :3, 3]
    camera = frame_person(joints, shot.framing, *TILE, yaw=float(np.radians(shot.yaw_deg)))
    matrices = joint_matrices(shot.pose, avatar.rest_joints)
    return renderer.render(matrices, shot.pose.expression, camera, pixel_format="rgb", background=_BACKGROUND)


def _letterbox(picture: np.ndarray) -> np.ndarray:
    """The whole picture in the middle of a tile."""
    width, height = TILE
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
    tile = np.full((height, width, 3), np.rint(255 * np.array(_BACKGROUND)), np.uint8)
    x, y = (width - size[0]) // 2, (height - size[1]) // 2
    tile[y : y + size[1], x : x + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return tile


def _caption(tile: np.ndarray, text: str) -> np.ndarray:
    image = Image.fromarray(tile.copy())
    ImageDraw.Draw(image).text(
        (12, TILE[1] - 12),
        text,
        (40, 44, 52),
        ImageFont.load_default(20),
        anchor="ls",
        stroke_width=2,
        stroke_fill="white",
    )
    return np.asarray(image)
