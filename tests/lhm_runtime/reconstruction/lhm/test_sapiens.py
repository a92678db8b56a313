"""The body encoder from each kind of file, and what is none."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import gelu, layer_norm

from lhm_runtime.errors import FileFormatError, InvalidInputError
from lhm_runtime.reconstruction.lhm.sapiens import SAPIENS_1B, Sapiens, SapiensConfig, encode_body, load_sapiens

SMALL = SapiensConfig(width=12, depth=2, heads=3, patch_px=4, grid=5)


@pytest.fixture(scope="module")
def sapiens() -> Sapiens:
    torch.manual_seed(0)
    module = Sapiens(SMALL).eval().requires_grad_(requires_grad=False)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def plainly(state: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """The same network, one line of its paper after the other, attention written out."""
    eps, width, heads = 1e-6, SMALL.width, SMALL.heads

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    patches = image.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(1, 25, 48)
    kernel = state["patch_embed.projection.weight"].reshape(width, 48)
    x = torch.cat([state["cls_token"], patches @ kernel.T + state["patch_embed.projection.bias"]], dim=1)
    x = x + state["pos_embed"]
    for i in range(SMALL.depth):
        q, k, v = linear(norm(x, f"layers.{i}.ln1"), f"layers.{i}.attn.qkv").chunk(3, dim=2)
        mixed = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / (width // heads) ** 0.5).softmax(dim=2)
            mixed.append(weights @ v[..., part])
        x = x + linear(torch.cat(mixed, dim=2), f"layers.{i}.attn.proj")
        hidden = gelu(linear(norm(x, f"layers.{i}.ln2"), f"layers.{i}.ffn.layers.0.0"))
        x = x + linear(hidden, f"layers.{i}.ffn.layers.1")
    return norm(x, "ln1")[:, 1:]


def test_it_is_the_network_of_the_paper(sapiens: Sapiens, image: torch.Tensor) -> None:
    torch.testing.assert_close(encode_body(sapiens, image), plainly(sapiens.state_dict(), image), atol=1e-5, rtol=1e-5)


def test_its_size_is_the_published_one() -> None:
    with torch.device("meta"):
        module = Sapiens()
    assert sum(parameter.numel() for parameter in module.parameters()) == 1_140_739_584
    assert "layers.39.ffn.layers.0.0.weight" in module.state_dict()
    assert module.pos_embed.shape == (1, 4097, 1536)
    assert SAPIENS_1B.grid * SAPIENS_1B.patch_px == 1024


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_every_kind_of_file(sapiens: Sapiens, image: torch.Tensor, tmp_path: Path) -> None:
    state = {f"backbone.{key}": tensor.clone() for key, tensor in sapiens.state_dict().items()}
    state["neck.unused"] = torch.zeros(2)
    save_file(state, tmp_path / "sapiens.safetensors")
    torch.save({"state_dict": state, "meta": {"epoch": 173}}, tmp_path / "sapiens.pth")
    torch.jit.trace(sapiens, image).save(str(tmp_path / "sapiens.pt2"))
    expected = encode_body(sapiens, image)
    for name in ("sapiens.safetensors", "sapiens.pth", "sapiens.pt2"):
        loaded = load_sapiens(tmp_path / name, config=SMALL)
        torch.testing.assert_close(encode_body(loaded, image), expected, atol=1e-5, rtol=1e-5)
    halved = load_sapiens(tmp_path / "sapiens.pth", config=SMALL, dtype=torch.bfloat16)
    assert halved.ln1.weight.dtype == torch.bfloat16
    difference = (encode_body(halved, image) - expected).abs()
    assert 0 < difference.mean() < 0.05


def test_files_that_are_none(sapiens: Sapiens, tmp_path: Path) -> None:
    path = tmp_path / "sapiens.pt2"
    with pytest.raises(FileFormatError, match=r"Sapiens-1B is not at .*sapiens_1b_epoch_173_torchscript"):
        load_sapiens(path)
    for content in (b"", b"PK\x03\x04 half a zip", b"<html>"):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="damaged or no Sapiens file"):
            load_sapiens(path)
    state = {key: tensor.clone() for key, tensor in sapiens.state_dict().items()}
    state["cls_token"] = torch.zeros(1, 1, 13)
    del state["ln1.bias"]
    torch.save(state, path)
    with pytest.raises(FileFormatError) as caught:
        load_sapiens(path, config=SMALL)
    assert "cls_token: expected (1, 1, 12), found (1, 1, 13)" in str(caught.value)
    assert "ln1.bias: expected (12,), found nothing" in str(caught.value)
    torch.save([1, 2], path)
    with pytest.raises(FileFormatError, match="holds a list"):
        load_sapiens(path, config=SMALL)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "was_here"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trace,))

    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(FileFormatError, match="damaged or no Sapiens file"):
        load_sapiens(path)
    assert not trace.exists()


def test_wrong_pictures_and_features(sapiens: Sapiens, image: torch.Tensor) -> None:
    with pytest.raises(InvalidInputError, match=r"pictures of \(20, 24\) pixels, expected \(20, 20\)"):
        sapiens(torch.zeros(1, 3, 20, 24))
    with pytest.raises(InvalidInputError, match="gave Tensor, expected a feature map"):
        encode_body(lambda picture: picture.mean(), image)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_half_precision_takes_the_script_s_weights(sapiens: Sapiens, image: torch.Tensor, tmp_path: Path) -> None:
    """In half the memory, and near what the script gives; a script of other sizes runs as it is."""
    path = tmp_path / "sapiens.pt2"
    torch.jit.trace(sapiens, image).save(str(path))
    as_saved = load_sapiens(path, config=SMALL)
    half = load_sapiens(path, config=SMALL, dtype=torch.bfloat16)
    assert isinstance(half, Sapiens)
    assert not isinstance(as_saved, Sapiens)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        expected = encode_body(as_saved, image)
        error = (encode_body(half, image) - expected).abs()
    assert 0 < error.mean() < 0.03 * expected.abs().mean()
    assert not isinstance(load_sapiens(path, dtype=torch.bfloat16), Sapiens)
