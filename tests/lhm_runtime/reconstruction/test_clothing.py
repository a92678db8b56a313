import numpy as np
import pytest
from scipy.spatial import ConvexHull

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import FEET, Part, study
from lhm_runtime.reconstruction.builtin_person.figure import vertex_normals
from lhm_runtime.reconstruction.clothing import shoe_and_flatten


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
