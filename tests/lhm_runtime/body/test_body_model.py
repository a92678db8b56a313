import importlib.resources
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import (
    BODY,
    JAW,
    JOINT_INDEX,
    LEFT_EYE,
    LEFT_HAND,
    PARENTS,
    RIGHT_EYE,
    RIGHT_HAND,
)
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.types import SmplxPose

SHARED_BODY = Path(__file__).resolve().parents[3] / ".." / "shared" / "body" / "free_body.npz"

Write = Callable[[dict[str, np.ndarray]], Path]


def random_pose(rng: np.random.Generator, expressions: int, spread: float = 0.4) -> SmplxPose:
    return SmplxPose(
        rotvec=(rng.normal(size=(55, 3)) * spread).astype(np.float32),
        transl=rng.normal(size=3).astype(np.float32),
        expression=rng.uniform(0, 1, expressions).astype(np.float32),
        timestamp_s=0.0,
    )


def still(expressions: int = 0) -> SmplxPose:
    return SmplxPose(np.zeros((55, 3), np.float32), np.zeros(3, np.float32), np.zeros(expressions, np.float32), 0.0)


def smplx_forward(path: Path, poses: list[SmplxPose], betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [n,v,3] and joints [n,55,3] of the smplx package."""
    smplx = pytest.importorskip("smplx", reason="the smplx package is not installed (extra 'smplx')")
    torch = pytest.importorskip("torch", reason="torch is not installed (extra 'smplx')")
    expression = np.stack([pose.expression for pose in poses])
    model = smplx.create(
        str(path),
        model_type="smplx",
        use_pca=False,
        flat_hand_mean=True,
        num_betas=betas.shape[1],
        num_expression_coeffs=expression.shape[1],
        batch_size=len(poses),
    )
    # it appends joints picked by SMPL-X vertex number, which small bodies lack and we do not compare
    model.vertex_joint_selector.extra_joints_idxs.zero_()
    rotvec = torch.from_numpy(np.stack([pose.rotvec for pose in poses]))
    with torch.no_grad():
        output = model(
            betas=torch.from_numpy(betas),
            expression=torch.from_numpy(expression),
            transl=torch.from_numpy(np.stack([pose.transl for pose in poses])),
            global_orient=rotvec[:, 0],
            body_pose=rotvec[:, BODY].flatten(1),
            jaw_pose=rotvec[:, JAW].flatten(1),
            leye_pose=rotvec[:, LEFT_EYE].flatten(1),
            reye_pose=rotvec[:, RIGHT_EYE].flatten(1),
            left_hand_pose=rotvec[:, LEFT_HAND].flatten(1),
            right_hand_pose=rotvec[:, RIGHT_HAND].flatten(1),
        )
    return output.vertices.numpy(), output.joints[:, :55].numpy()


def assert_equal_to_smplx(path: Path, model: BodyModel, poses: list[SmplxPose], betas: np.ndarray) -> None:
    vertices, joints = smplx_forward(path, poses, betas)
    for i, pose in enumerate(poses):
        own_vertices, T_world_joint = model.pose_vertices(pose, betas[i])
        np.testing.assert_allclose(own_vertices, vertices[i], rtol=0, atol=1e-5)
        np.testing.assert_allclose(T_world_joint[:, :3, 3], joints[i], rtol=0, atol=1e-5)


def test_free_body_is_what_the_smplx_package_makes_of_it(write_model: Write) -> None:
    """50 random poses, shapes and expressions, to 1e-5 m."""
    model = BodyModel.default()
    columns = np.zeros((len(model.v_template), 3, 400), np.float32)
    columns[:, :, :10] = model.shape_directions
    columns[:, :, 300:352] = model.expression_directions
    path = write_model(
        {
            "v_template": model.v_template,
            "f": model.faces,
            "shapedirs": columns,
            "posedirs": np.zeros((len(model.v_template), 3, 486), np.float32),
            "J_regressor": model.J_regressor,
            "weights": model.skin_weights,
            "lmk_faces_idx": np.asarray(model.lmk_faces_idx, np.int64),
            "lmk_bary_coords": np.asarray(model.lmk_bary_coords),
            **smplx_only(),
        }
    )
    rng = np.random.default_rng(0)
    poses = [random_pose(rng, expressions=52) for _ in range(50)]
    assert_equal_to_smplx(path, model, poses, rng.normal(size=(50, 10)).astype(np.float32))


def test_pose_correctives_are_what_the_smplx_package_makes_of_them(
    small_arrays: dict[str, np.ndarray], write_model: Write
) -> None:
    small_arrays["shapedirs"] *= 0.1  # 400 random directions at once would move vertices by metres
    small_arrays |= smplx_only()
    path = write_model(small_arrays)
    model = BodyModel.load(path)
    assert model.pose_directions is not None
    rng = np.random.default_rng(1)
    poses = [random_pose(rng, expressions=100) for _ in range(20)]
    betas = rng.normal(size=(20, 300)).astype(np.float32)
    assert_equal_to_smplx(path, model, poses, betas)


def smplx_only() -> dict[str, np.ndarray]:
    """Keys that the smplx package wants and we do not read."""
    return {
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(55)]),
        "hands_componentsl": np.eye(45),
        "hands_componentsr": np.eye(45),
        "hands_meanl": np.zeros(45),
        "hands_meanr": np.zeros(45),
    }


def test_default_body_is_the_free_body_and_loaded_once() -> None:
    model = BodyModel.default()
    assert model is BodyModel.default()
    assert model.name == "free_body"
    assert model.v_template.shape == (13718, 3)
    assert model.faces.shape == (27420, 3)
    assert model.beta_names[:6] == ("height", "weight", "gender", "muscle", "age", "proportions")
    assert len(model.expression_names) == 52
    assert model.expression_names[24] == "jawOpen"
    assert model.pose_directions is None
    assert model.mediapipe_faces_idx is not None
    assert model.mediapipe_faces_idx.shape == (478,)
    assert model.lmk_bary_coords is not None
    assert model.lmk_bary_coords.shape == (51, 3)


def test_notice_names_the_default_body() -> None:
    notice = (importlib.resources.files("lhm_runtime") / "assets" / "NOTICE").read_text()
    assert BodyModel.default().sha256 in notice


def test_default_body_stands_upright_facing_z_with_its_left_at_x() -> None:
    model = BodyModel.default()
    joints = dict(zip(JOINT_INDEX, model.rest_joints(), strict=True))
    assert joints["head"][1] > joints["pelvis"][1] > joints["left_knee"][1] > joints["left_ankle"][1]
    assert joints["left_wrist"][0] > joints["left_elbow"][0] > 0 > joints["right_elbow"][0]
    assert joints["left_foot"][2] > joints["left_ankle"][2]
    assert joints["left_eye_smplhf"][2] > joints["head"][2]
    assert 1.6 < np.ptp(model.rest_vertices()[:, 1]) < 2.0


def test_landmarks_of_the_default_body_lie_on_the_face() -> None:
    model = BodyModel.default()
    assert model.mediapipe_faces_idx is not None
    assert model.mediapipe_bary_coords is not None
    corners = model.v_template[model.faces[model.mediapipe_faces_idx]]
    points = np.einsum("mk,mkd->md", model.mediapipe_bary_coords, corners)
    joints = model.rest_joints()
    nose_tip, left_iris = points[4], points[473]
    assert abs(nose_tip[0]) < 0.005
    assert nose_tip[2] == pytest.approx(points[:, 2].max(), abs=0.005)
    assert np.linalg.norm(left_iris - joints[JOINT_INDEX["left_eye_smplhf"]]) < 0.02


def test_named_betas_and_expressions_do_what_they_say() -> None:
    model = BodyModel.default()
    tall = np.zeros(10, np.float32)
    tall[model.beta_names.index("height")] = 2
    assert np.ptp(model.rest_vertices(tall)[:, 1]) > np.ptp(model.rest_vertices()[:, 1]) + 0.05
    jaw_open = np.zeros(52, np.float32)
    jaw_open[model.expression_names.index("jawOpen")] = 1
    moved = model.rest_vertices(expression=jaw_open) - model.rest_vertices()
    lowest = moved[:, 1].argmin()
    assert moved[lowest, 1] < -0.01
    assert model.skin_weights[lowest, JOINT_INDEX["jaw"]] > 0.5


@pytest.mark.shared
@pytest.mark.skipif(not SHARED_BODY.exists(), reason="needs ../shared/body/free_body.npz")
def test_default_body_equals_the_file_in_full_layout() -> None:
    slim, full = BodyModel.default(), BodyModel.load(SHARED_BODY)
    for field in BodyModel.__dataclass_fields__:
        if field != "sha256":
            np.testing.assert_array_equal(getattr(slim, field), getattr(full, field), err_msg=field)


def test_rest_joints_are_the_regressor_times_the_shaped_vertices(
    small_arrays: dict[str, np.ndarray], write_model: Write
) -> None:
    model = BodyModel.load(write_model(small_arrays))
    rng = np.random.default_rng(2)
    betas, expression = (rng.normal(size=n).astype(np.float32) for n in (300, 100))
    expected = model.J_regressor @ model.rest_vertices(betas, expression)
    np.testing.assert_allclose(model.rest_joints(betas, expression), expected, atol=1e-5)


@given(betas=st.integers(0, 10), expressions=st.integers(0, 52), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_short_coefficients_are_padded_with_zeros(betas: int, expressions: int, seed: int) -> None:
    model = BodyModel.default()
    rng = np.random.default_rng(seed)
    short = rng.normal(size=betas).astype(np.float32), rng.normal(size=expressions).astype(np.float32)
    padded = np.pad(short[0], (0, 10 - betas)), np.pad(short[1], (0, 52 - expressions))
    np.testing.assert_allclose(model.rest_joints(*short), model.rest_joints(*padded), atol=1e-6)
    np.testing.assert_allclose(model.rest_vertices(*short), model.rest_vertices(*padded), atol=1e-6)


def test_no_coefficients_are_the_template() -> None:
    model = BodyModel.default()
    np.testing.assert_array_equal(model.rest_vertices(), model.v_template)
    vertices, T_world_joint = model.pose_vertices(still())
    np.testing.assert_allclose(vertices, model.v_template, atol=1e-6)
    np.testing.assert_allclose(T_world_joint[:, :3, 3], model.rest_joints(), atol=1e-6)
    assert vertices.dtype == np.float32


def test_posing_moves_the_whole_body_rigidly_with_its_root() -> None:
    model = BodyModel.default()
    rng = np.random.default_rng(3)
    pose = random_pose(rng, 52)
    root_only = SmplxPose(np.where(np.arange(55)[:, None] == 0, pose.rotvec, 0), pose.transl, pose.expression, 0.0)
    vertices, _ = model.pose_vertices(root_only)
    matrix = joint_matrices(root_only, model.rest_joints(expression=pose.expression))[0]
    expected = model.rest_vertices(expression=pose.expression) @ matrix[:, :3].T + matrix[:, 3]
    np.testing.assert_allclose(vertices, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("betas", "expression", "said"),
    [
        (11, 0, "betas has 11 values, this body model takes up to 10"),
        (0, 53, "expression has 53 values, this body model takes up to 52"),
    ],
)
def test_too_many_coefficients_are_refused(betas: int, expression: int, said: str) -> None:
    model = BodyModel.default()
    arrays = np.zeros(betas, np.float32), np.zeros(expression, np.float32)
    for call in (model.rest_joints, model.rest_vertices):
        with pytest.raises(InvalidInputError, match=said):
            call(*arrays)
    with pytest.raises(InvalidInputError, match=said):
        model.pose_vertices(still(expression), arrays[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coefficients_and_poses_that_are_not_finite_are_refused(value: float) -> None:
    model = BodyModel.default()
    betas = np.zeros(10, np.float32)
    betas[4] = value
    with pytest.raises(InvalidInputError, match=r"betas\[4\]"):
        model.rest_joints(betas)
    pose = still(52)
    pose.expression[7] = value
    with pytest.raises(InvalidInputError, match=r"expression\[7\]"):
        model.pose_vertices(pose)
    pose = still(52)
    pose.rotvec[12, 2] = value
    with pytest.raises(InvalidInputError, match=r"rotvec\[12, 2\]"):
        model.pose_vertices(pose)
