import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.motion.directions import (
    arc,
    axis_and_angle,
    cross,
    dot,
    ease,
    frame,
    matrix_to_rotvec_below_pi,
    rotate,
    smoothstep,
    turn,
    twist,
    unit,
    wrap,
)

VECTORS = arrays(np.float64, (4, 3), elements=st.floats(-2, 2)).filter(
    lambda v: (np.linalg.norm(v, axis=1) > 0.05).all()
)


def is_rotation(R: np.ndarray) -> bool:
    return np.allclose(R @ R.swapaxes(-1, -2), np.eye(3), atol=1e-7) and bool((np.linalg.det(R) > 0).all())


@given(a=VECTORS, b=VECTORS)
def test_products_are_numpys(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(cross(a, b), np.cross(a, b), atol=1e-12)
    np.testing.assert_allclose(dot(a, b), (a * b).sum(-1), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(unit(a), axis=1), 1, atol=1e-12)


@given(a=VECTORS, b=VECTORS)
def test_an_arc_takes_one_direction_to_the_other_without_twist(a: np.ndarray, b: np.ndarray) -> None:
    a, b = unit(a), unit(b)
    apart = np.linalg.norm(a + b, axis=1) > 1e-3
    a, b = a[apart], b[apart]
    R = arc(2 * a, 3 * b)
    assert is_rotation(R)
    np.testing.assert_allclose(rotate(R, a), b, atol=1e-7)
    axis = np.cross(a, b)
    np.testing.assert_allclose(rotate(R, axis), axis, atol=1e-7)


def test_an_arc_between_opposite_directions_is_still_finite() -> None:
    assert np.isfinite(arc(np.array([1.0, 0, 0]), np.array([-1.0, 0, 0]))).all()


@given(a=VECTORS, b=VECTORS)
def test_a_frame_has_the_first_direction_and_the_half_plane_of_the_second(a: np.ndarray, b: np.ndarray) -> None:
    apart = np.linalg.norm(np.cross(unit(a), unit(b)), axis=1) > 1e-3
    a, b = a[apart], b[apart]
    R = frame(a, b)
    assert is_rotation(R)
    np.testing.assert_allclose(R[:, :, 0], unit(a), atol=1e-9)
    assert (dot(R[:, :, 1], b) > 0).all()
    np.testing.assert_allclose(dot(R[:, :, 2], b), 0, atol=1e-7)


def test_a_frame_of_nothing_is_finite_and_no_rotation() -> None:
    parallel = frame(np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([[0.0, 1, 0], [2, 0, 0]]))
    np.testing.assert_allclose(matrix_to_rotvec_below_pi(np.zeros((2, 3, 3))), 0)
    assert np.isfinite(parallel).all()


@given(v=VECTORS)
def test_rotvecs_below_half_a_turn_come_back(v: np.ndarray) -> None:
    v = v * np.minimum(1, 3.1 / np.linalg.norm(v, axis=1, keepdims=True))
    np.testing.assert_allclose(matrix_to_rotvec_below_pi(rotvec_to_matrix(v)), v, atol=1e-7)
    tiny = 1e-9 * v
    np.testing.assert_allclose(matrix_to_rotvec_below_pi(rotvec_to_matrix(tiny)), tiny, atol=1e-15)


@given(v=VECTORS)
def test_axis_and_angle_make_the_rotation(v: np.ndarray) -> None:
    R = rotvec_to_matrix(v * np.minimum(1, 3.1 / np.linalg.norm(v, axis=1, keepdims=True)))
    axis, angle = axis_and_angle(R)
    np.testing.assert_allclose(turn(axis, angle), R, atol=1e-9)


def test_without_an_axis_nothing_turns() -> None:
    for R in (np.eye(3), np.diag([1.0, -1, -1])):  # half a turn has no axis here
        axis, angle = axis_and_angle(R[None])
        np.testing.assert_allclose(turn(axis, angle), np.eye(3)[None], atol=1e-12)


def test_easing_goes_by_the_clock() -> None:
    tau_s = np.array([0.2, 0.5])
    twice = 1 - (1 - ease(0.1, tau_s)) ** 2
    np.testing.assert_allclose(ease(0.2, tau_s), twice, atol=1e-4)
    np.testing.assert_allclose(ease(0.0, tau_s), 0, atol=1e-4)
    np.testing.assert_array_equal(ease(np.inf, tau_s), 1)
    np.testing.assert_array_equal(ease(0.0, np.zeros(1)), 1)


def test_a_smooth_step() -> None:
    np.testing.assert_allclose(smoothstep(np.array([-1.0, 0, 0.5, 1, 2])), [0, 0, 0.5, 1, 1])


@given(swing=st.floats(0, 3.0), turn=st.floats(-3.1, 3.1), heading=st.floats(0, 6.28))
def test_twist_is_what_is_left_of_a_swing(swing: float, turn: float, heading: float) -> None:
    axis = np.array([[0.0, 0, 1]])
    across = swing * np.array([[np.cos(heading), np.sin(heading), 0.0]])
    R = rotvec_to_matrix(across) @ rotvec_to_matrix(turn * axis)
    np.testing.assert_allclose(twist(R, axis), turn, atol=1e-6)


@pytest.mark.parametrize(
    ("angle", "wrapped"), [(0.0, 0.0), (4.0, 4 - 2 * np.pi), (-4.0, 2 * np.pi - 4), (7.0, 7 - 2 * np.pi)]
)
def test_wrapped_angles(angle: float, wrapped: float) -> None:
    np.testing.assert_allclose(wrap(np.array([angle])), wrapped, atol=1e-12)
