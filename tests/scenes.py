"""Scenes the tests share."""

import numpy as np

from lhm_runtime.types import Gaussians


def random_gaussians(count: int, seed: int = 0) -> Gaussians:
    """A cloud about a metre across at the origin."""
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=(count, 4))
    return Gaussians(
        means=rng.normal(0, 0.3, (count, 3)).astype(np.float32),
        quat_wxyz=(quat / np.linalg.norm(quat, axis=1, keepdims=True)).astype(np.float32),
        scales=np.exp(rng.normal(np.log(0.02), 0.5, (count, 3))).astype(np.float32),
        opacity=rng.uniform(0.02, 1, count).astype(np.float32),
        rgb=rng.uniform(0, 1, (count, 3)).astype(np.float32),
    )
