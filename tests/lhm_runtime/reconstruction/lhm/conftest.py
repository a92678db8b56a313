"""The goldens of LHM, each loaded once."""

import os

import cv2
import pytest
import torch
from lhm_goldens import COMPACT, WHOLE, Golden, load_golden


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return load_golden(COMPACT, tmp_path_factory.mktemp("compact"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    if not (WHOLE / "golden_meta.json").is_file():
        assert "LHM_GOLDEN" not in os.environ, f"LHM_GOLDEN names {WHOLE}, where no golden_meta.json is"
        pytest.skip("needs ../shared/golden, or another golden folder named by LHM_GOLDEN")
    return load_golden(WHOLE, tmp_path_factory.mktemp("whole"))


@pytest.fixture(params=["compact", pytest.param("whole", marks=pytest.mark.shared)])
def golden(request: pytest.FixtureRequest) -> Golden:
    return request.getfixturevalue(request.param)
