"""The kernel against the float64 reference, its output formats, and what users can do wrong."""

import pickle
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import random_gaussians

from lhm_runtime.avatar import pose_gaussians
from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.rasterizer import Renderer, orbit, picture_shape, rasterize
from lhm_runtime.rasterizer.contract import PIXEL_FORMATS, STOP_RULES
from lhm_runtime.rasterizer.cpu import library
from lhm_runtime.rasterizer.reference import covariances, rasterize_reference, warp
from lhm_runtime.types import Camera, Gaussians

ORIGIN = np.zeros(3)
ISAS = library.runnable()
EXPRESSION = np.array([0.5, -0.2, 0, 1, 0.3], np.float32)


def camera(width: int = 120, height: int = 100, yaw: float = 0.4) -> Camera:
    return orbit(ORIGIN, 3.0, width, height, yaw=yaw, pitch=0.2, fov_y_deg=35.0)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.mean((a - b) ** 2), 1e-30)))


def assert_matches(picture: np.ndarray, reference, rule: str) -> None:
    off = np.abs(picture - reference.rgba).max(axis=2)
    inside = ~reference.boundary
    assert inside.mean() > 0.97
    assert off[inside].max() <= 0.005
    # one Gaussian more or less at a threshold: at most its own contribution
    assert off.max() <= (0.1 if rule == "gsplat" else 0.02)
    assert psnr(picture[inside], reference.rgba[inside]) >= 95


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rule", STOP_RULES)
@pytest.mark.parametrize("count", [1, 3, 65, 1500])
def test_gaussians_match_the_reference(isa, rule, count) -> None:
    gaussians = random_gaussians(count, seed=count)
    view = camera()
    depth = np.empty((view.height, view.width), np.float32)
    picture = rasterize(gaussians, view, pixel_format="float", stop_rule=rule, depth=depth, isa=isa)
    reference = rasterize_reference(
        gaussians.means, covariances(gaussians), gaussians.opacity, gaussians.rgb, view, rule
    )
    assert_matches(picture, reference, rule)
    solid = (reference.rgba[..., 3] > 0.05) & ~reference.boundary
    np.testing.assert_allclose(depth[solid], reference.depth[solid], rtol=1e-4)
    assert not depth[picture[..., 3] == 0].any()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rule", STOP_RULES)
def test_a_posed_avatar_matches_the_reference(isa, rule, crowd_avatar, bent_joints) -> None:
    view = orbit(np.array([0.1, -0.3, -0.2]), 4.5, 140, 160, yaw=0.7, fov_y_deg=28.0)
    picture = Renderer(crowd_avatar, isa=isa).render(
        bent_joints, EXPRESSION, view, pixel_format="float", stop_rule=rule
    )
    means, covs = warp(crowd_avatar, bent_joints, EXPRESSION)
    rest = crowd_avatar.gaussians
    reference = rasterize_reference(means, covs, rest.opacity, rest.rgb, view, rule)
    assert reference.rgba[..., 3].mean() > 0.05
    assert_matches(picture, reference, rule)


def test_skinning_in_the_kernel_is_skinning_of_the_avatar(crowd_avatar, bent_joints) -> None:
    view = orbit(np.array([0.1, -0.3, -0.2]), 4.5, 200, 200)
    fused = Renderer(crowd_avatar).render(bent_joints, EXPRESSION, view, pixel_format="float")
    posed = rasterize(pose_gaussians(crowd_avatar, bent_joints, EXPRESSION), view, pixel_format="float")
    assert psnr(fused, posed) > 80


@pytest.mark.parametrize("isa", ISAS)
def test_threads_agree_to_the_bit(isa, crowd_avatar, bent_joints) -> None:
    view = orbit(np.array([0.1, -0.3, -0.2]), 3.0, 222, 134)
    pictures = [
        Renderer(crowd_avatar, threads=threads, isa=isa).render(bent_joints, EXPRESSION, view, pixel_format=form)
        for form in ("float", "i420")
        for threads in (1, 2, 4)
    ]
    for same in (pictures[:3], pictures[3:]):
        np.testing.assert_array_equal(same[0], same[1])
        np.testing.assert_array_equal(same[0], same[2])


def bt709(rgb: np.ndarray, full: bool) -> np.ndarray:
    """Code values by ITU-R BT.709-6 items 3.2 to 3.4, quantised to 8 bits."""
    r, g, b = np.moveaxis(rgb, -1, 0)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    ycc = np.stack([y, (b - y) / 1.8556, (r - y) / 1.5748], -1)
    return ycc * ([255, 255, 255] if full else [219, 224, 224]) + ([0, 128, 128] if full else [16, 128, 128])


