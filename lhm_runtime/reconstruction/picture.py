"""A picture file becomes pixels: upright, sRGB, 8 bits, with its own transparency where it has one."""

import hashlib
import importlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from lhm_runtime.errors import PhotoError

MIN_SIDE = 64
"""Smallest width or height of a photo, pixels."""
MAX_PIXELS = 60_000_000
"""Largest photo, pixels."""
MAX_ASPECT = 8
"""Longest side in shortest sides."""

_EXIF_IFD, _FOCAL_35MM = 0x8769, 0xA405
_DIAGONAL_35MM = 43.27
_FOCALS_35MM = (10, 300)  # others are mistakes
_MIN_TRANSPARENT = 0.01  # of all pixels: less is a rounded corner, not a person cut out
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Decoded pixels of a file."""

    rgb: UInt8[np.ndarray, "h w 3"]
    """Straight colours; white where nothing shows."""
    alpha: Float32[np.ndarray, "h w"] | None
    """The file's own transparency, 0 to 1; None when it has none to speak of."""
    sha256: str
    """Of the file, hex."""
    focal_px: float | None
    """Focal length in pixels, where the camera wrote it into the file."""


def read_picture(path: Path) -> Picture:
    """Decode a photo: any format Pillow knows, and HEIC where the package pillow-heif is installed.

    Raises:
        PhotoError: no such file, not a picture, damaged, or outside the limits above.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError(f"{path} cannot be read: {error.strerror or error}") from error
    image = _open(path, data)
    check_size(str(path), *image.size)
    try:
        pixels = _to_srgb(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise PhotoError(f"{path} is damaged: {error}") from error
    focal_px = _focal_px(image)
    rgb, alpha = np.asarray(pixels)[:, :, :3], None
    if pixels.mode == "RGBA":
        opacity = np.asarray(pixels)[:, :, 3]
        rgb = np.where(opacity[:, :, None] > 0, rgb, np.uint8(255))
        if np.mean(opacity < 128) > _MIN_TRANSPARENT:
            alpha = opacity.astype(np.float32) / 255
    return Picture(np.ascontiguousarray(rgb), alpha, hashlib.sha256(data).hexdigest(), focal_px)


def read_mask(path: Path, width: int, height: int) -> Float32[np.ndarray, "h w"]:
    """Decode a mask (white or opaque: the person) for a photo of this size; it may have another scale.

    Raises:
        PhotoError: as for ``read_picture``, or the shape is another than the photo's, or it tells nobody apart.
    """
    picture = read_picture(path)
    mask = picture.rgb.mean(axis=2, dtype=np.float32) / 255 if picture.alpha is None else picture.alpha
    mask_height, mask_width = mask.shape
    if abs(mask_width * height - mask_height * width) > 0.01 * mask_width * height:
        raise PhotoError(
            f"the mask {path} is {mask_width}x{mask_height}, which is not the shape of the photo, {width}x{height}"
        )
    is_person = mask > 0.5
    if is_person.all() or not is_person.any():
        colour = "white" if is_person.all() else "black"
        raise PhotoError(
            f"the mask {path} is {colour} everywhere: it should be white where the person is, and only there"
        )
    resized = Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(resized, np.float32).clip(0, 1)


def check_size(name: str, width: int, height: int) -> None:
    """Raise PhotoError for a picture too small, too large or too narrow to hold a person."""
    if min(width, height) < MIN_SIDE:
        raise PhotoError(f"{name} is {width}x{height} pixels; a photo needs at least {MIN_SIDE} each way")
    if width * height > MAX_PIXELS:
        raise PhotoError(
            f"{name} has {width * height / 1e6:.0f} megapixels ({width}x{height}); at most {MAX_PIXELS / 1e6:.0f} are "
            "taken: make it smaller first"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PhotoError(f"{name} is {width}x{height}, longer than {MAX_ASPECT} times its width: cut out the person")


def _open(path: Path, data: bytes) -> Image.Image:
    heic = data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS
    if heic:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError as error:
            raise PhotoError(
                f"{path} is a HEIC picture, which this Python cannot read: save it as JPEG, or pip install pillow-heif"
            ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size has its own limit
            return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise PhotoError(f"{path} is not a picture that can be read here: use a JPEG or a PNG") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{path} is larger than {MAX_PIXELS / 1e6:.0f} megapixels: make it smaller first") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise PhotoError(f"{path} is damaged: {error}") from error


def _focal_px(image: Image.Image) -> float | None:
    """From the focal length for 35 mm film that phones and cameras note (Exif 2.3, FocalLengthIn35mmFilm)."""
    try:
        focal_mm = float(image.getexif().get_ifd(_EXIF_IFD).get(_FOCAL_35MM, 0))
    except (OSError, ValueError, TypeError, SyntaxError):
        return None  # damaged notes do not spoil a picture
    if not _FOCALS_35MM[0] <= focal_mm <= _FOCALS_35MM[1]:
        return None
    return focal_mm / _DIAGONAL_35MM * float(np.hypot(*image.size))


def _to_srgb(image: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB or RGBA in sRGB."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        full = 65535.0 if values.max(initial=0) > 255 else 255.0 if values.max(initial=0) > 1 else 1.0
        return Image.fromarray(np.clip(values * (255 / full), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"P", "PA", "LA", "La", "RGBa"} or "transparency" in image.info:
        image = image.convert("RGBA")
    if profile and image.mode in {"RGB", "RGBA", "CMYK"}:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = "RGBA" if image.mode == "RGBA" else "RGB"
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
        except (ImageCms.PyCMSError, OSError):
            pass  # a profile for something else, or damaged: the numbers as they are then
        else:
            if converted is not None:
                return converted
    return image if image.mode in {"RGB", "RGBA"} else image.convert("RGB")
