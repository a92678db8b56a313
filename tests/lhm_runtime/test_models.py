import hashlib
import os
from pathlib import Path

import pytest

from lhm_runtime import models
from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.models import MODELS, ModelFile, find_model

CONTENT = b"not really a network"
SMALL = ModelFile("small.task", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "Apache-2.0", "https://example.org")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The three folders, empty, and a table with one small model."""
    folders = {name: tmp_path / name for name in ("assets", "named", "cache/lhm-live/models")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    monkeypatch.setattr(models, "_ASSETS", folders["assets"])
    monkeypatch.setattr(models, "MODELS", (SMALL,))
    monkeypatch.setenv("LHM_LIVE_MODELS", str(folders["named"]))
    monkeypatch.setattr(models, "_cache_folder", lambda: tmp_path / "cache")
    return {"assets": folders["assets"], "named": folders["named"], "cache": folders["cache/lhm-live/models"]}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_is_in_the_package_and_intact(model: ModelFile) -> None:
    path = find_model(model.name)
    assert path.parent.name == "assets"
    assert path.stat().st_size == model.size


def test_the_notice_names_each_model_with_its_hash() -> None:
    notice = (Path(models.__file__).parent / "assets" / "NOTICE").read_text()
    for model in MODELS:
        assert f"{model.name}\n  sha256 {model.sha256}\n" in notice
        assert model.licence in notice
    assert "Copyright The MediaPipe Authors / Google LLC" in notice


def test_places_are_tried_in_order(places: dict[str, Path]) -> None:
    for name in ("cache", "named", "assets"):
        (places[name] / SMALL.name).write_bytes(CONTENT)
        assert find_model(SMALL.name) == places[name] / SMALL.name


def test_a_damaged_copy_is_passed_over(places: dict[str, Path]) -> None:
    (places["assets"] / SMALL.name).write_bytes(CONTENT[:-1])
    (places["named"] / SMALL.name).write_bytes(CONTENT[::-1])
    (places["cache"] / SMALL.name).write_bytes(CONTENT)
    assert find_model(SMALL.name) == places["cache"] / SMALL.name


def test_a_change_after_the_check_is_noticed(places: dict[str, Path]) -> None:
    path = places["assets"] / SMALL.name
    path.write_bytes(CONTENT)
    find_model(SMALL.name)
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(BackendError, match="instead of"):
        find_model(SMALL.name)


def test_the_message_says_what_is_wrong_where_and_what_to_do(places: dict[str, Path]) -> None:
    (places["assets"] / SMALL.name).write_bytes(CONTENT + b"!")
    (places["named"] / SMALL.name).write_bytes(CONTENT[::-1])
    with pytest.raises(BackendError) as caught:
        find_model(SMALL.name)
    message = str(caught.value)
    assert f"{places['assets'] / SMALL.name}: has 21 bytes instead of 20" in message
    assert f"{places['named'] / SMALL.name}: has sha256" in message
    assert f"{places['cache'] / SMALL.name}: absent" in message
    for word in ("Install lhm-live again", "LHM_LIVE_MODELS", SMALL.source, SMALL.sha256):
        assert word in message


def test_a_folder_in_its_place_is_damage_too(places: dict[str, Path]) -> None:
    (places["assets"] / SMALL.name).mkdir()
    with pytest.raises(BackendError, match=r"small\.task: (has|cannot)"):
        find_model(SMALL.name)


def test_an_unknown_name() -> None:
    with pytest.raises(InvalidInputError, match=r"no model is called 'x.task'; known: pose_landmarker_full.task"):
        find_model("x.task")
