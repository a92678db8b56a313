import numpy as np

from lhm_runtime.rasterizer import rasterize
from lhm_runtime.reconstruction.splats import solve_colours, splat_weights
from lhm_runtime.types import Camera, Gaussians


def scene(n=60, seed=0):
    """Round Gaussians before a camera at the origin, and their projections."""
    rng = np.random.default_rng(seed)
    means = rng.uniform([-0.3, -0.3, 1.0], [0.3, 0.3, 1.6], (n, 3))
    sizes = rng.uniform(0.01, 0.05, n)
    opacity = rng.uniform(0.2, 0.95, n)
    focal, width, height = 60.0, 40, 32
    uvz = np.concatenate([focal * means[:, :2] / means[:, 2:] + [width / 2, height / 2], means[:, 2:]], axis=1)
    x, y, z = means.T
    jacobian = np.zeros((n, 2, 3))
    jacobian[:, 0, 0] = jacobian[:, 1, 1] = focal / z
    jacobian[:, 0, 2], jacobian[:, 1, 2] = -focal * x / z**2, -focal * y / z**2
    covariance = (jacobian @ jacobian.swapaxes(1, 2)) * sizes[:, None, None] ** 2
    gaussians = Gaussians(
        means=means.astype(np.float32),
        quat_wxyz=np.tile(np.float32([1, 0, 0, 0]), (n, 1)),
        scales=np.tile(sizes[:, None], (1, 3)).astype(np.float32),
        opacity=opacity.astype(np.float32),
        rgb=rng.random((n, 3)).astype(np.float32),
    )
    return gaussians, uvz, covariance, Camera(np.eye(4), focal, focal, width / 2, height / 2, width, height)


def test_weights_times_colours_are_the_rasterizers_picture():
    gaussians, uvz, covariance, camera = scene()
    weights = splat_weights(uvz, covariance, gaussians.opacity, camera.width, camera.height)
    picture = (weights @ gaussians.rgb).reshape(camera.height, camera.width, 3)
    drawn = rasterize(gaussians, camera, pixel_format="float")
    np.testing.assert_allclose(picture, drawn[:, :, :3], atol=2e-3)
    np.testing.assert_allclose(weights.sum(axis=1).reshape(picture.shape[:2]), drawn[:, :, 3], atol=2e-3)


def test_the_solution_draws_the_picture_that_is_wanted():
    gaussians, uvz, covariance, camera = scene(200)
    weights = splat_weights(uvz, covariance, gaussians.opacity, camera.width, camera.height)
    wanted = (weights @ gaussians.rgb).astype(np.float32)
    start = np.full((200, 3), 0.5)
    everywhere, free = np.ones(len(wanted), np.float32), np.ones(200)
    solved = solve_colours(weights, wanted, everywhere, start, free, np.ones(200))
    before, after = (np.square(weights @ rgb - wanted).mean() for rgb in (start, solved))
    assert after < 0.02 * before
    assert ((solved >= 0) & (solved <= 1)).all()


def test_the_solution_keeps_to_limit_freedom_and_trusted_pixels():
    gaussians, uvz, covariance, camera = scene(200)
    weights = splat_weights(uvz, covariance, gaussians.opacity, camera.width, camera.height)
    wanted = np.ones((weights.shape[0], 3), np.float32)
    start, everywhere = np.full((200, 3), 0.3), np.ones(weights.shape[0], np.float32)
    free = (np.arange(200) % 2).astype(float)
    solved = solve_colours(weights, wanted, everywhere, start, free, np.full(200, 0.1))
    np.testing.assert_allclose(solved[free == 0], 0.3, atol=1e-6)
    assert solved.max() <= 0.4 + 1e-6
    untouched = solve_colours(weights, wanted, 0 * everywhere, start, np.ones(200), np.full(200, 0.1))
    np.testing.assert_allclose(untouched, start, atol=1e-6)
