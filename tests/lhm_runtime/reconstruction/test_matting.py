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


def test_what_looks_like_neither_is_not_doubted() -> None:
    """As fingers before a wall, far from other skin."""
    person, finger = disc(60), disc(22, 182.0, 90.0) & ~disc(60)
    rgb = np.where(finger[:, :, None], np.uint8([105, 160, 105]), picture_of(person))
    alpha = refine_matte(rgb, unsure_of(person, finger))
    assert (alpha[finger] > 0.5).mean() > 0.9


def beside_the_head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Someone dark in bright trousers, and a window as bright behind the head; the person, and what is unsure."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    person = disc(32, 120.0, 60.0) | ((rows >= 80) & (rows < 225) & (abs(columns - 120) < 60))
    window = (abs(columns - 120) < 64) & (rows < 80) & ~person
    bright = window | (person & (rows >= 150))
    rgb = np.where(bright[:, :, None], [205, 205, 200], np.where(person[:, :, None], [60, 50, 45], [120, 30, 30]))
    rgb = np.clip(rgb + np.random.default_rng(2).normal(0, 5, (SIZE, SIZE, 3)), 0, 255)
    return rgb.astype(np.uint8), person, disc(26, 82.0, 40.0) & window


def test_what_is_behind_is_not_taken_for_clothes_far_from_it() -> None:
    rgb, person, doubt = beside_the_head()
    alpha = refine_matte(rgb, unsure_of(person, doubt))
    assert (alpha[doubt] > 0.5).mean() < 0.15
    assert (alpha[person] > 0.5).mean() > 0.97


def test_flesh_is_not_taken_for_background() -> None:
    rgb, person, doubt = beside_the_head()
    alpha = refine_matte(rgb, unsure_of(person, doubt), doubt)
    assert (alpha[doubt] > 0.5).mean() > 0.8


def test_parts_without_flesh_are_anothers() -> None:
    own, another = disc(18, 205.0, 60.0), disc(22, 36.0, 190.0)
    person = disc(60) | own | another
    alpha = refine_matte(picture_of(person), soft(person), disc(40) | disc(5, 205.0, 60.0))
    assert (alpha[own] > 0.5).mean() > 0.9
    assert alpha[another].max() == 0


def test_equal_pictures_give_equal_mattes() -> None:
    rgb, rough = picture_of(disc(70)), soft(disc(74))
    np.testing.assert_array_equal(refine_matte(rgb, rough), refine_matte(rgb, rough))


def test_parts_are_kept_by_size() -> None:
    mask = disc(50) | disc(20, 210.0, 30.0) | disc(3, 20.0, 220.0)
    kept = keep_large_parts(mask, 0.1)
    np.testing.assert_array_equal(kept, disc(50) | disc(20, 210.0, 30.0))
    assert not keep_large_parts(np.zeros((9, 9), bool)).any()
