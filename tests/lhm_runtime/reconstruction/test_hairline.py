from dataclasses import replace

import numpy as np
import pytest
from heads import look_at_head

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import Part, study
from lhm_runtime.reconstruction.builtin_person.figure import widest_stretch
from lhm_runtime.reconstruction.colouring import Observation
from lhm_runtime.reconstruction.discs import sample_normals, spread
from lhm_runtime.reconstruction.filling import Surface
from lhm_runtime.reconstruction.hair import HairImage
from lhm_runtime.reconstruction.hairline import falls_over, shown_as_hair, strange_to_hair
from lhm_runtime.reconstruction.mesh_image import draw_mesh

SIZE, FOCAL, AWAY = 400, 800.0, 1.2


@pytest.fixture(scope="module")
def seen_from_the_front():
    body = BodyModel.default()
    anatomy, rest = study(body), body.v_template.astype(np.float64)
    eyes = rest[np.concatenate([anatomy.left_eye, anatomy.right_eye])].mean(axis=0)
    view = look_at_head(rest, eyes, SIZE, FOCAL, AWAY, rgb=(0.5, 0.5, 0.5), alpha=1)
    mesh = draw_mesh(view.project(view.posed(rest)), anatomy.faces, SIZE, SIZE, two_sided=True)
    samples = spread(rest, np.zeros(len(rest)), 6000, widest_stretch(body, rest, anatomy.faces), body, anatomy)
    surface = Surface.of(samples, rest, body, anatomy)
    return replace(view, alpha=mesh.covered.astype(np.float32)), mesh, surface, anatomy, samples.points - eyes


def hair_left_of(column):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, column:] = True  # the person's left is right in the picture
    return HairImage(mask, 1, np.zeros((SIZE, SIZE, 3), np.float32))


def test_hair_seen_before_one_ear_lies_over_that_ear_and_the_jaw_beside_it(seen_from_the_front):
    view, mesh, surface, anatomy, off_eyes = seen_from_the_front
    over = falls_over(view, mesh, hair_left_of(SIZE // 2 + 40), surface, anatomy)
    beside = (surface.part == Part.HEAD) & ~surface.face & (np.abs(off_eyes[:, 1] + 0.015) < 0.02)
    left, right = (beside & (sign * off_eyes[:, 0] > 0.072) for sign in (1, -1))
    assert over[left].mean() > 0.9
    assert not over[right].any()
    assert not over[surface.part != Part.HEAD].any()


def test_a_face_seen_squarely_is_no_hair(seen_from_the_front):
    view, mesh, surface, anatomy, _ = seen_from_the_front
    over = falls_over(view, mesh, HairImage(np.ones((SIZE, SIZE), bool), 1, view.rgb), surface, anatomy)
    square = surface.face & (sample_normals(surface.rest, surface.samples, anatomy)[:, 2] > 0.7)
    assert square.sum() > 100
    assert not over[square].any()


def test_without_an_image_of_hair_nothing_is_said(seen_from_the_front):
    view, mesh, surface, anatomy, _ = seen_from_the_front
    assert not falls_over(view, mesh, None, surface, anatomy).any()


def test_light_beside_hair_is_no_hair(seen_from_the_front):
    view, _, surface, anatomy, off_eyes = seen_from_the_front
    facing = sample_normals(surface.rest, surface.samples, anatomy)[:, 2]
    hairy = (surface.part == Part.HEAD) & ~surface.face & (off_eyes[:, 1] > 0.035)
    rim = hairy & (facing < 0.3)
    right_rim = rim & (off_eyes[:, 0] < -0.02)
    rgb = np.where(hairy[:, None], (0.2, 0.15, 0.1), (0.6, 0.4, 0.3))
    rgb[right_rim] = 1.0
    seen = Observation(rgb, np.where(facing > 0, 0.6, 0.0), facing)
    strands = shown_as_hair(view, hair_left_of(SIZE // 2), seen, surface, anatomy)
    np.testing.assert_array_equal(strands[right_rim], (facing <= 0)[right_rim])
    assert strands[hairy & (off_eyes[:, 0] > 0.01)].all()
    strange = strange_to_hair(seen, strands, hairy, np.zeros(len(hairy), bool), surface)
    assert right_rim.sum() > 20
    np.testing.assert_array_equal(strange, right_rim & (facing > 0))
    assert not strange_to_hair(seen, None, hairy, hairy, surface).any()
