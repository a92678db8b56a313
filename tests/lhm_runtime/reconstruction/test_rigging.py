from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from lhm_runtime.avatar import AvatarMetadata, load_avatar, pose_gaussians, save_avatar
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.rigging import (
    EXPRESSION_FLOOR_M,
    EXPRESSION_REACH_M,
    bind_to_body,
    rig_gaussians,
    surface_binding,
)
from lhm_runtime.types import Gaussians, SmplxPose

EQUAL_CORNERS = {"a is b": [0, 1], "a is c": [0, 2], "b is c": [1, 2], "point": [0, 1, 2]}
BETAS = np.array([1.0, -1.5, 0.5], np.float32)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.default()


@pytest.fixture(scope="module")
def metadata(body: BodyModel) -> AvatarMetadata:
    return AvatarMetadata("test 1", body.name, body.sha256, "CC0-1.0", "2026-01-31T12:00:00+00:00")


def make_gaussians(means: np.ndarray) -> Gaussians:
    n = len(means)
    return Gaussians(
        means=means.astype(np.float32),
        quat_wxyz=np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
        scales=np.full((n, 3), 0.005, np.float32),
        opacity=np.full(n, 0.9, np.float32),
        rgb=np.full((n, 3), 0.5, np.float32),
    )


def bound_points(vertices: np.ndarray, faces: np.ndarray, index: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    return np.einsum("nvc,nv->nc", vertices[faces[index]].astype(np.float64), barycentric)


def distance_to_triangle(point: np.ndarray, triangle: np.ndarray) -> float:
    """By a numerical optimiser over the barycentric coordinates."""
    a, b, c = triangle
    result = minimize(
        lambda w: ((a + w[0] * (b - a) + w[1] * (c - a) - point) ** 2).sum(),
        [1 / 3, 1 / 3],
        jac=lambda w: 2 * np.array([b - a, c - a]) @ (a + w[0] * (b - a) + w[1] * (c - a) - point),
        bounds=[(0, 1), (0, 1)],
        constraints={"type": "ineq", "fun": lambda w: 1 - w.sum(), "jac": lambda _: -np.ones(2)},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    return float(np.sqrt(result.fun))


@pytest.mark.parametrize("shape", ["any", "needle", "a is b", "a is c", "b is c", "point"])
def test_one_triangle_agrees_with_an_optimiser(shape: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        triangle = rng.normal(size=(3, 3))
        if shape == "needle":
            triangle[2] = triangle[0] + 0.3 * (triangle[1] - triangle[0])
        if shape in EQUAL_CORNERS:
            one, *others = EQUAL_CORNERS[shape]
            triangle[others] = triangle[one]
        point = rng.normal(size=(1, 3)) * 2
        faces = np.array([[0, 1, 2]], np.int32)
        index, barycentric = surface_binding(point, triangle, faces)
        assert (barycentric >= 0).all()
        np.testing.assert_allclose(barycentric.sum(axis=1), 1, atol=1e-12)
        found = np.linalg.norm(bound_points(triangle, faces, index, barycentric)[0] - point[0])
        np.testing.assert_allclose(found, distance_to_triangle(point[0], triangle), atol=1e-5)


def test_points_on_the_body_are_found_where_they_are(body: BodyModel) -> None:
    rng = np.random.default_rng(1)
    index = rng.integers(0, len(body.faces), 2000)
    points = bound_points(body.v_template, body.faces, index, rng.dirichlet(np.ones(3), 2000))
    found = bound_points(body.v_template, body.faces, *surface_binding(points, body.v_template, body.faces))
    off = np.linalg.norm(found - points, axis=1)
    assert off.max() < 1e-4
    assert (off > 1e-9).mean() < 0.002


@pytest.mark.parametrize("offset", [0.003, 0.03, 0.3])
def test_points_off_the_body_find_the_nearest_of_all_triangles(body: BodyModel, offset: float) -> None:
    rng = np.random.default_rng(2)
    vertices = body.v_template.astype(np.float64)
    points = vertices[rng.integers(0, len(vertices), 40)] + rng.normal(size=(40, 3)) * offset
    found = bound_points(vertices, body.faces, *surface_binding(points, vertices, body.faces))
    for point, nearest in zip(points, found, strict=True):
        # each triangle by itself, so that no choice among triangles is left to the code under test
        every = np.stack([point] * len(body.faces))
        alone = np.arange(3 * len(body.faces), dtype=np.int32).reshape(-1, 3)
        best = all_distances(every, vertices[body.faces].reshape(-1, 3), alone).min()
        np.testing.assert_allclose(np.linalg.norm(nearest - point), best, atol=1e-9)


def all_distances(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Distance of point i to triangle i: to the plane where the foot is inside, else to the nearest edge."""
    a, b, c = vertices[faces].swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    distance = np.full(len(points), np.inf)
    sides = []
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        share = (((points - start) * edge).sum(1) / (edge * edge).sum(1)).clip(0, 1)
        distance = np.minimum(distance, np.linalg.norm(start + share[:, None] * edge - points, axis=1))
        sides.append((np.cross(edge, points - start) * normal).sum(1) >= 0)
    height = np.abs(((points - a) * normal).sum(1)) / np.linalg.norm(normal, axis=1)
    return np.where(np.all(sides, axis=0), height, distance)


def test_a_large_triangle_is_not_hidden_by_small_ones() -> None:
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(30), indexing="ij"), -1).reshape(-1, 2) * 0.001
    small = np.column_stack([grid, np.zeros(len(grid))])
    corner = np.arange(900).reshape(30, 30)[:-1, :-1].ravel()
    faces = np.concatenate([np.stack([corner, corner + 1, corner + 30], 1), np.array([[900, 901, 902]])]).astype(
        np.int32
    )
    vertices = np.concatenate([small, np.array([[-1, -1, 0.02], [1, -1, 0.02], [0, 2, 0.02]])])
    index, barycentric = surface_binding(np.array([[0.015, 0.015, 0.012]]), vertices, faces)
    assert index[0] == len(faces) - 1
    np.testing.assert_allclose(barycentric[0] @ vertices[900:], [0.015, 0.015, 0.02], atol=1e-12)


def test_unusable_meshes_and_points_are_told(body: BodyModel) -> None:
    with pytest.raises(InvalidInputError, match="no faces"):
        surface_binding(np.zeros((1, 3)), np.zeros((3, 3)), np.zeros((0, 3), np.int32))
    points = np.zeros((5, 3))
    points[3, 1] = np.nan
    with pytest.raises(InvalidInputError, match=r"points\[3, 1\] is nan"):
        bind_to_body(points, body)


@pytest.mark.parametrize("betas", [None, BETAS])
def test_gaussians_at_the_vertices_move_as_the_vertices_do(
    body: BodyModel, metadata: AvatarMetadata, betas: np.ndarray | None
) -> None:
    avatar = rig_gaussians(make_gaussians(body.rest_vertices(betas)), body, metadata, betas)
    avatar.validate()
    rng = np.random.default_rng(3)
    pose = SmplxPose(
        rotvec=(0.2 * rng.normal(size=(55, 3))).astype(np.float32),
        transl=np.array([0.1, -0.2, 3], np.float32),
        expression=np.zeros(0, np.float32),
        timestamp_s=0.0,
    )
    posed = pose_gaussians(avatar, joint_matrices(pose, avatar.rest_joints))
    vertices, _ = body.pose_vertices(pose, betas)
    np.testing.assert_allclose(posed.means, vertices, atol=2e-4)

    still = replace(pose, rotvec=np.zeros((55, 3), np.float32), expression=rng.random(52).astype(np.float32))
    posed = pose_gaussians(avatar, joint_matrices(still, avatar.rest_joints), still.expression)
    moved = body.rest_vertices(betas, still.expression) + still.transl
    np.testing.assert_allclose(posed.means, moved, atol=52 * EXPRESSION_FLOOR_M / 4)


def test_weights_are_those_of_the_surface(body: BodyModel) -> None:
    wrist = body.rest_joints()[JOINT_NAMES.index("left_wrist")]
    elbow = body.rest_joints()[JOINT_NAMES.index("left_elbow")]
    middle = (0.5 * (wrist + elbow))[None] + np.array([[0, 0.06, 0]], np.float32)
    joints, weights, moved, _ = bind_to_body(middle, body)
    assert JOINT_NAMES[joints[0, 0]] == "left_elbow"
    assert weights[0, 0] > 0.5
    assert len(moved) == 0


def test_no_more_influences_than_needed(body: BodyModel) -> None:
    joints, weights, _, _ = bind_to_body(body.v_template, body)
    assert joints.shape == weights.shape
    assert joints.shape[1] == min(8, (body.skin_weights > 0).sum(axis=1).max())
    assert weights[:, -1].max() > 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_expressions_fade_out_with_the_distance_from_the_skin(body: BodyModel) -> None:
    brow = body.expression_directions[:, :, body.expression_names.index("browOuterUpLeft")]
    vertex = int(np.linalg.norm(brow, axis=1).argmax())
    neighbours = body.v_template[body.faces[(body.faces == vertex).any(axis=1)]]
    normal = np.cross(neighbours[:, 1] - neighbours[:, 0], neighbours[:, 2] - neighbours[:, 0]).sum(axis=0)
    normal /= np.linalg.norm(normal)
    near, far = EXPRESSION_REACH_M
    distances = np.array([0.0, 0.5 * near, 0.5 * (near + far), far + 0.02])
    points = body.v_template[vertex] + distances[:, None] * normal
    _, _, moved, directions = bind_to_body(points, body)
    assert moved.tolist() == [0, 1, 2]
    length = np.linalg.norm(directions, axis=2).max(axis=1)
    assert length[0] == pytest.approx(np.linalg.norm(body.expression_directions[vertex], axis=0).max(), rel=1e-4)
    assert length[2] < 0.75 * length[1]


def test_only_noticeable_expressions_are_kept(body: BodyModel) -> None:
    _, _, moved, directions = bind_to_body(body.v_template, body)
    assert directions.shape == (len(moved), 52, 3)
    assert np.linalg.norm(directions, axis=2).max(axis=1).min() >= EXPRESSION_FLOOR_M
    still = np.setdiff1d(np.arange(len(body.v_template)), moved)
    assert np.linalg.norm(body.expression_directions[still], axis=1).max() < 1.01 * EXPRESSION_FLOOR_M
    assert 1000 < len(moved) < len(body.v_template) / 2


def test_a_rigged_avatar_survives_its_file(body: BodyModel, metadata: AvatarMetadata, tmp_path: Path) -> None:
    avatar = rig_gaussians(make_gaussians(body.v_template[::10]), body, metadata)
    save_avatar(avatar, tmp_path / "a.avatar")
    loaded = load_avatar(tmp_path / "a.avatar")
    np.testing.assert_array_equal(loaded.skin_weights, avatar.skin_weights)
    np.testing.assert_allclose(loaded.expression_directions, avatar.expression_directions, atol=5e-5)
    assert loaded.expression_names == body.expression_names


def test_no_gaussians_at_all_can_be_rigged(body: BodyModel, metadata: AvatarMetadata) -> None:
    avatar = rig_gaussians(make_gaussians(np.zeros((0, 3))), body, metadata)
    avatar.validate()
    assert len(avatar) == 0


def test_gaussians_that_are_not_on_the_body_are_told(body: BodyModel, metadata: AvatarMetadata) -> None:
    for means in (body.v_template * 100, body.v_template + np.array([0, 0, 3], np.float32)):
        with pytest.raises(
            InvalidInputError, match=r"13718 Gaussians are over 0\.5 m off the body: expected zero pose"
        ):
            rig_gaussians(make_gaussians(means), body, metadata)


def test_metadata_of_another_body_are_told(body: BodyModel, metadata: AvatarMetadata) -> None:
    with pytest.raises(InvalidInputError, match="metadata name body model 'SMPLX_NEUTRAL'"):
        rig_gaussians(make_gaussians(body.v_template[:3]), body, replace(metadata, body_model="SMPLX_NEUTRAL"))
