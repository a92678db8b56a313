"""Tokens to Gaussians: a small MLP and one linear head for each attribute."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.nn.functional import normalize

from lhm_runtime.reconstruction.lhm.config import LhmConfig
from lhm_runtime.types import Gaussians

UPPER_BODY_SCALE_LIMIT_M: Final = 0.02
"""Largest standard deviation on trunk, arms and hands."""

_HEADS: Final = {"shs": 3, "scaling": 3, "xyz": 3, "opacity": 1, "rotation": 4}


@dataclass(frozen=True, slots=True, eq=False)
class DecodedGaussians:
    """Attributes of p Gaussians, float32."""

    offset_m: Float[Tensor, "p 3"]
    """From the query point to the centre."""
    quat_wxyz: Float[Tensor, "p 4"]
    scales: Float[Tensor, "p 3"]
    opacity: Float[Tensor, " p"]
    rgb: Float[Tensor, "p 3"]

    def at(self, query_points: Float32[np.ndarray, "p 3"]) -> Gaussians:
        """The canonical avatar: Gaussians around the query points, in their pose and shape."""
        return Gaussians(
            means=query_points + self.offset_m.cpu().numpy(),
            quat_wxyz=self.quat_wxyz.cpu().numpy(),
            scales=self.scales.cpu().numpy(),
            opacity=self.opacity.cpu().numpy(),
            rgb=self.rgb.cpu().numpy(),
        )


class DecoderMlp(nn.Module):
    """Layers with SiLU between, the width of a token at both ends."""

    def __init__(self, width: int, hidden: int, hidden_layers: int) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for index in range(hidden_layers):
            modules += [nn.Linear(hidden if index else width, hidden), nn.SiLU()]
        self.layers = nn.Sequential(*modules, nn.Linear(hidden, width))

    def forward(self, tokens: Float[Tensor, "p c"]) -> Float[Tensor, "p c"]:
        """Each token by itself."""
        return self.layers(tokens)


class AttributeHeads(nn.Module):
    """One linear layer for each attribute; ``shs`` are plain colours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_layers = nn.ModuleDict({name: nn.Linear(width, size) for name, size in _HEADS.items()})

    def forward(self, tokens: Float[Tensor, "p c"]) -> dict[str, Float[Tensor, "p _"]]:
        """Attributes before activation, by published name."""
        return {name: layer(tokens) for name, layer in self.out_layers.items()}


class GaussianDecoder(nn.Module):
    """Tokens to attributes. Always float32."""

    def __init__(self, config: LhmConfig) -> None:
        super().__init__()
        self.offset_range_m, self.scale_limit_m = config.offset_range_m, config.scale_limit_m
        self.mlp_net = DecoderMlp(config.width, config.decoder_width, config.decoder_hidden_layers)
        self.gs_net = AttributeHeads(config.width)

    def forward(self, tokens: Float[Tensor, "p c"], is_upper_body: Bool[Tensor, " p"]) -> DecodedGaussians:
        """Activated attributes; Gaussians of the upper body are kept smaller."""
        raw = self.gs_net(self.mlp_net(tokens))
        scales = raw["scaling"].exp().clamp(max=self.scale_limit_m)
        return DecodedGaussians(
            offset_m=(raw["xyz"].sigmoid() - 0.5) * self.offset_range_m,
            quat_wxyz=normalize(raw["rotation"], dim=1),
            scales=torch.where(is_upper_body[:, None], scales.clamp(max=UPPER_BODY_SCALE_LIMIT_M), scales),
            opacity=raw["opacity"][:, 0].sigmoid(),
            rgb=raw["shs"].sigmoid(),
        )
