import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import Part, study
from lhm_runtime.reconstruction.builtin_person.sampling import scatter
from lhm_runtime.reconstruction.complexion import even_out

TONE, HAIR = np.array([0.8, 0.6, 0.5]), np.array([0.2, 0.1, 0.1])
NO_FACE = np.zeros(5000, bool)


@pytest.fixture(scope="module")
def head():
    """Samples of the head's outer skin, its anatomy, and which of them are skin: the rest is hair."""
    body = BodyModel.default()
    anatomy = study(body)
    on_head = anatomy.outer & (anatomy.part[anatomy.faces] == Part.HEAD).all(axis=1)
    faces = np.flatnonzero(on_head)
    samples = scatter(body.v_template.astype(float), anatomy.faces[faces], np.ones(len(body.v_template)), 5000, seed=0)
    samples = samples.on(faces)
    return samples, anatomy, samples.points[:, 2] > np.quantile(samples.points[:, 2], 0.4)


def streaked(skin):
    rng = np.random.default_rng(1)
    light = np.where(rng.random(len(skin)) < 0.2, 0.6, 1.0)[:, None]
    return np.where(skin[:, None], TONE * light, HAIR)


def test_streaks_on_skin_that_turns_away_are_gone_and_no_hair_gets_in(head):
    samples, anatomy, skin = head
    rgb = streaked(skin)
    even = even_out(rgb, skin, NO_FACE, np.zeros(len(skin)), samples, anatomy)
    assert even[skin].std(axis=0).max() < 0.4 * rgb[skin].std(axis=0).max()
    assert np.abs(even[skin] - TONE).max() < 0.3
    np.testing.assert_array_equal(even[~skin], rgb[~skin].astype(np.float32))


def test_skin_that_faces_the_camera_stays(head):
    samples, anatomy, skin = head
    rgb = streaked(skin)
    even = even_out(rgb, skin, NO_FACE, np.full(len(skin), 0.9), samples, anatomy)
    np.testing.assert_array_equal(even, rgb.astype(np.float32))


def test_ears_with_light_behind_them_are_as_the_face_is_and_lips_stay_red(head):
    samples, anatomy, skin = head
    face = skin & (np.abs(samples.points[:, 0] - samples.points[:, 0].mean()) < 0.05)
    lips, ears = face & (samples.points[:, 1] < np.quantile(samples.points[:, 1], 0.3)), skin & ~face
    rgb = np.where(skin[:, None], TONE, HAIR)
    rgb[lips | ears] = [0.8, 0.3, 0.25]
    even = even_out(rgb, skin, face, np.full(len(skin), 0.9), samples, anatomy)
    np.testing.assert_array_equal(even[~ears], rgb[~ears].astype(np.float32))
    redder = even[ears][:, 0] - even[ears][:, 1:].mean(axis=1)
    assert redder.max() < 0.5 * (0.8 - 0.275) + 0.1
    np.testing.assert_allclose(even[ears].mean(axis=1), rgb[ears].mean(axis=1), atol=1e-3)
