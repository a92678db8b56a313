import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lhm_runtime.avatar import Avatar, AvatarMetadata, load_avatar, pose_gaussians, save_avatar
from lhm_runtime.body.rotations import quat_wxyz_to_matrix, rotvec_to_matrix
from lhm_runtime.errors import AvatarFileError, InvalidInputError
from lhm_runtime.types import Gaussians

METADATA = AvatarMetadata(
    reconstructor="test 1",
    body_model="free_body",
    body_model_sha256="0123456789abcdef" * 4,
    licence="CC0-1.0",
    created_at="2026-01-31T12:00:00+00:00",
    photo_sha256="f" * 64,
    shown="half",
)
REST = np.tile(np.eye(3, 4, dtype=np.float32), (55, 1, 1))


def make_avatar(n: int = 12, k: int = 3, m: int = 4, e: int = 2, seed: int = 0) -> Avatar:
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=(n, 4))
    weights = -np.sort(-rng.dirichlet(np.ones(k), size=n), axis=1)
    return Avatar(
        gaussians=Gaussians(
            means=rng.normal(size=(n, 3)).astype(np.float32),
            quat_wxyz=(quat / np.linalg.norm(quat, axis=1, keepdims=True)).astype(np.float32),
            scales=rng.uniform(0.001, 0.02, (n, 3)).astype(np.float32),
            opacity=rng.random(n).astype(np.float32),
            rgb=rng.random((n, 3)).astype(np.float32),
        ),
        skin_joints=rng.integers(0, 55, (n, k)).astype(np.uint8),
        skin_weights=weights.astype(np.float32),
        constrained=rng.random(n) < 0.3,
        expression_gaussians=np.sort(rng.choice(n, m, replace=False)).astype(np.int32),
        expression_directions=rng.uniform(-0.1, 0.1, (m, e, 3)).astype(np.float16).astype(np.float32),
        expression_names=tuple(f"expression{i}" for i in range(e)),
        rest_joints=rng.normal(size=(55, 3)).astype(np.float32),
        metadata=METADATA,
    )


def assert_same(a: Avatar, b: Avatar) -> None:
    for one, other, cls in ((a.gaussians, b.gaussians, Gaussians), (a, b, Avatar)):
        for name in (field.name for field in fields(cls) if field.name != "gaussians"):
            left, right = getattr(one, name), getattr(other, name)
            if isinstance(left, np.ndarray):
                assert left.dtype == right.dtype, name
                np.testing.assert_array_equal(left, right, err_msg=name)
            else:
                assert left == right, name


def covariance(gaussians: Gaussians) -> np.ndarray:
    axes = quat_wxyz_to_matrix(gaussians.quat_wxyz.astype(np.float64)) * gaussians.scales[:, None]
    return axes @ axes.swapaxes(1, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "person.avatar"


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the shape checks of the test run, as users run it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# The file


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


# Files that are not right

Tensors = dict[str, np.ndarray]
Header = dict[str, str]


def put(name: str, index: Any, value: float) -> Callable[[Tensors, Header], None]:
    def change(tensors: Tensors, _: Header) -> None:
        tensors[name][index] = value

    return change


def swap(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors, Header], None]:
    def change(tensors: Tensors, _: Header) -> None:
        tensors[name] = np.ascontiguousarray(make(tensors[name]))

    return change


def head(key: str, value: str) -> Callable[[Tensors, Header], None]:
    def change(_: Tensors, header: Header) -> None:
        header[key] = value

    return change


def drop(key: str) -> Callable[[Tensors, Header], None]:
    def change(tensors: Tensors, header: Header) -> None:
        (tensors if key in tensors else header).pop(key)

    return change


def widen(tensors: Tensors, _: Header) -> None:
    tensors["skin_joints"] = np.repeat(tensors["skin_joints"], 3, axis=1)
    tensors["skin_weights"] = np.repeat(tensors["skin_weights"] / 3, 3, axis=1)


def no_influence(tensors: Tensors, _: Header) -> None:
    tensors["skin_joints"], tensors["skin_weights"] = (
        np.zeros((12, 0), np.uint8),
        np.zeros((12, 0), np.float32),
    )


