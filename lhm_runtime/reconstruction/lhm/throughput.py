"""How fast the transformer is beside the same in plain torch, on shapes that keep the proportions of a real one."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.lhm.config import LhmConfig, Variant
from lhm_runtime.reconstruction.lhm.plain_transformer import transform_plainly
from lhm_runtime.reconstruction.lhm.sapiens import SAPIENS_1B
from lhm_runtime.reconstruction.lhm.transformer import BodyHeadTransformer

_HEAD_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Throughput:
    """CPU seconds of each way, medians of runs in turn, and how far their results are apart."""

    points: int
    image_tokens: int
    width: int
    layers: int
    ours_s: float
    plain_s: float
    plain_fused_s: float
    """Plain but for torch's own attention."""
    largest_difference: float


def scale_down(variant: Variant, divisor: int) -> LhmConfig:
    """A network with fewer tokens and fewer channels in the same proportion: attention keeps its share of the work.

    Raises:
        InvalidInputError: the number of attention heads is no multiple of ``divisor``.
    """
    config = variant.config
    if config.heads % divisor:
        raise InvalidInputError(f"{config.heads} attention heads cannot be divided by {divisor}")
    return replace(
        config,
        points=config.points // divisor,
        width=config.width // divisor,
        heads=config.heads // divisor,
        body_feature_dim=config.body_feature_dim // divisor,
        head_feature_dim=config.head_feature_dim // divisor,
    )


def use_threads(count: int) -> None:
    """Let torch compute with so many threads from now on."""
    torch.set_num_threads(count)


def measure_throughput(variant: Variant, *, divisor: int = 8, rounds: int = 5) -> Throughput:
    """Run the three ways in turn, in float32 on the CPU, with weights and features drawn at random.

    Args:
        variant: the network.
        divisor: of tokens and channels.
        rounds: how often each way is run, after once that does not count.
    """
    config = scale_down(variant, divisor)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    transformer = BodyHeadTransformer(config).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.copy_(0.1 * draw(*parameter.shape))
    state = transformer.state_dict()
    given = (
        draw(config.points, config.width),
        draw(SAPIENS_1B.grid**2 // divisor, config.body_feature_dim),
        draw(_HEAD_TOKENS // divisor, config.head_feature_dim),
        draw(config.width),
        draw(config.width),
    )
    batch = [tensor[None] for tensor in given]
    ways: tuple[Callable[[], Tensor], ...] = (
        lambda: transformer(*batch)[0],
        lambda: transform_plainly(state, config, *given),
        lambda: transform_plainly(state, config, *given, fused=True),
    )
    with torch.inference_mode():
        results = [way() for way in ways]
        taken: list[list[float]] = [[] for _ in ways]
        for _ in range(rounds):
            for way, times in zip(ways, taken, strict=True):
                start = time.process_time()
                way()
                times.append(time.process_time() - start)
    medians = [statistics.median(times) for times in taken]
    return Throughput(
        points=config.points,
        image_tokens=len(given[1]) + len(given[2]),
        width=config.width,
        layers=config.layers,
        ours_s=medians[0],
        plain_s=medians[1],
        plain_fused_s=medians[2],
        largest_difference=max(float((result - results[0]).abs().max()) for result in results),
    )
