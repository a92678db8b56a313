from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import Part, study
from lhm_runtime.reconstruction.builtin_person.sampling import scatter
from lhm_runtime.reconstruction.colouring import (
    Observation,
    blend,
    find_spill,
    match_exposure,
    read_colours,
    strange_rims,
)
from lhm_runtime.reconstruction.mesh_image import MeshImage


def observation(rgb, confidence):
    return Observation(rgb, confidence, np.ones(len(rgb)))


def test_colours_are_read_bilinearly_with_centres_at_half():
    image = np.float32([[0, 1], [2, 3]])
    xy = np.array([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5], [1.0, 1.0], [-5, -5], [9, 9]])
    np.testing.assert_allclose(read_colours(image, xy), [0, 1, 2, 1.5, 0, 3], atol=5e-3)
    rgb = np.dstack([image, 10 * image])
    np.testing.assert_allclose(read_colours(rgb, xy[3:4]), [[1.5, 15]])


def test_exposure_is_matched_by_parts_that_both_photos_show():
    rng = np.random.default_rng(0)
    part = np.repeat([Part.TORSO, Part.HEAD, Part.LEFT_LEG, Part.RIGHT_ARM], 200)
    truth = np.array([[0.6, 0.2, 0.2], [0.7, 0.6, 0.5], [0.2, 0.2, 0.5], [0.5, 0.5, 0.5]]).repeat(200, axis=0)
    front = rng.random(800) < 0.5
    first = observation(truth + 0.02 * rng.standard_normal((800, 3)), front.astype(float))
    other = observation(0.75 * truth + 0.02 * rng.standard_normal((800, 3)), (~front).astype(float))
    matched = match_exposure(other, first, part)
    np.testing.assert_allclose(matched.gain, 1 / 0.75, rtol=0.06)
    np.testing.assert_allclose(matched.rgb, np.clip(other.rgb * matched.gain, 0, 1))


def test_exposure_stays_when_too_little_is_common():
    part = np.full(300, Part.TORSO)
    first, other = (observation(np.full((300, 3), v), np.ones(300)) for v in (0.8, 0.4))
    assert match_exposure(other, first, part) is other


@pytest.fixture(scope="module")
def skin():
    """Samples all over the body, and how far to their left they are, -1 to 1 across the trunk."""
    body = BodyModel.default()
    anatomy = study(body)
    samples = scatter(body.v_template.astype(float), anatomy.faces, np.ones(len(body.v_template)), 6000, seed=0)
    return samples, anatomy, np.clip(samples.points[:, 0] / 0.15, -1, 1)


def test_one_photo_is_taken_as_it_is(skin):
    samples, anatomy, across = skin
    only = observation(np.random.default_rng(0).random((len(across), 3)), np.ones(len(across)))
    blended = blend([only], samples, np.zeros(len(across), bool), anatomy)
    np.testing.assert_array_equal(blended.rgb, only.rgb)
    np.testing.assert_array_equal(blended.shares, 1)
    np.testing.assert_array_equal(blended.shifts, 0)


def test_two_photos_meet_without_a_seam_and_keep_their_detail(skin):
    """One sees the left side well, the other the right, in another light; both see the same fine pattern."""
    samples, anatomy, across = skin
    detail = 0.1 * np.random.default_rng(0).choice([-1.0, 1.0], len(across))[:, None]
    light = 0.15
    left = replace(observation(0.5 + detail.repeat(3, axis=1), (across > -0.6) * 1.0), facing=(1 + across) / 2)
    right = replace(observation(0.5 + light + detail.repeat(3, axis=1), (across < 0.6) * 1.0), facing=(1 - across) / 2)
    blended = blend([left, right], samples, np.zeros(len(across), bool), anatomy)
    rgb, shares = blended.rgb, blended.shares
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    assert shares[0, across > 0.9].min() > 0.9
    assert shares[1, across < -0.9].min() > 0.9
    tone = rgb[:, 0] - detail[:, 0]
    assert np.abs(tone[across > 0.99] - 0.5).mean() < 0.03
    assert np.abs(tone[across < -0.99] - 0.5 - light).mean() < 0.03
    trunk = np.flatnonzero((np.abs(samples.points[:, 1] - samples.points[:, 1].mean()) < 0.5) & (np.abs(across) < 1))
    near, there = cKDTree(samples.points[trunk]).query(samples.points[trunk], k=2)
    step = np.abs(tone[trunk][there[:, 1]] - tone[trunk])[near[:, 1] < 0.02]
    assert np.quantile(step, 0.95) < 0.25 * light  # a seam would be a step of the whole difference


