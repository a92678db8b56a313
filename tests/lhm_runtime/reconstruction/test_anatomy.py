import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.reconstruction.anatomy import OTHER_SIDE, Part, part_of_joint, smooth_along, study


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


@pytest.fixture(scope="module")
def anatomy(body):
    return study(body)


@pytest.mark.parametrize(
    ("joint", "part"),
    [
        ("pelvis", Part.TORSO),
        ("left_collar", Part.TORSO),
        ("neck", Part.NECK),
        ("jaw", Part.HEAD),
        ("right_eye_smplhf", Part.HEAD),
        ("left_hip", Part.LEFT_LEG),
        ("right_foot", Part.RIGHT_FOOT),
        ("right_elbow", Part.RIGHT_ARM),
        ("left_ring3", Part.LEFT_HAND),
    ],
)
def test_joints_belong_to_parts(joint, part):
    assert part_of_joint(joint) == part


def test_left_and_right_mirror_each_other():
    for name in JOINT_NAMES:
        if name.startswith("left"):
            left, right = part_of_joint(name), part_of_joint(name.replace("left", "right"))
            assert OTHER_SIDE.get(left, left) == right


def test_skin_is_outer_and_the_mouth_is_not(body, anatomy):
    middles = body.v_template[anatomy.faces].mean(axis=1)
    assert anatomy.outer[middles[:, 1] < 0.1].all()  # below the head nothing is hidden
    assert not (anatomy.outer & anatomy.inside_mouth).any()
    assert anatomy.inside_mouth.sum() > 500
    assert not np.isin(anatomy.faces[anatomy.outer], anatomy.left_eye).any()
    lip = middles[anatomy.inside_mouth][:, 2].max()
    assert lip < (anatomy.landmarks[[13]] @ body.v_template)[0, 2] + 0.005


def test_the_coarse_basis_is_a_mean_of_neighbours(body, anatomy):
    np.testing.assert_allclose(anatomy.coarse.sum(axis=1), 1, atol=1e-9)
    assert anatomy.coarse.data.min() > 0
    assert anatomy.coarse.shape[1] < 0.3 * anatomy.coarse.shape[0]
    # smooth functions are represented well: each vertex is about where its control points are
    normal = sp.csc_array(anatomy.coarse.T @ anatomy.coarse)
    control = spsolve(normal, anatomy.coarse.T @ body.v_template.astype(np.float64))
    assert np.abs(anatomy.coarse @ control - body.v_template).max() < 0.03


def test_landmarks_sit_on_the_face(body, anatomy):
    marks = anatomy.landmarks @ body.v_template
    assert marks[152, 1] < marks[13, 1] < marks[4, 1] < marks[10, 1]  # chin, lip, nose, forehead


def test_smoothing_keeps_constants_and_evens_out_noise(anatomy):
    count = len(anatomy.part)
    np.testing.assert_allclose(smooth_along(anatomy.average, np.ones(count), 3), 1)
    rough = np.random.default_rng(0).standard_normal((count, 2))
    assert smooth_along(anatomy.average, rough, 3).std() < 0.5 * rough.std()
