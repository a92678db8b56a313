"""The body encoder: Sapiens-1B (Khirodkar et al. 2024), as the published TorchScript file or as a module of ours.

It is not part of LHM's checkpoints. Both give the same: one feature for each 16x16 patch of a 1024x1024 picture.
"""

import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import gelu

from lhm_runtime.errors import FileFormatError, InvalidInputError
from lhm_runtime.reconstruction.lhm.dinov2 import SelfAttention, normalise

_NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class SapiensConfig:
    """Sizes of the vision transformer."""

    width: int = 1536
    depth: int = 40
    heads: int = 24
    patch_px: int = 16
    grid: int = 64
    """Patches each way."""


SAPIENS_1B: Final = SapiensConfig()
"""The one that LHM was trained with: 1.14 billion parameters."""


class PatchEmbedding(nn.Module):
    """Pictures to patch tokens."""

    def __init__(self, config: SapiensConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, config.width, config.patch_px, config.patch_px)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """One token for each patch, row by row."""
        return self.projection(image.to(self.projection.weight.dtype)).flatten(2).transpose(1, 2)


class FeedForward(nn.Module):
    """Two layers with the exact GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(width, 4 * width)), nn.Linear(4 * width, width)])

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Each token by itself."""
        return self.layers[1](gelu(self.layers[0](tokens)))


class Block(nn.Module):
    """A pre-norm transformer block without LayerScale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.ln2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.ffn = FeedForward(width)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Attention, then the MLP, each added to its input."""
        tokens = tokens + self.attn(normalise(self.ln1, tokens))
        return tokens + self.ffn(normalise(self.ln2, tokens))


class Sapiens(nn.Module):
    """The vision transformer, with the parameter names of the published checkpoint below ``backbone.``."""

    def __init__(self, config: SapiensConfig = SAPIENS_1B) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.width))
        self.patch_embed = PatchEmbedding(config)
        self.layers = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.ln1 = nn.LayerNorm(config.width, eps=_NORM_EPS)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c gh gw"]]:
        """The feature map of normalised pictures, alone in a tuple as the published file gives it.

        Raises:
            InvalidInputError: pictures of another size than the position embedding is for.
        """
        side = self.config.grid * self.config.patch_px
        if tuple(image.shape[2:]) != (side, side):
            raise InvalidInputError(f"Sapiens got pictures of {tuple(image.shape[2:])} pixels, expected {(side, side)}")
        patches = self.patch_embed(image).float()
        tokens = torch.cat([self.cls_token.float().expand(len(image), -1, -1), patches], dim=1)
        tokens = tokens + self.pos_embed.float()
        for layer in self.layers:
            tokens = layer(tokens)
        grid = (self.config.grid, self.config.grid)
        return (normalise(self.ln1, tokens)[:, 1:].transpose(1, 2).unflatten(2, grid),)


def encode_body(encoder: Any, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
    """One feature for each patch of normalised pictures, row by row, by ``Sapiens`` or a TorchScript module.

    Raises:
        InvalidInputError: the encoder gives no feature map.
    """
    found = encoder(image)
    features = found[0] if isinstance(found, (tuple, list)) else found
    if not isinstance(features, Tensor) or features.ndim != 4:
        raise InvalidInputError(f"the body encoder gave {type(features).__name__}, expected a feature map [b,c,h,w]")
    return features.flatten(2).transpose(1, 2).float()


def load_sapiens(
    path: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, config: SapiensConfig = SAPIENS_1B
) -> Any:
    """The body encoder from a file: TorchScript (``.pt2``), safetensors, or a pickled state dict (``.pth``).

    All become ``Sapiens``, of which ``dtype`` is the weights'. Only TorchScript in float32 on a CPU runs as it was
    saved, and one of other keys or sizes everywhere. Nothing in a pickle is run but tensors.

    Raises:
        FileFormatError: the file is absent, damaged, or of other keys or shapes; the message names them.
    """
    if not path.is_file():
        raise FileFormatError(
            f"Sapiens-1B is not at {path}: LHM needs it besides its own checkpoint. Put "
            "sapiens_1b_epoch_173_torchscript.pt2 (facebook/sapiens-pretrain-1b-torchscript) there"
        )
    try:
        if _is_torchscript(path):
            return _load_torchscript(path, device, dtype, config)
        state = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except (RuntimeError, SafetensorError, pickle.UnpicklingError, OSError, EOFError) as error:
        raise FileFormatError(f"{path} is damaged or no Sapiens file: {error}") from error
    return _assemble(path, state, config).to(device=device, dtype=dtype)


def runs_as_saved(dtype: torch.dtype, device: str) -> bool:
    """Whether a TorchScript file runs with its own code: elsewhere ours takes its weights, in less memory."""
    return dtype == torch.float32 and device == "cpu"


def _load_torchscript(path: Path, device: str, dtype: torch.dtype, config: SapiensConfig) -> Any:
    script = torch.jit.load(str(path), map_location="cpu").eval()
    if not runs_as_saved(dtype, device):
        state = script.state_dict()
        position = next((value for key, value in state.items() if key.removeprefix("backbone.") == "pos_embed"), None)
        if position is not None and position.shape == (1, 1 + config.grid**2, config.width):
            return _assemble(path, state, config).to(device=device, dtype=dtype)
    return script.to(device)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _unpickle(path: Path) -> dict[str, Tensor]:
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise FileFormatError(f"{path} holds a {type(content).__name__}, expected a state dict")
    return content


def _assemble(path: Path, state: dict[str, Tensor], config: SapiensConfig) -> Sapiens:
    bare = {key.removeprefix("backbone."): tensor for key, tensor in state.items()}
    # the model card counts a block more than its paper: the file knows
    depth = len({key.split(".")[1] for key in bare if key.startswith("layers.")})
    with torch.device("meta"):
        module = Sapiens(replace(config, depth=depth or config.depth))
    wanted = module.state_dict()
    faults = [
        f"{key}: expected {tuple(tensor.shape)}, found {tuple(bare[key].shape) if key in bare else 'nothing'}"
        for key, tensor in wanted.items()
        if key not in bare or bare[key].shape != tensor.shape
    ]
    if faults:
        raise FileFormatError(f"{path} is no Sapiens-1B: {'; '.join(faults[:8])} ({len(faults)} of {len(wanted)} keys)")
    module.load_state_dict({key: bare[key] for key in wanted}, assign=True)
    return module.eval().requires_grad_(requires_grad=False)