def test_what_one_photo_does_not_see_is_the_others(skin):
    samples, anatomy, across = skin
    first, other = (
        observation(np.full((len(across), 3), v), c.astype(float)) for v, c in ((0.2, across > 0), (0.8, across <= 0))
    )
    rgb = blend(
        [first, other],
        samples,
        np.zeros(len(across), bool),
        anatomy,
    ).rgb
    np.testing.assert_allclose(rgb[across > 0], 0.2, atol=1e-6)
    np.testing.assert_allclose(rgb[across <= 0], 0.8, atol=1e-6)


def test_the_head_is_the_first_photos_where_it_shows_it(skin):
    samples, anatomy, across = skin
    first, other = (observation(np.full((len(across), 3), v), np.ones(len(across))) for v in (0.2, 0.8))
    rgb = blend([first, other], samples, np.ones(len(across), bool), anatomy).rgb
    np.testing.assert_allclose(rgb, 0.2, atol=1e-6)


def test_a_hand_on_trousers_is_not_taken_for_the_shoes_colour(skin):
    """Legs fill the left half of a picture, an arm the right one; leather shoes look like the hand."""
    _, anatomy, _ = skin
    rng, count = np.random.default_rng(0), 2000
    part = rng.choice([Part.LEFT_LEG, Part.LEFT_FOOT, Part.RIGHT_ARM, Part.RIGHT_HAND], count, p=[0.5, 0.1, 0.3, 0.1])
    legs = np.isin(part, (Part.LEFT_LEG, Part.LEFT_FOOT))
    xy = np.stack(
        [np.where(legs, rng.uniform(0, 50, count), rng.uniform(50, 100, count)), rng.uniform(0, 60, count)], 1
    )
    xy[part == Part.LEFT_FOOT, 0] /= 10
    tone, cloth = np.array([0.6, 0.4, 0.35]), np.array([0.05, 0.05, 0.06])
    rgb = np.where(np.isin(part, (Part.LEFT_LEG, Part.RIGHT_ARM))[:, None], cloth, tone)
    printed = (part == Part.LEFT_LEG) & (xy[:, 0] > 47)
    rgb[printed] = tone
    rgb += 0.01 * rng.standard_normal(rgb.shape)
    first = [np.flatnonzero(anatomy.part[anatomy.faces[:, 0]] == p)[0] for p in (Part.LEFT_LEG, Part.RIGHT_ARM)]
    drawn = MeshImage(np.repeat(np.int32([first]), 50, axis=1).repeat(60, axis=0), np.ones((60, 100), np.float32))
    yes, no = np.ones(count, bool), np.zeros(count, bool)
    spilt = find_spill(rgb, yes, no, xy, part.astype(np.int64), no, drawn, 200.0, anatomy)
    np.testing.assert_array_equal(spilt, printed)


def test_a_lamp_behind_a_head_is_strange_to_its_rim_and_hair_before_it_is_not():
    random = np.random.default_rng(0)
    points, rgb = (
        random.uniform(0, 0.1, (300, 3)),
        np.tile([0.6, 0.4, 0.3], (300, 1)) * random.uniform(0.9, 1, (300, 1)),
    )
    rim = np.arange(300) >= 200
    rgb[250:275], rgb[275:] = 1.0, 0.1
    everywhere, sure = np.ones(300, bool), np.ones(300)
    assert strange_rims(rgb, sure, rim, points, everywhere).tolist() == list(range(250, 300))
    assert strange_rims(rgb, sure, rim, points, everywhere, lighter=True).tolist() == list(range(250, 275))
