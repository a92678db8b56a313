"""Pictures for the encoders, where the published code fails as well (its own results: test_goldens.py)."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import DEMO_PERSON
from PIL import Image

from lhm_runtime.errors import InvalidInputError, PhotoError
from lhm_runtime.reconstruction.lhm.head_box import find_head
from lhm_runtime.reconstruction.lhm.preprocessing import (
    body_input,
    body_picture_size,
    crop_body,
    crop_head,
    fit_square,
    head_input,
)
from lhm_runtime.reconstruction.photo import Photo, read_photo


def person_at(height: int, width: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Red in a box (left, top, right, bottom) on blue, and the mask of it."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, :, 2] = 255
    left, top, right, bottom = box
    rgb[top:bottom, left:right] = (255, 0, 0)
    alpha = np.zeros((height, width), np.float32)
    alpha[top:bottom, left:right] = 1
    return rgb, alpha


def test_sizes_are_the_published_ones() -> None:
    assert body_picture_size(512) == (504, 840)
    assert body_picture_size(1024) == (1022, 1694)


@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("arms out", (20, 150, 380, 260)),
        ("square", (50, 50, 250, 250)),
        ("the whole picture", (0, 0, 400, 300)),
        ("a line across", (0, 100, 400, 101)),
        ("a line down", (100, 0, 101, 300)),
        ("a dot in the corner", (399, 299, 400, 300)),
    ],
)
def test_any_shape_is_framed(name: str, box: tuple[int, int, int, int]) -> None:
    picture = crop_body(*person_at(300, 400, box), 512)
    assert picture.rgb.shape == (840, 504, 3), name
    assert np.isfinite(picture.rgb).all()
    inside, outside = picture.mask > 0.999, picture.mask == 0
    assert picture.mask.max() > 0.3, name
    np.testing.assert_allclose(picture.rgb[inside], np.broadcast_to([1, 0, 0], (inside.sum(), 3)), atol=0.02)
    np.testing.assert_allclose(picture.rgb[outside], 1, atol=1e-6)


def test_who_is_wide_stands_at_the_foot() -> None:
    picture = crop_body(*person_at(300, 400, (20, 150, 380, 260)), 512)
    rows = np.flatnonzero((picture.mask > 0.5).any(axis=1))
    assert rows[-1] > 800
    assert rows[0] > 400
    columns = np.flatnonzero((picture.mask > 0.5).any(axis=0))
    assert abs(columns[0] + columns[-1] - 504) < 12  # in the middle


def test_soft_edges_become_hard() -> None:
    rgb, alpha = person_at(400, 200, (60, 40, 140, 360))
    soft = np.where(alpha > 0, np.float32(0.6), np.float32(0.4))
    np.testing.assert_array_equal(crop_body(rgb, soft, 512).rgb, crop_body(rgb, alpha, 512).rgb)


def test_nobody() -> None:
    rgb, alpha = person_at(100, 100, (0, 0, 0, 0))
    with pytest.raises(PhotoError, match="the matte is empty"):
        crop_body(rgb, alpha, 512)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.tuples(*[st.floats(0, 1)] * 4),
)
def test_no_picture_is_too_small(height: int, width: int, at: tuple[float, float, float, float]) -> None:
    left, right = sorted(int(v * (width - 1)) for v in at[:2])
    top, bottom = sorted(int(v * (height - 1)) for v in at[2:])
    picture = crop_body(*person_at(height, width, (left, top, right + 1, bottom + 1)), 70)
    assert picture.mask.shape == (112, 70)
    assert picture.mask.max() > 0


class TestHead:
    def test_in_the_middle(self) -> None:
        rgb, _ = person_at(200, 200, (80, 70, 120, 110))
        head = crop_head(rgb, np.array([80.0, 70, 120, 110]), 112)
        red = (head == (255, 0, 0)).all(axis=2)
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        assert np.ptp(rows) == pytest.approx(112 / 1.65, abs=3)
        assert rows[0] + rows[-1] == pytest.approx(111, abs=3)
        assert columns[0] + columns[-1] == pytest.approx(111, abs=3)

    @pytest.mark.parametrize("box", [(-20, -20, 30, 30), (170, 160, 230, 220), (-50, -60, 260, 250)])
    def test_beyond_the_edge_is_white(self, box: tuple[float, float, float, float]) -> None:
        rgb, _ = person_at(200, 200, (0, 0, 200, 200))
        head = crop_head(rgb, np.array(box, np.float64))
        assert head.shape == (448, 448, 3)
        assert ((head == 255).all(axis=2)).mean() > 0.05
        assert ((head == (255, 0, 0)).all(axis=2)).mean() > 0.1

    def test_not_seen(self) -> None:
        assert not crop_head(np.full((50, 50, 3), 200, np.uint8), None).any()

    @pytest.mark.parametrize(
        ("box", "message"),
        [
            ((300, 0, 340, 40), "outside 200x100 pixels"),
            ((10, 10, 10, 40), "expected left, top, right, bottom"),
            ((40, 10, 10, 40), "expected left, top, right, bottom"),
            ((0, 0, np.nan, 40), "expected left, top, right, bottom"),
        ],
    )
    def test_no_box(self, box: tuple[float, ...], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            crop_head(np.zeros((100, 200, 3), np.uint8), np.array(box, np.float64))


def test_a_constant_stays_constant() -> None:
    for shape in ((300, 300), (1100, 1100), (64, 64)):
        np.testing.assert_allclose(fit_square(np.full((*shape, 3), 0.25, np.float32), 448).numpy(), 0.25, atol=1e-5)


def test_encoders_get_their_own_normalisation() -> None:
    white = np.ones((30, 20, 3), np.float32)
    np.testing.assert_allclose(body_input(white)[0, :, 0, 0], (1 - 0.45) / 0.23, atol=0.4)
    np.testing.assert_allclose(head_input((white * 255).astype(np.uint8)), 1, atol=1e-6)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Photo:
    """As a phone stores it: lying on its side, with a note about that."""
    path = tmp_path_factory.mktemp("photo") / "rotated.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(DEMO_PERSON).convert("RGB").transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    return read_photo(path)


def test_from_a_phones_photo(photo: Photo) -> None:
    picture = crop_body(photo.rgb, photo.alpha, 512)
    rows = np.flatnonzero((picture.mask > 0.5).any(axis=1))
    columns = np.flatnonzero((picture.mask > 0.5).any(axis=0))
    assert np.ptp(rows) > 700  # she stands
    assert np.ptp(columns) < 460
    box = find_head(photo)
    assert box is not None
    left, top, right, bottom = box
    face = photo.landmarks.face_image
    assert face is not None
    assert left <= face[:, 0].min() < face[:, 0].max() <= right
    assert bottom == pytest.approx(face[:, 1].max())
    top_of_hair = np.flatnonzero((photo.alpha > 0.5).any(axis=1))[0]
    assert top == pytest.approx(top_of_hair, abs=12)


def test_a_head_without_a_face(photo: Photo) -> None:
    with_face, behind = find_head(photo), find_head(_turned(photo, hidden=False))
    assert with_face is not None
    assert behind is not None
    np.testing.assert_allclose(behind, with_face, atol=0.45 * (with_face[3] - with_face[1]))
    assert find_head(_turned(photo, hidden=True)) is None


def _turned(photo: Photo, *, hidden: bool) -> Photo:
    visibility = photo.landmarks.body_visibility
    assert visibility is not None
    seen = visibility.copy()
    if hidden:
        seen[:11] = 0
    return replace(photo, landmarks=replace(photo.landmarks, face_image=None, body_visibility=seen))
