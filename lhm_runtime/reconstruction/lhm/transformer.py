"""The body-head multimodal transformer: query points and image tokens attend to each other jointly.

Blocks are those of Stable Diffusion 3 (Esser et al. 2024), with two changes that the weights were trained with and
that are marked below. Names of parameters are the published ones. Weights may be bfloat16; norms and the two residual
streams stay float32.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, pad, rms_norm, scaled_dot_product_attention, silu

from lhm_runtime.reconstruction.lhm.config import HEAD_POINTS, LhmConfig

FEED_FORWARD_ROWS = 4096
"""Tokens that go through a feed-forward at once: its hidden layer, four times as wide, is never whole in memory."""

_NORM_EPS = 1e-6


class Modulation(nn.Module):
    """Shifts, scales and gates for a block from the person's global token (adaptive layer norm, Peebles & Xie 2022)."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)

    def forward(self, person: Float[Tensor, "b c"]) -> tuple[Float[Tensor, "b 1 c"], ...]:
        """The parts, in the order of the published weights."""
        modulation = self.linear(silu(person).to(self.linear.weight.dtype)).float()
        return tuple(modulation[:, None].chunk(self.parts, dim=2))


class GeluProjection(nn.Module):
    """A layer and the tanh form of GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n h"]:
        """Each token by itself."""
        return gelu(self.proj(tokens), approximate="tanh")


class FeedForward(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # the middle one was dropout; it keeps the published index of the last
        self.net = nn.Sequential(GeluProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Each token by itself, in portions."""
        return torch.cat([self.net(part) for part in tokens.split(FEED_FORWARD_ROWS, dim=1)], dim=1)