def i420_planes(picture: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flat, luma, chroma = picture.ravel(), height * width, height * width // 4
    y, u, v = flat[:luma], flat[luma : luma + chroma], flat[luma + chroma :]
    return y.reshape(height, width), u.reshape(height // 2, -1), v.reshape(height // 2, -1)


def means_of_four(picture: np.ndarray) -> np.ndarray:
    return (picture[::2, ::2] + picture[1::2, ::2] + picture[::2, 1::2] + picture[1::2, 1::2]) / 4


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("width", "height"), [(64, 48), (70, 38), (2, 2)])
def test_formats_say_the_same_picture(isa, width, height, crowd_avatar, bent_joints) -> None:
    view = orbit(np.array([0.1, -0.3, -0.2]), 3.5, width, height)
    renderer, sky = Renderer(crowd_avatar, isa=isa), (0.2, 0.5, 0.9)

    def draw(form: str) -> np.ndarray:
        return renderer.render(bent_joints, EXPRESSION, view, pixel_format=form, background=sky).astype(np.float64)

    premultiplied, alpha = draw("float")[..., :3], draw("float")[..., 3:]
    over = premultiplied + (1 - alpha) * sky
    assert np.abs(draw("rgb") - over * 255).max() <= 0.51
    assert np.abs(draw("rgba_premultiplied") - np.dstack([premultiplied, alpha]) * 255).max() <= 0.51
    straight = draw("rgba")
    solid = alpha[..., 0] > 0.01
    assert np.abs(straight[..., 3:] - alpha * 255).max() <= 0.51
    assert np.abs(straight[solid][:, :3] - (premultiplied / np.maximum(alpha, 1e-6))[solid] * 255).max() <= 0.51
    for form in ("i420", "i420_full"):
        y, u, v = i420_planes(draw(form), height, width)
        wanted, chroma = bt709(over, form == "i420_full"), bt709(means_of_four(over), form == "i420_full")
        assert np.abs(y - wanted[..., 0]).max() <= 0.51
        assert np.abs(np.stack([u, v], -1) - np.clip(chroma[..., 1:], 0, 255)).max() <= 0.51


def test_stacked_alpha_composites_without_fringes(crowd_avatar, bent_joints) -> None:
    width, height = 96, 64
    view = orbit(np.array([0.1, -0.3, -0.2]), 3.5, width, height)
    renderer = Renderer(crowd_avatar)
    exact = renderer.render(bent_joints, EXPRESSION, view, pixel_format="float").astype(np.float64)
    y, u, v = i420_planes(renderer.render(bent_joints, EXPRESSION, view, pixel_format="i420_alpha"), 2 * height, width)
    alpha = (y[height:].astype(np.float64) - 16) / 219
    assert np.abs(alpha - exact[..., 3]).max() <= 0.51 / 219
    assert (u[height // 2 :] == 128).all()
    assert (v[height // 2 :] == 128).all()
    # luma is linear in colour, so luma * alpha must be the luma of the premultiplied picture
    luma = (y[:height].astype(np.float64) - 16) / 219
    wanted = exact[..., :3] @ [0.2126, 0.7152, 0.0722]
    assert np.abs(luma * exact[..., 3] - wanted).max() < 1.5 / 255
    nothing = exact[..., 3] == 0
    assert nothing.any()
    assert len(np.unique(y[:height][nothing])) == 1


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(PIXEL_FORMATS),
    st.integers(0, 5),
    st.sampled_from(STOP_RULES),
)
@settings(max_examples=80, deadline=None)
def test_every_size_fills_exactly_its_picture(width, height, form, count, rule) -> None:
    view = camera(width, height)
    if form.startswith("i420") and (width % 2 or height % 2):
        with pytest.raises(InvalidInputError, match="even sizes"):
            picture_shape(view, form)
        return
    picture = rasterize(random_gaussians(count), view, pixel_format=form, stop_rule=rule)
    assert picture.shape == picture_shape(view, form)
    if count == 0 and form in ("rgba", "float", "rgb"):
        assert not picture.any()


@pytest.mark.parametrize("size", [(1, 1), (8192, 16), (16, 8192), (513, 511)])
def test_extreme_sizes(size) -> None:
    picture = rasterize(random_gaussians(50), camera(*size), pixel_format="rgba")
    assert picture.shape == (size[1], size[0], 4)
    assert picture.any()


def test_8192_squared_matches_a_small_picture_of_the_same_view() -> None:
    gaussians = random_gaussians(30)
    large = rasterize(gaussians, camera(8192, 8192), pixel_format="rgb")
    small = rasterize(gaussians, camera(512, 512), pixel_format="rgb")
    shrunk = large.reshape(512, 16, 512, 16, 3).mean(axis=(1, 3))
    assert psnr(shrunk / 255, small / 255) > 35


def scaled(gaussians: Gaussians, scale: float) -> Gaussians:
    return replace(gaussians, scales=np.full_like(gaussians.scales, scale))


@pytest.mark.parametrize("scale", [0.0, 1e-9, 10.0])
def test_degenerate_scales_draw(scale) -> None:
    picture = rasterize(scaled(random_gaussians(200), scale), camera(), pixel_format="float")
    assert np.isfinite(picture).all()
    assert picture[..., 3].max() > 0.5
    assert picture.min() >= 0
    assert picture.max() <= 1 + 1e-5


def test_a_hopelessly_dense_scene_is_refused_with_its_size() -> None:
    with pytest.raises(InvalidInputError, match=r"cover \d+ tiles of 8192x8192"):
        rasterize(scaled(random_gaussians(3000), 10.0), camera(8192, 8192))


@pytest.mark.parametrize("shift", [(0, 0, 100), (500, 0, 0), (0, -1e4, 0), (1e30, 0, 0)])
def test_nothing_in_view_is_an_empty_picture(shift) -> None:
    gaussians = random_gaussians(500)
    away = replace(gaussians, means=gaussians.means + np.array(shift, np.float32))
    view = orbit(ORIGIN, 3.0, 64, 64)
    assert not rasterize(away, view).any()


def test_a_million_gaussians() -> None:
    rng = np.random.default_rng(0)
    count = 1_000_000
    gaussians = Gaussians(
        means=rng.normal(0, 0.3, (count, 3)).astype(np.float32),
        quat_wxyz=np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        scales=np.full((count, 3), 0.002, np.float32),
        opacity=np.full(count, 0.9, np.float32),
        rgb=np.full((count, 3), 0.5, np.float32),
    )
    picture = rasterize(gaussians, camera(256, 256), pixel_format="float")
    assert picture[128, 128, 3] > 0.99
    np.testing.assert_allclose(picture[128, 128, :3], 0.5, atol=1e-3)


def test_a_nan_or_inf_is_named_with_its_index(crowd_avatar, bent_joints) -> None:
    renderer = Renderer(crowd_avatar)
    broken = bent_joints.copy()
    broken[17, 1, 3] = np.nan
    with pytest.raises(InvalidInputError, match=r"joint_matrices\[17, 1, 3\] is nan"):
        renderer.render(broken, None, camera())
    with pytest.raises(InvalidInputError, match=r"expression\[2\] is inf"):
        renderer.render(bent_joints, np.array([0, 0, np.inf], np.float32), camera())
    matrix = np.eye(4)
    matrix[0, 3] = np.nan
    with pytest.raises(InvalidInputError, match=r"T_camera_world\[0, 3\] is nan"):
        replace(camera(), T_camera_world=matrix)
    gaussians = random_gaussians(9)
    gaussians.means[4, 2] = -np.inf
    with pytest.raises(InvalidInputError, match=r"means\[4, 2\] is -inf"):
        rasterize(gaussians, camera())


def test_wrong_arguments_are_named(crowd_avatar, bent_joints) -> None:
    renderer = Renderer(crowd_avatar)
    with pytest.raises(InvalidInputError, match="expression has 6 coefficients; this avatar knows 5"):
        renderer.render(bent_joints, np.zeros(6, np.float32), camera())
    with pytest.raises(InvalidInputError, match=r"out is uint8 \(3, 3, 4\), expected uint8 \(100, 120, 4\)"):
        renderer.render(bent_joints, None, camera(), out=np.zeros((3, 3, 4), np.uint8))
    with pytest.raises(InvalidInputError, match="C-contiguous"):
        renderer.render(bent_joints, None, camera(100, 100), out=np.zeros((100, 100, 4), np.uint8).swapaxes(0, 1))
    with pytest.raises(InvalidInputError, match="background"):
        renderer.render(bent_joints, None, camera(), background=(0.0, 2.0, 0.0))
    with pytest.raises(InvalidInputError, match="threads is 0"):
        Renderer(crowd_avatar, threads=0)
    missing = {"v2", "v3", "v4", "generic"} - set(ISAS)
    with pytest.raises(BackendError, match="cannot run here"):
        Renderer(crowd_avatar, isa=sorted(missing)[0])
    renderer.close()
    with pytest.raises(BackendError, match="closed"):
        renderer.render(bent_joints, None, camera())


def test_threads_may_share_a_renderer(crowd_avatar, bent_joints) -> None:
    renderer = Renderer(crowd_avatar, threads=2)
    views = [camera(100 + 4 * i, 80) for i in range(6)]
    alone = [renderer.render(bent_joints, EXPRESSION, view) for view in views]
    together: dict[int, list[np.ndarray]] = {i: [] for i in range(6)}

    def work(i: int) -> None:
        together[i] = [renderer.render(bent_joints, EXPRESSION, views[i]) for _ in range(10)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i in range(6):
        for picture in together[i]:
            np.testing.assert_array_equal(picture, alone[i])


def test_frames_allocate_nothing(crowd_avatar, bent_joints) -> None:
    """In a process of its own, so that no other test's memory is counted."""
    script = """
import pickle, resource, sys
import numpy as np
from lhm_runtime.rasterizer import Renderer, orbit
avatar, joints = pickle.load(sys.stdin.buffer)
renderer = Renderer(avatar, threads=2)
view = orbit(np.array([0.1, -0.3, -0.2]), 3.0, 64, 64)
out = np.empty((96, 64), np.uint8)
rss = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
for i in range(4000):
    renderer.render(joints, None, view, pixel_format="i420", out=out)
    if i == 400: before = rss()
print(rss() - before)
"""
    grown = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps((crowd_avatar, bent_joints)),
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert int(grown.stdout) < 1_000_000
