"""The transformer once more, as one would write it down: the slow twin of transformer.py, for tests and ``bench lhm``.

Attention weights are whole in memory, which takes the square of the tokens (124 GB for a layer of LHM-500M), and the
last layer's image tokens are attended to like all others though nothing reads them.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, rms_norm, scaled_dot_product_attention, silu

from lhm_runtime.reconstruction.lhm.config import HEAD_POINTS, LhmConfig

_EPS = 1e-6

State = Mapping[str, Tensor]
"""Parameters below ``transformer.`` by published name."""


def transform_plainly(
    state: State,
    config: LhmConfig,
    points: Float[Tensor, "p c"],
    body_features: Float[Tensor, "i d"],
    head_features: Float[Tensor, "j e"],
    body_person: Float[Tensor, " c"],
    head_person: Float[Tensor, " c"],
    *,
    fused: bool = False,
) -> Float[Tensor, "p c"]:
    """What ``BodyHeadTransformer`` gives, for one photo; ``fused``: with torch's own attention, the rest as plain."""
    missing = body_features.shape[1] - head_features.shape[1]
    padded = torch.cat([head_features, torch.zeros(len(head_features), missing)], dim=1)
    image = _linear(state, "linear_cond_proj", torch.cat([body_features, padded]))
    body_image, head_image = image[: len(body_features)], image[len(body_features) :]
    first_head = int(len(points) * (1 - HEAD_POINTS))
    for index in range(config.layers):
        last = index == config.layers - 1
        name = f"layers.{index}"
        head_points, head_image = _block(
            state, f"{name}.head_dit", config, points[first_head:], head_image, head_person, last, fused
        )
        points = torch.cat([points[:first_head], head_points])
        points, body_image = _block(state, f"{name}.body_dit", config, points, body_image, body_person, last, fused)
    return _normalise(points) * state["norm.weight"] + state["norm.bias"]


def _block(
    state: State, name: str, config: LhmConfig, points: Tensor, image: Tensor, person: Tensor, last: bool, fused: bool
) -> tuple[Tensor, Tensor]:
    shift, scale, gate, ff_shift, ff_scale, ff_gate = _modulation(state, f"{name}.norm1", person, 6)
    points_in = _normalise(points) * (1 + scale) + shift
    if last:
        image_scale, image_shift = _modulation(state, f"{name}.norm1_context", person, 2)
    else:
        image_shift, image_scale, image_gate, image_ff_shift, image_ff_scale, image_ff_gate = _modulation(
            state, f"{name}.norm1_context", person, 6
        )
    image_in = _normalise(image) * (1 + image_scale) + image_shift
    attended = _attend(state, f"{name}.attn", config, points_in, image_in, fused)
    points = points + gate * _linear(state, f"{name}.attn.to_out.0", attended[: len(points)])
    points = points + ff_gate * _feed_forward(state, f"{name}.ff", _normalise(points) * (1 + ff_scale) + ff_shift)
    if last:
        return points, image
    image = image + image_gate * _linear(state, f"{name}.attn.to_add_out", attended[len(points) :])
    fed = _feed_forward(state, f"{name}.ff_context", _normalise(image) * (1 + image_ff_scale) + image_ff_shift)
    return points, image + image_ff_gate * fed + fed


def _attend(state: State, name: str, config: LhmConfig, points: Tensor, image: Tensor, fused: bool) -> Tensor:
    parts = []
    for ours, theirs, norm in (("to_q", "add_q_proj", "q"), ("to_k", "add_k_proj", "k"), ("to_v", "add_v_proj", "")):
        one, other = (
            _linear(state, f"{name}.{key}", tokens).unflatten(1, (config.heads, config.head_dim)).transpose(0, 1)
            for key, tokens in ((ours, points), (theirs, image))
        )
        if norm:
            one = rms_norm(one, (config.head_dim,), state[f"{name}.norm_{norm}.weight"], _EPS)
            other = rms_norm(other, (config.head_dim,), state[f"{name}.norm_added_{norm}.weight"], _EPS)
        parts.append(torch.cat([one, other], dim=1))
    q, k, v = parts
    if fused:
        attended = scaled_dot_product_attention(q[None], k[None], v[None])[0]
    else:
        attended = torch.softmax(q @ k.transpose(1, 2) / config.head_dim**0.5, dim=2) @ v
    return attended.transpose(0, 1).flatten(1)


def _feed_forward(state: State, name: str, tokens: Tensor) -> Tensor:
    return _linear(state, f"{name}.net.2", gelu(_linear(state, f"{name}.net.0.proj", tokens), approximate="tanh"))


def _modulation(state: State, name: str, person: Tensor, parts: int) -> tuple[Tensor, ...]:
    return _linear(state, f"{name}.linear", silu(person)).chunk(parts)


def _linear(state: State, name: str, tokens: Tensor) -> Tensor:
    return linear(tokens, state[f"{name}.weight"], state[f"{name}.bias"])


def _normalise(tokens: Tensor) -> Tensor:
    return layer_norm(tokens, tokens.shape[1:], eps=_EPS)
