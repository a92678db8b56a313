from collections.abc import Iterator
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
from avatars import make_avatar
from hypothesis import given, settings
from hypothesis import strategies as st

from lhm_runtime.avatar import pose_gaussians
from lhm_runtime.body.rotations import quat_wxyz_to_matrix, rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.types import Gaussians

REST = np.tile(np.eye(3, 4, dtype=np.float32), (55, 1, 1))


def covariance(gaussians: Gaussians) -> np.ndarray:
    axes = quat_wxyz_to_matrix(gaussians.quat_wxyz.astype(np.float64)) * gaussians.scales[:, None]
    return axes @ axes.swapaxes(1, 2)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the shape checks of the test run, as users run it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
