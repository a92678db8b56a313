"""A soft, shifted silhouette is drawn to the picture's own edges."""

import numpy as np

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


def test_equal_pictures_give_equal_mattes() -> None:
    rgb, rough = picture_of(disc(70)), soft(disc(74))
    np.testing.assert_array_equal(refine_matte(rgb, rough), refine_matte(rgb, rough))


def test_parts_are_kept_by_size() -> None:
    mask = disc(50) | disc(20, 210.0, 30.0) | disc(3, 20.0, 220.0)
    kept = keep_large_parts(mask, 0.1)
    np.testing.assert_array_equal(kept, disc(50) | disc(20, 210.0, 30.0))
    assert not keep_large_parts(np.zeros((9, 9), bool)).any()
