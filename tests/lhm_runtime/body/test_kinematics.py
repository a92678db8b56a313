import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.body.joints import JOINT_INDEX, PARENTS
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices, skinning_matrices
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.types import SmplxPose

seeds = st.integers(0, 2**32 - 1)


def random_pose(seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        (rng.normal(size=(55, 3)) * spread).astype(np.float32),
        rng.normal(size=(55, 3)).astype(np.float32),
        rng.normal(size=3).astype(np.float32),
    )


def forward_kinematics_by_loop(rotvec: np.ndarray, rest_joints: np.ndarray, transl: np.ndarray) -> np.ndarray:
    """One joint after the other, as the paper writes it."""
    world = np.empty((55, 4, 4))
    for joint, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotvec_to_matrix(rotvec[joint].astype(np.float64))
        local[:3, 3] = rest_joints[joint] - (rest_joints[parent] if parent >= 0 else 0)
        world[joint] = world[parent] @ local if parent >= 0 else local
    world[:, :3, 3] += transl
    return world


@given(seed=seeds)
def test_fast_way_is_the_loop(seed: int) -> None:
    rotvec, rest_joints, transl = random_pose(seed)
    expected = forward_kinematics_by_loop(rotvec, rest_joints, transl)
    np.testing.assert_allclose(forward_kinematics(rotvec, rest_joints, transl), expected, atol=1e-5)


@given(seed=seeds)
def test_zero_pose_is_the_rest_pose(seed: int) -> None:
    _, rest_joints, transl = random_pose(seed)
    rotvec = np.zeros((55, 3), np.float32)
    T_world_joint = forward_kinematics(rotvec, rest_joints, transl)
    np.testing.assert_allclose(T_world_joint[:, :3, 3], rest_joints + transl, atol=1e-6)
    np.testing.assert_array_equal(T_world_joint[:, :3, :3], np.tile(np.eye(3), (55, 1, 1)))
    matrices = skinning_matrices(T_world_joint, rest_joints)
    np.testing.assert_allclose(matrices[:, :, :3], np.tile(np.eye(3), (55, 1, 1)))
    np.testing.assert_allclose(matrices[:, :, 3], np.tile(transl, (55, 1)), atol=1e-5)


@given(seed=seeds)
def test_every_transform_is_rigid_and_bones_keep_their_length(seed: int) -> None:
    rotvec, rest_joints, transl = random_pose(seed)
    T_world_joint = forward_kinematics(rotvec, rest_joints, transl)
    rotation = T_world_joint[:, :3, :3]
    np.testing.assert_allclose(rotation.transpose(0, 2, 1) @ rotation, np.tile(np.eye(3), (55, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    np.testing.assert_array_equal(T_world_joint[:, 3], np.tile([0, 0, 0, 1], (55, 1)))
    bones = [np.linalg.norm(j[1:] - j[PARENTS[1:]], axis=1) for j in (T_world_joint[:, :3, 3], rest_joints)]
    np.testing.assert_allclose(*bones, atol=1e-5)


@given(seed=seeds)
def test_root_turns_the_whole_body_about_its_rest_joint(seed: int) -> None:
    rotvec, rest_joints, transl = random_pose(seed)
    turned = forward_kinematics(rotvec, rest_joints, transl)
    rotvec_0 = rotvec.copy()
    rotvec_0[0] = 0
    still = forward_kinematics(rotvec_0, rest_joints, np.zeros(3, np.float32))
    pelvis = rest_joints[0].astype(np.float64)
    expected = (still[:, :3, 3] - pelvis) @ rotvec_to_matrix(rotvec[0].astype(np.float64)).T + pelvis + transl
    np.testing.assert_allclose(turned[:, :3, 3], expected, atol=1e-5)


@given(seed=seeds, joint=st.integers(0, 54))
def test_a_joint_moves_only_its_descendants(seed: int, joint: int) -> None:
    rotvec, rest_joints, transl = random_pose(seed)
    before = forward_kinematics(rotvec, rest_joints, transl)
    rotvec[joint] += 0.5
    after = forward_kinematics(rotvec, rest_joints, transl)
    below = np.zeros(55, bool)
    below[joint] = True
    for child in range(joint + 1, 55):
        below[child] = below[PARENTS[child]]
    np.testing.assert_array_equal(after[~below], before[~below])
    assert not np.isclose(after[below], before[below]).all((1, 2)).any()


@given(seed=seeds)
def test_skinning_matrices_carry_rest_joints_to_posed_joints(seed: int) -> None:
    rotvec, rest_joints, transl = random_pose(seed)
    pose = SmplxPose(rotvec, transl, np.zeros(0, np.float32), 0.0)
    matrices = joint_matrices(pose, rest_joints)
    assert matrices.dtype == np.float32
    T_world_joint = forward_kinematics(rotvec, rest_joints, transl)
    np.testing.assert_array_equal(matrices, skinning_matrices(T_world_joint, rest_joints))
    posed = np.einsum("jrc,jc->jr", matrices[:, :, :3], rest_joints) + matrices[:, :, 3]
    np.testing.assert_allclose(posed, T_world_joint[:, :3, 3], atol=1e-5)


def test_left_arm_raised_points_up() -> None:
    rest_joints = np.zeros((55, 3), np.float32)
    rest_joints[JOINT_INDEX["left_elbow"]] = [0.3, 0, 0]
    rotvec = np.zeros((55, 3), np.float32)
    rotvec[JOINT_INDEX["left_shoulder"]] = [0, 0, np.pi / 2]
    T_world_joint = forward_kinematics(rotvec, rest_joints, np.zeros(3, np.float32))
    np.testing.assert_allclose(T_world_joint[JOINT_INDEX["left_elbow"], :3, 3], [0, 0.3, 0], atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("argument", "index", "named"),
    [(0, (17, 1), r"rotvec\[17, 1\]"), (1, (3, 2), r"rest_joints\[3, 2\]"), (2, (2,), r"transl\[2\]")],
)
def test_what_is_not_finite_is_refused_with_its_index(
    argument: int, index: tuple[int, ...], named: str, value: float
) -> None:
    arguments = random_pose(0)
    arguments[argument][index] = value
    with pytest.raises(InvalidInputError, match=named):
        forward_kinematics(*arguments)
