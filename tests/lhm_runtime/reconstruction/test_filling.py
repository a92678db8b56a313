import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import Part, study
from lhm_runtime.reconstruction.builtin_person.figure import widest_stretch
from lhm_runtime.reconstruction.discs import disc_sizes, sample_normals, spread
from lhm_runtime.reconstruction.filling import Surface, fill_unseen
from lhm_runtime.reconstruction.hair import on_scalp

COUNT = 6_000
SHIRT, SKIN, JEANS, HAIR = (0.2, 0.6, 0.3), (0.85, 0.65, 0.55), (0.2, 0.25, 0.5), (0.15, 0.1, 0.08)


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


@pytest.fixture(scope="module")
def surface(body):
    anatomy = study(body)
    rest = body.v_template.astype(np.float64)
    stretch = widest_stretch(body, rest, anatomy.faces)
    return Surface.of(spread(rest, np.zeros(len(rest)), COUNT, stretch, body, anatomy), rest, body, anatomy)


@pytest.fixture(scope="module")
def dressed(surface, body):
    """True colours of a simple outfit."""
    rgb = np.tile(SKIN, (COUNT, 1))
    rgb[np.isin(surface.part, (Part.TORSO, Part.LEFT_ARM, Part.RIGHT_ARM))] = SHIRT
    rgb[np.isin(surface.part, (Part.LEFT_LEG, Part.RIGHT_LEG))] = JEANS
    rgb[scalp(surface, body, study(body))] = HAIR
    return rgb


def scalp(surface, body, anatomy):
    return on_scalp(surface.template, (surface.part == Part.HEAD) & ~surface.face, body, anatomy)


def fill(rgb, seen, surface, body, strands=None):
    anatomy = study(body)
    hairy, hat = scalp(surface, body, anatomy), np.zeros(len(seen), bool)
    return fill_unseen(np.where(seen[:, None], rgb, 1.0), seen.astype(float), surface, hairy, hat, strands, anatomy)


def test_samples_are_as_many_as_wanted_and_none_is_in_the_mouth(surface, body):
    anatomy = study(body)
    assert len(surface.part) == COUNT
    assert anatomy.outer[surface.samples.triangles].all()
    share = np.isin(surface.part, (Part.HEAD, Part.NECK)).mean()
    assert 0.2 < share < 0.5


def test_discs_are_about_as_wide_as_the_gaps_between_them(surface, body):
    anatomy = study(body)
    normals = sample_normals(surface.rest, surface.samples, anatomy)
    stretch = widest_stretch(body, surface.rest, anatomy.faces)
    sizes = disc_sizes(surface.samples, normals, stretch, anatomy)
    torso = surface.part == Part.TORSO
    ratio = np.median(sizes[torso]) / np.median(surface.samples.spacing[torso])
    assert 0.4 < ratio < 1
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_the_back_gets_the_colours_of_the_front(surface, dressed, body):
    filled = fill(dressed, surface.samples.normals[:, 2] > 0.2, surface, body)
    error = np.abs(filled - dressed).max(axis=1)
    for part in (Part.TORSO, Part.LEFT_LEG, Part.RIGHT_ARM):
        assert (error[surface.part == part] < 0.15).mean() > 0.95
    assert (error[scalp(surface, body, study(body))] < 0.15).mean() > 0.9


def test_what_is_seen_stays_as_it_is(surface, dressed, body):
    seen = surface.samples.normals[:, 2] > 0.2
    filled = fill(dressed, seen, surface, body)
    np.testing.assert_allclose(filled[seen], dressed[seen], atol=1e-9)


