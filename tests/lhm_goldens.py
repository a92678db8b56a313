"""Goldens of LHM: recorded inputs, weights, intermediates and outputs of a reduced network (see golden/README.md).

Two folders are read, by the same tests: the compact one beside those tests, and the whole one of ../shared, or that of
the environment variable LHM_GOLDEN. Nothing about their sizes is known here: all is read from their golden_meta.json.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.numpy import save_file

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.lhm import animation, preprocessing
from lhm_runtime.reconstruction.lhm.checkpoint import Checkpoint, open_checkpoint
from lhm_runtime.reconstruction.lhm.config import DinoConfig, LhmConfig
from lhm_runtime.reconstruction.lhm.dinov2 import normalise
from lhm_runtime.reconstruction.lhm.sapiens import encode_body
from lhm_runtime.types import Gaussians, SmplxPose

TESTS = Path(__file__).parent
COMPACT = TESTS / "lhm_runtime" / "reconstruction" / "lhm" / "golden"
WHOLE = Path(os.environ.get("LHM_GOLDEN") or TESTS.parents[1] / "shared" / "golden")
TOLERANCE = 5e-5
PICTURE_TOLERANCE = 1e-3
_LARGEST_SKIPPED = 10_000_000  # values; buffers that are never read need not be written for each run
_POSE = ("root_pose", "body_pose", "jaw_pose", "leye_pose", "reye_pose", "lhand_pose", "rhand_pose")


@dataclass(frozen=True)
class Golden:
    folder: Path
    arrays: Mapping[str, np.ndarray]
    """``in.*``, ``sd.*``, ``mid.*``, ``out.*`` as recorded."""
    pictures: Mapping[str, np.ndarray]
    """Of the preprocessing."""
    meta: Mapping[str, Any]
    config: LhmConfig
    checkpoint: Checkpoint

    def expected(self, prefix: str) -> dict[str, np.ndarray]:
        return {name: array for name, array in self.arrays.items() if name.startswith(prefix)}

    def stride(self, name: str) -> int:
        """Every how many tokens were kept in the compact golden."""
        return self.meta.get("token_strides", {}).get(name, 1)

    @property
    def betas(self) -> np.ndarray:
        return self.arrays["in.smplx.betas"][0]

    def poses(self) -> list[SmplxPose]:
        parts = np.concatenate(
            [self.arrays[f"in.smplx.{key}"][0].reshape(len(self.arrays["in.smplx.trans"][0]), -1, 3) for key in _POSE],
            axis=1,
        )
        return [
            SmplxPose(rotvec, transl, expression, 0.0)
            for rotvec, transl, expression in zip(
                parts, self.arrays["in.smplx.trans"][0], self.arrays["in.smplx.expr"][0], strict=True
            )
        ]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """An .npz in which ``planes/x`` are the bytes of x, all first ones first, and ``picture/x`` is a picture file."""
    arrays = {}
    with np.load(path) as packed:
        for name in packed.files:
            kind, slash, bare = name.partition("/")
            if not slash:
                arrays[name] = packed[name]
            elif kind == "planes":
                arrays[bare] = np.ascontiguousarray(np.moveaxis(packed[name], 0, -1)).view(np.float32)[..., 0]
            else:
                arrays[bare] = cv2.imdecode(packed[name], cv2.IMREAD_UNCHANGED)
    return arrays


def pattern(height: int, width: int) -> np.ndarray:
    """The picture whose resizing was recorded: waves, another phase for each channel."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [0.5 + 0.5 * np.sin(y / 17 + c) * np.cos(x / 11 - c) for c in range(3)]
    return np.stack(waves, axis=2).astype(np.float32)


def subsample(name: str, array: np.ndarray) -> np.ndarray:
    """The last two axes as ``..._s8`` or ``...s8`` at the end of a recorded name says."""
    match = re.search(r"[._]\w*?s(\d+)$", name)
    assert match, f"{name} does not say how it was subsampled"
    step = int(match[1])
    return array[..., ::step, ::step]


def load_golden(folder: Path, work: Path) -> Golden:
    meta = json.loads((folder / "golden_meta.json").read_text())
    arrays = read_arrays(folder / "golden_e2e.npz")
    dino = meta["dino"]
    config = LhmConfig.from_published(
        meta["cfg"], DinoConfig(dino["dim"], dino["depth"], dino["heads"], tuple(dino["inter"]))
    )
    state = {name[3:]: array for name, array in arrays.items() if name.startswith("sd.")}
    path = work / "model.safetensors"
    save_file({key: tensor for key, tensor in state.items() if tensor.size < _LARGEST_SKIPPED}, path)
    return Golden(
        folder=folder,
        arrays=arrays,
        pictures=read_arrays(folder / "golden_preproc.npz"),
        meta=meta,
        config=config,
        checkpoint=open_checkpoint(path, config=config),
    )


