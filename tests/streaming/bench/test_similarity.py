"""PSNR and SSIM agree with scikit-image, whose numbers the field quotes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.bench.similarity import iou, psnr, ssim


@pytest.fixture
def noisy_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    picture = rng.uniform(0, 1, (40, 52, 3))
    return picture, np.clip(picture + rng.normal(0, 0.1, picture.shape), 0, 1)


def test_as_scikit_image(noisy_pair: tuple[np.ndarray, np.ndarray]) -> None:
    """scikit-image 0.26.0: structural_similarity(data_range=1, channel_axis=2), peak_signal_noise_ratio."""
    assert ssim(*noisy_pair) == pytest.approx(0.9458212103075417, abs=1e-12)
    assert psnr(*noisy_pair) == pytest.approx(20.41585140626911, abs=1e-12)


def test_equal_pictures(noisy_pair: tuple[np.ndarray, np.ndarray]) -> None:
    picture, _ = noisy_pair
    assert psnr(picture, picture) == np.inf
    assert ssim(picture, picture) == pytest.approx(1)


@given(st.floats(0.01, 0.5))
def test_psnr_of_a_constant_error(error: float) -> None:
    black = np.zeros((9, 9, 3))
    assert psnr(black + error, black) == pytest.approx(-20 * np.log10(error))


def test_iou_counts_shared_pixels() -> None:
    a, b = np.zeros((10, 10)), np.zeros((10, 10))
    assert iou(a, b) == 1
    a[:6], b[4:] = 0.9, 0.6
    assert iou(a, b) == pytest.approx(0.2)
    assert iou(a, a) == 1
