import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from avatars import make_avatar
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lhm_runtime.avatar import load_avatar, save_avatar
from lhm_runtime.errors import AvatarFileError

Tensors = dict[str, np.ndarray]
Header = dict[str, str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "person.avatar"


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
