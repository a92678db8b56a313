import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from avatars import METADATA, make_avatar
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lhm_runtime.avatar import Avatar, load_avatar, save_avatar
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.types import Gaussians


def assert_same(a: Avatar, b: Avatar) -> None:
    for one, other, cls in ((a.gaussians, b.gaussians, Gaussians), (a, b, Avatar)):
        for name in (field.name for field in fields(cls) if field.name != "gaussians"):
            left, right = getattr(one, name), getattr(other, name)
            if isinstance(left, np.ndarray):
                assert left.dtype == right.dtype, name
                np.testing.assert_array_equal(left, right, err_msg=name)
            else:
                assert left == right, name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "person.avatar"


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the shape checks of the test run, as users run it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


SIZES = st.integers(0, 20).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(1, 8), st.integers(0, n), st.integers(0, 4), st.integers(0, 99))
)


@given(SIZES)
@settings(max_examples=50, deadline=None)
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, sizes: tuple[int, int, int, int, int]
) -> None:
    path = tmp_path_factory.mktemp("avatar") / "a.avatar"
    avatar = make_avatar(*sizes)
    save_avatar(avatar, path)
    assert_same(load_avatar(path), avatar)


def test_expression_directions_are_rounded_by_less_than_a_twentieth_of_a_millimetre(path: Path) -> None:
    directions = np.random.default_rng(1).uniform(-0.12, 0.12, (4, 2, 3)).astype(np.float32)
    save_avatar(replace(make_avatar(), expression_directions=directions), path)
    assert load_file(path)["expression_directions"].dtype == np.float16
    error = np.abs(load_avatar(path).expression_directions - directions).max()
    assert 0 < error < 5e-5


@pytest.mark.parametrize("size", [0.12506, 1.0004, 1e6])
def test_expression_directions_too_long_for_float16_stay_exact(path: Path, size: float) -> None:
    directions = np.full((4, 2, 3), size, np.float32)
    save_avatar(replace(make_avatar(), expression_directions=directions), path)
    np.testing.assert_array_equal(load_avatar(path).expression_directions, directions)


def test_arrays_that_are_not_contiguous_are_saved_right(path: Path) -> None:
    avatar = make_avatar()
    rgb = np.asfortranarray(avatar.gaussians.rgb)
    joints = np.repeat(avatar.skin_joints, 2, axis=1)[:, ::2]
    save_avatar(replace(avatar, gaussians=replace(avatar.gaussians, rgb=rgb), skin_joints=joints), path)
    assert_same(load_avatar(path), avatar)


def test_metadata_without_photo_or_body_file_and_with_any_letters(path: Path) -> None:
    metadata = replace(METADATA, body_model_sha256="", photo_sha256="", licence="© 李 — all rights")
    avatar = replace(make_avatar(), metadata=metadata, expression_names=("größer", 'quo"te'))
    save_avatar(avatar, path)
    assert_same(load_avatar(path), avatar)


def test_the_header_says_what_the_file_is(path: Path) -> None:
    save_avatar(make_avatar(), path)
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    assert header["format"] == "lhm-live avatar"
    assert header["format_version"] == "2"
    assert header["licence"] == "CC0-1.0"
    assert header["shown"] == "half"
    assert json.loads(header["expression_names"]) == ["expression0", "expression1"]


def test_files_of_version_1_are_read_as_whole_people(path: Path) -> None:
    avatar = make_avatar()
    save_avatar(avatar, path)
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    del header["shown"]
    save_file(tensors, path, metadata=header | {"format_version": "1"})
    assert_same(load_avatar(path), replace(avatar, metadata=replace(METADATA, shown="full")))


def test_a_saved_file_has_the_permissions_of_any_new_file(path: Path) -> None:
    save_avatar(make_avatar(), path)
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
def test_a_failed_save_leaves_the_old_file_whole_and_nothing_else(
    path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_avatar(make_avatar(seed=1), path)
    before = path.read_bytes()

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, disk_full)
        with pytest.raises(OSError, match="No space left"):
            save_avatar(make_avatar(seed=2), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    save_avatar(make_avatar(seed=2), path)
    assert_same(load_avatar(path), make_avatar(seed=2))


def test_saving_into_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_avatar(make_avatar(), tmp_path / "missing" / "a.avatar")


def test_an_invalid_avatar_is_not_saved(path: Path) -> None:
    avatar = make_avatar()
    scales = avatar.gaussians.scales.copy()
    scales[5, 1] = -0.25
    with pytest.raises(InvalidInputError, match=r"scales\[5, 1\] is -0.25, expected a standard deviation"):
        save_avatar(replace(avatar, gaussians=replace(avatar.gaussians, scales=scales)), path)
    assert not path.exists()


def test_metadata_that_could_not_be_read_back_are_not_saved(path: Path) -> None:
    with pytest.raises(InvalidInputError, match="metadata take 2"):
        save_avatar(replace(make_avatar(), metadata=replace(METADATA, licence="x" * 2_000_000)), path)
    assert not path.exists()


@pytest.mark.usefixtures("unchecked")
def test_validate_tells_wrong_shapes_and_dtypes_in_memory() -> None:
    avatar = make_avatar()
    with pytest.raises(InvalidInputError, match=r"rest_joints has shape \(54, 3\), expected \(55, 3\)"):
        replace(avatar, rest_joints=avatar.rest_joints[:54]).validate()
    with pytest.raises(InvalidInputError, match="skin_weights is float64, expected float32"):
        replace(avatar, skin_weights=avatar.skin_weights.astype(np.float64)).validate()
    with pytest.raises(InvalidInputError, match=r"has shape \(4, 2, 3\), expected \(m=4, e=1, 3\)"):
        replace(avatar, expression_names=("only",)).validate()
