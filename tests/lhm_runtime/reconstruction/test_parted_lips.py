"""A mouth that is open in a photo, on the body itself before a camera straight ahead."""

from dataclasses import replace

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import study
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.parted_lips import part_lips, seal_lips
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.view import make_view
from lhm_runtime.types import Camera, Landmarks, SmplxPose

SIDE, FOCAL = 400, 900.0
UPPER, LOWER = [82, 13, 312], [87, 14, 317]


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


def shown(body, jaw):
    """A photo of the body with its jaw so far open, and a fit that has the jaw shut."""
    expression = np.zeros(len(body.expression_names), np.float32)
    pose = SmplxPose(np.zeros((55, 3), np.float32), np.float32([0, -0.25, -1.0]), expression, 0.0)
    camera = Camera(np.diag([1.0, -1, -1, 1]), FOCAL, FOCAL, SIDE / 2, SIDE / 2, SIDE, SIDE)
    fit = BodyFit(pose, np.zeros(len(body.beta_names), np.float32), camera, np.ones(55, np.float32), 0.0, ())
    rgb, alpha = np.zeros((SIDE, SIDE, 3), np.uint8), np.ones((SIDE, SIDE), np.float32)
    photo = Photo(rgb, alpha, Landmarks(0.0, (SIDE, SIDE)), "", "head", (), FOCAL)
    view = make_view(photo, fit, fit.betas, body)
    wide = opened(body, body.v_template.astype(np.float64), jaw)
    marks = view.project(study(body).landmarks @ view.posed(wide))[:, :2].astype(np.float32)
    return replace(photo, landmarks=replace(photo.landmarks, face_image=marks)), fit


def opened(body, vertices, amount):
    return vertices + amount * body.expression_directions[:, :, body.expression_names.index("jawOpen")]


def test_jaw_opens_as_far_as_the_landmarks_show(body):
    photo, fit = shown(body, 0.6)
    jaw = part_lips(photo, fit, body).pose.expression[body.expression_names.index("jawOpen")]
    assert jaw == pytest.approx(0.6, abs=0.05)


def test_lips_that_draping_parted_meet_at_rest_and_stay_apart_in_the_photo(body):
    photo, fit = shown(body, 0.3)
    anatomy, bare = study(body), body.v_template.astype(np.float64)
    view, draped = make_view(photo, fit, fit.betas, body), opened(body, bare, 0.3)
    sealed, rest = seal_lips(view, bare, draped, body, anatomy)

    def gap(vertices):
        places = anatomy.landmarks @ vertices
        return places[UPPER, 1] - places[LOWER, 1]

    assert gap(draped).min() > 0.008
    np.testing.assert_allclose(gap(rest), gap(bare), atol=1e-3)
    np.testing.assert_allclose(sealed.posed(rest), view.posed(draped), atol=1e-9)
