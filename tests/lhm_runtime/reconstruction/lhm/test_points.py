"""Query points from their file, or near where they were."""

from pathlib import Path

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.errors import FileFormatError, InvalidInputError
from lhm_runtime.reconstruction.lhm.points import read_points, recover_points


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def write_ply(path: Path, points: np.ndarray, kind: str = "double") -> None:
    """As point cloud libraries write it, normals and all."""
    names = ("x", "y", "z", "nx", "ny", "nz")
    header = ["ply", "format binary_little_endian 1.0", "comment points", f"element vertex {len(points)}"]
    header += [f"property {kind} {name}" for name in names] + ["end_header", ""]
    dtype = "<f8" if kind == "double" else "<f4"
    path.write_bytes("\n".join(header).encode() + np.hstack([points, np.zeros_like(points)]).astype(dtype).tobytes())


@pytest.mark.parametrize("kind", ["double", "float"])
def test_from_a_file(points: np.ndarray, tmp_path: Path, kind: str) -> None:
    write_ply(tmp_path / "1_8.ply", points, kind)
    np.testing.assert_array_equal(read_points(tmp_path / "1_8.ply", 8), points)


def test_files_that_are_none(points: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "1_8.ply"
    with pytest.raises(FileFormatError, match=r"cannot be read as query points: .*expected LHM's 1_8\.ply"):
        read_points(path, 8)
    write_ply(path, points)
    with pytest.raises(FileFormatError, match=r"holds 8 points, the checkpoint was made for 40000: 1_40000\.ply"):
        read_points(path, 40_000)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FileFormatError, match="truncated"):
        read_points(path, 8)
    write_ply(path, np.full((8, 3), np.nan))
    with pytest.raises(FileFormatError, match="must be finite"):
        read_points(path, 8)
    path.write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n")
    with pytest.raises(FileFormatError, match="no file of points: its vertices lack the properties y, z"):
        read_points(path, 1)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.default()


def test_recovered_points_are_where_they_were(body: BodyModel) -> None:
    rng = np.random.default_rng(1)
    faces = body.faces[rng.integers(0, len(body.faces), 3000)]
    corner = rng.integers(0, 3, 3000)
    vertices = faces[np.arange(3000), corner]
    recovered = recover_points(body.shape_directions[vertices], body)
    distance = np.linalg.norm(recovered - body.v_template[vertices], axis=1)
    assert np.median(distance) < 0.012
    assert distance.max() < 0.06
    assert np.unique(recovered, axis=0).shape == recovered.shape
    low, high = body.v_template.min(axis=0), body.v_template.max(axis=0)
    assert ((recovered >= low - 1e-6) & (recovered <= high + 1e-6)).all()
    np.testing.assert_array_equal(recovered, recover_points(body.shape_directions[vertices], body))
    assert (recovered != recover_points(body.shape_directions[vertices], body, seed=1)).any()


def test_points_of_another_body(body: BodyModel) -> None:
    strange = body.shape_directions[:5].copy()
    strange[3] += 1
    with pytest.raises(InvalidInputError, match="the shape directions of point 3 are those of no vertex"):
        recover_points(strange, body)
