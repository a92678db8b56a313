from dataclasses import replace

import cv2
import numpy as np
import pytest
from heads import look_at_head

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.anatomy import Part, study
from lhm_runtime.reconstruction.curtain import hang_hair
from lhm_runtime.reconstruction.hair import Head, draw_grain, fill_hair, find_hair, on_scalp, streaks, under_hair
from lhm_runtime.reconstruction.mesh_image import draw_mesh

SIZE, FOCAL, AWAY = 400, 800.0, 1.2
SKIN, SHIRT, HAIR, WALL = (0.85, 0.65, 0.55), (0.2, 0.6, 0.3), (0.15, 0.1, 0.08), (0.6, 0.6, 0.6)
MOST = 2000


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


@pytest.fixture(scope="module")
def rest(body):
    return body.v_template.astype(np.float64)


def photograph(body, rest, hem_m):
    """A head from the front whose hair hangs beside it down to so far below the eyes; nothing hangs at 0."""
    anatomy = study(body)
    eyes = rest[np.concatenate([anatomy.left_eye, anatomy.right_eye])].mean(axis=0)
    view = look_at_head(rest, eyes, SIZE, FOCAL, AWAY, rgb=WALL, alpha=0)
    mesh = draw_mesh(view.project(view.posed(rest)), anatomy.faces, SIZE, SIZE, two_sided=True)
    scalp = on_scalp(rest, ~anatomy.face & (anatomy.part == Part.HEAD), body, anatomy)
    corner = anatomy.faces[np.maximum(mesh.face, 0), 0]
    rgb = np.select(
        [scalp[corner][:, :, None], np.isin(anatomy.part[corner], (Part.HEAD, Part.NECK))[:, :, None]],
        [np.float32(HAIR), np.float32(SKIN)],
        np.float32(SHIRT),
    )
    rgb[~mesh.covered] = WALL
    alpha = mesh.covered.astype(np.float32)
    px = FOCAL / AWAY
    for left in (0.065, -0.095):
        x, y = int(SIZE / 2 + left * px), int(SIZE / 2 - 0.06 * px)
        low = int(SIZE / 2 + hem_m * px)
        if hem_m:
            rgb[y:low, x : x + int(0.03 * px)] = HAIR
            alpha[y:low, x : x + int(0.03 * px)] = 1
    rgb = np.clip(rgb + np.random.default_rng(0).normal(0, 0.01, rgb.shape), 0, 1).astype(np.float32)
    return replace(view, rgb=cv2.GaussianBlur(rgb, (0, 0), 0.5), alpha=alpha), mesh, anatomy


def hang(body, rest, hem_m):
    view, mesh, anatomy = photograph(body, rest, hem_m)
    hair = find_hair(view, mesh, body, anatomy)
    assert hair is not None
    weights = body.skin_weights.astype(np.float64)
    return hang_hair(view, mesh, hair, rest, MOST, weights, anatomy), Head.of(rest, anatomy), hair, view


@pytest.mark.parametrize("hem_m", [0.12, 0.18])
def test_long_hair_goes_round_the_back_down_to_where_it_ends_in_the_photo(body, rest, hem_m):
    hung, head, _, _ = hang(body, rest, hem_m)
    assert 300 < len(hung.means) <= MOST
    azimuth, radius, height = head.polar(hung.means)
    behind = np.abs(azimuth) < 0.5
    assert -height[behind].min() == pytest.approx(hem_m, abs=0.025)
    assert np.median(radius[behind]) == pytest.approx(head.back, abs=0.02)
    assert np.abs(hung.rgb - HAIR).max(axis=1).mean() < 0.06
    np.testing.assert_array_equal(hang(body, rest, hem_m)[0].means, hung.means)


def test_short_hair_does_not_hang(body, rest):
    assert len(hang(body, rest, 0.0)[0].means) == 0


def test_no_stroke_lies_before_the_face(body, rest):
    hung, _, hair, view = hang(body, rest, 0.15)
    T = view.zero_to_camera[JOINT_INDEX["head"]]
    image = view.project(hung.means @ T[:, :3].T + T[:, 3])
    mesh = photograph(body, rest, 0.15)[1]
    x, y = image[:, :2].astype(int).T
    before = mesh.covered[y, x] & (image[:, 2] < mesh.depth[y, x])
    assert hair.at(image[before, :2]).all()


