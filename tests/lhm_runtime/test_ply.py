import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhm_runtime.errors import AvatarFileError, InvalidInputError
from lhm_runtime.ply import SH_C0, export_ply, import_ply
from lhm_runtime.types import Gaussians

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
NAMES = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
NAMES += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
BINARY = "binary_little_endian"


def make_gaussians(n: int = 9, seed: int = 0) -> Gaussians:
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=(n, 4))
    return Gaussians(
        means=rng.normal(size=(n, 3)).astype(np.float32),
        quat_wxyz=(quat / np.linalg.norm(quat, axis=1, keepdims=True)).astype(np.float32),
        scales=np.exp(rng.uniform(-12, -2, (n, 3))).astype(np.float32),
        opacity=rng.uniform(0.001, 0.999, n).astype(np.float32),
        rgb=rng.random((n, 3)).astype(np.float32),
    )


def assert_close(a: Gaussians, b: Gaussians) -> None:
    np.testing.assert_array_equal(a.means, b.means)
    np.testing.assert_allclose(a.quat_wxyz, b.quat_wxyz, atol=1e-6)
    np.testing.assert_allclose(a.scales, b.scales, rtol=2e-6)
    np.testing.assert_allclose(a.opacity, b.opacity, atol=1e-6)
    np.testing.assert_allclose(a.rgb, b.rgb, atol=1e-6)


