"""Sizes of the network: only what the forward pass reads, from a checkpoint's ``config.json`` or by published name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from lhm_runtime.errors import FileFormatError, InvalidInputError

WEIGHTS_NAME: Final = "model.safetensors"
CONFIG_NAME: Final = "config.json"
"""Files of a published checkpoint."""

HEAD_POINTS: Final = 0.25
"""Share of the query points that lie on the head; they come last."""


@dataclass(frozen=True, slots=True)
class DinoConfig:
    """A DINOv2 vision transformer with registers (Oquab et al. 2023; Darcet et al. 2023); patches of 14 pixels."""

    width: int
    depth: int
    heads: int
    taps: tuple[int, ...]
    """Blocks whose outputs make the feature pyramid, ascending."""

    @staticmethod
    def from_sizes(sizes: Mapping[str, Any]) -> "DinoConfig":
        """Of ``width``, ``depth``, ``heads`` and ``taps``; raises KeyError, TypeError or ValueError."""
        width, depth, heads = (int(sizes[key]) for key in ("width", "depth", "heads"))
        return DinoConfig(width, depth, heads, tuple(int(tap) for tap in sizes["taps"]))


DINO_VIT_L: Final = DinoConfig(width=1024, depth=24, heads=16, taps=(4, 11, 17, 23))
"""``dinov2_vitl14_reg``, the head encoder of every published LHM."""


@dataclass(frozen=True, slots=True)
class LhmConfig:
    """One LHM network (Qiu et al. 2025); the defaults are what all published ones share."""

    layers: int
    """Body-head transformer layers."""
    points: int
    """Query points: the Gaussians of the avatar."""
    width: int = 1024
    """Channels of a point or image token."""
    heads: int = 16
    """Attention heads."""
    body_feature_dim: int = 1536
    """Channels of Sapiens' features."""
    head_feature_dim: int = 1024
    """Channels of the fused DINOv2 features, at most ``body_feature_dim``."""
    decoder_width: int = 512
    decoder_hidden_layers: int = 2
    offset_range_m: float = 1.0
    """Gaussians move at most half of this from their query point, per axis."""
    scale_limit_m: float = 0.05
    """Largest standard deviation of a Gaussian."""
    shape_count: int = 10
    """Betas."""
    expression_count: int = 100
    """FLAME expression coefficients."""
    dino: DinoConfig = DINO_VIT_L

    def __post_init__(self) -> None:
        if self.width % self.heads or self.dino.width % self.dino.heads:
            raise InvalidInputError(
                f"{self.heads} heads do not divide {self.width} channels, or {self.dino.heads} not {self.dino.width}"
            )
        if self.head_feature_dim > self.body_feature_dim:
            raise InvalidInputError(
                f"head_feature_dim is {self.head_feature_dim}, more than body_feature_dim {self.body_feature_dim}, "
                "to which head features are padded"
            )
        if not self.dino.taps or self.dino.taps[-1] >= self.dino.depth:
            raise InvalidInputError(f"taps {self.dino.taps} are not blocks of a depth of {self.dino.depth}")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @staticmethod
    def from_published(model: Mapping[str, Any], dino: DinoConfig | None = None) -> "LhmConfig":
        """Read the ``model`` section of a published config; keys that the forward pass does not read are ignored.

        Args:
            model: the content of a checkpoint's ``config.json``.
            dino: sizes of the head encoder, instead of those that ``encoder_model_name`` stands for. A network that is
                not published may tell them under the key ``dino``, as ``DinoConfig.from_sizes`` reads them.

        Raises:
            FileFormatError: a key is missing, or names a network that is not this one.
        """
        try:
            if dino is None and "dino" in model:
                dino = DinoConfig.from_sizes(model["dino"])
            elif dino is None:
                _require(model, "encoder_model_name", "dinov2_vitl14_reg")
            _require(model, "transformer_type", "sd3_mm_bh_cond")
            _require(model, "gs_use_rgb", True)
            decoder = model["gs_mlp_network_config"]
            _require(decoder, "activation", "silu")
            width = int(model["transformer_dim"])
            _require(model, "pcl_dim", width)
            _require(model, "gs_query_dim", width)
            return LhmConfig(
                layers=int(model["transformer_layers"]),
                points=int(model["dense_sample_pts"]),
                width=width,
                heads=int(model["transformer_heads"]),
                body_feature_dim=int(model["fine_encoder_feat_dim"]),
                head_feature_dim=int(model["encoder_feat_dim"]),
                decoder_width=int(decoder["n_neurons"]),
                decoder_hidden_layers=int(decoder["n_hidden_layers"]),
                offset_range_m=float(model["gs_xyz_offset_max_step"]),
                scale_limit_m=float(model["gs_clip_scaling"][2]),  # the end of a schedule in training
                shape_count=int(model["shape_param_dim"]),
                expression_count=int(model["expr_param_dim"]),
                dino=DINO_VIT_L if dino is None else dino,
            )
        except KeyError as error:
            raise FileFormatError(
                f"the config lacks {error.args[0]!r}, which every published LHM config has"
            ) from error
        except (TypeError, ValueError, IndexError) as error:
            raise FileFormatError(f"the config holds an unusable value: {error}") from error

    @staticmethod
    def read(path: Path) -> "LhmConfig":
        """Read a ``config.json``; raises FileFormatError as ``from_published``, or when it cannot be read."""
        try:
            model = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{path} cannot be read as json: {error}") from error
        if not isinstance(model, dict):
            raise FileFormatError(f"{path} holds a {type(model).__name__}, expected an object")
        try:
            return LhmConfig.from_published(model)
        except FileFormatError as error:
            raise FileFormatError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class Variant:
    """A published network and the picture it was made for."""

    config: LhmConfig
    source_size: int
    """What LHM calls ``source_image_res``: the person's crop is 5/3 as high as this, rounded down to patches."""


_MINI = Variant(LhmConfig(layers=2, points=20_000), source_size=512)
_500M = Variant(replace(_MINI.config, layers=5, points=40_000), source_size=1024)
_1B = Variant(replace(_500M.config, layers=15), source_size=1024)

VARIANTS: Final[Mapping[str, Variant]] = MappingProxyType(
    {
        "LHM-MINI": _MINI,
        "LHM-500M": _500M,
        "LHM-500M-HF": _500M,  # the same network, trained on half and full bodies
        "LHM-1B": _1B,
        "LHM-1B-HF": _1B,
    }
)
"""The networks that are published, by name."""


def find_variant(name: str) -> Variant:
    """The published network of that name, in any case; raises InvalidInputError with the known names."""
    variant = VARIANTS.get(name.upper())
    if variant is None:
        raise InvalidInputError(f"no LHM network is called {name!r}; published are {', '.join(VARIANTS)}")
    return variant


def source_size(config: LhmConfig) -> int:
    """Of the pictures that a network was made for; of those that are not published, the larger ones'."""
    return next((one.source_size for one in VARIANTS.values() if one.config == config), _500M.source_size)


def _require(section: Mapping[str, Any], key: str, expected: object) -> None:
    if section[key] != expected:
        raise FileFormatError(f"{key} is {section[key]!r}, expected {expected!r}: a network that is not known here")