def test_a_limb_out_of_sight_is_like_its_fellow(surface, dressed, body):
    rgb = dressed.copy()
    striped = (surface.part == Part.LEFT_LEG) & (np.sin(surface.template[:, 1] * 30) > 0)
    rgb[striped] = (0.9, 0.9, 0.2)
    filled = fill(rgb, surface.part != Part.RIGHT_LEG, surface, body)
    other = surface.part == Part.RIGHT_LEG
    wanted = np.where(np.sin(surface.template[:, 1:2] * 30) > 0, (0.9, 0.9, 0.2), JEANS)
    assert (np.abs(filled - wanted).max(axis=1)[other] < 0.3).mean() > 0.8


def test_hands_out_of_sight_have_the_colour_of_the_face(surface, dressed, body):
    hands = np.isin(surface.part, (Part.LEFT_HAND, Part.RIGHT_HAND))
    np.testing.assert_allclose(np.median(fill(dressed, ~hands, surface, body)[hands], axis=0), SKIN, atol=0.05)


def test_a_person_of_whom_nothing_is_seen_is_grey(surface, dressed, body):
    np.testing.assert_array_equal(fill(dressed, np.zeros(COUNT, bool), surface, body), 0.5)


def test_a_coats_hem_is_as_high_behind_as_in_front(surface, dressed, body):
    rgb = dressed.copy()
    hem = -0.1 + surface.template[surface.part == Part.LEFT_LEG, 1].max()
    coat = np.isin(surface.part, (Part.TORSO, Part.LEFT_LEG, Part.RIGHT_LEG))
    rgb[coat] = np.where(surface.template[coat, 1:2] > hem, SHIRT, JEANS)
    filled = fill(rgb, surface.samples.normals[:, 2] > 0.2, surface, body)
    off_hem = coat & (np.abs(surface.template[:, 1] - hem) > 0.03)
    assert (np.abs(filled - rgb).max(axis=1)[off_hem] < 0.15).mean() > 0.97


def test_folds_of_the_front_are_no_bands_on_the_back(surface, dressed, body):
    rgb = dressed.copy()
    torso = surface.part == Part.TORSO
    rgb[torso] *= 1 + 0.2 * np.sign(np.sin(surface.template[torso, 1:2] * 60))
    filled = fill(rgb, surface.samples.normals[:, 2] > 0.2, surface, body)
    above_belt = surface.template[:, 1] > np.median(surface.template[torso, 1])
    back = torso & above_belt & (surface.samples.normals[:, 2] < -0.4)
    assert filled[back].std(axis=0).max() < 0.3 * rgb[back].std(axis=0).max()
    np.testing.assert_allclose(np.median(filled[back], axis=0), SHIRT, atol=0.05)


def test_legs_that_leave_the_picture_have_one_colour(surface, dressed, body):
    rgb = dressed.copy()
    leg = np.isin(surface.part, (Part.LEFT_LEG, Part.RIGHT_LEG))
    top = surface.template[leg, 1].max()
    seen = (surface.samples.normals[:, 2] > 0.2) & (surface.template[:, 1] > top - 0.25)
    rgb[leg & (surface.template[:, 1] < top - 0.22)] = (0.9, 0.9, 0.9)  # the last row is blurred
    filled = fill(rgb, seen, surface, body)
    away = leg & (surface.template[:, 1] < top - 0.45)
    np.testing.assert_allclose(filled[away], np.tile(JEANS, (away.sum(), 1)), atol=0.1)


def test_who_is_seen_from_behind_has_a_face_of_skin(surface, dressed, body):
    behind = surface.samples.normals[:, 2] < -0.2
    filled = fill(dressed, behind & ~surface.face & (surface.part != Part.NECK), surface, body)
    error = np.abs(filled - SKIN).max(axis=1)
    assert (error[surface.face] < 0.15).mean() > 0.9


