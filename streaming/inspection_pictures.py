"""Pictures of ``lhm-live inspect``: Gaussians that nothing has moved, and attention over the photo."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from lhm_runtime.rasterizer import frame_person, rasterize
from lhm_runtime.types import Gaussians

if TYPE_CHECKING:
    from lhm_runtime.reconstruction.lhm.attention_maps import AttentionMap
    from lhm_runtime.reconstruction.lhm.pipeline import Canonical

TILE: Final = (300, 500)
"""Width and height of each picture."""
COLUMNS: Final = 4

_SIDES_DEG: Final = {"front": 0.0, "left": 90.0, "back": 180.0, "right": -90.0}
_BACKGROUND = (0.92, 0.925, 0.935)
_PAPER = (235, 236, 238)
_DIM = 0.6
"""How bright the photo is where nobody looks."""
_FULL_HEAT = 6.0
"""Attention in times of its mean that is drawn brightest."""


def draw_canonical(gaussians: Gaussians, rest_joints: Float[np.ndarray, "55 3"]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The Gaussians as they are, from four sides: neither skinning nor expressions have touched them."""
    tiles = []
    for side, yaw in _SIDES_DEG.items():
        camera = frame_person(rest_joints, "full", *TILE, yaw=float(np.radians(yaw)))
        picture = rasterize(gaussians, camera, pixel_format="rgb", background=_BACKGROUND)
        tiles.append(_caption(picture, f"unskinned, {side}"))
    return tiles


def draw_attention(
    canonical: "Canonical", maps: "Sequence[AttentionMap]", layer: int
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """For each group of points, the picture it looked at in that layer: bright where attention goes."""
    pictures = {"body": _to_square(canonical.body_picture.rgb), "head": canonical.head_picture.astype(np.float32) / 255}
    tiles = []
    for one in maps:
        if one.layer == layer:
            lit = _light(pictures[one.picture], one.weights)
            tile = _fit(_cut_to_tile(lit) if one.picture == "body" else lit)
            tiles.append(_caption(tile, f"{one.points} -> {one.picture}, {one.weights.sum():.0%}"))
    blank = np.asarray(Image.new("RGB", TILE, _PAPER))
    return [*tiles, *[blank] * (-len(tiles) % COLUMNS)]


def _light(picture: Float[np.ndarray, "s s 3"], weights: Float[np.ndarray, "g g"]) -> UInt8[np.ndarray, "s s 3"]:
    """The picture in grey, dimmed, and lit where the weights are several times their mean."""
    side = picture.shape[0]
    times_mean = (weights / max(float(weights.mean()), 1e-12)).astype(np.float32)
    smooth = Image.fromarray(times_mean).resize((side, side), Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(smooth) / _FULL_HEAT, 0, 1)[:, :, None]
    grey = picture.mean(axis=2, keepdims=True) * _DIM
    lit = grey + heat * (np.array([1.0, 0.45, 0.1]) - grey * [0, 0.5, 1])
    return np.asarray(np.rint(255 * np.clip(lit, 0, 1)), np.uint8)


def _to_square(rgb: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "s s 3"]:
    """As the encoder sees it: in the middle of a white square."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    square = np.ones((side, side, 3), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = rgb
    return square


def _cut_to_tile(picture: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "s t 3"]:
    """The middle of a square, of a tile's shape: what is cut away is white."""
    width = picture.shape[0] * TILE[0] // TILE[1]
    left = (picture.shape[1] - width) // 2
    return picture[:, left : left + width]


def _fit(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The whole picture in a tile."""
    image, (width, height) = Image.fromarray(picture), TILE
    scale = min(width / image.width, height / image.height)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", TILE, _PAPER)
    tile.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
    return np.asarray(tile)


def _caption(tile: UInt8[np.ndarray, "h w 3"], text: str) -> UInt8[np.ndarray, "h w 3"]:
    image = Image.fromarray(tile.copy())
    place, font = (10, TILE[1] - 10), ImageFont.load_default(16)
    ImageDraw.Draw(image).text(place, text, (40, 44, 52), font, anchor="ls", stroke_width=2, stroke_fill="white")
    return np.asarray(image)
