"""Lids that close."""

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import study
from lhm_runtime.reconstruction.builtin_person.figure import express
from lhm_runtime.reconstruction.builtin_person.skin import EYE_LOWER, EYE_UPPER
from lhm_runtime.reconstruction.discs import BLINKS
from lhm_runtime.reconstruction.eyelids import Lids, fit_blinks, paint_lids, sink_behind_lids


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


def slit(body, vertices):
    """Heights of the opening in the middle of both eyes, metres; below 0 the upper lid lies over the lower one."""
    height = study(body).landmarks @ vertices[:, 1]
    return np.array([height[upper[4]] - height[lower[4]] for upper, lower in zip(EYE_UPPER, EYE_LOWER, strict=True)])


@pytest.mark.parametrize("wider", [-0.25, 0.35])
def test_wide_and_narrow_eyes_close_as_the_bodys_own(body, wider):
    own = body.v_template.astype(np.float64)
    person = express(own, body, BLINKS, -wider)
    fitted = fit_blinks(person, body, study(body))
    shut, wanted = slit(body, express(person, fitted, BLINKS)), slit(body, express(own, body, BLINKS))
    assert np.abs(slit(body, express(person, body, BLINKS)) - wanted).min() > 2e-3
    np.testing.assert_allclose(shut, wanted, atol=5e-4)


def test_lids_take_the_skin_around_them_and_keep_dark_edges():
    rng = np.random.default_rng(0)
    skin, lid, brow = np.array([0.8, 0.6, 0.5]), slice(100, 140), slice(90, 100)
    rgb = np.tile(skin, (140, 1))
    rgb[lid], rgb[brow] = 0.1, 0.15  # an iris was read where the lid will be
    share, around, lash = np.zeros((2, 140)), np.zeros((2, 140), bool), np.zeros(140)
    share[0, lid], around[0, :100], lash[130:140] = 1.0, True, 1.0
    lids = Lids(share, lash, rng.uniform(-0.02, 0.02, (140, 3)), around)
    assert lids.folded.sum() == 40
    painted = paint_lids(rgb, np.ones(140), lids)
    np.testing.assert_allclose(painted[100:130], np.tile(skin, (30, 1)), atol=1e-6)
    assert painted[130:].max() < 0.5 * skin.max()
    np.testing.assert_array_equal(painted[:100], rgb[:100])


def test_eyeball_that_sticks_out_of_closed_lids_goes_back(body):
    anatomy, rest = study(body), body.v_template.astype(np.float64)
    ball = rest[anatomy.left_eye]
    back = sink_behind_lids(ball, rest, body, anatomy)
    assert back > 0
    assert sink_behind_lids(ball + [0, 0, 0.001], rest, body, anatomy) == pytest.approx(back + 0.001, abs=3e-4)
    assert sink_behind_lids(ball - [0, 0, back], rest, body, anatomy) == pytest.approx(0, abs=3e-4)
