import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from lhm_runtime.body import rotations
from lhm_runtime.errors import InvalidInputError

CONVERSIONS = {
    "matrix": (rotations.rotvec_to_matrix, rotations.matrix_to_rotvec),
    "quat_wxyz": (rotations.rotvec_to_quat_wxyz, rotations.quat_wxyz_to_rotvec),
}

axes = arrays(np.float64, 3, elements=st.floats(-1, 1)).filter(lambda a: np.linalg.norm(a) > 1e-3)
angles = st.one_of(
    st.floats(0, np.pi),
    st.floats(0, 1e-6),
    st.floats(0, 1e-6).map(lambda gap: np.pi - gap),
    st.sampled_from([0.0, 5e-324, 1e-200, 1e-12, np.pi / 2, np.pi]),
)
rotvecs = st.builds(lambda axis, angle: axis / np.linalg.norm(axis) * angle, axes, angles)


@given(rotvec=rotvecs)
def test_rotvec_to_matrix_is_what_scipy_says_and_orthonormal(rotvec: np.ndarray) -> None:
    matrix = rotations.rotvec_to_matrix(rotvec)
    np.testing.assert_allclose(matrix, Rotation.from_rotvec(rotvec).as_matrix(), atol=1e-15)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-15)
    assert np.linalg.det(matrix) == pytest.approx(1)


@given(rotvec=rotvecs)
def test_rotvec_to_quat_is_what_scipy_says(rotvec: np.ndarray) -> None:
    xyzw = Rotation.from_rotvec(rotvec).as_quat()
    quat_wxyz = rotations.rotvec_to_quat_wxyz(rotvec)
    np.testing.assert_allclose(quat_wxyz, np.roll(xyzw, 1), atol=1e-15)
    assert quat_wxyz[0] > -1e-15


@pytest.mark.parametrize("representation", CONVERSIONS)
@given(rotvec=rotvecs)
def test_rotvec_comes_back(representation: str, rotvec: np.ndarray) -> None:
    there, back = CONVERSIONS[representation]
    returned = back(there(rotvec))
    if np.linalg.norm(rotvec) > np.pi - 1e-7:  # at pi both signs of the axis are the same rotation
        returned *= np.sign(returned @ rotvec)
    np.testing.assert_allclose(returned, rotvec, rtol=1e-12, atol=1e-14)


@given(rotvec=rotvecs)
def test_small_rotations_keep_their_relative_precision(rotvec: np.ndarray) -> None:
    tiny = rotvec * 1e-9
    error = rotations.matrix_to_rotvec(rotations.rotvec_to_matrix(tiny)) - tiny
    assert np.linalg.norm(error) <= 1e-12 * np.linalg.norm(tiny)


@given(rotvec=rotvecs, turns=st.integers(1, 3))
def test_angles_beyond_pi_come_back_as_the_shortest_turn(rotvec: np.ndarray, turns: int) -> None:
    angle = np.linalg.norm(rotvec)
    if not 1e-3 < angle < np.pi - 1e-3:
        return
    wound = rotvec * (1 + turns * 2 * np.pi / angle)
    for there, back in CONVERSIONS.values():
        np.testing.assert_allclose(back(there(wound)), rotvec, atol=1e-11)


@given(rotvec=rotvecs)
def test_matrix_and_quaternion_agree(rotvec: np.ndarray) -> None:
    quat_wxyz = rotations.rotvec_to_quat_wxyz(rotvec)
    matrix = rotations.rotvec_to_matrix(rotvec)
    np.testing.assert_allclose(rotations.quat_wxyz_to_matrix(quat_wxyz), matrix, atol=1e-15)
    returned = rotations.matrix_to_quat_wxyz(matrix)
    assert abs(returned @ quat_wxyz) == pytest.approx(1)
    assert returned[0] >= 0


@given(rotvec=rotvecs, length=st.floats(1e-3, 1e3), sign=st.sampled_from([-1, 1]))
def test_length_and_sign_of_a_quaternion_do_not_matter(rotvec: np.ndarray, length: float, sign: int) -> None:
    quat_wxyz = sign * length * rotations.rotvec_to_quat_wxyz(rotvec)
    expected = rotations.rotvec_to_matrix(rotvec)
    np.testing.assert_allclose(rotations.quat_wxyz_to_matrix(quat_wxyz), expected, atol=1e-14)
    np.testing.assert_allclose(
        rotations.rotvec_to_matrix(rotations.quat_wxyz_to_rotvec(quat_wxyz)), expected, atol=1e-14
    )


