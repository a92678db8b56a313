"""Gaussians to pixels: one numerical contract (contract.py), a slow twin (reference.py) and the backends."""

from lhm_runtime.rasterizer.cameras import Framing, frame_person, look_at, orbit
from lhm_runtime.rasterizer.contract import PixelFormat, StopRule
from lhm_runtime.rasterizer.renderer import Renderer, picture_shape, rasterize

__all__ = [
    "Framing",
    "PixelFormat",
    "Renderer",
    "StopRule",
    "frame_person",
    "look_at",
    "orbit",
    "picture_shape",
    "rasterize",
]
