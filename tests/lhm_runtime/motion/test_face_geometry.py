import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.motion.face_geometry import FOV_Y_DEG, canonical_face, fit_face


def points_of(rotvec: np.ndarray, t: np.ndarray, width: int, height: int) -> np.ndarray:
    """The canonical points in a picture, with depths as MediaPipe gives them: weak perspective, scale of x."""
    face = canonical_face()
    placed = face.points @ rotvec_to_matrix(rotvec).T + t
    focal = 0.5 * height / np.tan(np.radians(FOV_Y_DEG) / 2)
    distance = -placed[:, 2]
    image = np.column_stack(
        [0.5 * width + focal * placed[:, 0] / distance, 0.5 * height - focal * placed[:, 1] / distance]
    )
    depth = focal * (distance - distance.mean()) / distance.mean()
    points = np.empty((478, 3))
    points[:] = [*image.mean(0), 0]
    points[face.indices] = np.column_stack([image, depth])
    return points


def test_the_canonical_face_is_a_face() -> None:
    face = canonical_face()
    assert len(face.indices) == len(face.points) == len(face.weights) == 33
    assert face.indices.max() < 468
    assert (face.weights > 0).all()
    right, left = (face.points[list(face.indices).index(i)] for i in (33, 263))  # outer corners of the eyes
    assert right[0] < 0 < left[0]
    assert 7 < left[0] - right[0] < 11  # centimetres
    np.testing.assert_allclose(right * [-1, 1, 1], left, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    st.tuples(st.floats(-10, 10), st.floats(-8, 8), st.floats(-120, -35)),
    st.sampled_from([(1280, 720), (720, 1280), (640, 480)]),
)
def test_a_face_is_found_where_it_was_put(
    rotvec: tuple[float, ...], t: tuple[float, ...], size: tuple[int, int]
) -> None:
    found = fit_face(points_of(np.array(rotvec), np.array(t), *size), *size)
    assert found is not None
    R = found[:3, :3].astype(np.float64)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-5)
    turn = np.arccos(np.clip((np.trace(R.T @ rotvec_to_matrix(np.array(rotvec))) - 1) / 2, -1, 1))
    assert np.degrees(turn) < 4  # weak perspective is an approximation
    assert np.linalg.norm(found[:3, 3] - t) < 0.06 * abs(t[2])


@pytest.mark.parametrize("points", [np.zeros((478, 3)), np.full((478, 3), 7.0), np.full((478, 3), np.nan)])
def test_points_that_are_no_face(points: np.ndarray) -> None:
    assert fit_face(points, 640, 480) is None
