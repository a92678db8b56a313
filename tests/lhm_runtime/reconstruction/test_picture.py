"""Picture files of every kind come out upright, in 8-bit sRGB, or with one clear sentence."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from lhm_runtime.errors import PhotoError
from lhm_runtime.reconstruction.picture import MAX_PIXELS, read_mask, read_picture

WIDTH, HEIGHT = 80, 96
RED, BLUE = (200, 30, 20), (20, 40, 210)


@pytest.fixture
def two_halves() -> Image.Image:
    """Red above blue."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[: HEIGHT // 2], pixels[HEIGHT // 2 :] = RED, BLUE
    return Image.fromarray(pixels)


def test_plain_colours_are_kept_exactly(tmp_path: Path, two_halves: Image.Image) -> None:
    two_halves.save(tmp_path / "photo.png")
    picture = read_picture(tmp_path / "photo.png")
    np.testing.assert_array_equal(picture.rgb, np.asarray(two_halves))
    assert picture.alpha is None
    assert len(picture.sha256) == 64


def test_exif_turns_the_picture_upright(tmp_path: Path, two_halves: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    two_halves.rotate(90, expand=True).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "photo.png").rgb, np.asarray(two_halves))


@pytest.mark.parametrize("mode", ["CMYK", "L", "YCbCr", "LAB"])
def test_other_colour_spaces_are_converted(tmp_path: Path, two_halves: Image.Image, mode: str) -> None:
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(two_halves, srgb, lab, outputMode="LAB")
        assert image is not None
    else:
        image = two_halves.convert(mode)
    image.save(tmp_path / "photo.tif")
    rgb = read_picture(tmp_path / "photo.tif").rgb.astype(int)
    expected = np.asarray(two_halves.convert("L").convert("RGB") if mode == "L" else two_halves).astype(int)
    assert np.abs(rgb - expected).max() <= 4


def test_16_bits_become_8(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, WIDTH).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (HEIGHT, 1))).save(tmp_path / "photo.png")
    rgb = read_picture(tmp_path / "photo.png").rgb
    np.testing.assert_allclose(rgb[0, :, 1], ramp / 257, atol=1)


def test_a_profile_is_followed(tmp_path: Path, two_halves: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    two_halves.save(tmp_path / "photo.png", icc_profile=profile)
    rgb = read_picture(tmp_path / "photo.png").rgb.astype(int)
    assert np.abs(rgb - np.asarray(two_halves).astype(int)).max() <= 1
    two_halves.save(tmp_path / "damaged.png", icc_profile=b"no profile at all")
    np.testing.assert_array_equal(read_picture(tmp_path / "damaged.png").rgb, np.asarray(two_halves))


def test_transparency_is_the_matte_and_what_it_hides_is_white(tmp_path: Path, two_halves: Image.Image) -> None:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[20:70, 20:60] = 255
    two_halves.putalpha(Image.fromarray(alpha))
    two_halves.save(tmp_path / "photo.png")
    picture = read_picture(tmp_path / "photo.png")
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, alpha / 255)
    assert tuple(picture.rgb[30, 30]) == RED
    assert tuple(picture.rgb[0, 0]) == (255, 255, 255)


def test_a_palette_may_be_transparent(tmp_path: Path) -> None:
    indices = np.zeros((HEIGHT, WIDTH), np.uint8)
    indices[10:80, 10:60] = 1
    image = Image.fromarray(indices, "P")
    image.putpalette([0, 0, 0, *RED])
    image.save(tmp_path / "photo.png", transparency=0)
    picture = read_picture(tmp_path / "photo.png")
    assert picture.alpha is not None
    assert picture.alpha[0, 0] == 0
    assert tuple(picture.rgb[20, 20]) == RED


def test_full_opacity_is_no_matte(tmp_path: Path, two_halves: Image.Image) -> None:
    two_halves.convert("RGBA").save(tmp_path / "photo.png")
    assert read_picture(tmp_path / "photo.png").alpha is None


@pytest.mark.parametrize(("value", "colour"), [(0, "black"), (255, "white")])
def test_a_mask_of_one_colour_is_refused(tmp_path: Path, value: int, colour: str) -> None:
    Image.new("L", (WIDTH, HEIGHT), value).save(tmp_path / "mask.png")
    with pytest.raises(PhotoError, match=f"mask .* is {colour} everywhere"):
        read_mask(tmp_path / "mask.png", WIDTH, HEIGHT)


def test_a_mask_may_have_another_scale_but_not_another_shape(tmp_path: Path) -> None:
    mask = np.zeros((48, 40), np.uint8)
    mask[:, 20:] = 255
    Image.fromarray(mask).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST).save(tmp_path / "mask.png")
    read = read_mask(tmp_path / "mask.png", 2 * WIDTH, 2 * HEIGHT)
    assert read.shape == (2 * HEIGHT, 2 * WIDTH)
    assert read[50, 10] == 0
    assert read[50, -10] == 1
    with pytest.raises(PhotoError, match=r"mask .* is 80x96, which is not the shape of the photo, 100x80"):
        read_mask(tmp_path / "mask.png", 100, 80)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((63, 200), "63x200 pixels; a photo needs at least 64"),
        ((7000, 10000), "70 megapixels"),
        ((64, 600), "longer than 8 times"),
    ],
)
def test_sizes_have_limits(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    Image.new("1", size).save(tmp_path / "photo.png")
    with pytest.raises(PhotoError, match=message):
        read_picture(tmp_path / "photo.png")


def test_the_largest_photo_is_read(tmp_path: Path) -> None:
    width = 10_000
    Image.new("1", (width, MAX_PIXELS // width)).save(tmp_path / "photo.png")
    assert read_picture(tmp_path / "photo.png").rgb.shape == (MAX_PIXELS // width, width, 3)


def test_what_is_no_picture_is_said_to_be_none(tmp_path: Path, two_halves: Image.Image) -> None:
    path = tmp_path / "photo.jpg"
    with pytest.raises(PhotoError, match="cannot be read: No such file"):
        read_picture(path)
    path.write_bytes(b"")
    with pytest.raises(PhotoError, match="not a picture"):
        read_picture(path)
    path.write_text("holiday plans")
    with pytest.raises(PhotoError, match="not a picture"):
        read_picture(path)
    path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100))
    with pytest.raises(PhotoError, match="HEIC"):
        read_picture(path)
    jpeg = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(jpeg, "jpeg")
    path.write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    with pytest.raises(PhotoError, match="damaged"):
        read_picture(path)
