"""From a photo to the two pictures that the encoders look at: the person on white, 5 high to 3 wide, and the head.

Sizes and roundings are those the weights were trained with. Where the published code fails or falls back to a black
picture (people wider than tall, boxes beyond the edge, no face), the same rules simply go on.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from lhm_runtime.errors import InvalidInputError, PhotoError, require_shape
from lhm_runtime.reconstruction.lhm.dinov2 import PATCH_PX

ASPECT: Final = 5 / 3
"""Height in widths of the person's picture."""
BODY_INPUT_PX: Final = 1024
"""Side of the picture for Sapiens."""
HEAD_INPUT_PX: Final = 448
"""Side of the picture for DINOv2."""
RESTORER_PX: Final = 112
"""Side of the head's picture that face restorers are given."""
HEAD_MARGIN: Final = 1.65
"""Side of the head's picture in sizes of the head's box."""

_BODY_MARGIN = 1.1
_WORKING_SIDE = 896
_SURE = 127.5  # of 255: the person's outline for the box
_SAPIENS_MEAN, _SAPIENS_STD = (0.4844, 0.4570, 0.4062), (0.2295, 0.2236, 0.2256)
_WHITE = 255


@dataclass(frozen=True, slots=True, eq=False)
class BodyPicture:
    """The person on white, as LHM frames them; values overshoot [0, 1] by rounding only."""

    rgb: Float32[np.ndarray, "h w 3"]
    mask: Float32[np.ndarray, "h w"]
    """Where the person is."""


def crop_body(rgb: UInt8[np.ndarray, "h w 3"], alpha: Float32[np.ndarray, "h w"], source_size: int) -> BodyPicture:
    """Cut out the person, put them on white, and frame them 5:3.

    People wider than that stand at the foot of the frame, as half bodies do in training.

    Args:
        rgb: the photo, upright.
        alpha: where the person is, 0 to 1; taken as hard, since the network was trained so.
        source_size: of the network (``Variant.source_size``).

    Raises:
        InvalidInputError: rgb and alpha of different sizes.
        PhotoError: nobody in the matte.
    """
    require_shape("alpha", alpha, rgb.shape[:2])
    mask = np.rint(alpha * _WHITE).astype(np.uint8)
    rows, columns = _person_box(mask)
    rgb, mask = _pad_to_aspect(rgb[rows, columns], mask[rows, columns])
    person = mask > _SURE
    on_white = np.where(person[:, :, None], rgb.astype(np.float32) / _WHITE, np.float32(1))
    scale = _WORKING_SIDE / max(person.shape)
    size = (max(round(person.shape[1] * scale), 1), max(round(person.shape[0] * scale), 1))
    on_white = cv2.resize(on_white, size, interpolation=cv2.INTER_AREA)
    silhouette = cv2.resize(person.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    rows, columns = _centred_crop(silhouette > 0)
    out = body_picture_size(source_size)
    return BodyPicture(
        rgb=np.asarray(cv2.resize(on_white[rows, columns], out, interpolation=cv2.INTER_AREA), np.float32),
        mask=np.asarray(cv2.resize(silhouette[rows, columns], out, interpolation=cv2.INTER_AREA), np.float32),
    )


def body_picture_size(source_size: int) -> tuple[int, int]:
    """Width and height of ``crop_body``'s picture: whole patches of DINOv2."""
    return source_size // PATCH_PX * PATCH_PX, int(source_size * ASPECT / PATCH_PX) * PATCH_PX


def crop_head(
    rgb: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, " 4"] | None, size: int = HEAD_INPUT_PX
) -> UInt8[np.ndarray, "size size 3"]:
    """The head with its surroundings, square; white beyond the photo's edge.

    LHM shrinks this to 112 pixels and lets a face restorer enlarge it to 448; without a restorer, the photo's own
    pixels at 448 are nearer to that than 112 enlarged.

    Args:
        rgb: the photo, upright, background and all.
        box: left, top, right, bottom of the whole head, pixels; None for a head that is not seen, which the network
            knows as black.
        size: side of the result.

    Raises:
        InvalidInputError: a box without extent, not finite, or wholly outside the photo.
    """
    if box is None:
        return np.zeros((size, size, 3), np.uint8)
    left, top, right, bottom = _expand_square(box)
    height, width = rgb.shape[:2]
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        raise InvalidInputError(
            f"the head's box {[round(float(v), 1) for v in box]} is outside {width}x{height} pixels"
        )
    inside = rgb[max(top, 0) : bottom, max(left, 0) : right]
    beyond = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    square = cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_CONSTANT, value=(_WHITE, _WHITE, _WHITE))
    how = cv2.INTER_AREA if right - left >= size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (size, size), interpolation=how), np.uint8)


