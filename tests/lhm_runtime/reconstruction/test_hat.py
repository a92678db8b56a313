from dataclasses import replace

import cv2
import numpy as np
import pytest
from heads import look_at_head

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import study
from lhm_runtime.reconstruction.hair import Head
from lhm_runtime.reconstruction.hat import find_brim, keep_below, lay_brim, take_off
from lhm_runtime.reconstruction.mesh_image import draw_mesh

SIZE, FOCAL, AWAY = 400, 600.0, 1.2
SKIN, STRAW, WALL = (0.85, 0.65, 0.55), (0.75, 0.6, 0.4), (0.3, 0.4, 0.6)
RADIUS, ABOVE_EYES = 0.16, 0.02


@pytest.fixture(scope="module")
def seen_from_the_front():
    """A head from the front, as a mesh sees it, without a hat."""
    body = BodyModel.default()
    anatomy, rest = study(body), body.v_template.astype(np.float64)
    view = look_at_head(rest, Head.of(rest, anatomy).axis, SIZE, FOCAL, AWAY, rgb=WALL, alpha=0)
    mesh = draw_mesh(view.project(view.posed(rest)), anatomy.faces, SIZE, SIZE, two_sided=True)
    rgb = np.where(mesh.covered[:, :, None], np.float32(SKIN), view.rgb)
    return replace(view, rgb=rgb, alpha=mesh.covered.astype(np.float32)), mesh, rest, anatomy


def put_on(view, rise, radius=RADIUS):
    """A flat brim, whose edge ahead is ``rise`` radians higher than its middle; the far half is hidden."""
    centre = np.array([0, -ABOVE_EYES, AWAY])
    ahead = np.array([0, -np.sin(rise), -np.cos(rise)])
    rgb, alpha = view.rgb.copy(), view.alpha.copy()
    for far in (True, False):
        angle = np.linspace(0, np.pi, 60) + np.pi * far
        edge = centre + radius * (np.cos(angle)[:, None] * [1.0, 0, 0] + np.sin(angle)[:, None] * ahead)
        drawn = np.zeros(alpha.shape, np.uint8)
        cv2.fillPoly(drawn, [np.rint(view.project(edge)[:, :2]).astype(np.int32)], 1)
        shows = (drawn > 0) & ((alpha < 0.5) | (not far))
        rgb[shows], alpha[shows] = STRAW, 1
    return replace(view, rgb=rgb, alpha=alpha)


@pytest.mark.parametrize("rise", [0.35, -0.35])
def test_a_brim_is_found_as_wide_and_tilted_as_it_is(seen_from_the_front, rise):
    view, _, rest, anatomy = seen_from_the_front
    brim = find_brim(put_on(view, rise), rest, anatomy)
    assert brim is not None
    assert brim.radius == pytest.approx(RADIUS, abs=0.01)
    assert np.arctan2(-brim.ahead[1], -brim.ahead[2]) == pytest.approx(rise, abs=0.1)
    bared = take_off(brim, put_on(view, rise))
    assert (bared.alpha > 0.5)[view.alpha > 0.5].mean() > 0.97
    added = (put_on(view, rise).alpha > 0.5) & (view.alpha < 0.5)
    assert (bared.alpha > 0.5)[added].mean() < 0.35


def test_heads_and_round_hair_have_no_brim(seen_from_the_front):
    view, _, rest, anatomy = seen_from_the_front
    assert find_brim(view, rest, anatomy) is None
    round_hair = view.alpha.copy()
    cv2.circle(round_hair, (SIZE // 2, SIZE // 2 - 25), int(0.15 * FOCAL / AWAY), 1.0, -1)
    assert find_brim(replace(view, alpha=round_hair), rest, anatomy) is None


def test_the_ring_is_straw_all_round_though_half_of_it_is_hidden(seen_from_the_front):
    view, mesh, rest, anatomy = seen_from_the_front
    hatted = put_on(view, 0.35)
    brim = find_brim(hatted, rest, anatomy)
    ring = lay_brim(brim, hatted, mesh, 900, anatomy)
    assert 700 < len(ring.means) <= 900
    np.testing.assert_allclose(ring.rgb, np.broadcast_to(STRAW, ring.rgb.shape), atol=0.1)
    behind = ring.means[ring.means[:, 2] < Head.of(rest, anatomy).axis[2] - 0.1]
    ahead = ring.means[ring.means[:, 2] > Head.of(rest, anatomy).axis[2] + 0.1]
    assert min(len(behind), len(ahead)) > 60
    assert ahead[:, 1].mean() - behind[:, 1].mean() > 0.05
    assert len(lay_brim(None, hatted, mesh, 900, anatomy).means) == 0
    raised = replace(ring, means=ring.means + [0, 0.02, 0])
    assert len(keep_below(brim, hatted, raised).means) == 0
    assert len(keep_below(None, hatted, raised).means) == len(raised.means)
