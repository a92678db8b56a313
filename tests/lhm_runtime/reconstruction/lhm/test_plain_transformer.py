"""The transformer gives what its slow twin gives, which says the same in other words."""

import pytest
import torch

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.lhm.config import VARIANTS, LhmConfig
from lhm_runtime.reconstruction.lhm.plain_transformer import transform_plainly
from lhm_runtime.reconstruction.lhm.throughput import measure_throughput, scale_down
from lhm_runtime.reconstruction.lhm.transformer import BodyHeadTransformer


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("fused", [False, True])
def test_twins(layers: int, fused: bool) -> None:
    config = LhmConfig(layers=layers, points=40, width=32, heads=4, body_feature_dim=24, head_feature_dim=20)
    generator = torch.Generator().manual_seed(layers)
    transformer = BodyHeadTransformer(config).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    shapes = ((40, 32), (30, 24), (9, 20), (32,), (32,))
    given = [torch.randn(shape, generator=generator) for shape in shapes]
    with torch.inference_mode():
        ours = transformer(*(tensor[None] for tensor in given))[0]
        plain = transform_plainly(transformer.state_dict(), config, *given, fused=fused)
    assert plain.std() > 0.05
    torch.testing.assert_close(ours, plain, atol=2e-5, rtol=2e-5)


def test_the_bench_measures_the_same_three_times() -> None:
    found = measure_throughput(VARIANTS["LHM-MINI"], divisor=16, rounds=1)
    assert (found.points, found.image_tokens, found.width, found.layers) == (1250, 320, 64, 2)
    assert 0 <= found.largest_difference < 1e-4
    assert min(found.ours_s, found.plain_s, found.plain_fused_s) > 0


def test_proportions_are_kept() -> None:
    config = VARIANTS["LHM-500M"].config
    small = scale_down(VARIANTS["LHM-500M"], 8)
    assert small.head_dim == config.head_dim
    assert small.points / small.width == config.points / config.width
    with pytest.raises(InvalidInputError, match="16 attention heads cannot be divided by 3"):
        scale_down(VARIANTS["LHM-500M"], 3)
