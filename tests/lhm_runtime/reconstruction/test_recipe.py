"""``reconstruct`` runs the stages in order and says what it is doing; what it needs loads when it is asked for."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from people import DEMO_PERSON, small_demo_person

from lhm_runtime.avatar import load_avatar
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.errors import InvalidInputError, PhotoError
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.reconstruction import Reconstruction, reconstruct


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo_person(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def made_and_told(person: Path) -> tuple[Reconstruction, list[tuple[str, float]]]:
    told: list[tuple[str, float]] = []
    made = reconstruct(person, count=10_000, progress=lambda stage, done: told.append((stage, done)))
    return made, told


def test_an_avatar_that_looks_like_the_photo(made_and_told: tuple[Reconstruction, list[tuple[str, float]]]) -> None:
    made, _ = made_and_told
    made.avatar.validate()
    assert len(made.avatar) == 10_000
    photo, fit = made.photos[0], made.fits[0]
    with Renderer(made.avatar) as renderer:
        matrices = joint_matrices(fit.pose, made.avatar.rest_joints)
        seen = renderer.render(matrices, fit.pose.expression, fit.camera, pixel_format="float")
    both, either = (seen[:, :, 3] > 0.5) & (photo.alpha > 0.5), (seen[:, :, 3] > 0.5) | (photo.alpha > 0.5)
    assert both.sum() / either.sum() > 0.93
    assert np.abs(seen[:, :, :3] - photo.rgb / 255)[both].mean() < 0.06


def test_stages_are_told_in_order(made_and_told: tuple[Reconstruction, list[tuple[str, float]]]) -> None:
    _, told = made_and_told
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages[:2] == ["finding the person", "fitting the body"]
    shares = [done for _, done in told]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.8 < shares[-1] <= 1


def test_a_photo_that_does_not_fit_the_others_is_left_out(
    made_and_told: tuple[Reconstruction, list[tuple[str, float]]],
) -> None:
    made, _ = made_and_told
    photo = made.photos[0]
    elsewhere = replace(photo, alpha=np.roll(photo.alpha, photo.alpha.shape[1] // 3, axis=1))
    again = reconstruct([photo, elsewhere], count=10_000)
    assert len(again.photos) == len(again.fits) == 1
    assert any("photo 2 was left out" in warning for warning in again.warnings)


def test_another_process_makes_the_same_bytes(
    made_and_told: tuple[Reconstruction, list[tuple[str, float]]], person: Path, tmp_path: Path
) -> None:
    """One that checks no types, and whose hashes begin elsewhere."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lhm_runtime.avatar import save_avatar\n"
        "from lhm_runtime.reconstruction import reconstruct\n"
        "save_avatar(reconstruct(Path(sys.argv[1]), count=10_000).avatar, Path(sys.argv[2]))"
    )
    file = tmp_path / "other.avatar"
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code, str(person), str(file)], check=True, env=environment)
    ours, theirs = made_and_told[0].avatar, load_avatar(file)
    for mine, other in ((ours.gaussians, theirs.gaussians), (ours, theirs)):
        for name in mine.__slots__:
            if isinstance(getattr(mine, name), np.ndarray) and name != "expression_directions":
                np.testing.assert_array_equal(getattr(mine, name), getattr(other, name), err_msg=name)
    # which files hold as float16
    halves = ours.expression_directions.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(halves, theirs.expression_directions)


def test_equal_photos_give_equal_avatars(made_and_told: tuple[Reconstruction, list[tuple[str, float]]]) -> None:
    made, _ = made_and_told
    again = reconstruct(list(made.photos), count=10_000).avatar.gaussians
    for name in ("means", "quat_wxyz", "scales", "opacity", "rgb"):
        np.testing.assert_array_equal(getattr(again, name), getattr(made.avatar.gaussians, name))


def test_arguments_are_checked_first() -> None:
    with pytest.raises(InvalidInputError, match="at least one photo"):
        reconstruct([])
    with pytest.raises(InvalidInputError, match="count is 9999"):
        reconstruct(DEMO_PERSON, count=9_999)
    with pytest.raises(PhotoError, match="cannot be read"):
        reconstruct(Path("nowhere.jpg"))


def test_showing_an_avatar_loads_neither_opencv_nor_mediapipe() -> None:
    code = (
        "import sys, lhm_runtime.reconstruction, lhm_runtime.reconstruction.builtin_person\n"
        "print([name for name in ('cv2', 'mediapipe') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
