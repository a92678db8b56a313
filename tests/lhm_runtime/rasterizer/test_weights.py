"""What pixels are made of, against the pictures of the same kernel; and colours solved for with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.rasterizer import Renderer, orbit
from lhm_runtime.rasterizer.contract import STOP_RULES
from lhm_runtime.rasterizer.cpu import library, scene
from lhm_runtime.rasterizer.cpu.colours import pull_colours
from lhm_runtime.rasterizer.cpu.scene import PixelWeights
from lhm_runtime.rasterizer.reference import rasterize_reference, warp

ISAS = library.runnable()
EXPRESSION = np.array([0.5, -0.2, 0, 1, 0.3], np.float32)


def view(width=140, height=160, distance=4.5):
    return orbit(np.array([0.1, -0.3, -0.2]), distance, width, height, yaw=0.7, fov_y_deg=28.0)


def dense(made_of: PixelWeights, count: int) -> np.ndarray:
    """[pixels, count]."""
    out = np.zeros((len(made_of.begin) - 1, count))
    pixel = np.repeat(np.arange(len(out)), np.diff(made_of.begin))
    np.add.at(out, (pixel, made_of.gaussians), made_of.weights)
    return out


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rule", STOP_RULES)
@pytest.mark.parametrize("size", [(140, 160), (33, 18), (1, 1)])
def test_weights_times_colours_are_the_picture(isa, rule, size, crowd_avatar, bent_joints) -> None:
    camera, renderer = view(*size), Renderer(crowd_avatar, isa=isa)
    picture = renderer.render(bent_joints, EXPRESSION, camera, pixel_format="float", stop_rule=rule)
    made_of = renderer.weigh(bent_joints, EXPRESSION, camera, stop_rule=rule)
    assert (made_of.weights > 0).all()
    weights, rgb = dense(made_of, 4000), crowd_avatar.gaussians.rgb
    np.testing.assert_allclose(weights @ rgb, picture[..., :3].reshape(-1, 3), atol=2e-6)
    np.testing.assert_allclose(weights.sum(axis=1), picture[..., 3].ravel(), atol=2e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_gaussians_are_numbered_as_the_avatar_s_and_near_to_far(isa, crowd_avatar, bent_joints) -> None:
    camera = view()
    made_of = Renderer(crowd_avatar, isa=isa).weigh(bent_joints, EXPRESSION, camera)
    assert len(np.unique(made_of.gaussians)) > 1000
    means, covs = warp(crowd_avatar, bent_joints, EXPRESSION)
    depth = means @ camera.T_camera_world[2, :3] + camera.T_camera_world[2, 3]
    nearer = np.diff(depth[made_of.gaussians])
    same_pixel = np.ones(len(nearer), bool)
    same_pixel[made_of.begin[(made_of.begin > 0) & (made_of.begin < len(depth[made_of.gaussians]))] - 1] = False
    assert same_pixel.sum() > 1000
    assert nearer[same_pixel].min() > -1e-5
    # each Gaussian alone against the float64 reference: its weights, and nobody else's
    white = np.zeros((4000, 3))
    shown = np.bincount(made_of.gaussians, made_of.weights, 4000)
    for index in np.argsort(-shown)[[0, 50, 500]]:
        white[:] = 0
        white[index] = 1
        rest = crowd_avatar.gaussians
        reference = rasterize_reference(means, covs, rest.opacity, white, camera)
        own = np.where(made_of.gaussians == index, made_of.weights, 0)
        pixel = np.repeat(np.arange(camera.width * camera.height), np.diff(made_of.begin))
        found = np.bincount(pixel, own, camera.width * camera.height).reshape(camera.height, camera.width)
        inside = ~reference.boundary
        np.testing.assert_allclose(found[inside], reference.rgba[inside][:, 0], atol=1e-3)


@pytest.mark.parametrize("isa", ISAS)
def test_only_weights_above_the_least_are_listed(isa, crowd_avatar, bent_joints) -> None:
    renderer, camera = Renderer(crowd_avatar, isa=isa), view()
    every = dense(renderer.weigh(bent_joints, EXPRESSION, camera), 4000)
    some = renderer.weigh(bent_joints, EXPRESSION, camera, least=0.01)
    assert some.weights.min() > np.float32(0.01)
    np.testing.assert_array_equal(dense(some, 4000), np.where(every > np.float32(0.01), every, 0))


def test_listing_twice_gives_the_same_bits_and_leaves_drawing_alone(crowd_avatar, bent_joints) -> None:
    renderer, camera = Renderer(crowd_avatar, threads=2), view()
    before = renderer.render(bent_joints, EXPRESSION, camera)
    first, again = (renderer.weigh(bent_joints, EXPRESSION, camera) for _ in range(2))
    for name in ("begin", "gaussians", "weights"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    np.testing.assert_array_equal(renderer.render(bent_joints, EXPRESSION, camera), before)


def test_nothing_in_view_is_an_empty_list(crowd_avatar, bent_joints) -> None:
    away = bent_joints + np.array([0, 0, 0, 500], np.float32)
    made_of = Renderer(crowd_avatar).weigh(away, None, view(20, 10))
    assert not made_of.begin.any()
    assert len(made_of.begin) == 201
    assert len(made_of.gaussians) == len(made_of.weights) == 0


def test_wrong_arguments_are_named(crowd_avatar, bent_joints, monkeypatch) -> None:
    renderer = Renderer(crowd_avatar)
    for least in (-0.1, 1.0, float("nan")):
        with pytest.raises(InvalidInputError, match=f"least is {least}"):
            renderer.weigh(bent_joints, None, view(), least=least)
    monkeypatch.setattr(scene, "MAX_PAIRS", 100)
    with pytest.raises(InvalidInputError, match=r"140x160 pixels are made of \d+ Gaussians, 100 at most"):
        renderer.weigh(bent_joints, None, view())
    renderer.close()
    with pytest.raises(BackendError, match="closed"):
        renderer.weigh(bent_joints, None, view())


def random_problem(pixels, count, seed):
    """Pairs without an order, and the rest of ``pull_colours``' arguments."""
    rng = np.random.default_rng(seed)
    begin = np.concatenate([[0], np.cumsum(rng.integers(0, 6, pixels))]).astype(np.int64)
    gaussians = rng.integers(0, count, begin[-1]).astype(np.int32)
    weights = rng.uniform(0, 0.3, begin[-1]).astype(np.float32)
    arrays = (
        rng.random((pixels, 3)),
        rng.integers(0, 3, pixels) / 2,
        rng.random((count, 3)),
        rng.uniform(0, 0.5, count),
        rng.uniform(0, 0.4, count),
    )
    return PixelWeights(begin, gaussians, weights), *(array.astype(np.float32) for array in arrays)


