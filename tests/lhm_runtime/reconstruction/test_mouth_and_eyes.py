"""What is behind the lips."""

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import study
from lhm_runtime.reconstruction.builtin_person.features import teeth_depth
from lhm_runtime.reconstruction.mouth_and_eyes import make_inside

COUNT = 1_200
LIP = 13


@pytest.fixture(scope="module")
def mouth():
    """Places of what is in the mouth, from the upper lip's edge, and which of it are teeth."""
    body = BodyModel.default()
    anatomy, rest = study(body), body.v_template.astype(np.float64)
    tone = np.array([0.85, 0.65, 0.55])
    joints = body.rest_joints(np.zeros(len(body.beta_names), np.float32)).astype(np.float64)
    _, inside = make_inside(rest, joints, COUNT, tone, body, anatomy)
    return inside.means - (anatomy.landmarks @ rest)[LIP], inside.rigid_joint >= 0


def test_upper_teeth_reach_below_the_lip_and_rows_are_behind_it(mouth):
    places, tooth = mouth
    teeth = places[tooth]
    assert tooth.sum() == round(0.14 * COUNT)
    assert teeth[: len(teeth) // 2, 1].min() < -0.006
    assert teeth[:, 2].max() < -0.008


def test_nothing_in_the_mouth_lies_before_the_teeth(mouth):
    places, tooth = mouth
    x, y, z = places[~tooth].T
    assert len(x) > 0.4 * COUNT
    assert (z < teeth_depth(x) + 0.002).all()
    assert y.max() < 0.02  # or it shows through the cheeks
