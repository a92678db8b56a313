"""Files as LHM publishes them, small: a random network on the free body, Sapiens, query points."""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, PARENTS
from lhm_runtime.ply import export_ply
from lhm_runtime.reconstruction.lhm.checkpoint import plan_tensors
from lhm_runtime.reconstruction.lhm.config import DinoConfig, LhmConfig
from lhm_runtime.reconstruction.lhm.points import FREQUENCIES
from lhm_runtime.reconstruction.lhm.sapiens import Sapiens, SapiensConfig
from lhm_runtime.types import Gaussians

CONFIG = LhmConfig(
    layers=2,
    points=1200,
    width=32,
    heads=2,
    body_feature_dim=24,
    head_feature_dim=16,
    decoder_width=16,
    dino=DinoConfig(width=32, depth=4, heads=2, taps=(0, 1, 2, 3)),
)
SAPIENS = SapiensConfig(width=24, depth=1, heads=1)
_RIG = "renderer.smplx_model."
_BIASES = {"scaling": -4.2, "opacity": 3.0}


def write_lhm(folder: Path, config: LhmConfig = CONFIG) -> Path:
    """A folder for ``--weights``: model.safetensors, config.json, Sapiens as TorchScript, and the points."""
    folder.mkdir(parents=True, exist_ok=True)
    state, points = make_state(config)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(published_config(config)))
    write_points(folder / f"1_{config.points}.ply", points)
    write_sapiens(folder / "sapiens_1b_epoch_173_torchscript.pt2")
    return folder


def published_config(config: LhmConfig) -> dict[str, object]:
    dino = {"width": config.dino.width, "depth": config.dino.depth, "heads": config.dino.heads}
    return {
        "dino": dino | {"taps": config.dino.taps},
        "transformer_type": "sd3_mm_bh_cond",
        "gs_use_rgb": True,
        "gs_mlp_network_config": {
            "activation": "silu",
            "n_neurons": config.decoder_width,
            "n_hidden_layers": config.decoder_hidden_layers,
        },
        "transformer_dim": config.width,
        "pcl_dim": config.width,
        "gs_query_dim": config.width,
        "transformer_layers": config.layers,
        "dense_sample_pts": config.points,
        "transformer_heads": config.heads,
        "fine_encoder_feat_dim": config.body_feature_dim,
        "encoder_feat_dim": config.head_feature_dim,
        "gs_xyz_offset_max_step": config.offset_range_m,
        "gs_clip_scaling": [100, 0.01, config.scale_limit_m, 3000],
        "shape_param_dim": config.shape_count,
        "expr_param_dim": config.expression_count,
    }


def make_state(config: LhmConfig) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Every tensor that is needed, by published key, and the query points at zero pose."""
    generator = torch.Generator().manual_seed(4)
    body = BodyModel.default()
    vertices = _pick_vertices(body, config.points)
    state = {}
    for key, needed in plan_tensors(config).items():
        if not key.startswith(_RIG):
            state[key] = 0.3 * torch.randn([length or 1 for length in needed.shape], generator=generator)
        if key.endswith((".norm.weight", "_q.weight", "_k.weight", "norm1.weight", "norm2.weight", "gamma")):
            state[key] = torch.ones(needed.shape)
    state["pcl_embed.basis"] = torch.zeros(3, 3 * FREQUENCIES)
    for axis in range(3):
        state["pcl_embed.basis"][axis, axis * FREQUENCIES : (axis + 1) * FREQUENCIES] = torch.pi * 2 ** torch.arange(
            FREQUENCIES
        )
    heads = "renderer.gs_net.out_layers."
    for name, bias in _BIASES.items():
        state[f"{heads}{name}.bias"].fill_(bias)
    state[f"{heads}xyz.weight"] *= 0.02
    state[f"{heads}xyz.bias"].zero_()
    expressions = np.zeros((len(body.v_template), 3, config.expression_count), np.float32)
    expressions[:, :, : body.expression_directions.shape[2]] = body.expression_directions
    shape = body.shape_directions[:, :, : config.shape_count]
    joint = body.skin_weights.argmax(axis=1)
    lower = np.isin(joint, [JOINT_INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("hip", "knee")])
    arrays = {
        "skinning_weight": body.skin_weights[vertices],
        "shape_dirs": shape[vertices],
        "expr_dirs": expressions[vertices],
        "is_upper_body": ~lower[vertices],
        "is_constrain_body": np.zeros(config.points, bool),
        "smplx_layer.v_template": body.v_template,
        "smplx_layer.shapedirs": shape,
        "smplx_layer.expr_dirs": expressions,
        "smplx_layer.J_regressor": body.J_regressor,
        "smplx_layer.lbs_weights": body.skin_weights,
        "smplx_layer.parents": PARENTS.astype(np.int64),
        "smplx_layer.faces_tensor": body.faces.astype(np.int64),
    }
    state |= {_RIG + name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}
    return state, body.v_template[vertices]


def write_points(path: Path, points: np.ndarray) -> None:
    count = len(points)
    axes = np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1))
    size = np.full((count, 3), 0.01, np.float32)
    grey = np.full((count, 3), 0.5, np.float32)
    export_ply(Gaussians(points.astype(np.float32), axes, size, np.full(count, 0.5, np.float32), grey), path)


def write_sapiens(path: Path, config: SapiensConfig = SAPIENS) -> None:
    """A small Sapiens as TorchScript with the published keys, which runs by itself."""
    torch.manual_seed(5)
    module = Sapiens(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    side = config.grid * config.patch_px
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, that sizes become constants
        torch.jit.trace(_Backbone(module), torch.zeros(1, 3, side, side), check_trace=False).save(str(path))


class _Backbone(torch.nn.Module):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = module

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return self.backbone(image)


def _pick_vertices(body: BodyModel, count: int) -> np.ndarray:
    """Of the body and then, a quarter, of the head."""
    rng = np.random.default_rng(3)
    joint = body.skin_weights.argmax(axis=1)
    on_head = np.isin(joint, [JOINT_INDEX[name] for name in ("neck", "head", "jaw")])
    first = count // 4 * 3
    return np.concatenate(
        [
            rng.choice(np.flatnonzero(~on_head), first, replace=False),
            rng.choice(np.flatnonzero(on_head), count - first, replace=False),
        ]
    )
