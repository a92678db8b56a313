"""A published checkpoint: ``model.safetensors``, read by key.

All that is needed is compared with the plan (key, shape, kind of number) before anything is loaded; what is not needed
- a 0.8 GB voxel grid, pose blend shapes, training-only weights - is never read. The file is memory-mapped.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import NUM_JOINTS, PARENTS
from lhm_runtime.errors import FileFormatError
from lhm_runtime.reconstruction.lhm.animation import PointRig
from lhm_runtime.reconstruction.lhm.config import CONFIG_NAME, VARIANTS, WEIGHTS_NAME, LhmConfig, find_variant
from lhm_runtime.reconstruction.lhm.dinov2 import HeadEncoder
from lhm_runtime.reconstruction.lhm.network import LhmNetwork

Kind = Literal["float", "int", "bool"]

_HEAD_ENCODER: Final = "encoder."
_NETWORK: Final[Mapping[str, str]] = {
    "point_embedding.": "pcl_embed.",
    "person.": "motion_embed_mlp.",
    "transformer.": "transformer.",
    "decoder.": "renderer.",
}
"""Our modules and the published names of the same."""
_RIG: Final = "renderer.smplx_model."
_BODY: Final = "renderer.smplx_model.smplx_layer."
_KINDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("F64", "F32", "F16", "BF16"), "float"),
    **dict.fromkeys(("I64", "I32"), "int"),
    "BOOL": "bool",
}
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Needed:
    """What a tensor must be."""

    shape: tuple[int | None, ...]
    """None: any length."""
    kind: Kind = "float"

    def __str__(self) -> str:
        return f"{self.kind} [{', '.join('n' if length is None else str(length) for length in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that holds everything its config asks for; each method reads a part of it."""

    path: Path
    config: LhmConfig

    def load_head_encoder(self, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> HeadEncoder:
        """The fine-tuned DINOv2 with its fusion head; drop it after use, the network does not need it."""
        with torch.device("meta"):
            module = HeadEncoder(self.config.dino, self.config.head_feature_dim).to(dtype)
        self._fill(module, {key: _HEAD_ENCODER + key for key in module.state_dict()}, device)
        return module

    def load_network(self, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LhmNetwork:
        """Point embedding, transformer and decoder; ``dtype`` is that of the transformer's weights."""
        with torch.device("meta"):
            module = LhmNetwork(self.config).to_precision(dtype)
        self._fill(module, {key: _published(key) for key in module.state_dict()}, device)
        return module

    def read_rig(self) -> PointRig:
        """Skinning, shape, expression and flags of each query point."""
        tensors = self._read([_RIG + name for name in ("skinning_weight", "shape_dirs", "expr_dirs")])
        flags = self._read([_RIG + name for name in ("is_upper_body", "is_constrain_body")])
        skin_weights, shape_directions, expression_directions = (_to_float32(tensor) for tensor in tensors)
        is_upper_body, is_constrained = (flag.numpy().copy() for flag in flags)
        return PointRig(skin_weights, shape_directions, expression_directions, is_upper_body, is_constrained)

    def read_body(self) -> BodyModel:
        """The checkpoint's own neutral SMPL-X, with FLAME's expressions and without pose blend shapes.

        Raises:
            FileFormatError: joints in another order than SMPL-X's, or faces of vertices that are not there.
        """
        names = ("v_template", "shapedirs", "expr_dirs", "J_regressor", "lbs_weights")
        template, shape, expression, regressor, weights = (
            _to_float32(tensor) for tensor in self._read([_BODY + name for name in names])
        )
        parents, faces = (tensor.numpy() for tensor in self._read([_BODY + "parents", _BODY + "faces_tensor"]))
        if not np.array_equal(parents[1:], PARENTS[1:]):
            raise FileFormatError(f"{self.path}: {_BODY}parents are not those of SMPL-X's 55 joints")
        if faces.size and not 0 <= faces.min() <= faces.max() < len(template):
            raise FileFormatError(
                f"{self.path}: {_BODY}faces_tensor has vertices {faces.min()} to {faces.max()}, of {len(template)}"
            )
        hand = np.zeros((15, 3), np.float32)  # flat_hand_mean
        return BodyModel(
            name="LHM's SMPL-X",
            sha256="",  # it travels inside the avatar
            v_template=template,
            faces=faces.astype(np.int32),
            shape_directions=shape,
            expression_directions=expression,
            pose_directions=None,
            J_regressor=regressor,
            skin_weights=weights,
            left_hand_mean=hand,
            right_hand_mean=hand,
            beta_names=tuple(f"beta{i}" for i in range(self.config.shape_count)),
            expression_names=tuple(f"expression{i}" for i in range(self.config.expression_count)),
            lmk_faces_idx=None,
            lmk_bary_coords=None,
            mediapipe_faces_idx=None,
            mediapipe_bary_coords=None,
        )

    def _fill(self, module: nn.Module, published: Mapping[str, str], device: str) -> None:
        """Give a module on the meta device its weights, in its dtypes, by our and published key."""
        dtypes = {ours: tensor.dtype for ours, tensor in module.state_dict().items()}
        with _open(self.path, device) as file:
            # one after the other: what is read as float32 and kept as less is never there as a whole
            state = {ours: file.get_tensor(theirs).to(dtypes[ours]) for ours, theirs in published.items()}
        module.load_state_dict(state, assign=True)
        module.eval().requires_grad_(requires_grad=False)

    def _read(self, keys: list[str]) -> list[torch.Tensor]:
        with _open(self.path, "cpu") as file:
            return [file.get_tensor(key) for key in keys]


def open_checkpoint(path: Path, variant: str | None = None, config: LhmConfig | None = None) -> Checkpoint:
    """Find a checkpoint and compare it with what its network needs, reading its header alone.

    Args:
        path: ``model.safetensors``, or a folder with it, also below ``step_...`` as ModelScope packs it.
        variant: the published name that is asked for. Without it, the file tells which of them it is, or
            ``config.json`` beside it tells what else it is.
        config: of the network, for those who know better than that file.

    Raises:
        FileFormatError: no file, a truncated or foreign one, another variant than asked for, or tensors that are
            missing or of other shapes; the message names them.
        InvalidInputError: no network is published under that name.
    """
    file = _find(path)
    found = _list_tensors(file)
    if config is None:
        config = _choose_config(file, found, variant)
        beside = file.with_name(CONFIG_NAME)
        if beside.is_file() and (stated := LhmConfig.read(beside)) != config:
            raise FileFormatError(f"{beside} describes another network than {file} holds: {stated}, not {config}")
    faults = [
        f"{key}: expected {needed}, found {found.get(key, 'nothing')}"
        for key, needed in plan_tensors(config).items()
        if key not in found or not _fits(found[key], needed)
    ]
    if faults:
        more = f" and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
        raise FileFormatError(f"{file} is not the network expected: {'; '.join(faults[:_MOST_NAMED])}{more}")
    return Checkpoint(file, config)


def plan_tensors(config: LhmConfig) -> dict[str, Needed]:
    """Every tensor that inference reads, by published key."""
    with torch.device("meta"):
        head_encoder, network = HeadEncoder(config.dino, config.head_feature_dim), LhmNetwork(config)
    plan = {_HEAD_ENCODER + key: Needed(tuple(tensor.shape)) for key, tensor in head_encoder.state_dict().items()}
    plan |= {_published(key): Needed(tuple(tensor.shape)) for key, tensor in network.state_dict().items()}
    points, shape, expression = config.points, config.shape_count, config.expression_count
    return plan | {
        _RIG + "skinning_weight": Needed((points, NUM_JOINTS)),
        _RIG + "shape_dirs": Needed((points, 3, shape)),
        _RIG + "expr_dirs": Needed((points, 3, expression)),
        _RIG + "is_upper_body": Needed((points,), "bool"),
        _RIG + "is_constrain_body": Needed((points,), "bool"),
        _BODY + "v_template": Needed((None, 3)),
        _BODY + "shapedirs": Needed((None, 3, shape)),
        _BODY + "expr_dirs": Needed((None, 3, expression)),
        _BODY + "J_regressor": Needed((NUM_JOINTS, None)),
        _BODY + "lbs_weights": Needed((None, NUM_JOINTS)),
        _BODY + "parents": Needed((NUM_JOINTS,), "int"),
        _BODY + "faces_tensor": Needed((None, 3), "int"),
    }


def weight_bytes(config: LhmConfig, dtype: torch.dtype = torch.float32) -> dict[str, int]:
    """Bytes that the weights of each part take in memory: ``head_encoder`` and ``network``."""
    with torch.device("meta"):
        head_encoder = HeadEncoder(config.dino, config.head_feature_dim).to(dtype)
        network = LhmNetwork(config).to_precision(dtype)
    modules = {"head_encoder": head_encoder, "network": network}
    return {
        name: sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
        for name, module in modules.items()
    }


def choose_dtype(device: str) -> torch.dtype:
    """The large weights' dtype for a device: bfloat16 on cards that multiply it faster, float32 elsewhere."""
    return torch.bfloat16 if device.startswith("cuda") and torch.cuda.is_bf16_supported() else torch.float32


def _published(key: str) -> str:
    ours = next(prefix for prefix in _NETWORK if key.startswith(prefix))
    return _NETWORK[ours] + key.removeprefix(ours)


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    steps = sorted(path.glob(f"step_*/{WEIGHTS_NAME}"), reverse=True)
    for candidate in (path / WEIGHTS_NAME, *steps):
        if candidate.is_file():
            return candidate
    raise FileFormatError(f"no checkpoint at {path}: expected {WEIGHTS_NAME} there, from one of {', '.join(VARIANTS)}")


def _list_tensors(path: Path) -> dict[str, Needed]:
    """Kind and shape of every tensor in the file."""
    with _open(path, "cpu") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        # a kind that is none of ours fits nothing and is named as it is
        return {
            key: Needed(tuple(part.get_shape()), _KINDS.get(part.get_dtype(), part.get_dtype()))
            for key, part in slices.items()
        }


def _choose_config(path: Path, found: Mapping[str, Needed], variant: str | None) -> LhmConfig:
    """The config of the variant asked for, or of the one that the file is."""
    layers = {int(match[1]) for key in found if (match := re.match(r"transformer\.layers\.(\d+)\.", key))}
    rig = found.get(_RIG + "skinning_weight")
    if not layers or rig is None or not rig.shape:
        raise FileFormatError(
            f"{path} is a safetensors file, but no LHM checkpoint: it has {len(found)} tensors, none of them "
            f"{_RIG}skinning_weight or transformer.layers.*"
        )
    sizes = (max(layers) + 1, rig.shape[0])
    names = [name for name, one in VARIANTS.items() if (one.config.layers, one.config.points) == sizes]
    what = f"{sizes[0]} layers and {sizes[1]} points, as {' and '.join(names) or 'no published network'}"
    if variant is None:
        beside = path.with_name(CONFIG_NAME)
        if not names and beside.is_file():
            return LhmConfig.read(beside)
        if not names:
            raise FileFormatError(
                f"{path} has {what}; published are {', '.join(VARIANTS)}, and no {CONFIG_NAME} beside it says more"
            )
        return VARIANTS[names[0]].config
    config = find_variant(variant).config
    if sizes != (config.layers, config.points):
        raise FileFormatError(
            f"{path} is not {variant}, which has {config.layers} layers and {config.points} points: it has {what}"
        )
    return config


def _fits(found: Needed, needed: Needed) -> bool:
    return (
        found.kind == needed.kind
        and len(found.shape) == len(needed.shape)
        and all(want in (None, got) for got, want in zip(found.shape, needed.shape, strict=True))
    )


@contextmanager
def _open(path: Path, device: str) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except SafetensorError as error:
        raise FileFormatError(
            f"{path} is truncated, still downloading, or no safetensors file ({error}): fetch it again"
        ) from error
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error


def _to_float32(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.float().numpy().copy()  # the map of the file is not kept open
    return array
