import numpy as np
import pytest
from scipy.spatial import ConvexHull

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import FEET, LEGS, Part, study
from lhm_runtime.reconstruction.builtin_person.figure import vertex_normals
from lhm_runtime.reconstruction.clothing import shoe_and_flatten, span_back, widen_trousers


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


@pytest.fixture(scope="module")
def bare(body):
    return body.v_template.astype(np.float64)


def test_shoes_have_no_toes(body, bare):
    anatomy = study(body)
    shod = shoe_and_flatten(bare, anatomy)
    for part in FEET:
        foot = anatomy.part == part
        hull = ConvexHull(bare[foot])
        volume = ConvexHull(shod[foot]).volume
        assert volume == pytest.approx(hull.volume, rel=0.02)  # nothing grows beyond the hull
        # how far vertices lie inside the hull, between the toes above all
        depth = [-(v[foot] @ hull.equations[:, :3].T + hull.equations[:, 3]).max(axis=1) for v in (bare, shod)]
        toes = bare[foot, 2] > np.quantile(bare[foot, 2], 0.6)
        assert depth[1][toes].mean() < 0.6 * depth[0][toes].mean()


def test_the_chest_is_flatter_and_all_else_stays(body, bare):
    anatomy = study(body)
    dressed = shoe_and_flatten(bare, anatomy)
    moved = np.linalg.norm(dressed - bare, axis=1)
    assert moved[~np.isin(anatomy.part, (Part.TORSO, *FEET))].max() < 0.005
    trunk = anatomy.part == Part.TORSO
    assert moved[trunk & (vertex_normals(bare, anatomy.faces)[:, 2] < -0.3)].max() < 1e-3
    chest = trunk & (bare[:, 1] > bare[trunk, 1].max() - 0.25) & (np.abs(bare[:, 0]) < 0.15)
    foremost = chest & (bare[:, 2] > np.quantile(bare[chest, 2], 0.97))
    assert (bare - dressed)[foremost, 2].mean() > 0.002


def test_the_hollow_of_the_back_is_shallower_and_nothing_else_moves(body, bare):
    anatomy = study(body)
    spanned = span_back(bare, anatomy)
    moved = spanned - bare
    assert np.abs(moved[:, :2]).max() == 0
    assert moved[:, 2].max() <= 0  # backwards, if at all
    assert np.abs(moved[vertex_normals(bare, anatomy.faces)[:, 2] > 0]).max() == 0
    trunk = anatomy.part == Part.TORSO
    assert moved[trunk, 2].min() < -0.003  # the small of the back
    assert spanned[:, 2].min() == pytest.approx(bare[:, 2].min(), abs=1e-3)  # but not the seat


def test_unseen_legs_get_trousers_and_seen_ones_stay(body, bare):
    anatomy = study(body)
    unseen = anatomy.part == Part.LEFT_LEG
    dressed = widen_trousers(bare, unseen, anatomy)
    assert np.abs(dressed - bare)[anatomy.part == Part.RIGHT_LEG].max() < 0.003
    np.testing.assert_array_equal(widen_trousers(bare, np.zeros(len(bare), bool), anatomy), bare)

    def width(vertices, at):
        leg = anatomy.part == Part.LEFT_LEG
        low, high = vertices[leg, 1].min(), vertices[leg, 1].max()
        near = leg & (np.abs(vertices[:, 1] - low - at * (high - low)) < 0.02)
        return np.ptp(vertices[near, 0])

    assert width(dressed, 0.05) > 1.3 * width(bare, 0.05)  # a hem hangs free of the ankle
    assert width(dressed, 0.98) < 1.1 * width(bare, 0.98)
    assert set(LEGS) >= set(anatomy.part[np.linalg.norm(dressed - bare, axis=1) > 1e-6])