def stored(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """The columns of the file, from their definition."""
    opacity = gaussians.opacity.astype(np.float64)
    values = np.column_stack(
        [
            gaussians.means,
            np.zeros_like(gaussians.means),
            (gaussians.rgb - 0.5) / 0.28209479177387814,
            np.log(opacity / (1 - opacity)),
            np.log(gaussians.scales),
            gaussians.quat_wxyz,
        ]
    )
    return dict(zip(NAMES, values.T, strict=True))


def write(path: Path, columns: dict[str, np.ndarray], encoding: str = BINARY, **types: str) -> None:
    """A .ply of these columns; each is float unless ``types`` says double or uchar."""
    codes = {"float": "f4", "double": "f8", "uchar": "u1"}
    order = ">" if encoding == "binary_big_endian" else "<"
    count = len(next(iter(columns.values())))
    table = np.empty(count, [(name, order + codes[types.get(name, "float")]) for name in columns])
    for name, column in columns.items():
        table[name] = column
    header = ["ply", f"format {encoding} 1.0", "comment größe", f"element vertex {count}"]
    header += [f"property {types.get(name, 'float')} {name}" for name in columns] + ["end_header", ""]
    data = table.tobytes()
    if encoding == "ascii":
        data = "\n".join(" ".join(str(value) for value in row) for row in table.tolist()).encode()
    path.write_bytes("\n".join(header).encode() + data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "person.ply"


@given(n=st.integers(0, 20), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_what_is_exported_is_imported(tmp_path_factory: pytest.TempPathFactory, n: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    gaussians = make_gaussians(n, seed)
    export_ply(gaussians, path)
    assert_close(import_ply(path), gaussians)


def test_the_layout_is_the_one_of_3d_gaussian_splatting(path: Path) -> None:
    gaussians = make_gaussians()
    export_ply(gaussians, path)
    head, data = path.read_bytes().split(b"end_header\n")
    expected = [
        "ply",
        "format binary_little_endian 1.0",
        "element vertex 9",
        *(f"property float {n}" for n in NAMES),
    ]
    assert head.decode().splitlines() == expected
    table = np.frombuffer(data, "<f4").reshape(9, 17)
    for column, (name, values) in enumerate(stored(gaussians).items()):
        np.testing.assert_allclose(table[:, column], values, rtol=1e-5, atol=1e-5, err_msg=name)


def test_what_a_logarithm_cannot_hold_is_clamped(path: Path) -> None:
    gaussians = replace(
        make_gaussians(3),
        opacity=np.array([0, 1, 0.5], np.float32),
        scales=np.array([[0, 1e-12, 1e-8], [1, 1e3, 1e-30], [1, 1, 1]], np.float32),
    )
    export_ply(gaussians, path)
    imported = import_ply(path)
    np.testing.assert_allclose(imported.opacity, [0.001, 0.999, 0.5], atol=1e-6)
    np.testing.assert_allclose(imported.scales, [[1e-9, 1e-9, 1e-8], [1, 1e3, 1e-9], [1, 1, 1]], rtol=1e-5)


def test_nothing_but_gaussians_is_exported(path: Path) -> None:
    gaussians = make_gaussians()
    gaussians.rgb[2, 1] = np.nan
    with pytest.raises(InvalidInputError, match=r"rgb\[2, 1\] is nan"):
        export_ply(gaussians, path)
    assert not path.exists()


def test_a_failed_export_leaves_the_old_file_whole_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_ply(make_gaussians(seed=1), path)
    before = path.read_bytes()

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        export_ply(make_gaussians(seed=2), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("encoding", ["ascii", BINARY, "binary_big_endian"])
@pytest.mark.parametrize("n", [0, 1, 9])
def test_any_order_type_and_encoding_is_read(path: Path, encoding: str, n: int) -> None:
    gaussians = make_gaussians(n)
    columns = stored(gaussians)
    for normal in ("nx", "ny", "nz"):
        del columns[normal]
    extra = {f"f_rest_{i}": np.full(n, 100.0 + i) for i in range(45)} | {"quality": np.arange(float(n))}
    shuffled = np.random.default_rng(3).permutation(list(columns | extra))
    write(path, {name: (columns | extra)[name] for name in shuffled}, encoding, quality="uchar", y="double")
    assert_close(import_ply(path), gaussians)


def test_windows_line_ends_comments_and_later_elements_are_read(path: Path) -> None:
    gaussians = make_gaussians(2)
    write(path, stored(gaussians), "ascii")
    text = path.read_text().replace("end_header", "element face 1\nproperty list uchar int vertex_indices\nend_header")
    path.write_bytes((text + "\n3 0 1 0\n").replace("\n", "\r\n").encode())
    assert_close(import_ply(path), gaussians)


def test_rotations_are_normalised_and_colours_clipped(path: Path) -> None:
    gaussians = make_gaussians()
    columns = stored(gaussians)
    for i, factor in enumerate((1e-30, 1e30, 7.0, -2.0)):
        for axis in range(4):
            columns[f"rot_{axis}"][i] *= factor
    columns["f_dc_0"][:2] = [9, -9]
    write(path, columns)
    imported = import_ply(path)
    signs = np.array([1, 1, 1, -1, 1, 1, 1, 1, 1])[:, None]
    np.testing.assert_allclose(imported.quat_wxyz, gaussians.quat_wxyz * signs, atol=1e-6)
    np.testing.assert_array_equal(imported.rgb[:2, 0], [1, 0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("y", np.nan, "y of vertex 4 is nan, expected a finite number"),
        ("opacity", -np.inf, "opacity of vertex 4 is -inf, expected a finite number"),
        ("scale_2", 800.0, r"scales\[4, 2\] is inf; every value must be finite"),
        ("x", 1e300, r"means\[4, 0\] is inf; every value must be finite"),
    ],
)
def test_unusable_values_are_told(path: Path, name: str, value: float, message: str) -> None:
    columns = stored(make_gaussians())
    columns[name][4] = value
    for encoding in ("ascii", BINARY):
        write(path, columns, encoding, x="double")
        with pytest.raises(AvatarFileError, match=message) as caught:
            import_ply(path)
        assert str(path) in str(caught.value)


def test_a_rotation_of_zeros_is_told(path: Path) -> None:
    columns = stored(make_gaussians())
    for axis in range(4):
        columns[f"rot_{axis}"][6] = 0
    write(path, columns)
    with pytest.raises(AvatarFileError, match="rot_0 to rot_3 of vertex 6 are all 0"):
        import_ply(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ply\n", "glb\n", "not a .ply file: its first line is not 'ply'"),
        ("end_header", "end header", "no end_header in its first"),
        ("ascii 1.0", "ascii 2.0", "no format line that we know"),
        ("format ascii 1.0\n", "", "no format line that we know"),
        ("vertex", "chunk", "first element is 'element chunk 3', expected 'element vertex' and a count"),
        ("vertex 3", "vertex -3", "first element is 'element vertex -3'"),
        ("vertex 3", "vertex many", "first element is 'element vertex many'"),
        ("vertex 3", f"vertex {'9' * 5000}", "first element is 'element vertex 999"),
        (
            "float nx",
            "list uchar float nx",
            "header line 'property list uchar float nx' is not one that a 3DGS",
        ),
        ("float nx", "half nx", "header line 'property half nx' is not one"),
        ("property float nx", "nonsense", "header line 'nonsense' is not one"),
        ("float nx", "float x", "declares a property twice: x, y, z, x"),
        ("f_dc_1", "green", "no 3DGS .ply: its vertices lack the properties f_dc_1"),
        ("vertex 3", "vertex 4", "truncated: 4 vertices announced, 3 found"),
        (
            "vertex 3",
            "vertex 999999999999",
            "truncated: 999999999999 vertices take 33999999999965 bytes or more",
        ),
    ],
)
def test_each_wrong_header_has_its_own_message(path: Path, old: str, new: str, message: str) -> None:
    write(path, stored(make_gaussians(3)), "ascii")
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    tracemalloc.start()
    with pytest.raises(AvatarFileError, match=message):
        import_ply(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_words_among_the_numbers_are_told(path: Path) -> None:
    write(path, stored(make_gaussians(3)), "ascii")
    head, data = path.read_text().split("end_header\n")
    path.write_text(f"{head}end_header\nzero {data.split(' ', 1)[1]}")
    with pytest.raises(AvatarFileError, match=r"not lines of numbers: .*zero"):
        import_ply(path)


def test_a_binary_file_cut_off_anywhere_is_told(path: Path) -> None:
    export_ply(make_gaussians(2), path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(AvatarFileError, match=r"truncated|its first line is not 'ply'"):
            import_ply(path)
    path.write_bytes(data[:-1])
    with pytest.raises(AvatarFileError, match="truncated: 2 vertices take 136 bytes or more, 135 follow the header"):
        import_ply(path)


def test_missing_files_and_folders_are_told(path: Path) -> None:
    with pytest.raises(AvatarFileError, match=r"person.ply cannot be read: No such file"):
        import_ply(path)
    with pytest.raises(AvatarFileError, match=r"cannot be read: Is a directory"):
        import_ply(path.parent)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzzed.ply"


@given(
    encoding=st.sampled_from(["ascii", BINARY, "binary_big_endian"]),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4),
    length=st.none() | st.floats(0, 1),
)
@settings(max_examples=400, deadline=None)
def test_damaged_bytes_are_an_avatar_file_error_or_still_gaussians(
    fuzzed: Path, encoding: str, flips: list[tuple[float, int]], length: float | None
) -> None:
    write(fuzzed, stored(make_gaussians(4)), encoding)
    data = bytearray(fuzzed.read_bytes())
    for place, mask in flips:
        data[int(place * (len(data) - 1))] ^= mask
    fuzzed.write_bytes(data if length is None else data[: int(length * len(data))])
    with suppress(AvatarFileError):
        export_ply(import_ply(fuzzed), fuzzed)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="needs ../shared/golden")
def test_the_published_implementations_own_export(path: Path) -> None:
    golden = SHARED / "golden" / "golden_tpose.ply"
    gaussians = import_ply(golden)
    with np.load(SHARED / "golden" / "golden_e2e.npz") as arrays:
        quat = arrays["out.tpose.rot"]
        np.testing.assert_array_equal(gaussians.means, arrays["out.tpose.xyz"])
        np.testing.assert_allclose(gaussians.quat_wxyz, quat / np.linalg.norm(quat, axis=1, keepdims=True), atol=1e-6)
        np.testing.assert_allclose(gaussians.scales, arrays["out.gs.scaling"], rtol=1e-5)
        np.testing.assert_allclose(gaussians.opacity, arrays["out.gs.opacity"][:, 0].clip(0.001, 0.999), atol=1e-6)
        np.testing.assert_allclose(gaussians.rgb, arrays["out.gs.shs"][:, 0].clip(0, 1), atol=1e-6)
    export_ply(gaussians, path)
    (theirs_head, theirs), (ours_head, ours) = (p.read_bytes().split(b"end_header\n", 1) for p in (golden, path))
    assert ours_head == theirs_head
    np.testing.assert_allclose(np.frombuffer(ours, "<f4"), np.frombuffer(theirs, "<f4"), rtol=1e-4, atol=1e-5)


def test_the_constant_harmonic() -> None:
    assert pytest.approx(0.5 / np.sqrt(np.pi)) == SH_C0
