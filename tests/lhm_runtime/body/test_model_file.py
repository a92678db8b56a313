"""What can be wrong with a body model file, and what is said about it."""

import contextlib
import hashlib
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import PARENTS
from lhm_runtime.errors import BodyModelError

Write = Callable[[dict[str, np.ndarray]], Path]

REQUIRED = {
    "v_template": "(n, 3)",
    "f": "(n, 3)",
    "shapedirs": "(60, 3, n)",
    "J_regressor": "(55, 60)",
    "weights": "(60, 55)",
    "kintree_table": "(2, 55)",
    "hands_meanl": "(45)",
    "hands_meanr": "(45)",
}
OPTIONAL = {"posedirs": "(60, 3, 486)", "lmk_faces_idx": "(n)", "lmk_bary_coords": "(51, 3)"}
FLOATS = ["v_template", "shapedirs", "posedirs", "J_regressor", "weights", "hands_meanl", "lmk_bary_coords"]


def message(path: Path) -> str:
    with pytest.raises(BodyModelError) as caught:
        BodyModel.load(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def test_official_layout_loads(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    path = write_model(small_arrays)
    model = BodyModel.load(path)
    assert model.name == "SMPLX_NEUTRAL"
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.shape_directions.shape == (60, 3, 300)
    assert model.expression_directions.shape == (60, 3, 100)
    np.testing.assert_array_equal(model.expression_directions, small_arrays["shapedirs"][:, :, 300:].astype(np.float32))
    assert model.pose_directions is not None
    np.testing.assert_array_equal(model.left_hand_mean, small_arrays["hands_meanl"].reshape(15, 3).astype(np.float32))
    assert model.expression_names[:2] == ("expression0", "expression1")
    assert model.beta_names[299] == "beta299"
    assert model.lmk_faces_idx is not None
    assert model.mediapipe_faces_idx is None
    assert model.mediapipe_bary_coords is None


@pytest.mark.parametrize("root", [-1, 2**32 - 1, 2**63 - 1])
def test_any_mark_of_the_root_is_taken(small_arrays: dict[str, np.ndarray], write_model: Write, root: int) -> None:
    small_arrays["kintree_table"] = np.stack([np.array([root, *PARENTS[1:]]), np.arange(55)])
    BodyModel.load(write_model(small_arrays))


def test_twenty_columns_are_ten_and_ten(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    small_arrays["shapedirs"] = small_arrays["shapedirs"][:, :, :20]
    model = BodyModel.load(write_model(small_arrays))
    np.testing.assert_array_equal(
        np.concatenate([model.shape_directions, model.expression_directions], axis=2),
        small_arrays["shapedirs"].astype(np.float32),
    )
    assert model.shape_directions.shape[2] == 10


def test_zero_columns_at_the_end_are_dropped(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    small_arrays["shapedirs"][:, :, 16:300] = 0
    small_arrays["shapedirs"][:, :, 5] = 0
    small_arrays["shapedirs"][:, :, 300:] = 0
    model = BodyModel.load(write_model(small_arrays))
    assert model.shape_directions.shape == (60, 3, 16)
    assert model.expression_directions.shape == (60, 3, 0)
    assert model.expression_names == ()
    assert model.rest_joints(np.ones(16, np.float32), np.zeros(0, np.float32)).shape == (55, 3)


def test_zero_pose_correctives_are_none(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    small_arrays["posedirs"][:] = 0
    assert BodyModel.load(write_model(small_arrays)).pose_directions is None


def test_names_say_how_columns_split(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    small_arrays["shapedirs"] = small_arrays["shapedirs"][:, :, :7]
    small_arrays["beta_names"] = np.array(["height", "weight", "age"])
    small_arrays["expression_names"] = np.array(["jawOpen", "smile", "blink", "frown"])
    model = BodyModel.load(write_model(small_arrays))
    assert model.beta_names == ("height", "weight", "age")
    assert model.expression_names == ("jawOpen", "smile", "blink", "frown")
    np.testing.assert_array_equal(model.expression_directions, small_arrays["shapedirs"][:, :, 3:].astype(np.float32))
    small_arrays["expression_names"] = np.array(["jawOpen"])
    assert "has 7 columns while beta_names and expression_names name 4" in message(write_model(small_arrays))


def test_fewer_names_than_used_columns_are_refused(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    small_arrays["expression_names"] = np.array(["jawOpen"])
    assert "key 'expression_names' has 1 names; expected 100 to 100" in message(write_model(small_arrays))


def test_arrays_cannot_be_changed(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    model = BodyModel.load(write_model(small_arrays))
    for array in (
        model.v_template,
        model.faces,
        model.shape_directions,
        model.skin_weights,
        model.left_hand_mean,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_key(small_arrays: dict[str, np.ndarray], write_model: Write, key: str) -> None:
    del small_arrays[key]
    assert message(write_model(small_arrays)).endswith(
        f"key '{key}' is missing; expected an array of shape {REQUIRED[key]}"
    )


@pytest.mark.parametrize("key", ["lmk_faces_idx", "lmk_bary_coords"])
def test_half_an_embedding(small_arrays: dict[str, np.ndarray], write_model: Write, key: str) -> None:
    del small_arrays[key]
    assert f"key '{key}' is missing" in message(write_model(small_arrays))


@pytest.mark.parametrize(("key", "shape"), (REQUIRED | OPTIONAL).items())
def test_wrong_shape(small_arrays: dict[str, np.ndarray], write_model: Write, key: str, shape: str) -> None:
    small_arrays[key] = np.zeros((3, 4, 5, 6), small_arrays[key].dtype)
    said = message(write_model(small_arrays))
    assert f"key '{key}' has shape (3, 4, 5, 6); expected an array of shape {shape}" in said


@pytest.mark.parametrize("columns", [0, 11, 399, 401])
def test_wrong_number_of_shape_columns(small_arrays: dict[str, np.ndarray], write_model: Write, columns: int) -> None:
    small_arrays["shapedirs"] = np.ones((60, 3, columns))
    assert "key 'shapedirs'" in message(write_model(small_arrays))


@pytest.mark.parametrize("key", ["v_template", "f", "lmk_faces_idx"])
def test_empty(small_arrays: dict[str, np.ndarray], write_model: Write, key: str) -> None:
    small_arrays[key] = small_arrays[key][:0]
    assert f"key '{key}' is empty" in message(write_model(small_arrays))


@pytest.mark.parametrize("key", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_not_finite(small_arrays: dict[str, np.ndarray], write_model: Write, key: str, value: float) -> None:
    small_arrays[key][-1] = value
    said = message(write_model(small_arrays))
    assert f"key '{key}' is {value} at [" in said
    assert said.endswith("expected finite values")


@pytest.mark.parametrize(("key", "limit"), [("f", 59), ("lmk_faces_idx", 39)])
@pytest.mark.parametrize("index", [-1, 60])
def test_index_out_of_range(
    small_arrays: dict[str, np.ndarray], write_model: Write, key: str, limit: int, index: int
) -> None:
    small_arrays[key] = small_arrays[key].astype(np.int64)
    small_arrays[key][-1] = index
    assert f"key '{key}' holds index {index}; expected 0 to {limit}" in message(write_model(small_arrays))


def test_wrong_dtype(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    small_arrays["f"] = small_arrays["f"].astype(np.float64)
    assert "key 'f' has dtype float64; expected integers" in message(write_model(small_arrays))
    small_arrays["v_template"] = np.full((60, 3), "x")
    assert "key 'v_template' has dtype <U1; expected numbers" in message(write_model(small_arrays))


def test_object_array_is_never_unpickled(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    small_arrays["v_template"] = small_arrays["v_template"].astype(object)
    assert "key 'v_template' cannot be read (Object arrays cannot be loaded" in message(write_model(small_arrays))


def test_other_joint_tree(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    small_arrays["kintree_table"][0, 4] = 2
    assert "'kintree_table' gives joint 4 the parent 2; expected 1" in message(write_model(small_arrays))


def test_root_with_a_parent(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    small_arrays["kintree_table"][0, 0] = 3
    assert "'kintree_table' gives joint 0 the parent 3; expected -1" in message(write_model(small_arrays))


def test_weights_that_are_no_weights(small_arrays: dict[str, np.ndarray], write_model: Write) -> None:
    weights = small_arrays["weights"]
    small_arrays["weights"] = weights * np.where(np.arange(60) == 17, 1.5, 1)[:, None]
    assert "key 'weights' has row 17 with sum 1.5" in message(write_model(small_arrays))
    small_arrays["weights"] = weights.copy()
    small_arrays["weights"][3, 4] = -0.5
    assert "key 'weights' holds -0.5; expected values of 0 and above" in message(write_model(small_arrays))


def test_no_file_a_folder_text_and_a_single_array(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in message(tmp_path / "absent.npz")
    assert "cannot be read: Is a directory" in message(tmp_path)
    (tmp_path / "text.npz").write_text("hello")
    assert "not an .npz file" in message(tmp_path / "text.npz")
    (tmp_path / "empty.npz").touch()
    assert "not an .npz file" in message(tmp_path / "empty.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    assert "holds a single array" in message(tmp_path / "single.npy")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_one_clear_error_or_no_damage(model_bytes: bytes, data: st.DataObject) -> None:
    """Cut, overwrite or delete anywhere: BodyModelError, or a model that works (bytes nobody reads)."""
    damaged = bytearray(model_bytes)
    if data.draw(st.booleans(), label="cut"):
        del damaged[data.draw(st.integers(0, len(damaged) - 1), label="length") :]
    for _ in range(data.draw(st.integers(0, 4), label="overwrites")):
        # half of them in the zip directory at the end, where sizes, names and offsets stand
        place = data.draw(
            st.integers(0, max(0, len(damaged) - 1)) | st.integers(max(0, len(damaged) - 900), len(damaged))
        )
        damaged[place : place + 1] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        path.write_bytes(damaged)
        try:
            model = BodyModel.load(path)
        except BodyModelError:
            return
    assert np.isfinite(model.rest_joints()).all()


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The smallest file that loads: one vertex, one triangle."""
    path = tmp_path_factory.mktemp("model") / "model.npz"
    np.savez(
        path,
        v_template=np.ones((1, 3), np.float32),
        f=np.zeros((1, 3), np.uint32),
        shapedirs=np.ones((1, 3, 20), np.float32),
        J_regressor=np.ones((55, 1), np.float32),
        weights=np.full((1, 55), 1 / 55, np.float32),
        kintree_table=np.stack([PARENTS, np.arange(55)]),
        hands_meanl=np.zeros(45),
        hands_meanr=np.zeros(45),
    )
    BodyModel.load(path)
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from(list(REQUIRED)), header=st.binary(max_size=120), patch=st.text(max_size=20))
def test_damaged_array_header_inside_a_sound_archive(key: str, header: bytes, patch: str, model_bytes: bytes) -> None:
    """The archive's checksums hold, but what is inside is not what numpy wrote."""

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        with zipfile.ZipFile(io.BytesIO(model_bytes)) as sound, zipfile.ZipFile(path, "w") as bad:
            for name in sound.namelist():
                content = sound.read(name)
                if name == f"{key}.npy":
                    text = content[10:128].replace(b"(", f"({patch}".encode())[:118].ljust(118)
                    content = header if header else content[:10] + text + content[128:]
                bad.writestr(name, content)
        with contextlib.suppress(BodyModelError):  # damage may leave a header that reads the same
            BodyModel.load(path)