def test_hair_is_found_where_it_is(body, rest):
    view, mesh, anatomy = photograph(body, rest, 0.15)
    hair = find_hair(view, mesh, body, anatomy)
    truth = (np.abs(view.rgb - np.float32(HAIR)).max(axis=2) < 0.08) & (view.alpha > 0.5)
    row, column = np.mgrid[:SIZE, :SIZE]
    found = hair.at(np.stack([column.ravel(), row.ravel()], axis=1) + 0.5).reshape(SIZE, SIZE)
    # along borders the grid of two pixels is off by one
    inner, outer = (how(truth.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0 for how in (cv2.erode, cv2.dilate))
    assert inner.sum() > 3000
    assert found[inner].mean() > 0.98
    assert outer[found].mean() > 0.98


def test_short_hair_round_a_high_forehead_is_found(body, rest):
    view, mesh, anatomy = photograph(body, rest, 0.0)
    forehead = cv2.distanceTransform((view.alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 3) > 0.013 * FOCAL / AWAY
    view = replace(view, rgb=np.where(forehead[:, :, None], np.float32(SKIN), view.rgb))
    hair = find_hair(view, mesh, body, anatomy)
    assert hair is not None
    row, column = np.nonzero(hair.mask)
    assert len(row) > 100
    assert forehead[hair.step * row, hair.step * column].mean() < 0.1


def test_hair_of_the_colour_of_the_face_is_not_told_from_it(body, rest):
    view, mesh, anatomy = photograph(body, rest, 0.15)
    grey = np.full_like(view.rgb, 0.5)
    assert find_hair(replace(view, rgb=grey), mesh, body, anatomy) is None


def test_what_hair_hangs_over_is_under_it(body, rest):
    hung, head, _, _ = hang(body, rest, 0.15)
    inner = head.axis + (hung.means - head.axis) * [0.8, 1, 0.8]
    outer = head.axis + (hung.means - head.axis) * [1.4, 1, 1.4]
    assert under_hair(inner, hung, head).mean() > 0.95
    assert not under_hair(outer, hung, head).any()


def test_streaks_run_down_the_hair(body, rest):
    head = Head.of(rest, study(body))
    azimuth = np.linspace(-1, 1, 400)
    ring = np.full(400, head.back)
    light, lower = (streaks(head, head.point(azimuth, ring, np.full(400, h)), 0.1) for h in (-0.05, -0.06))
    assert light.std() > 0.02
    assert np.corrcoef(light, lower)[0, 1] > 0.9
    assert abs(np.corrcoef(light[:-20], light[20:])[0, 1]) < 0.9


def test_unseen_hair_has_the_colours_seen_at_its_height(body, rest):
    head = Head.of(rest, study(body))
    height = np.linspace(0.0, 0.1, 400)
    ring = np.full(400, head.back)
    seen = head.point(np.full(400, 1.8), ring, height)
    behind = head.point(np.zeros(400), ring, height)
    rgb = np.where(height[:, None] > 0.05, (0.8, 0.7, 0.3), HAIR)
    filled = fill_hair(rgb, seen, behind, head)
    sure = np.abs(height - 0.05) > 0.02
    assert np.abs(filled - rgb)[sure].max() < 0.3
    assert np.abs(filled - rgb)[sure].mean() < 0.06


def test_unseen_hair_has_the_colours_of_each_side_and_none_from_over_the_forehead(body, rest):
    head = Head.of(rest, study(body))
    azimuth = np.concatenate([np.linspace(1.5, 1.9, 400), np.linspace(-1.9, -1.5, 400), np.linspace(2.8, 3.4, 400)])
    height = np.tile(np.random.default_rng(0).uniform(0.02, 0.1, 400), 3)
    light, dark, fringe = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.2, 0.1]), np.array([0.9, 0.7, 0.6])
    seen = head.point(azimuth, np.full(1200, head.back), height)
    behind = head.point(np.array([1.4, 0.0, -1.4]), np.full(3, head.back), np.full(3, 0.06))
    filled = fill_hair(np.repeat([light, dark, fringe], 400, axis=0), seen, behind, head)
    np.testing.assert_allclose(filled, [light, (light + dark) / 2, dark], rtol=0.25)


def test_grain_is_as_strong_as_that_of_seen_hair():
    random = np.random.default_rng(1)
    seen, light = random.uniform(0, 0.1, (400, 3)), random.uniform(0.8, 1.2, (400, 1))
    np.testing.assert_allclose(draw_grain(np.tile(HAIR, (400, 1)), seen, 50), 1)
    grain = draw_grain(light * HAIR, seen, 300)
    assert grain.mean() == pytest.approx(1, abs=0.05)
    assert grain.std() == pytest.approx(light.std(), rel=0.25)
