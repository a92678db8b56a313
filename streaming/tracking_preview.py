"""A frame with what was seen in it, beside an avatar that does the same."""

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.motion.tracker import resize_landmarks
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.types import Camera, Landmarks, SmplxPose

PANEL_SIDE = 720
"""Longest side of each half, pixels."""

_BACKGROUND = (0.914, 0.925, 0.937)
_LEFT, _RIGHT, _MIDDLE, _FACE = (255, 150, 40), (40, 170, 255), (235, 235, 235), (120, 255, 140)
_VISIBLE = 0.5
_BODY_LINES = (
    *((11, 12), (23, 24), (11, 23), (12, 24)),
    *((11, 13), (13, 15), (15, 19), (15, 17), (15, 21), (17, 19)),
    *((12, 14), (14, 16), (16, 20), (16, 18), (16, 22), (18, 20)),
    *((23, 25), (25, 27), (27, 29), (27, 31), (29, 31)),
    *((24, 26), (26, 28), (28, 30), (28, 32), (30, 32)),
    *((0, 2), (2, 7), (0, 5), (5, 8), (9, 10)),
)
_HAND_LINES = (
    *((0, 5), (5, 9), (9, 13), (13, 17), (0, 17)),
    *((start + i, start + i + 1) for start in (5, 9, 13, 17) for i in range(3)),
    *((0, 1), (1, 2), (2, 3), (3, 4)),
)


def panel_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Even width and height of each half for frames of ``image_size``; at most PANEL_SIDE."""
    scale = min(1.0, PANEL_SIDE / max(image_size))
    width, height = (max(2, round(side * scale / 2) * 2) for side in image_size)
    return width, height


def draw_landmarks(picture: UInt8[np.ndarray, "h w 3"], landmarks: Landmarks) -> UInt8[np.ndarray, "h2 w2 3"]:
    """``picture`` at panel size with the landmarks of it: left orange, right blue, the face green."""
    size = panel_size(landmarks.image_size)
    image = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    draw = ImageDraw.Draw(image)
    seen = resize_landmarks(landmarks, size)
    if seen.face_image is not None:
        for x, y in seen.face_image:
            draw.rectangle([float(x), float(y), float(x) + 1, float(y) + 1], fill=_FACE)
    if seen.body_image is not None and seen.body_visibility is not None:
        for a, b in _BODY_LINES:
            if min(seen.body_visibility[[a, b]]) > _VISIBLE:
                _line(draw, seen.body_image, a, b, _body_colour(a, b), 2)
    for hand, colour in ((seen.left_hand_image, _LEFT), (seen.right_hand_image, _RIGHT)):
        if hand is not None:
            for a, b in _HAND_LINES:
                _line(draw, hand, a, b, colour, 1)
    return np.asarray(image)


class PreviewPainter:
    """Paints frame after frame; ``close`` it."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._renderer = Renderer(avatar)

    def paint(
        self, picture: UInt8[np.ndarray, "h w 3"], landmarks: Landmarks, pose: SmplxPose | None, camera: Camera
    ) -> UInt8[np.ndarray, "h2 w2"]:
        """The frame with its landmarks on the left, the avatar (none without a pose) on the right.

        ``camera`` has panel size. Returns I420, BT.709 limited range, as ``write_video`` takes it.
        """
        left = draw_landmarks(picture, landmarks)
        if pose is None:
            right = np.full_like(left, np.round(255 * np.array(_BACKGROUND)).astype(np.uint8))
        else:
            right = self._renderer.render(
                joint_matrices(pose, self._avatar.rest_joints),
                pose.expression,
                camera,
                pixel_format="rgb",
                background=_BACKGROUND,
            )
        both = av.VideoFrame.from_ndarray(np.concatenate([left, right], axis=1), format="rgb24")
        i420 = both.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        ).to_ndarray()
        return np.asarray(i420, np.uint8)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()


def _body_colour(a: int, b: int) -> tuple[int, int, int]:
    if a % 2 != b % 2 or a == 0:
        return _MIDDLE
    return _LEFT if a % 2 else _RIGHT


def _line(
    draw: ImageDraw.ImageDraw, points: np.ndarray, a: int, b: int, colour: tuple[int, int, int], width: int
) -> None:
    draw.line([*map(float, points[a]), *map(float, points[b])], fill=colour, width=width)