def body_input(rgb: Float32[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 1024 1024"]:
    """What Sapiens looks at: square with white, normalised."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_SAPIENS_MEAN, _SAPIENS_STD))
    return (fit_square(rgb, BODY_INPUT_PX) - mean) / std


def head_input(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 448 448"]:
    """What DINOv2 looks at: square with white, in [0, 1] and not normalised."""
    return fit_square(rgb.astype(np.float32) / _WHITE, HEAD_INPUT_PX)


def fit_square(rgb: Float32[np.ndarray, "h w 3"], size: int) -> Float[Tensor, "1 3 size size"]:
    """The picture in the middle of a white square of another size, smoothed before it is shrunk."""
    height, width = rgb.shape[:2]
    longest = max(height, width)
    left, top = (longest - width) // 2, (longest - height) // 2
    image = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]
    image = pad(image, (left, longest - width - left, top, longest - height - top), value=1.0)
    if longest == size:
        return image
    if longest > size:
        image = _blur(image, longest / size)
    return interpolate(image, size=(size, size), mode="bicubic", align_corners=True)


def _person_box(mask: UInt8[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """Rows and columns of the person with a twentieth of air all around, where the picture has it."""
    sure = mask >= _SURE
    if not sure.any():
        raise PhotoError("the matte is empty: nobody is in the picture, or the mask is of something else")
    boxes = []
    for axis, length in ((1, mask.shape[0]), (0, mask.shape[1])):
        inside = np.flatnonzero(sure.any(axis=axis))
        low, high = int(inside[0]), int(inside[-1])
        centre, size = (low + high) // 2, (high - low) * _BODY_MARGIN
        start, stop = centre - size // 2, centre + size - size // 2
        # a person one pixel wide has no width by this count
        boxes.append(slice(int(max(start, 0)), max(int(min(stop, length)), int(max(start, 0)) + 1)))
    return boxes[0], boxes[1]


def _pad_to_aspect(
    rgb: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"]
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], UInt8[np.ndarray, "h2 w2"]]:
    """Air at both sides of who is slim, above who is wide."""
    height, width = mask.shape
    wanted = int(min(width * (height / width / ASPECT), height))
    if wanted > width:
        side = (wanted - width) // 2
        borders = (0, 0, side, side)
    else:
        borders = (max(int(width * ASPECT - height), 0), 0, 0, 0)
    padded = cv2.copyMakeBorder(rgb, *borders, cv2.BORDER_CONSTANT, value=(_WHITE, _WHITE, _WHITE))
    return np.asarray(padded, np.uint8), np.asarray(cv2.copyMakeBorder(mask, *borders, cv2.BORDER_CONSTANT), np.uint8)


def _centred_crop(person: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """Rows and columns of the smallest 5:3 rectangle about the picture's centre that holds the person."""
    height, width = person.shape
    centre_y, centre_x = height // 2, width // 2
    rows, columns = (np.flatnonzero(person.any(axis=axis)) for axis in (1, 0))
    half_height = max(abs(centre_y - int(rows[0])), abs(centre_y - int(rows[-1])), 1)
    half_width = max(abs(centre_x - int(columns[0])), abs(centre_x - int(columns[-1])), 1)
    if half_height / half_width >= ASPECT:
        size = (half_height, round(half_height / ASPECT))
    else:
        size = (round(half_width * ASPECT), half_width)
    if size[0] > centre_y:
        size = (half_height, round(half_height / ASPECT))
    if size[1] > centre_x:
        size = (round(half_width * ASPECT), half_width)
    rows_half, columns_half = size
    return (
        slice(max(centre_y - rows_half, 0), centre_y + rows_half),
        slice(max(centre_x - columns_half, 0), centre_x + max(columns_half, 1)),
    )


def _expand_square(box: Float[np.ndarray, " 4"]) -> tuple[int, int, int, int]:
    """The square about the box that LHM cuts out; cut off to whole pixels as there."""
    left, top, right, bottom = (float(value) for value in box)
    if not (np.isfinite(box).all() and right > left and bottom > top):
        raise InvalidInputError(f"the head's box is {[left, top, right, bottom]}, expected left, top, right, bottom")
    half = 0.5 * HEAD_MARGIN * float(np.sqrt((right - left) * (bottom - top)))
    x, y = 0.5 * (left + right), 0.5 * (top + bottom)
    x0, y0, x1, y1 = int(x - half), int(y - half), int(x + half), int(y + half)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _blur(image: Float[Tensor, "1 3 h w"], factor: float) -> Float[Tensor, "1 3 h w"]:
    """The Gaussian that kornia puts before shrinking by ``factor``."""
    sigma = max((factor - 1) / 2, 0.001)
    radius = int(max(4 * sigma, 3)) // 2
    weights = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float32) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = pad(image, (radius, radius, radius, radius), mode="reflect")
    return conv2d(conv2d(padded, weights, groups=3), weights.transpose(2, 3), groups=3)