@pytest.mark.parametrize("isa", ISAS)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 4), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_colours_are_pulled_as_the_paper_says(isa, pixels, count, rounds, seed) -> None:
    made_of, wanted, trust, rgb, step, limit = random_problem(pixels, count, seed)
    solved = pull_colours(made_of, wanted, trust, rgb, step, limit, rounds=rounds, isa=isa)
    weights, now = dense(made_of, count), rgb.astype(np.float64)
    for _ in range(rounds):
        residual = (wanted - weights @ now) * trust[:, None]
        moved = now + step[:, None] * (weights.T @ residual)
        now = np.clip(np.clip(moved, rgb - limit[:, None], rgb + limit[:, None]), 0, 1)
    np.testing.assert_allclose(solved, now, atol=1e-4)
    again = pull_colours(made_of, wanted, trust, rgb, step, limit, rounds=rounds, isa=isa)
    np.testing.assert_array_equal(solved, again)


def test_sizes_that_do_not_fit_together_are_named() -> None:
    made_of, wanted, trust, rgb, step, limit = random_problem(20, 8, 0)
    with pytest.raises(InvalidInputError, match=r"wanted has shape \(19, 3\), expected \(20, 3\)"):
        pull_colours(made_of, wanted[:-1], trust[:-1], rgb, step, limit, rounds=1)
    with pytest.raises(InvalidInputError, match="pixels are made of Gaussian 7, but rgb has 5"):
        pull_colours(made_of, wanted, trust, rgb[:5], step[:5], limit[:5], rounds=1)