@given(first=rotvecs, second=rotvecs)
def test_product_is_the_product_of_matrices_and_of_scipy(first: np.ndarray, second: np.ndarray) -> None:
    product = rotations.quat_multiply_wxyz(rotations.rotvec_to_quat_wxyz(second), rotations.rotvec_to_quat_wxyz(first))
    matrix = rotations.quat_wxyz_to_matrix(product)
    np.testing.assert_allclose(
        matrix, rotations.rotvec_to_matrix(second) @ rotations.rotvec_to_matrix(first), atol=1e-14
    )
    composed = Rotation.from_rotvec(second) * Rotation.from_rotvec(first)
    np.testing.assert_allclose(matrix, composed.as_matrix(), atol=1e-14)


@given(rotvec=rotvecs, scale=st.floats(1e-3, 1e3), shear=st.floats(-10, 10), stretch=st.floats(1e-2, 1e2))
def test_rot6d_holds_columns_and_undoes_scale_and_shear(
    rotvec: np.ndarray, scale: float, shear: float, stretch: float
) -> None:
    matrix = rotations.rotvec_to_matrix(rotvec)
    rot6d = rotations.matrix_to_rot6d(matrix)
    np.testing.assert_array_equal(rot6d, [*matrix[:, 0], *matrix[:, 1]])
    bent = np.concatenate([scale * rot6d[:3], stretch * rot6d[3:] + shear * rot6d[:3]])
    np.testing.assert_allclose(rotations.rot6d_to_matrix(bent), matrix, atol=1e-11)


@pytest.mark.parametrize(
    "columns",
    [
        [0, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 2, 3, 2, 4, 6],
        [1, 0, 0, np.nan, 0, 0],
        [np.inf, 0, 0, 0, 1, 0],
    ],
)
def test_rot6d_that_fixes_no_rotation_is_refused_with_its_index(columns: list[float]) -> None:
    with (
        pytest.raises(InvalidInputError, match="columns must be finite and not parallel"),
        np.errstate(invalid="ignore"),
    ):
        rotations.rot6d_to_matrix(np.array(columns, np.float64))
    batch = np.tile(np.array([1.0, 0, 0, 0, 1, 0]), (3, 1))
    batch[2] = columns
    with pytest.raises(InvalidInputError, match=r"rot6d\[2\]"), np.errstate(invalid="ignore"):
        rotations.rot6d_to_matrix(batch)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [(), (1,), (0,), (55,), (2, 3, 4)])
def test_every_conversion_keeps_dtype_and_leading_axes(dtype: type, batch: tuple[int, ...]) -> None:
    rotvec = np.random.default_rng(0).normal(size=(*batch, 3)).astype(dtype)
    untouched = rotvec.copy()
    matrix = rotations.rotvec_to_matrix(rotvec)
    quat_wxyz = rotations.rotvec_to_quat_wxyz(rotvec)
    rot6d = rotations.matrix_to_rot6d(matrix)
    results = {
        (3, 3): [matrix, rotations.quat_wxyz_to_matrix(quat_wxyz), rotations.rot6d_to_matrix(rot6d)],
        (4,): [
            quat_wxyz,
            rotations.matrix_to_quat_wxyz(matrix),
            rotations.quat_multiply_wxyz(quat_wxyz, quat_wxyz),
        ],
        (3,): [rotations.matrix_to_rotvec(matrix), rotations.quat_wxyz_to_rotvec(quat_wxyz)],
        (6,): [rot6d],
    }
    for shape, outputs in results.items():
        for output in outputs:
            assert output.shape == (*batch, *shape)
            assert output.dtype == dtype
    np.testing.assert_array_equal(rotvec, untouched)


def test_a_batch_is_its_rows() -> None:
    rotvec = np.random.default_rng(1).normal(size=(20, 3)) * 2
    matrix = rotations.rotvec_to_matrix(rotvec)
    for i in range(20):
        np.testing.assert_allclose(matrix[i], rotations.rotvec_to_matrix(rotvec[i]), atol=1e-15)
        np.testing.assert_allclose(
            rotations.matrix_to_quat_wxyz(matrix)[i], rotations.matrix_to_quat_wxyz(matrix[i]), atol=1e-15
        )


def test_positive_angle_about_z_turns_x_to_y() -> None:
    matrix = rotations.rotvec_to_matrix(np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(matrix @ [1, 0, 0], [0, 1, 0], atol=1e-15)
