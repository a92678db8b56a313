from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lhm_runtime.body.joints import PARENTS

SMALL_V, SMALL_F = 60, 40


@pytest.fixture
def small_arrays() -> dict[str, np.ndarray]:
    """A body of 60 random vertices in the official layout, pose correctives and float64 included."""
    rng = np.random.default_rng(7)
    regressor = rng.random((55, SMALL_V))
    weights = rng.random((SMALL_V, 55)) ** 8
    bary_coords = rng.random((51, 3))
    return {
        "v_template": rng.normal(size=(SMALL_V, 3)),
        "f": rng.integers(0, SMALL_V, (SMALL_F, 3)).astype(np.uint32),
        "shapedirs": rng.normal(size=(SMALL_V, 3, 400)) * 0.02,
        "posedirs": rng.normal(size=(SMALL_V, 3, 486)) * 0.01,
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(55)]).astype(np.uint32),
        "hands_meanl": rng.normal(size=45) * 0.1,
        "hands_meanr": rng.normal(size=45) * 0.1,
        "lmk_faces_idx": rng.integers(0, SMALL_F, 51),
        "lmk_bary_coords": bary_coords / bary_coords.sum(1, keepdims=True),
        # an official file has these too, and only pickle could read them
        "joint2num": np.array({"Pelvis": 0}, dtype=object),
        "part2num": np.array({"Global": 0}, dtype=object),
    }


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[[dict[str, np.ndarray]], Path]:
    def write(arrays: dict[str, np.ndarray]) -> Path:
        path = tmp_path / "SMPLX_NEUTRAL.npz"
        np.savez_compressed(path, **arrays)
        return path

    return write
