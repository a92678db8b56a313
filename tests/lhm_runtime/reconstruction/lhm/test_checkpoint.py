"""Checkpoints are read by key: all that is needed, nothing else, and every doubt is named."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lhm_goldens import WHOLE, Golden
from safetensors.torch import save_file

from lhm_runtime.body.joints import PARENTS
from lhm_runtime.errors import FileFormatError, InvalidInputError
from lhm_runtime.reconstruction.lhm.checkpoint import choose_dtype, open_checkpoint, plan_tensors, weight_bytes
from lhm_runtime.reconstruction.lhm.config import VARIANTS, DinoConfig, LhmConfig, find_variant

SMALL = LhmConfig(
    layers=2,
    points=8,
    width=8,
    heads=2,
    body_feature_dim=12,
    head_feature_dim=10,
    decoder_width=6,
    dino=DinoConfig(width=4, depth=2, heads=2, taps=(0, 1)),
)
VERTICES = 7
DTYPES = {"float": "F32", "int": "I64", "bool": "BOOL"}
BYTES = {"F32": 4, "I64": 8, "BOOL": 1}
RIG = "renderer.smplx_model."
needs_key_lists = pytest.mark.skipif(
    not (WHOLE / "keys_LHM-MINI.txt").is_file(), reason="needs the key lists of ../shared/golden"
)


def small_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, needed in plan_tensors(SMALL).items():
        shape = [VERTICES if length is None else length for length in needed.shape]
        if key.endswith("parents"):
            state[key] = torch.from_numpy(PARENTS.astype(np.int64))
        elif needed.kind == "float":
            state[key] = torch.randn(shape, generator=generator)
        else:
            state[key] = torch.zeros(shape, dtype=torch.int64 if needed.kind == "int" else torch.bool)
    return state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def write_sparse(path: Path, shapes: Mapping[str, tuple[str, list[int]]]) -> None:
    """A safetensors file of those tensors, all zero, that takes no room on the disk."""
    header, end = {}, 0
    for key, (dtype, shape) in shapes.items():
        size = BYTES[dtype] * int(np.prod(shape, dtype=np.int64))
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def read_keys(name: str) -> dict[str, tuple[str, list[int]]]:
    """A published key list: a key and its shape in each line."""
    shapes = {}
    for line in (WHOLE / f"keys_{name}.txt").read_text().splitlines():
        key, _, shape = line.partition(" ")
        if key.startswith("renderer.smplx_model.is_"):
            dtype = "BOOL"
        else:
            dtype = "I64" if re.search("parents|faces|idx|kin_chain", key) else "F32"
        shapes[key] = (dtype, json.loads(shape))
    return shapes


@pytest.mark.shared
@needs_key_lists
@pytest.mark.parametrize("name", ["LHM-MINI", "LHM-500M", "LHM-1B"])
class TestPublishedKeys:
    def test_everything_planned_is_there_and_nothing_learned_is_left_out(self, name: str) -> None:
        published, planned = read_keys(name), plan_tensors(VARIANTS[name].config)
        for key, needed in planned.items():
            shape = published[key][1]
            assert len(shape) == len(needed.shape), key
            assert all(want in (None, got) for want, got in zip(needed.shape, shape, strict=True)), key
        left_out = set(published) - set(planned)
        assert all(key.startswith(RIG) for key in left_out), left_out

    def test_a_file_of_that_size(self, name: str, path: Path) -> None:
        write_sparse(path, read_keys(name))
        assert path.stat().st_size > 2.7e9
        checkpoint = open_checkpoint(path)
        assert checkpoint.config == VARIANTS[name].config
        assert open_checkpoint(path, name.lower()) == open_checkpoint(
            path, f"{name}-HF" if "MINI" not in name else name
        )
        rig = checkpoint.read_rig()
        assert rig.expression_directions.shape == (checkpoint.config.points, 3, 100)
        for other in VARIANTS:
            if VARIANTS[other] is not VARIANTS[name]:
                with pytest.raises(FileFormatError, match=f"is not {other}, which has .* it has .* {name}"):
                    open_checkpoint(path, other)

    def test_one_tensor_of_another_shape(self, name: str, path: Path) -> None:
        shapes = read_keys(name)
        key = "transformer.layers.1.head_dit.attn.norm_added_k.weight"
        shapes[key] = ("F32", [128])
        write_sparse(path, shapes)
        with pytest.raises(FileFormatError, match=rf"{re.escape(key)}: expected float \[64\], found float \[128\]$"):
            open_checkpoint(path)

    def test_weights_are_as_many_as_published(self, name: str) -> None:
        millions = {"LHM-MINI": 442.3, "LHM-500M": 669.0, "LHM-1B": 1424.6}[name]
        config = VARIANTS[name].config
        assert sum(weight_bytes(config).values()) / 4e6 == pytest.approx(millions, abs=0.1)
        assert weight_bytes(config, torch.bfloat16)["head_encoder"] == weight_bytes(config)["head_encoder"] // 2


def test_weights_arrive(path: Path) -> None:
    state = small_state()
    save_file(state | {"fine_encoder.unused": torch.zeros(3)}, path)
    checkpoint = open_checkpoint(path, config=SMALL)
    network, head_encoder = checkpoint.load_network(), checkpoint.load_head_encoder()
    torch.testing.assert_close(network.person[2].weight, state["motion_embed_mlp.2.weight"])
    torch.testing.assert_close(network.point_embedding.basis, state["pcl_embed.basis"])
    torch.testing.assert_close(
        network.decoder.gs_net.out_layers["shs"].bias, state["renderer.gs_net.out_layers.shs.bias"]
    )
    torch.testing.assert_close(head_encoder.model.pos_embed, state["encoder.model.pos_embed"])
    assert not any(parameter.requires_grad for parameter in [*network.parameters(), *head_encoder.parameters()])
    assert not network.training
    np.testing.assert_array_equal(checkpoint.read_rig().skin_weights, state[RIG + "skinning_weight"])
    body = checkpoint.read_body()
    np.testing.assert_array_equal(body.v_template, state[RIG + "smplx_layer.v_template"])
    assert len(body.expression_names) == 100


def test_half_precision_is_for_the_large_parts(path: Path) -> None:
    save_file(
        {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in small_state().items()}, path
    )
    network = open_checkpoint(path, config=SMALL).load_network(dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in network.transformer.parameters()} == {torch.bfloat16}
    for part in (network.point_embedding, network.person, network.decoder):
        assert {parameter.dtype for parameter in part.parameters()} == {torch.float32}


def test_a_cpu_gets_full_precision() -> None:
    assert choose_dtype("cpu") == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_card_gets_what_it_is_fast_at(path: Path) -> None:
    save_file(small_state(), path)
    dtype = choose_dtype("cuda")
    assert (dtype == torch.bfloat16) == torch.cuda.is_bf16_supported()
    network = open_checkpoint(path, config=SMALL).load_network(device="cuda", dtype=dtype)
    assert {(weight.device.type, weight.dtype) for weight in network.transformer.parameters()} == {("cuda", dtype)}


def test_what_is_missing_is_named(path: Path) -> None:
    state = small_state()
    del state["pcl_embed.basis"]
    state[RIG + "is_upper_body"] = state[RIG + "is_upper_body"].float()
    save_file(state, path)
    with pytest.raises(FileFormatError) as caught:
        open_checkpoint(path, config=SMALL)
    assert "pcl_embed.basis: expected float [3, 24], found nothing" in str(caught.value)
    assert "is_upper_body: expected bool [8], found float [8]" in str(caught.value)


def test_many_faults_are_counted(path: Path) -> None:
    save_file({key: tensor for key, tensor in small_state().items() if "body_dit" not in key}, path)
    with pytest.raises(FileFormatError, match=r"and [0-9]+ more$"):
        open_checkpoint(path, config=SMALL)


def test_a_truncated_file(path: Path) -> None:
    save_file(small_state(), path)
    data = path.read_bytes()
    for length in (0, 5, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError, match="truncated, still downloading, or no safetensors file"):
            open_checkpoint(path, config=SMALL)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 a zip", b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 64]
)
def test_a_foreign_file(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="no safetensors file"):
        open_checkpoint(path)


def test_another_network(path: Path) -> None:
    save_file({"model.layers.0.weight": torch.zeros(2)}, path)
    with pytest.raises(FileFormatError, match="no LHM checkpoint: it has 1 tensors"):
        open_checkpoint(path)


def test_a_network_that_is_not_published(path: Path) -> None:
    save_file(small_state(), path)
    with pytest.raises(FileFormatError, match="2 layers and 8 points, as no published network; published are LHM-MINI"):
        open_checkpoint(path)
    with pytest.raises(InvalidInputError, match="no LHM network is called 'LHM-2B'"):
        open_checkpoint(path, "LHM-2B")


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"no checkpoint at .*: expected model\.safetensors"):
        open_checkpoint(tmp_path)
    for step in ("step_010000", "step_060000"):
        (tmp_path / step).mkdir()
        save_file(small_state(), tmp_path / step / "model.safetensors")
    assert open_checkpoint(tmp_path, config=SMALL).path == tmp_path / "step_060000" / "model.safetensors"
    save_file(small_state(), tmp_path / "model.safetensors")
    assert open_checkpoint(tmp_path, config=SMALL).path == tmp_path / "model.safetensors"


def test_a_body_of_other_joints(path: Path) -> None:
    state = small_state()
    state[RIG + "smplx_layer.parents"] = state[RIG + "smplx_layer.parents"].flip(0)
    save_file(state, path)
    with pytest.raises(FileFormatError, match="not those of SMPL-X"):
        open_checkpoint(path, config=SMALL).read_body()
    state = small_state()
    state[RIG + "smplx_layer.faces_tensor"] += VERTICES
    save_file(state, path)
    with pytest.raises(FileFormatError, match="has vertices 7 to 7, of 7"):
        open_checkpoint(path, config=SMALL).read_body()


class TestConfig:
    def test_as_published(self, golden: Golden) -> None:
        model = dict(golden.meta["cfg"])
        config = LhmConfig.from_published(model, golden.config.dino)
        assert (config.layers, config.points) == (model["transformer_layers"], model["dense_sample_pts"])
        assert config.head_dim * config.heads == config.width

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("transformer_type", "sd3_mm_cond", "transformer_type is 'sd3_mm_cond', expected 'sd3_mm_bh_cond'"),
            ("encoder_model_name", "dinov2_vitb14_reg", "expected 'dinov2_vitl14_reg'"),
            ("pcl_dim", 32, "pcl_dim is 32"),
            ("gs_use_rgb", False, "gs_use_rgb is False, expected True"),
            ("transformer_heads", "many", "unusable value"),
            ("gs_clip_scaling", [], "unusable value"),
        ],
    )
    def test_other_networks(self, compact: Golden, key: str, value: object, message: str) -> None:
        model = {**compact.meta["cfg"], "encoder_model_name": "dinov2_vitl14_reg", key: value}
        with pytest.raises(FileFormatError, match=message):
            LhmConfig.from_published(model)

    def test_a_missing_key(self, compact: Golden) -> None:
        model = {key: value for key, value in compact.meta["cfg"].items() if key != "transformer_dim"}
        with pytest.raises(FileFormatError, match="lacks 'transformer_dim'"):
            LhmConfig.from_published(model, compact.config.dino)

    @pytest.mark.parametrize(
        ("content", "message"),
        [("{", "cannot be read as json"), ("[]", "holds a list"), ("{}", "lacks 'encoder_model_name'")],
    )
    def test_a_file_that_is_none(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(FileFormatError, match=message):
            LhmConfig.read(tmp_path / "config.json")

    def test_impossible_sizes(self) -> None:
        for change, message in (
            ({"heads": 3}, "3 heads do not divide 8"),
            ({"head_feature_dim": 13}, "head_feature_dim is 13"),
            ({"dino": DinoConfig(4, 2, 2, (2,))}, "taps"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                replace(SMALL, **change)

    def test_variants(self) -> None:
        assert find_variant("lhm-500m-hf") is find_variant("LHM-500M")
        assert {variant.config.points for variant in VARIANTS.values()} == {20_000, 40_000}