WRONG = {
    "no format": (drop("format"), "not an avatar: its format is None"),
    "other format": (head("format", "pt"), "not an avatar: its format is 'pt'"),
    "newer version": (
        head("format_version", "3"),
        "format version '3' is unknown: this program reads versions up to 2; update",
    ),
    "no version": (drop("format_version"), "format version None is unknown"),
    "no shown": (drop("shown"), "missing metadata: shown"),
    "shown in version 1": (head("format_version", "1"), "unknown metadata: shown"),
    "other shown": (head("shown", "feet"), "shown is 'feet', expected one of full, half, head"),
    "no licence": (drop("licence"), "missing metadata: licence"),
    "empty licence": (head("licence", " "), "licence is empty"),
    "extra metadata": (head("colour", "red"), "unknown metadata: colour"),
    "bad hash": (head("photo_sha256", "F" * 64), "photo_sha256 is 'FFF.*expected 64 lower-case hex"),
    "bad time": (head("created_at", "yesterday"), "created_at is 'yesterday', expected ISO 8601 in UTC"),
    "local time": (head("created_at", "2026-01-31T12:00:00"), "created_at is .*expected ISO 8601 in UTC"),
    "names no JSON": (head("expression_names", "[oops"), "expression_names is not JSON"),
    "names nested": (head("expression_names", "[" * 100_000), "expression_names is not JSON"),
    "names no list": (head("expression_names", '{"a": 1}'), "expected a JSON list of strings"),
    "names no strings": (head("expression_names", "[1, 2]"), "expected a JSON list of strings"),
    "names repeated": (head("expression_names", '["a", "a"]'), "expression_names has 'a' more than once"),
    "fewer names": (head("expression_names", '["a"]'), r"has shape \(4, 2, 3\), expected \(m=4, e=1, 3\)"),
    "no tensor": (drop("rgb"), "missing tensor: rgb"),
    "extra tensor": (lambda t, _: t.update(hair=np.zeros(3)), "unknown tensor: hair"),
    "float64": (swap("means", lambda a: a.astype(np.float64)), "means is float64, expected float32"),
    "float16": (swap("rgb", lambda a: a.astype(np.float16)), "rgb is float16, expected float32"),
    "joints int32": (
        swap("skin_joints", lambda a: a.astype(np.int32)),
        "skin_joints is int32, expected uint8",
    ),
    "flat means": (swap("means", np.ravel), r"means has shape \(36,\), expected \(n=36, 3\)"),
    "wide quats": (
        swap("quat_wxyz", lambda a: a[:, :3]),
        r"quat_wxyz has shape \(12, 3\), expected \(n=12, 4\)",
    ),
    "other n": (swap("opacity", lambda a: a[:-1]), r"opacity has shape \(11,\), expected \(n=12\)"),
    "other k": (swap("skin_weights", lambda a: a[:, 1:]), r"has shape \(12, 2\), expected \(n=12, k=3\)"),
    "54 joints": (
        swap("rest_joints", lambda a: a[1:]),
        r"rest_joints has shape \(54, 3\), expected \(55, 3\)",
    ),
    "k 9": (widen, "skin_joints has 9 joints a Gaussian, expected 1 to 8"),
    "k 0": (no_influence, "skin_joints has 0 joints a Gaussian, expected 1 to 8"),
    "NaN": (put("means", (3, 2), np.nan), r"means\[3, 2\] is nan; every value must be finite"),
    "Inf": (put("rest_joints", (54, 0), -np.inf), r"rest_joints\[54, 0\] is -inf; every value"),
    "NaN weight": (put("skin_weights", (0, 1), np.nan), r"skin_weights\[0, 1\] is nan"),
    "NaN direction": (
        put("expression_directions", (1, 1, 2), np.nan),
        r"expression_directions\[1, 1, 2\] is nan",
    ),
    "negative scale": (put("scales", (7, 0), -0.5), r"scales\[7, 0\] is -0.5, expected a standard deviation"),
    "opacity": (put("opacity", 4, 1.5), r"opacity\[4\] is 1.5, expected 0 to 1"),
    "rgb": (put("rgb", (4, 2), -0.5), r"rgb\[4, 2\] is -0.5, expected 0 to 1"),
    "quaternion": (put("quat_wxyz", 6, 1.0), r"the length of quat_wxyz\[6\] is 2.0, expected 1 within"),
    "zero quaternion": (put("quat_wxyz", 6, 0.0), r"the length of quat_wxyz\[6\] is 0.0, expected 1 within"),
    "joint": (put("skin_joints", (2, 1), 55), r"skin_joints\[2, 1\] is 55, expected a joint below 55"),
    "weights": (
        put("skin_weights", 9, 0.25),
        r"the sum of skin_weights\[9\] is 0.75, expected 1 within 0.001",
    ),
    "negative weight": (
        put("skin_weights", (9, 2), -0.5),
        r"skin_weights\[9, 2\] is -0.5, expected 0 or more",
    ),
    "light first": (
        swap("skin_weights", lambda a: a[:, ::-1]),
        r"skin_weights\[0, 1\] .* \(heaviest first\)",
    ),
    "index below": (
        put("expression_gaussians", 0, -1),
        r"expression_gaussians\[0\] is -1, expected an index of one of",
    ),
    "index above": (
        put("expression_gaussians", 3, 12),
        r"expression_gaussians\[3\] is 12, .*the 12 Gaussians",
    ),
    "not ascending": (
        swap("expression_gaussians", lambda a: a[::-1]),
        r"expression_gaussians\[1\] .*\(ascending",
    ),
    "twice": (
        swap("expression_gaussians", lambda a: a[[0, 0, 1, 2]]),
        r"expression_gaussians\[1\] .*\(ascending",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_wrong_file_has_its_own_message(path: Path, case: str) -> None:
    save_avatar(make_avatar(), path)
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    change, message = WRONG[case]
    change(tensors, header)
    save_file(tensors, path, metadata=header)
    with pytest.raises(AvatarFileError, match=message) as caught:
        load_avatar(path)
    assert str(path) in str(caught.value)


def test_a_flag_that_is_neither_true_nor_false_is_told(path: Path) -> None:
    avatar = make_avatar()
    avatar.constrained[:] = True
    save_avatar(avatar, path)
    data = path.read_bytes()
    assert data.count(b"\1" * 12) == 1
    path.write_bytes(data.replace(b"\1" * 12, b"\1" * 11 + b"\7"))
    with pytest.raises(AvatarFileError, match=r"constrained\[11\] is 7, expected 0 or 1"):
        load_avatar(path)


def test_missing_file_folder_and_other_files_are_told_apart(path: Path) -> None:
    with pytest.raises(AvatarFileError, match=r"person.avatar cannot be read: No such file"):
        load_avatar(path)
    with pytest.raises(AvatarFileError, match=r"cannot be read: Is a directory"):
        load_avatar(path.parent)
    for content in (
        b"",
        b"short",
        b"ply\nformat ascii 1.0\n" * 9,
        b"\x89PNG\r\n\x1a\n" + bytes(99),
        bytes(99),
    ):
        path.write_bytes(content)
        with pytest.raises(AvatarFileError, match=r"not an \.avatar file: it does not begin like a safetensors file"):
            load_avatar(path)


def test_a_header_length_from_the_file_is_not_believed(path: Path) -> None:
    path.write_bytes((10**8 - 1).to_bytes(8, "little") + b'{"a":1}')
    with pytest.raises(AvatarFileError, match="does not begin like a safetensors file"):
        load_avatar(path)


@pytest.mark.parametrize("shape", [[0, 2**63], [2**40, 3], [0] * 40])
def test_a_shape_from_the_file_is_not_believed(path: Path, shape: list[int]) -> None:
    save_avatar(make_avatar(0, m=0), path)
    with safe_open(path, framework="numpy") as file:
        header = {"__metadata__": file.metadata()}
    for name, tensor in load_file(path).items():
        header[name] = {
            "dtype": "F32",
            "shape": shape if name == "means" else tensor.shape,
            "data_offsets": [0, 0],
        }
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded)
    with pytest.raises(AvatarFileError):
        load_avatar(path)


def test_a_file_cut_off_anywhere_is_told(path: Path) -> None:
    save_avatar(make_avatar(2, m=1), path)
    data = path.read_bytes()
    header_end = 8 + int.from_bytes(data[:8], "little")
    for length in range(9, header_end):
        path.write_bytes(data[:length])
        with pytest.raises(
            AvatarFileError, match=f"truncated: {length} bytes, while its header alone takes {header_end}"
        ):
            load_avatar(path)
    for length in [*range(header_end, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(AvatarFileError, match="truncated or damaged"):
            load_avatar(path)
    path.write_bytes(data + b"more")
    with pytest.raises(AvatarFileError, match="truncated or damaged"):
        load_avatar(path)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("fuzz") / "fuzzed.avatar"
    save_avatar(make_avatar(), path)
    return path, path.read_bytes()


@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4),
    header_only=st.booleans(),
    length=st.none() | st.floats(0, 1),
)
@settings(max_examples=400, deadline=None)
def test_damaged_bytes_are_an_avatar_file_error_or_still_a_valid_avatar(
    fuzzed: tuple[Path, bytes], flips: list[tuple[float, int]], header_only: bool, length: float | None
) -> None:
    path, valid = fuzzed
    data = bytearray(valid)
    header_end = 8 + int.from_bytes(valid[:8], "little")
    for place, mask in flips:
        data[int(place * ((header_end if header_only else len(data)) - 1))] ^= mask
    path.write_bytes(data if length is None else data[: int(length * len(data))])
    with suppress(AvatarFileError):
        load_avatar(path).validate()


# Posing


def test_at_rest_nothing_changes() -> None:
    avatar = make_avatar(40)
    posed = pose_gaussians(avatar, REST)
    np.testing.assert_allclose(posed.means, avatar.gaussians.means, atol=1e-6)
    np.testing.assert_allclose(covariance(posed), covariance(avatar.gaussians), atol=1e-9)
    np.testing.assert_array_equal(posed.rgb, avatar.gaussians.rgb)
    np.testing.assert_array_equal(posed.opacity, avatar.gaussians.opacity)


@given(st.lists(st.floats(-4, 4), min_size=6, max_size=6), st.integers(0, 99))
@settings(deadline=None)
def test_one_rigid_motion_of_all_joints_moves_the_whole(numbers: list[float], seed: int) -> None:
    avatar = make_avatar(seed=seed)
    R, t = rotvec_to_matrix(np.array(numbers[:3])), np.array(numbers[3:])
    posed = pose_gaussians(avatar, np.tile(np.column_stack([R, t]), (55, 1, 1)).astype(np.float32))
    np.testing.assert_allclose(posed.means, avatar.gaussians.means @ R.T + t, atol=1e-5)
    free = ~avatar.constrained
    rest = covariance(avatar.gaussians)
    np.testing.assert_allclose(covariance(posed)[free], (R @ rest @ R.T)[free], atol=1e-9)
    for kept in ("quat_wxyz", "scales"):
        np.testing.assert_array_equal(getattr(posed, kept)[~free], getattr(avatar.gaussians, kept)[~free])


def nearest_rotation(A: np.ndarray) -> np.ndarray:
    """LHM's reading of a blended matrix (pytorch3d's matrix_to_quaternion), by hand for one matrix."""
    trace = np.array([A.trace(), *(2 * A[k, k] - A.trace() for k in range(3))])
    k = int(np.argmax(trace))
    skew = np.array([A[2, 1] - A[1, 2], A[0, 2] - A[2, 0], A[1, 0] - A[0, 1]])
    if k == 0:
        w, x, y, z = 1 + trace[0], *skew
    else:
        w = skew[k - 1]
        x, y, z = ((1 + trace[k]) if j == k - 1 else A[k - 1, j] + A[j, k - 1] for j in range(3))
    norm = np.sqrt(w * w + x * x + y * y + z * z)
    return (
        rotvec_to_matrix(
            2 * np.arctan2(np.linalg.norm([x, y, z]), w) * np.array([x, y, z]) / max(np.linalg.norm([x, y, z]), 1e-12)
        )
        if norm
        else np.eye(3)
    )


@given(st.integers(0, 999))
@settings(deadline=None)
def test_any_joint_matrices_carry_each_gaussian_as_written(seed: int) -> None:
    """One Gaussian at a time, from the formula: x -> A x + t, C -> R C R^T with R read off A as a quaternion."""
    avatar = make_avatar(seed=seed)
    rng = np.random.default_rng(seed)
    matrices = rng.normal(size=(55, 3, 4)).astype(np.float32)
    matrices[:, :, :3] = rotvec_to_matrix(rng.normal(0, 0.5, (55, 3)))
    expression = rng.normal(size=2).astype(np.float32)
    posed = pose_gaussians(avatar, matrices, expression)
    before, after = covariance(avatar.gaussians), covariance(posed)
    moved = avatar.expression_gaussians.tolist()
    for i in range(len(avatar)):
        M = sum(
            w * matrices[j].astype(np.float64)
            for j, w in zip(avatar.skin_joints[i], avatar.skin_weights[i], strict=True)
        )
        x = avatar.gaussians.means[i].astype(np.float64)
        if i in moved:
            x = x + expression @ avatar.expression_directions[moved.index(i)]
        R = np.eye(3) if avatar.constrained[i] else nearest_rotation(M[:, :3])
        np.testing.assert_allclose(posed.means[i], M[:, :3] @ x + M[:, 3], atol=1e-5)
        np.testing.assert_allclose(after[i], R @ before[i] @ R.T, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(posed.quat_wxyz, axis=1), 1, atol=1e-6)
    replace(avatar, gaussians=posed).validate()


def test_flat_and_vanishing_gaussians_stay_so() -> None:
    avatar = make_avatar()
    scales = np.zeros((12, 3), np.float32)
    scales[:6] = [0.02, 1e-9, 0.01]
    flat = replace(avatar, gaussians=replace(avatar.gaussians, scales=scales), constrained=np.zeros(12, bool))
    R = rotvec_to_matrix(np.array([0.3, -2.0, 1.0]))
    posed = pose_gaussians(flat, np.tile(np.column_stack([R, np.zeros(3)]), (55, 1, 1)).astype(np.float32))
    np.testing.assert_allclose(np.sort(posed.scales, axis=1), np.sort(scales, axis=1), rtol=1e-5, atol=1e-15)
    replace(flat, gaussians=posed).validate()


def test_expression_coefficients_left_out_are_zero() -> None:
    avatar = make_avatar()
    short = pose_gaussians(avatar, REST, np.array([0.7], np.float32))
    padded = pose_gaussians(avatar, REST, np.array([0.7, 0], np.float32))
    np.testing.assert_array_equal(short.means, padded.means)
    moved = np.abs(short.means - avatar.gaussians.means).max(axis=1) > 1e-4
    np.testing.assert_array_equal(np.flatnonzero(moved), avatar.expression_gaussians)


def test_an_avatar_without_gaussians_can_be_posed() -> None:
    assert len(pose_gaussians(make_avatar(0, m=0), REST, np.ones(2, np.float32))) == 0


def test_unusable_poses_are_told() -> None:
    avatar = make_avatar()
    broken = REST.copy()
    broken[17, 2, 3] = np.inf
    with pytest.raises(InvalidInputError, match=r"joint_matrices\[17, 2, 3\] is inf"):
        pose_gaussians(avatar, broken)
    with pytest.raises(InvalidInputError, match=r"expression\[1\] is nan"):
        pose_gaussians(avatar, REST, np.array([0, np.nan], np.float32))
    with pytest.raises(InvalidInputError, match="expression has 3 coefficients; this avatar knows 2"):
        pose_gaussians(avatar, REST, np.zeros(3, np.float32))


@pytest.mark.usefixtures("unchecked")
def test_a_pose_of_the_wrong_shape_is_told() -> None:
    with pytest.raises(InvalidInputError, match=r"joint_matrices has shape \(54, 3, 4\), expected \(55, 3, 4\)"):
        pose_gaussians(make_avatar(), REST[1:])