def record_network(golden: Golden, dtype: torch.dtype = torch.float32) -> dict[str, np.ndarray]:
    """Everything between the recorded photo and the Gaussians, under the recorded names."""
    arrays, checkpoint = golden.arrays, golden.checkpoint
    seen: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, given: Any, result: Any) -> None:
            seen[name] = result

        return hook

    rgb = arrays["in.image_u8"].astype(np.float32) / 255
    body_picture, head_picture = preprocessing.body_input(rgb), preprocessing.head_input(arrays["in.head_u8"])
    head_encoder = checkpoint.load_head_encoder(dtype=dtype)
    head_encoder.model.register_forward_hook(keep("taps"))
    for index, block in enumerate(head_encoder.model.blocks):
        block.register_forward_hook(keep(f"block{index}"))
    stub = torch.nn.Conv2d(3, len(arrays["sapiens_stub.bias"]), arrays["sapiens_stub.weight"].shape[2:])
    stub.stride = stub.kernel_size
    stub.load_state_dict({key: torch.from_numpy(arrays[f"sapiens_stub.{key}"]) for key in ("weight", "bias")})
    network, rig = checkpoint.load_network(dtype=dtype), checkpoint.read_rig()
    for name, module in network.named_modules():
        module.register_forward_hook(keep(name))
    with torch.inference_mode():
        head_features = head_encoder(head_picture)
        body_features = encode_body(lambda image: (stub(image),), body_picture)
        gaussians = network(
            torch.from_numpy(arrays["out.query_points"][0]),
            body_features,
            head_features,
            torch.from_numpy(rig.is_upper_body),
        )
        taps = golden.config.dino.taps
        classes = [normalise(head_encoder.model.norm, seen[f"block{tap}"])[:, 0] for tap in taps]

    recorded = {
        **{f"mid.dino_inter{k}": tap.flatten(2).transpose(1, 2) for k, tap in enumerate(seen["taps"])},
        **{f"mid.dino_cls{k}": token for k, token in enumerate(classes)},
        "mid.body_feats": body_features,
        "mid.head_feats": head_features,
        "mid.motion_mlp": seen["person"][:, None],
        "mid.pcl_embed": seen["point_embedding"],
        "mid.cond_proj": seen["transformer.linear_cond_proj"],
        "mid.tokens": seen["transformer"],
        "mid.mlp_net": seen["decoder.mlp_net"],
        **{f"mid.gs_raw.{name}": value for name, value in seen["decoder.gs_net"].items()},
        "out.gs.offset_xyz": gaussians.offset_m,
        "out.gs.opacity": gaussians.opacity[:, None],
        "out.gs.rotation": gaussians.quat_wxyz,
        "out.gs.scaling": gaussians.scales,
        "out.gs.shs": gaussians.rgb[:, None],
    }
    for index in range(golden.config.layers):
        layer = f"transformer.layers.{index}"
        points, body_image, head_image = seen[layer]
        recorded[f"mid.layer{index}.0"] = points
        if body_image is not None:
            recorded[f"mid.layer{index}.1"] = torch.cat([body_image, head_image], dim=1)
        for part in ("head_dit", "body_dit"):
            points, image = seen[f"{layer}.{part}"]
            recorded[f"mid.layer{index}.{part}.0"] = points
            if image is not None:
                recorded[f"mid.layer{index}.{part}.1"] = image
    computed = {name: tensor.float().numpy() for name, tensor in recorded.items()}
    for name, picture in (("mid.dino_in_s", head_picture), ("mid.sapiens_in_s", body_picture)):
        full = next(recorded_name for recorded_name in golden.arrays if recorded_name.startswith(name))
        computed[full] = subsample(full, picture.numpy())
    return computed


def record_animation(golden: Golden) -> dict[str, np.ndarray]:
    """Query points, joints, and LHM's deformation of the recorded Gaussians, under the recorded names."""
    arrays, betas = golden.arrays, golden.betas
    rig, body = golden.checkpoint.read_rig(), golden.checkpoint.read_body()
    closing = animation.closing_matrices(body)
    last_row = np.broadcast_to(np.array([[[0, 0, 0, 1]]]), (len(closing), 1, 4))
    recorded = {
        "out.query_points": animation.open_hips(arrays["dense_pts"], rig, body)[None],
        "out.transform_mat_neutral_pose": np.concatenate([closing, last_row], axis=1)[None],
        "out.joints_zero_pose": body.rest_joints(betas)[None],
    }
    for name, pose in named_poses(golden).items():
        posed = animation.deform(canonical(golden), rig, body, pose, betas)
        recorded[f"out.{name}.xyz"], recorded[f"out.{name}.rot"] = posed.means, posed.quat_wxyz
    return recorded


