"""A soft, shifted silhouette is drawn to the picture's own edges."""

import cv2
import numpy as np
import pytest

from lhm_runtime.reconstruction.matting import keep_large_parts, refine_matte

SIZE = 240


def disc(radius: float, x: float = 120.0, y: float = 120.0) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.hypot(columns - x, rows - y) < radius


def picture_of(inside: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    rgb = np.where(inside[:, :, None], [190, 120, 60], [60, 90, 120]) + rng.normal(0, 6, (SIZE, SIZE, 3))
    return np.clip(rgb, 0, 255).astype(np.uint8)


def soft(inside: np.ndarray) -> np.ndarray:
    return np.where(inside, 0.9, 0.02).astype(np.float32)


def test_the_matte_follows_the_picture() -> None:
    truth = disc(70)
    rough = soft(disc(72, 121.0, 119.0))
    alpha = refine_matte(picture_of(truth), rough)
    assert np.mean((alpha > 0.5) != truth) < 0.25 * np.mean((rough > 0.5) != truth)
    assert alpha[truth & disc(60)].min() == 1
    assert alpha[~disc(80)].max() == 0
    assert 0 <= alpha.min() <= alpha.max() <= 1


def test_specks_are_dropped() -> None:
    truth = disc(70) | disc(6, 20.0, 20.0)
    alpha = refine_matte(picture_of(truth), soft(truth))
    assert alpha[:40, :40].max() == 0
    assert alpha[120, 120] == 1


def test_nothing_gives_nothing() -> None:
    assert refine_matte(picture_of(disc(50)), np.zeros((SIZE, SIZE), np.float32)).max() == 0


def test_a_person_who_fills_the_picture_stays() -> None:
    alpha = refine_matte(picture_of(disc(500)), np.ones((SIZE, SIZE), np.float32))
    assert alpha.min() > 0.99


def unsure_of(person: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    rough = cv2.GaussianBlur(person.astype(np.float32), (0, 0), 2.0)
    return np.where(doubt, np.maximum(rough, 0.7), rough)


@pytest.mark.parametrize("is_person", [False, True])
def test_colours_decide_where_the_silhouette_is_unsure_of_a_corner(is_person: bool) -> None:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    corner = (rows < 120) & (columns >= 80) & (columns - rows < 8)
    person = (columns >= 20) & (rows >= 20) & (rows < 220) & (columns < np.where(rows < 120, 80, 220))
    truth = person | (corner & (rows >= 20)) if is_person else person
    corner &= (rows >= 84) & (columns < 118)
    alpha = refine_matte(picture_of(truth), unsure_of(person, corner))
    assert (alpha[corner] > 0.5).mean() == pytest.approx(float(is_person), abs=0.1)


def test_what_sticks_out_is_not_doubted() -> None:
    person, finger = disc(60), disc(22, 182.0, 90.0) & ~disc(60)
    rough = unsure_of(person, finger)
    alpha = refine_matte(picture_of(person), rough)
    clear = refine_matte(picture_of(person), np.where(finger & ~disc(64), 0, rough).astype(np.float32))
    assert (alpha > 0.5).sum() > (clear > 0.5).sum() + 0.3 * finger.sum()


def test_equal_pictures_give_equal_mattes() -> None:
    rgb, rough = picture_of(disc(70)), soft(disc(74))
    np.testing.assert_array_equal(refine_matte(rgb, rough), refine_matte(rgb, rough))


def test_parts_are_kept_by_size() -> None:
    mask = disc(50) | disc(20, 210.0, 30.0) | disc(3, 20.0, 220.0)
    kept = keep_large_parts(mask, 0.1)
    np.testing.assert_array_equal(kept, disc(50) | disc(20, 210.0, 30.0))
    assert not keep_large_parts(np.zeros((9, 9), bool)).any()
