"""The CUDA backend: everything but gsplat's kernels on the CPU, and all of it where there is a card."""

import inspect

import numpy as np
import pytest

from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.rasterizer import Renderer, orbit
from lhm_runtime.rasterizer.contract import PIXEL_FORMATS
from lhm_runtime.rasterizer.cuda import CudaRenderer
from lhm_runtime.rasterizer.reference import covariances, rasterize_reference
from lhm_runtime.types import Gaussians

torch = pytest.importorskip("torch", reason="the CUDA backend needs torch")
gsplat = pytest.importorskip("gsplat", reason="the CUDA backend needs gsplat")

EXPRESSION = np.array([0.5, -0.2, 0, 1], np.float32)
SKY = (0.2, 0.5, 0.9)
SIGNATURE = inspect.signature(gsplat.rasterization)


def splat_by_reference(*args, **kwargs):
    """What gsplat.rasterization documents, by the float64 reference: a call it would refuse fails here too."""
    call = SIGNATURE.bind(*args, **kwargs)
    call.apply_defaults()
    a = call.arguments
    n, cameras = len(a["means"]), len(a["viewmats"])
    assert a["means"].shape == (n, 3)
    assert a["quats"].shape == (n, 4)
    assert a["scales"].shape == (n, 3)
    assert a["covars"] is None
    assert a["opacities"].shape == (n,)
    assert a["colors"].shape == (n, 3)
    assert a["viewmats"].shape == (cameras, 4, 4)
    assert a["Ks"].shape == (cameras, 3, 3)
    assert {
        t.dtype for t in (a["means"], a["quats"], a["scales"], a["opacities"], a["colors"], a["viewmats"], a["Ks"])
    } == {torch.float32}
    assert (a["near_plane"], a["eps2d"], a["sh_degree"], a["rasterize_mode"]) == (0.01, 0.3, None, "classic")
    view = orbit(np.zeros(3), 1.0, a["width"], a["height"])
    K = a["Ks"][0].numpy()
    fields = {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "width": view.width, "height": view.height}
    camera = type(view)(
        a["viewmats"][0].numpy().astype(np.float64), **{k: v.item() if k[0] in "fc" else v for k, v in fields.items()}
    )
    gaussians = Gaussians(*(a[name].numpy() for name in ("means", "quats", "scales", "opacities", "colors")))
    drawn = rasterize_reference(
        gaussians.means, covariances(gaussians), gaussians.opacity, gaussians.rgb, camera, "gsplat"
    )
    channels = [drawn.rgba[..., :3]] + ([drawn.depth[..., None]] if a["render_mode"] == "RGB+ED" else [])
    as_tensor = lambda x: torch.as_tensor(x, dtype=torch.float32)[None]  # noqa: E731
    return as_tensor(np.concatenate(channels, -1)), as_tensor(drawn.rgba[..., 3:]), {}


@pytest.fixture
def on_cpu(monkeypatch, crowd_avatar) -> CudaRenderer:
    monkeypatch.setattr(gsplat, "rasterization", splat_by_reference)
    return CudaRenderer(crowd_avatar, device="cpu")


@pytest.fixture(scope="module")
def view():
    return orbit(np.array([0.1, -0.3, -0.2]), 4.5, 64, 48, yaw=0.7)


@pytest.mark.parametrize("form", PIXEL_FORMATS)
def test_every_format_equals_the_cpu_kernel_s(form, on_cpu, crowd_avatar, bent_joints, view) -> None:
    wanted = Renderer(crowd_avatar).render(
        bent_joints, EXPRESSION, view, pixel_format=form, background=SKY, stop_rule="gsplat"
    )
    got = on_cpu.render(bent_joints, EXPRESSION, view, pixel_format=form, background=SKY)
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    off = np.abs(got.astype(np.float64) - wanted)
    # straight colour at an alpha of a few codes amplifies rounding; elsewhere a code at most
    if form == "rgba":
        off = off * (wanted[..., 3:] > 8)
    assert np.quantile(off, 0.999) <= (1e-4 if form == "float" else 1)
    assert off.max() <= (0.03 if form == "float" else 9)  # a Gaussian at a threshold


def test_depth_equals_the_cpu_kernel_s(on_cpu, crowd_avatar, bent_joints, view) -> None:
    depths = [np.empty((view.height, view.width), np.float32) for _ in range(2)]
    picture = Renderer(crowd_avatar).render(
        bent_joints, EXPRESSION, view, pixel_format="float", stop_rule="gsplat", depth=depths[0]
    )
    on_cpu.render(bent_joints, EXPRESSION, view, depth=depths[1])
    solid = picture[..., 3] > 0.1
    assert np.quantile(np.abs(depths[0] - depths[1])[solid], 0.99) < 1e-3


def test_wrong_input_is_named_as_on_the_cpu(on_cpu, bent_joints, view) -> None:
    broken = bent_joints.copy()
    broken[3, 2, 1] = np.inf
    with pytest.raises(InvalidInputError, match=r"joint_matrices\[3, 2, 1\] is inf"):
        on_cpu.render(broken, None, view)
    with pytest.raises(InvalidInputError, match="this avatar knows 5"):
        on_cpu.render(bent_joints, np.zeros(9, np.float32), view)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_the_error_says_so(crowd_avatar) -> None:
    with pytest.raises(BackendError, match="sees no CUDA device"):
        CudaRenderer(crowd_avatar)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("form", PIXEL_FORMATS)
def test_a_card_draws_what_the_cpu_draws(form, crowd_avatar, bent_joints, view) -> None:
    wanted = Renderer(crowd_avatar).render(
        bent_joints, EXPRESSION, view, pixel_format=form, background=SKY, stop_rule="gsplat"
    )
    got = CudaRenderer(crowd_avatar).render(bent_joints, EXPRESSION, view, pixel_format=form, background=SKY)
    off = np.abs(got.astype(np.float64) - wanted)
    assert np.quantile(off, 0.99) <= (1e-3 if form == "float" else 1)