def record_pictures(golden: Golden) -> dict[str, np.ndarray]:
    """The preprocessing that was recorded, under the recorded names."""
    computed: dict[str, np.ndarray] = {}
    for name in golden.pictures:
        case, _, rest = name.partition(".")
        if case.startswith("sap_"):
            height, width = (int(v) for v in case[4:].split("x"))
            computed[name] = subsample(name, preprocessing.body_input(pattern(height, width)).numpy())
        elif case.startswith("dino_") and rest == "is_identity":
            picture = np.rint(pattern(int(case[5:]), int(case[5:])) * 255).astype(np.uint8)
            same = preprocessing.head_input(picture)[0].permute(1, 2, 0).numpy()
            computed[name] = np.array([np.array_equal(same, picture.astype(np.float32) / 255)])
        elif case.startswith("dino_"):
            side = int(case[5:])
            computed[name] = subsample(name, preprocessing.fit_square(pattern(side, side), 448).numpy())
        elif rest.endswith("image_u8"):
            computed.update(_record_crop(golden, rest.partition(".")[0]))
    return computed


def _record_crop(golden: Golden, case: str) -> dict[str, np.ndarray]:
    pictures = golden.pictures
    height, width, cx, cy, rx, ry = (int(v) for v in pictures[f"crop.{case}.ellipse"])
    y, x = np.mgrid[:height, :width]
    alpha = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1).astype(np.float32)
    computed = {}
    for size in sorted({int(name.split(".")[2]) for name in pictures if re.match(rf"crop\.{case}\.\d+\.", name)}):
        cropped = preprocessing.crop_body(pictures[f"crop.{case}.image_u8"], alpha, size)
        for part, array in (("rgb", cropped.rgb.transpose(2, 0, 1)), ("mask", cropped.mask)):
            for name in pictures:
                if name.startswith(f"crop.{case}.{size}.{part}_s"):
                    computed[name] = subsample(name, array)
        computed[f"crop.{case}.{size}.shape"] = np.array([1, 3, *cropped.mask.shape])
    return computed


def canonical(golden: Golden) -> Gaussians:
    """The recorded Gaussians around the recorded query points."""
    arrays = golden.arrays
    return Gaussians(
        means=arrays["out.query_points"][0] + arrays["out.gs.offset_xyz"],
        quat_wxyz=arrays["out.gs.rotation"],
        scales=arrays["out.gs.scaling"],
        opacity=arrays["out.gs.opacity"][:, 0],
        rgb=arrays["out.gs.shs"][:, 0],
    )


def named_poses(golden: Golden) -> dict[str, SmplxPose]:
    """The driven poses, the T-pose, and LHM's hidden A-pose."""
    poses = {f"pose{k}": pose for k, pose in enumerate(golden.poses())}
    zero = np.zeros((55, 3), np.float32)
    lowered = zero.copy()
    lowered[JOINT_INDEX["left_shoulder"], 2], lowered[JOINT_INDEX["right_shoulder"], 2] = -np.pi / 6, np.pi / 6
    for name, rotvec in (("tpose", zero), ("cano", lowered)):
        poses[name] = SmplxPose(rotvec, np.zeros(3, np.float32), np.zeros_like(poses["pose0"].expression), 0.0)
    return poses


def errors(
    golden: Golden, computed: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float = TOLERANCE
) -> dict[str, float]:
    """Largest error of each recorded tensor, in tolerances: up to 1 is right. Shapes must be equal."""
    found = {}
    for name, array in expected.items():
        ours = computed[name]
        if golden.stride(name) > 1:
            ours = ours[..., :: golden.stride(name), :]
        assert ours.shape == array.shape, f"{name}: computed {ours.shape}, recorded {array.shape}"
        allowed = np.full(array.shape, tolerance)
        if array.dtype == np.float16:  # half a step of what can be stored
            allowed += 0.5 * np.spacing(np.abs(array)).astype(np.float64)
        error = np.abs(ours.astype(np.float64) - array.astype(np.float64)) / allowed
        found[name] = float(np.where(np.isnan(error), np.inf, error).max(initial=0))
    return found


def wrong(found: Mapping[str, float]) -> dict[str, float]:
    """Those beyond the tolerance."""
    return {name: error for name, error in found.items() if error > 1}
