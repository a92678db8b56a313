"""How alike two pictures are, measured as the field measures it."""

import numpy as np
from scipy.ndimage import uniform_filter

WINDOW = 7
"""Side of the windows that SSIM compares, pixels."""

_C1, _C2 = 0.01**2, 0.03**2


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two pictures [h, w, 3] with values from 0 to 1; infinite when equal."""
    error = float(np.mean((picture.astype(np.float64) - truth) ** 2))
    return float(np.inf) if error == 0 else -10 * float(np.log10(error))


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of two pictures [h, w, 3] with values from 0 to 1.

    Uniform 7x7 windows and sample covariance, the mean over windows wholly inside and channels: scikit-image's default.
    """
    a, b = picture.astype(np.float64), truth.astype(np.float64)

    def mean(values: np.ndarray) -> np.ndarray:
        filtered: np.ndarray = uniform_filter(values, (WINDOW, WINDOW, 1))
        return filtered

    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    mean_a, mean_b = mean(a), mean(b)
    var_a = unbiased * (mean(a * a) - mean_a**2)
    var_b = unbiased * (mean(b * b) - mean_b**2)
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    likeness = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    likeness /= (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    edge = WINDOW // 2
    return float(likeness[edge:-edge, edge:-edge].mean())


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Shared part of two mattes [h, w], at half opacity; 1 where both are empty."""
    inside_a, inside_b = a > 0.5, b > 0.5
    union = int((inside_a | inside_b).sum())
    return float((inside_a & inside_b).sum()) / union if union else 1.0
