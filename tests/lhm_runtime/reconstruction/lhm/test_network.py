"""What holds for the network whatever its weights: who attends to whom, limits of what it gives, bad input."""

import numpy as np
import pytest
import torch
from lhm_goldens import Golden, canonical

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.lhm.animation import deform, open_hips
from lhm_runtime.reconstruction.lhm.config import DinoConfig, LhmConfig
from lhm_runtime.reconstruction.lhm.decoder import GaussianDecoder
from lhm_runtime.reconstruction.lhm.dinov2 import HeadEncoder
from lhm_runtime.reconstruction.lhm.network import LhmNetwork
from lhm_runtime.reconstruction.lhm.transformer import JointAttention
from lhm_runtime.types import SmplxPose

CONFIG = LhmConfig(
    layers=2,
    points=16,
    width=16,
    heads=2,
    body_feature_dim=12,
    head_feature_dim=8,
    decoder_width=8,
    decoder_hidden_layers=3,
    dino=DinoConfig(width=8, depth=2, heads=2, taps=(0, 1)),
)


@pytest.fixture(scope="module")
def network() -> LhmNetwork:
    torch.manual_seed(0)
    module = LhmNetwork(CONFIG).eval()
    module.point_embedding.basis.normal_()
    return module


@pytest.fixture(scope="module")
def given() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "query_points": torch.randn(16, 3, generator=generator),
        "body_features": torch.randn(1, 20, 12, generator=generator),
        "head_features": torch.randn(1, 6, 8, generator=generator),
        "is_upper_body": torch.arange(16) % 2 == 0,
    }


def test_order_matters_only_between_body_and_head(network: LhmNetwork, given: dict[str, torch.Tensor]) -> None:
    order = torch.cat([torch.randperm(12), 12 + torch.randperm(4)])
    plain = network(**given)
    shuffled = network(
        **given | {"query_points": given["query_points"][order], "is_upper_body": given["is_upper_body"][order]}
    )
    torch.testing.assert_close(shuffled.rgb, plain.rgb[order], atol=1e-5, rtol=1e-5)
    swapped = network(**given | {"query_points": given["query_points"].flip(0)})
    assert (swapped.rgb - plain.rgb.flip(0)).abs().max() > 1e-4


def test_points_need_not_be_as_many_as_published(network: LhmNetwork, given: dict[str, torch.Tensor]) -> None:
    more = {"query_points": given["query_points"].repeat(2, 1), "is_upper_body": given["is_upper_body"].repeat(2)}
    assert network(**given | more).rgb.shape == (32, 3)


def test_features_of_other_channels(network: LhmNetwork, given: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InvalidInputError, match="have 8 and 8 channels, expected 12 and 8"):
        network(**given | {"body_features": given["body_features"][:, :, :8]})


def test_gaussians_stay_within_their_limits() -> None:
    decoder = GaussianDecoder(CONFIG).eval()
    for layer in decoder.gs_net.out_layers.values():
        torch.nn.init.normal_(layer.weight, std=50)
    upper = torch.arange(400) % 2 == 0
    with torch.inference_mode():
        made = decoder(torch.randn(400, 16, generator=torch.Generator().manual_seed(2)), upper)
    assert made.scales.min() >= 0
    assert made.scales[upper].max() == pytest.approx(0.02)
    assert made.scales[~upper].max() == pytest.approx(0.05)
    assert made.offset_m.abs().max() <= 0.5
    torch.testing.assert_close(made.quat_wxyz.norm(dim=1), torch.ones(400))
    assert 0 <= made.opacity.min() < made.opacity.max() <= 1
    assert 0 <= made.rgb.min() < made.rgb.max() <= 1


def test_attention_is_softmax_over_points_and_picture() -> None:
    torch.manual_seed(3)
    attention = JointAttention(16, 2, updates_image=True).eval()
    points, image = torch.randn(1, 5, 16), torch.randn(1, 7, 16)
    with torch.inference_mode():
        q, k, v = attention.project(points, image)
        weights = (q @ k.transpose(2, 3) / 8**0.5).softmax(dim=3)
        mixed = (weights @ v).transpose(1, 2).reshape(1, 12, 16)
        to_points, to_image = attention(points, image)
        torch.testing.assert_close(to_points, attention.to_out[0](mixed[:, :5]), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(to_image, attention.to_add_out(mixed[:, 5:]), atol=1e-6, rtol=1e-5)


def test_pictures_that_are_no_whole_patches() -> None:
    encoder = HeadEncoder(CONFIG.dino, 8).eval()
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 3, 28, 42)).shape == (1, 6, 8)
    with pytest.raises(InvalidInputError, match="40x28 pixels, expected multiples of 14"):
        encoder(torch.zeros(1, 3, 28, 40))


def test_closing_undoes_opening(compact: Golden) -> None:
    rig, body = compact.checkpoint.read_rig(), compact.checkpoint.read_body()
    rigid = rig.skin_weights.max(axis=1) > 0.999
    points = compact.arrays["dense_pts"]
    rest = SmplxPose(np.zeros((55, 3), np.float32), np.zeros(3, np.float32), np.zeros(0, np.float32), 0.0)
    opened = open_hips(points, rig, body)
    made = canonical(compact)
    made = type(made)(opened, made.quat_wxyz, made.scales, made.opacity, made.rgb)
    closed = deform(made, rig, body, rest).means
    assert rigid.any()
    np.testing.assert_allclose(closed[rigid], points[rigid], atol=1e-3)
    assert np.abs(opened - points).max() > 0.05


def test_rigs_and_betas_that_do_not_fit(compact: Golden) -> None:
    rig, body, made = compact.checkpoint.read_rig(), compact.checkpoint.read_body(), canonical(compact)
    fewer = type(made)(made.means[1:], made.quat_wxyz[1:], made.scales[1:], made.opacity[1:], made.rgb[1:])
    with pytest.raises(InvalidInputError, match=f"{len(made) - 1} Gaussians for a rig of {len(made)} points"):
        deform(fewer, rig, body, compact.poses()[0])
    with pytest.raises(InvalidInputError, match="betas"):
        deform(made, rig, body, compact.poses()[0], np.zeros(11, np.float32))
