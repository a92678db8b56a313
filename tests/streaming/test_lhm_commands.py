"""``reconstruct --method lhm`` and ``inspect`` on real files: from a photo to a drawn avatar, and bad input."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from lhm_checkpoints import CONFIG, write_lhm
from people import small_demo_person
from PIL import Image
from typer.testing import CliRunner

from lhm_runtime.avatar import load_avatar
from lhm_runtime.models import MODELS_VARIABLE
from lhm_runtime.reconstruction.lhm import cost
from streaming.cli import app
from streaming.inspection_pictures import COLUMNS, TILE

SAPIENS_FILE = "sapiens_1b_epoch_173_torchscript.pt2"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lhm(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo_person(tmp_path_factory.mktemp("photos"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def links(folder: Path, target: Path, *files: str) -> Path:
    for file in files:
        (target / file).symlink_to(folder / file)
    return target


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_from_a_photo_to_pictures(person: Path, folder: Path, tmp_path: Path, dtype: str) -> None:
    out, sheet = tmp_path / "x.avatar", tmp_path / "x.png"
    made = run("reconstruct", person, "--method", "lhm", "--weights", folder, "--dtype", dtype, "-o", out)
    assert made.exit_code == 0, made.output
    assert "method: lhm, as asked for" in made.output
    for stage in cost.STAGES:
        assert f"  {stage}: " in made.output
    avatar = load_avatar(out)
    assert len(avatar) == CONFIG.points
    assert avatar.metadata.reconstructor == "lhm"
    assert "CC-BY-NC-4.0" in avatar.metadata.licence
    drawn = run("render", out, "-o", sheet, "--size", "128")
    assert drawn.exit_code == 0, drawn.output
    with Image.open(sheet) as picture:
        pixels = np.asarray(picture).astype(int)
    assert 0.01 < (np.abs(pixels - pixels[0, 0]).max(axis=2) > 20).mean() < 0.6
    assert run("info", out).exit_code == 0


def test_auto_says_what_it_took(person: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lhm = run("reconstruct", person, "--weights", folder, "-o", tmp_path / "a.avatar")
    assert "method: lhm, the best whose weights are on this machine" in lhm.output
    projection = run("reconstruct", person, "-o", tmp_path / "b.avatar", "--count", "10000")
    assert "method: projection, as no weights of LHM are on this machine" in projection.output
    assert load_avatar(tmp_path / "b.avatar").metadata.reconstructor.startswith("projection")


def test_without_weights_a_sentence_says_what_to_fetch(
    person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = run("reconstruct", person, "--method", "lhm-500m", "-o", tmp_path / "x.avatar")
    assert result.exit_code == 1
    [line] = [line for line in result.output.splitlines() if line.startswith("error:")]
    assert str(tmp_path / "lhm" / "LHM-500M" / "model.safetensors") in line
    assert "--method projection works" in line
    assert not (tmp_path / "x.avatar").exists()


def test_files_that_cannot_be_used(person: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def refused(method: str, weights: Path, message: str) -> None:
        result = run("reconstruct", person, "--method", method, "--weights", weights, "-o", tmp_path / "x.avatar")
        assert result.exit_code == 1
        assert message in result.output
        assert "Traceback" not in result.output
        assert not (tmp_path / "x.avatar").exists()

    refused("lhm-500m", folder, "is not LHM-500M, which has 5 layers and 40000 points")
    for name in ("truncated", "foreign", "no_sapiens", "bad_sapiens"):
        (tmp_path / name).mkdir()
    truncated = links(folder, tmp_path / "truncated", "config.json", SAPIENS_FILE)
    (truncated / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100_000])
    refused("lhm", truncated, "truncated, still downloading, or no safetensors file")
    foreign = links(folder, tmp_path / "foreign", "config.json", SAPIENS_FILE)
    (foreign / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 40)
    refused("lhm", foreign, "no safetensors file")
    refused("lhm", links(folder, tmp_path / "no_sapiens", "config.json", "model.safetensors"), SAPIENS_FILE)
    bad = links(folder, tmp_path / "bad_sapiens", "config.json", "model.safetensors", "1_1200.ply")
    (bad / SAPIENS_FILE).write_bytes(b"not a network" * 100)
    refused("lhm", bad, "is damaged or no Sapiens file")


def test_too_little_memory_is_told_before_anything_starts(
    person: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.current").write_text("0\n")
    (tmp_path / "memory.max").write_text("2000000\n")
    monkeypatch.setattr(cost, "_CGROUP", tmp_path)
    result = run("reconstruct", person, "--method", "lhm", "--weights", folder, "-o", tmp_path / "x.avatar")
    assert result.exit_code == 1
    assert "GB of memory on cpu (GB by stage: body features" in result.output


@pytest.mark.parametrize("kind", ["text", "one pixel wide", "100 megapixels", "nobody"])
def test_photos_that_are_none(kind: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    message = {
        "text": "is not a picture that can be read here",
        "one pixel wide": "is 1x400 pixels; a photo needs at least 64",
        "100 megapixels": "has 100 megapixels (10000x10000)",
        "nobody": "nobody was found",
    }[kind]
    if kind == "text":
        path.write_text("hello")
    else:
        size = {"one pixel wide": (1, 400), "100 megapixels": (10_000, 10_000), "nobody": (300, 400)}[kind]
        Image.new("L", size, 128).save(path, compress_level=1)
    result = run("reconstruct", path, "--method", "lhm", "--weights", folder, "-o", tmp_path / "x.avatar")
    assert result.exit_code == 1
    assert message in result.output


def test_a_photo_of_another_kind(person: Path, folder: Path, tmp_path: Path) -> None:
    """16 bits and grey (test_picture.py reads all kinds): the person is found, and the network runs."""
    with Image.open(person) as opened:
        grey = opened.convert("L")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    result = run(
        "reconstruct", tmp_path / "deep.png", "--method", "lhm", "--weights", folder, "-o", tmp_path / "x.avatar"
    )
    assert result.exit_code == 0, result.output
    assert len(load_avatar(tmp_path / "x.avatar")) == CONFIG.points


def test_looking_into_the_network(person: Path, folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "look.png"
    result = run("inspect", person, "--weights", folder, "--layer", "1", "-o", sheet)
    assert result.exit_code == 0, result.output
    assert "from the query points" in result.output
    assert "transformer: " in result.output
    with Image.open(sheet) as picture:
        assert picture.size == (COLUMNS * TILE[0], 3 * TILE[1])
        tiles = np.asarray(picture).reshape(3, TILE[1], COLUMNS, TILE[0], 3).swapaxes(1, 2).reshape(-1, *TILE[::-1], 3)
    for tile in tiles[:11]:
        assert tile.std() > 5
    assert run("inspect", person, "--weights", folder, "--layer", "3").exit_code == 2


def test_looking_at_an_avatar(tmp_path: Path) -> None:
    sheet = tmp_path / "look.png"
    result = run("inspect", "builtin", "-o", sheet)
    assert result.exit_code == 0, result.output
    for part in ("head", "trunk", "arms", "hands", "legs", "feet", "all"):
        assert f"{part} " in result.output
    with Image.open(sheet) as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (TILE[1], 4 * TILE[0], 3)
    assert 0.03 < (np.abs(pixels - pixels[0, 0]).max(axis=2) > 12).mean() < 0.4
    assert run("inspect", "builtin", "-o", "look.jpg").exit_code == 2
