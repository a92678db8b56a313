"""The head encoder: DINOv2 (Oquab et al. 2023) with registers, four taps fused into one feature map.

Names of parameters are the published ones, so that a checkpoint's keys are the modules' own. Weights may be bfloat16;
the residual stream and the norms stay float32.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, layer_norm, scaled_dot_product_attention

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.lhm.config import DinoConfig

PATCH_PX = 14
GRID = 37
"""Patches each way of the picture that the position embedding was trained for."""
REGISTERS = 4

_NORM_EPS = 1e-6


class SelfAttention(nn.Module):
    """Attention of all tokens to all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """One round of attention."""
        b, n, width = tokens.shape
        q, k, v = self.qkv(tokens).view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).reshape(b, n, width))


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Scale the channels."""
        return tokens * self.gamma


class Mlp(nn.Module):
    """Two layers with the exact GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Each token by itself."""
        return self.fc2(gelu(self.fc1(tokens)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Attention, then the MLP, each added to its input."""
        tokens = tokens + self.ls1(self.attn(normalise(self.norm1, tokens)))
        return tokens + self.ls2(self.mlp(normalise(self.norm2, tokens)))


class PatchEmbedding(nn.Module):
    """Pictures to patch tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH_PX, PATCH_PX)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
        """One token for each patch."""
        return self.proj(image.to(self.proj.weight.dtype))


class DinoV2(nn.Module):
    """The vision transformer; its input is in [0, 1], *not* normalised by mean and deviation (LHM was trained so)."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.taps = config.taps
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID * GRID, config.width))
        self.register_tokens = nn.Parameter(torch.zeros(1, REGISTERS, config.width))
        self.patch_embed = PatchEmbedding(config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=_NORM_EPS)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c gh gw"]]:
        """Feature maps of the taps, each through the final norm; class and register tokens are left out.

        Raises:
            InvalidInputError: the picture is no whole number of patches.
        """
        height, width = image.shape[2:]
        if height % PATCH_PX or width % PATCH_PX:
            raise InvalidInputError(f"the picture is {width}x{height} pixels, expected multiples of {PATCH_PX}")
        grid = (height // PATCH_PX, width // PATCH_PX)
        return [
            tap[:, 1 + REGISTERS :].transpose(1, 2).unflatten(2, grid) for tap in self._tap(self._embed(image, grid))
        ]

    def _embed(self, image: Tensor, grid: tuple[int, int]) -> Tensor:
        patches = self.patch_embed(image).flatten(2).transpose(1, 2).float()
        position = self.pos_embed.float()
        tokens = torch.cat([self.cls_token.float().expand(len(image), -1, -1), patches], dim=1)
        tokens = tokens + torch.cat([position[:, :1], _resize_grid(position[:, 1:], grid)], dim=1)
        # registers have no position
        registers = self.register_tokens.float().expand(len(image), -1, -1)
        return torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)

    def _tap(self, tokens: Tensor) -> Iterator[Tensor]:
        for index, block in enumerate(self.blocks[: self.taps[-1] + 1]):
            tokens = block(tokens)
            if index in self.taps:
                yield normalise(self.norm, tokens)


class FusionHead(nn.Module):
    """The feature pyramid of the head (HFPE): each tap through a 1x1 convolution, then all through another."""

    def __init__(self, taps: int, width: int, out_dim: int) -> None:
        super().__init__()
        self.projects = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(taps))
        self.output_conv = nn.Conv2d(taps * width, out_dim, 1)

    def forward(self, taps: list[Float[Tensor, "b c gh gw"]]) -> Float[Tensor, "b d gh gw"]:
        """One map of all."""
        dtype = self.output_conv.weight.dtype
        projected = [project(tap.to(dtype)) for project, tap in zip(self.projects, taps, strict=True)]
        return self.output_conv(torch.cat(projected, dim=1))


class HeadEncoder(nn.Module):
    """A picture of the head to one token for each of its patches, row by row."""

    def __init__(self, config: DinoConfig, out_dim: int) -> None:
        super().__init__()
        self.model = DinoV2(config)
        self.fusion_head = FusionHead(len(config.taps), config.width, out_dim)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """Features of pictures in [0, 1]; errors as for ``DinoV2``."""
        return self.fusion_head(self.model(image)).flatten(2).transpose(1, 2).float()


def normalise(norm: nn.LayerNorm, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """LayerNorm in float32, its result in the dtype of the weights that follow."""
    weight, bias = norm.weight, norm.bias
    return layer_norm(tokens, norm.normalized_shape, weight.float(), bias.float(), norm.eps).to(weight.dtype)


def _resize_grid(position: Float[Tensor, "1 p c"], grid: tuple[int, int]) -> Float[Tensor, "1 q c"]:
    square = position.unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
    resized = interpolate(square, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return resized.flatten(2).transpose(1, 2)