class JointAttention(nn.Module):
    """Attention over points and image tokens together; each kind has its own projections and norms."""

    def __init__(self, width: int, heads: int, *, updates_image: bool) -> None:
        super().__init__()
        self.heads = heads
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            self.add_module(name, nn.RMSNorm(width // heads, eps=_NORM_EPS))
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
            self.add_module(name, nn.Linear(width, width))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.to_add_out = nn.Linear(width, width) if updates_image else None

    def project(
        self, points: Float[Tensor, "b p c"], image: Float[Tensor, "b i c"]
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h n d"], Float[Tensor, "b h n d"]]:
        """Queries, keys and values of the points, then of the image tokens (n = p + i)."""
        q = torch.cat(
            [self._split(self.to_q(points), self.norm_q), self._split(self.add_q_proj(image), self.norm_added_q)], dim=2
        )
        k = torch.cat(
            [self._split(self.to_k(points), self.norm_k), self._split(self.add_k_proj(image), self.norm_added_k)], dim=2
        )
        v = torch.cat([self._split(self.to_v(points)), self._split(self.add_v_proj(image))], dim=2)
        return q, k, v

    def forward(
        self, points: Float[Tensor, "b p c"], image: Float[Tensor, "b i c"]
    ) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b i c"] | None]:
        """What points and image tokens take from all; None for image tokens that nothing reads afterwards."""
        q, k, v = self.project(points, image)
        count = points.shape[1]
        if self.to_add_out is None:
            q = q[:, :, :count]
        attended = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        to_points = self.to_out[0](attended[:, :count])
        return to_points, None if self.to_add_out is None else self.to_add_out(attended[:, count:])

    def _split(self, tokens: Tensor, norm: nn.RMSNorm | None = None) -> Tensor:
        split = tokens.unflatten(2, (self.heads, -1))
        if norm is not None:
            split = rms_norm(split.float(), norm.normalized_shape, norm.weight.float(), norm.eps).to(tokens.dtype)
        return split.transpose(1, 2)


class MultimodalBlock(nn.Module):
    """Joint attention and feed-forwards for points and image tokens; the last layer leaves the image tokens alone."""

    def __init__(self, width: int, heads: int, *, last: bool) -> None:
        super().__init__()
        self.norm1 = Modulation(width, 6)
        self.norm1_context = Modulation(width, 2 if last else 6)
        self.attn = JointAttention(width, heads, updates_image=not last)
        self.ff = FeedForward(width)
        self.ff_context = None if last else FeedForward(width)

    def forward(
        self, points: Float[Tensor, "b p c"], image: Float[Tensor, "b i c"], person: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b i c"] | None]:
        """Points and image tokens after the block; None for image tokens in the last layer."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = self.norm1(person)
        modulated = self._modulate(points, scale, shift)
        if self.ff_context is None:
            image_scale, image_shift = self.norm1_context(person)  # the only one that begins with the scale
            to_points, _ = self.attn(modulated, self._modulate(image, image_scale, image_shift))
        else:
            image_shift, image_scale, image_gate, *image_ff = self.norm1_context(person)
            to_points, to_image = self.attn(modulated, self._modulate(image, image_scale, image_shift))
        points = points + gate * to_points
        points = points + ff_gate * self.ff(self._modulate(points, ff_scale, ff_shift))
        if self.ff_context is None:
            return points, None
        image_ff_shift, image_ff_scale, image_ff_gate = image_ff
        image = image + image_gate * to_image
        # added with its gate and once more without: so the weights were trained
        image = image + (1 + image_ff_gate) * self.ff_context(self._modulate(image, image_ff_scale, image_ff_shift))
        return points, image

    def _modulate(
        self, tokens: Float[Tensor, "b n c"], scale: Float[Tensor, "b 1 c"], shift: Float[Tensor, "b 1 c"]
    ) -> Float[Tensor, "b n c"]:
        """LN(x) (1 + scale) + shift, in the dtype of the weights."""
        normalised = layer_norm(tokens, tokens.shape[2:], eps=_NORM_EPS)
        return torch.addcmul(shift, normalised, 1 + scale).to(self.attn.to_out[0].weight.dtype)


class BodyHeadBlock(nn.Module):
    """One layer: head points look at the head's picture first, then all points at the body's."""

    def __init__(self, width: int, heads: int, *, last: bool) -> None:
        super().__init__()
        self.head_dit = MultimodalBlock(width, heads, last=last)
        self.body_dit = MultimodalBlock(width, heads, last=last)

    def forward(
        self,
        points: Float[Tensor, "b p c"],
        body_image: Float[Tensor, "b i c"],
        head_image: Float[Tensor, "b j c"],
        body_person: Float[Tensor, "b c"],
        head_person: Float[Tensor, "b c"],
    ) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b i c"] | None, Float[Tensor, "b j c"] | None]:
        """Points, body and head image tokens after the layer; no image tokens after the last."""
        first_head = int(points.shape[1] * (1 - HEAD_POINTS))
        head_points, head_image_next = self.head_dit(points[:, first_head:], head_image, head_person)
        points = torch.cat([points[:, :first_head], head_points], dim=1)
        points, body_image_next = self.body_dit(points, body_image, body_person)
        return points, body_image_next, head_image_next


class BodyHeadTransformer(nn.Module):
    """All layers, from embedded points and image features to the tokens that are decoded."""

    def __init__(self, config: LhmConfig) -> None:
        super().__init__()
        self.linear_cond_proj = nn.Linear(config.body_feature_dim, config.width)
        self.layers = nn.ModuleList(
            BodyHeadBlock(config.width, config.heads, last=index == config.layers - 1) for index in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=_NORM_EPS)

    def forward(
        self,
        points: Float[Tensor, "b p c"],
        body_features: Float[Tensor, "b i d"],
        head_features: Float[Tensor, "b j e"],
        body_person: Float[Tensor, "b c"],
        head_person: Float[Tensor, "b c"],
    ) -> Float[Tensor, "b p c"]:
        """A token for each point; head features are padded with zeros to as many channels as body features."""
        padding = body_features.shape[2] - head_features.shape[2]
        features = torch.cat([body_features, pad(head_features, (0, padding))], dim=1)
        image = self.linear_cond_proj(features.to(self.linear_cond_proj.weight.dtype)).float()
        body_image, head_image = image.split([body_features.shape[1], head_features.shape[1]], dim=1)
        for layer in self.layers:
            points, body_image, head_image = layer(points, body_image, head_image, body_person, head_person)
        return layer_norm(
            points, self.norm.normalized_shape, self.norm.weight.float(), self.norm.bias.float(), _NORM_EPS
        )