def test_a_cheek_in_the_shade_goes_on_in_the_shade(surface, dressed, body):
    rgb = dressed.copy()
    skin = (surface.part == Part.HEAD) & ~scalp(surface, body, study(body))
    middle = surface.template[skin, 0].mean()
    right = surface.template[:, 0] < middle
    rgb[skin & right] = 0.4 * np.array(SKIN)
    # seen from the left, with the rim of the right cheek out of sight
    hidden = skin & right & (surface.template[:, 0] < middle - 0.045)
    filled = fill(rgb, (surface.samples.normals[:, 2] > 0.0) & ~hidden, surface, body)
    cheek = hidden & surface.face
    assert cheek.sum() > 50
    np.testing.assert_allclose(np.median(filled[cheek], axis=0), 0.4 * np.array(SKIN), atol=0.08)


def test_the_shadow_of_an_arm_is_not_what_a_hand_hides(surface, dressed, body):
    """A hand hides some of one thigh, and the other lies in its arm's shadow: trousers are what they are around it."""
    front = surface.samples.normals[:, 2] > 0.2
    legs = np.isin(surface.part, (Part.LEFT_LEG, Part.RIGHT_LEG))
    aside = np.abs(surface.template - np.median(surface.template[surface.part == Part.LEFT_LEG], axis=0) * [0, 1, 1])
    thigh = legs & front & (aside[:, 1] < 0.3)
    rgb = dressed.copy()
    rgb[thigh & (surface.part == Part.RIGHT_LEG)] *= 0.2
    hidden = thigh & (surface.part == Part.LEFT_LEG) & (aside[:, 1] < 0.06)
    filled = fill(rgb, front & ~hidden, surface, body)
    assert hidden.sum() > 20
    np.testing.assert_allclose(np.median(filled[hidden], axis=0), JEANS, atol=0.06)


def test_who_shows_hair_beside_a_high_forehead_has_it_behind(surface, dressed, body):
    hair, facing = scalp(surface, body, study(body)), surface.samples.normals[:, 2]
    seen = facing > 0.0
    rgb = dressed.copy()
    rgb[hair & (facing > np.quantile(facing[hair & seen], 0.22))] = SKIN
    filled = fill(rgb, seen, surface, body)
    np.testing.assert_allclose(np.median(filled[hair & ~seen], axis=0), HAIR, atol=0.05)


def test_hair_is_filled_from_where_it_shows_and_not_from_skin_of_nearly_its_colour(surface, dressed, body):
    hair, facing = scalp(surface, body, study(body)), surface.samples.normals[:, 2]
    seen, dark, brown = facing > 0.0, np.array([0.33, 0.26, 0.23]), np.array([0.52, 0.36, 0.29])
    # between a bare forehead and a rim as bright as that
    ahead = surface.template[:, 2]
    low, high = np.quantile(ahead[hair & seen], [0.4, 0.7])
    strands = hair & seen & (ahead > low) & (ahead < high)
    rgb = dressed.copy()
    rgb[np.isin(surface.part, (Part.HEAD, Part.NECK))] = brown
    rgb[strands] = dark * np.random.default_rng(0).uniform(0.8, 1.2, (strands.sum(), 1))
    behind = hair & (facing < -0.2)
    filled = fill(rgb, seen, surface, body, strands)[behind]
    np.testing.assert_allclose(np.median(filled, axis=0), dark, atol=0.04)
    # and varies as what is seen of it
    assert 0.5 < filled.mean(axis=1).std() / rgb[strands].mean(axis=1).std() < 2


def test_a_collar_is_higher_behind_than_in_front(surface, dressed, body):
    rgb = dressed.copy()
    neck, seen = surface.part == Part.NECK, surface.samples.normals[:, 2] > 0.2
    _, y, z = surface.template.T
    above = y + 0.5 * z
    above -= np.median(above[neck & seen])
    rgb[neck & (above < 0)] = SHIRT
    filled = fill(rgb, seen, surface, body)
    behind = neck & (surface.samples.normals[:, 2] < -0.2)
    right = np.abs(filled - rgb).max(axis=1) < 0.15
    assert right[behind & (above > 0.015)].mean() > 0.9
    assert right[behind & (above < -0.015)].mean() > 0.9
