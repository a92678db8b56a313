"""Anchors: they sit on the body whatever its pose and shape, and their derivatives are those of finite differences."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.reconstruction.body_proportions import with_proportions
from lhm_runtime.reconstruction.landmark_anchors import (
    FACE_ANCHORS,
    HAND_ANCHORS,
    differentiate_anchors,
    embed_face,
    find_anchors,
    limb_anchors,
    pose_anchors,
    right_jacobian,
)
from lhm_runtime.types import SmplxPose

STEP = 1e-6


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return with_proportions(BodyModel.default())


def random_state(seed: int, betas: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(55, 3)) * 0.5, rng.normal(size=3), rng.normal(size=betas) * 0.7


def test_a_skeleton_alone_has_the_bodys_limb_points(body: BodyModel) -> None:
    whole = find_anchors(body)
    rotvec, transl, betas = random_state(3, whole.joint_shapes.shape[2])
    limbs = limb_anchors(body.rest_joints(betas))
    expected = pose_anchors(whole, rotvec, transl, betas).points[: FACE_ANCHORS.start]
    np.testing.assert_allclose(pose_anchors(limbs, rotvec, transl, np.zeros(0)).points, expected, atol=2e-5)


def test_face_anchors_are_points_of_the_skin(body: BodyModel) -> None:
    anchors = find_anchors(body)
    rotvec, transl, betas = random_state(0, anchors.joint_shapes.shape[2])
    rng = np.random.default_rng(1)
    expression = rng.uniform(0, 0.5, len(body.expression_names)).astype(np.float32)
    pose = SmplxPose(rotvec.astype(np.float32), transl.astype(np.float32), expression, 0.0)
    vertices, _ = body.pose_vertices(pose, betas.astype(np.float32))
    corners, bary = embed_face(body)
    on_skin = np.einsum("mk,mkx->mx", bary[anchors.face_points], vertices[corners[anchors.face_points]])
    selected = anchors.select(np.arange(len(anchors.points)), expression.astype(np.float64))
    posed = pose_anchors(selected, rotvec, transl, betas)
    # expressions shift the regressed eye and jaw joints by up to 3 mm, which anchors leave out
    assert np.linalg.norm(posed.points[FACE_ANCHORS] - on_skin, axis=1).max() < 2e-3


def test_lower_lip_is_where_it_is_seen(body: BodyModel) -> None:
    corners, bary = embed_face(body)
    points = np.einsum("mk,mkx->mx", bary, body.v_template[corners].astype(np.float64))
    jaw = body.expression_directions[:, 1, body.expression_names.index("jawOpen")].astype(np.float64)
    carried = np.einsum("mk,mk->m", bary, jaw[corners])
    edge, below = np.array([(95, 96), (88, 89), (178, 179), (87, 86), (14, 15), (317, 316), (402, 403), (318, 319)]).T
    np.testing.assert_allclose(carried[edge], carried[below], rtol=0.2)  # upper lip and tongue are not
    np.testing.assert_allclose(points[edge], points[below], atol=6e-3)


def test_limb_anchors_are_at_their_joints(body: BodyModel) -> None:
    anchors = find_anchors(body)
    rotvec, transl, betas = random_state(2, anchors.joint_shapes.shape[2])
    posed = pose_anchors(anchors, rotvec, transl, betas)
    joints = posed.T_world_joint[:, :3, 3]
    for point, name in (
        (11, "left_shoulder"),
        (14, "right_elbow"),
        (23, "left_hip"),
        (26, "right_knee"),
        (27, "left_ankle"),
    ):
        assert np.linalg.norm(posed.points[point] - joints[JOINT_INDEX[name]]) < 0.03, name
    for side, hand in zip(("left", "right"), HAND_ANCHORS, strict=True):
        points = posed.points[hand]
        np.testing.assert_allclose(points[0], joints[JOINT_INDEX[f"{side}_wrist"]], atol=1e-5)
        np.testing.assert_allclose(points[6], joints[JOINT_INDEX[f"{side}_index2"]], atol=1e-5)
        assert 0.01 < np.linalg.norm(points[8] - points[7]) < 0.04


def test_mirrored_body_has_mirrored_anchors(body: BodyModel) -> None:
    points = find_anchors(body).points
    left, right = points[11:33:2], points[12:33:2]
    np.testing.assert_allclose(left, right * [-1, 1, 1], atol=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_derivatives_are_those_of_finite_differences(body: BodyModel, seed: int) -> None:
    anchors = find_anchors(body)
    rotvec, transl, betas = random_state(seed, anchors.joint_shapes.shape[2])
    moving = np.array([0, 3, 12, 16, 18, 20, 4, 7, 25, 42])
    posed = pose_anchors(anchors, rotvec, transl, betas)
    by_rotvec, by_betas = differentiate_anchors(anchors, posed, rotvec, betas, moving)

    def difference(bent: np.ndarray, shaped: np.ndarray) -> np.ndarray:
        there = pose_anchors(anchors, rotvec + bent, transl, betas + shaped).points
        back = pose_anchors(anchors, rotvec - bent, transl, betas - shaped).points
        return (there - back) / (2 * STEP)

    for column, joint in enumerate(moving):
        for axis in range(3):
            bent = np.zeros((55, 3))
            bent[joint, axis] = STEP
            np.testing.assert_allclose(by_rotvec[:, :, column, axis], difference(bent, np.zeros_like(betas)), atol=1e-8)
    for k in range(len(betas)):
        np.testing.assert_allclose(
            by_betas[:, :, k], difference(np.zeros((55, 3)), STEP * np.eye(len(betas))[k]), atol=1e-8
        )


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.floats(1e-9, 1.0))
def test_right_jacobian_at_any_size(direction: list[float], size: float) -> None:
    rotvec = np.array([direction]) * size
    change = np.array([[1.0, -2.0, 0.5]]) * 1e-6
    turned = rotvec_to_matrix(rotvec)[0].T @ rotvec_to_matrix(rotvec + change)[0]
    np.testing.assert_allclose(matrix_to_rotvec(turned), right_jacobian(rotvec)[0] @ change[0], atol=1e-11)


def test_body_without_face_points_has_limb_anchors_only(body: BodyModel) -> None:
    faceless = replace(body, mediapipe_faces_idx=None, mediapipe_bary_coords=None)
    anchors = find_anchors(faceless)
    assert len(anchors.face_points) == 0
    assert len(anchors.points) == FACE_ANCHORS.start
