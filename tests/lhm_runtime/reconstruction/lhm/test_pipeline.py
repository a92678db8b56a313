"""The stages in a row: a photo, a checkpoint and a TorchScript file give Gaussians that an avatar can be made of."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lhm_goldens import Golden
from people import DEMO_PERSON

from lhm_runtime.avatar import AvatarMetadata
from lhm_runtime.errors import FileFormatError
from lhm_runtime.reconstruction.lhm.animation import make_avatar
from lhm_runtime.reconstruction.lhm.pipeline import Canonical, reconstruct_canonical
from lhm_runtime.reconstruction.photo import Photo, read_photo


@pytest.fixture(scope="module")
def photo() -> Photo:
    return read_photo(DEMO_PERSON)


@pytest.fixture(scope="module")
def sapiens(compact: Golden, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution instead of the published network: TorchScript all the same."""
    weight = torch.from_numpy(compact.arrays["sapiens_stub.weight"])
    stub = torch.nn.Conv2d(3, len(weight), weight.shape[2:], stride=tuple(weight.shape[2:]))
    stub.load_state_dict({"weight": weight, "bias": torch.from_numpy(compact.arrays["sapiens_stub.bias"])})
    path = tmp_path_factory.mktemp("sapiens") / "sapiens.pt2"
    torch.jit.script(stub).save(str(path))
    return path


def run(photo: Photo, golden: Golden, sapiens: Path, **options: object) -> Canonical:
    options = {"points": golden.arrays["dense_pts"], **options}
    return reconstruct_canonical(photo, golden.checkpoint, sapiens, source_size=512, **options)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_photo_becomes_an_avatar(photo: Photo, compact: Golden, sapiens: Path) -> None:
    told: list[tuple[str, float]] = []
    canonical = run(photo, compact, sapiens, progress=lambda stage, done: told.append((stage, done)))
    stages = ["cutting out", "body features", "head features", "transformer"]
    assert [stage for stage, _ in told] == [*stages, *["transformer"] * compact.config.layers]
    shares = [done for _, done in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert [cost.stage for cost in canonical.costs] == stages
    metadata = AvatarMetadata("lhm-golden", canonical.body.name, "", "CC-BY-NC-4.0", "2026-01-31T12:00:00+00:00")
    avatar = make_avatar(canonical.gaussians, canonical.rig, canonical.body, metadata)
    avatar.validate()
    assert len(avatar) == compact.config.points
    offset = canonical.gaussians.means - compact.arrays["out.query_points"][0]
    assert 0.01 < np.abs(offset).max() < 0.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_heads_and_restorers(photo: Photo, compact: Golden, sapiens: Path) -> None:
    asked: list[tuple[int, ...]] = []

    def restore(small: np.ndarray) -> np.ndarray:
        asked.append(small.shape)
        return np.repeat(np.repeat(small, 4, axis=0), 4, axis=1)

    plain = run(photo, compact, sapiens).gaussians.rgb
    restored = run(photo, compact, sapiens, restore_face=restore).gaussians.rgb
    elsewhere = run(photo, compact, sapiens, find_head=lambda _: None).gaussians.rgb
    assert asked == [(112, 112, 3)]
    assert 0 < np.abs(restored - plain).max() < np.abs(elsewhere - plain).max()


def test_without_sapiens(photo: Photo, compact: Golden, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="Sapiens-1B is not at"):
        run(photo, compact, tmp_path / "absent.pt2")
