from dataclasses import replace

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.splats import damp_ringing, solve_colours, unmixed, weigh
from lhm_runtime.reconstruction.view import View
from lhm_runtime.types import Camera, Gaussians, Landmarks, SmplxPose

WIDTH, HEIGHT, FOCAL = 60, 90, 130.0


@pytest.fixture(scope="module")
def avatar():
    return build_person(10_000)


@pytest.fixture(scope="module")
def view(avatar):
    """The avatar at zero pose before a camera, seen from the front; nothing of it but camera and pose is looked at."""
    body = BodyModel.default()
    vertices = np.zeros((len(body.v_template), 3))
    expression = np.zeros(len(avatar.expression_names), np.float32)
    expression[avatar.expression_names.index("jawOpen")] = 0.7
    to_camera = np.tile(np.eye(3, 4), (55, 1, 1))
    to_camera[:, :3, :3] = np.diag([1.0, -1.0, -1.0])
    to_camera[:, 2, 3] = 3.0
    return View(
        rgb=np.zeros((HEIGHT, WIDTH, 3), np.float32),
        alpha=np.ones((HEIGHT, WIDTH), np.float32),
        focal=np.array([FOCAL, FOCAL]),
        centre=np.array([WIDTH / 2, HEIGHT / 2]),
        scale=1.0,
        landmarks=Landmarks(timestamp_s=0.0, image_size=(WIDTH, HEIGHT)),
        pose=SmplxPose(np.zeros((55, 3), np.float32), np.zeros(3, np.float32), expression, 0.0),
        linear=np.tile(np.eye(3), (len(vertices), 1, 1)),
        offset=vertices,
        smile=vertices,
        zero_to_camera=to_camera,
    )


def test_weights_times_colours_are_the_rasterizers_picture(avatar, view):
    weights = weigh(view, avatar)
    camera = Camera(np.eye(4), FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    with Renderer(avatar) as renderer:
        drawn = renderer.render(view.zero_to_camera, view.pose.expression, camera, pixel_format="float")
    assert weights.shape == (WIDTH * HEIGHT, len(avatar.gaussians))
    assert drawn[:, :, 3].max() > 0.99
    picture = (weights @ avatar.gaussians.rgb).reshape(HEIGHT, WIDTH, 3)
    missing = drawn[:, :, 3] - weights.sum(axis=1).reshape(HEIGHT, WIDTH)
    assert missing.min() > -1e-5
    assert missing.max() < 0.03
    assert (np.abs(drawn[:, :, :3] - picture) <= missing[:, :, None] + 1e-5).all()


def test_the_solution_draws_the_picture_that_is_wanted(avatar, view):
    weights, n = weigh(view, avatar), len(avatar.gaussians)
    wanted = (weights @ avatar.gaussians.rgb).astype(np.float32)
    start = np.full((n, 3), 0.5)
    everywhere, free = np.ones(len(wanted), np.float32), np.ones(n)
    solved = solve_colours(weights, wanted, everywhere, start, free, np.ones(n))
    before, after = (np.square(weights @ rgb - wanted).mean() for rgb in (start, solved))
    assert after < 0.02 * before
    assert ((solved >= 0) & (solved <= 1)).all()
    np.testing.assert_array_equal(solve_colours(weights, wanted, everywhere, start, free, np.ones(n)), solved)


def test_the_solution_keeps_to_limit_freedom_and_trusted_pixels(avatar, view):
    weights, n = weigh(view, avatar), len(avatar.gaussians)
    wanted = np.ones((weights.shape[0], 3), np.float32)
    start, everywhere = np.full((n, 3), 0.3), np.ones(weights.shape[0], np.float32)
    free = (np.arange(n) % 2).astype(float)
    solved = solve_colours(weights, wanted, everywhere, start, free, np.full(n, 0.1))
    np.testing.assert_allclose(solved[free == 0], 0.3, atol=1e-6)
    assert solved.max() == pytest.approx(0.4, abs=1e-6)
    untouched = solve_colours(weights, wanted, 0 * everywhere, start, np.ones(n), np.full(n, 0.1))
    np.testing.assert_allclose(untouched, start, atol=1e-6)
    hidden = replace(avatar, gaussians=replace(avatar.gaussians, opacity=0 * avatar.gaussians.opacity))
    assert weigh(view, hidden).nnz == 0


def test_pixels_at_the_outline_answer_for_nothing(view):
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    alpha[10:80, 10:50] = 1.0
    alpha[40, 30] = 0.8  # half a hole
    alone = unmixed(replace(view, alpha=alpha)).reshape(HEIGHT, WIDTH)
    wanted = np.zeros_like(alone)
    wanted[12:78, 12:48] = True
    row, column = np.indices(wanted.shape)
    wanted[np.hypot(row - 40, column - 30) <= 2] = False
    np.testing.assert_array_equal(alone, wanted)


def test_solved_colours_stay_near_those_around():
    read = np.repeat(np.where(np.arange(40) < 20, 0.3, 0.6)[:, None], 3, axis=1).astype(np.float32)
    means = np.zeros((40, 3), np.float32)
    means[:, 0] = np.arange(40)
    quat_wxyz = np.tile(np.float32([1, 0, 0, 0]), (40, 1))
    before = Gaussians(means, quat_wxyz, np.ones((40, 3), np.float32), np.ones(40, np.float32), read)
    solved = read.copy()
    solved[[5, 19, 20, 39]] += np.float32([[0.2], [-0.25], [0.25], [0.25]])
    solved[22] = 0.4
    damped = damp_ringing(solved, before, (np.arange(39), np.arange(0)))
    np.testing.assert_allclose(damped[[5, 19, 20], 0], [0.34, 0.26, 0.64], atol=1e-6)
    np.testing.assert_array_equal(damped[[4, 22, 39]], solved[[4, 22, 39]])
