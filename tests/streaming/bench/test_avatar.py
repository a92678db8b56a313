"""``lhm-live bench avatar`` measures what it is asked to and prints it as a table or as JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from people import DEMO_PERSON
from PIL import Image
from typer.testing import CliRunner

from streaming.bench.avatar import avatar, parse_frames

app = typer.Typer()
app.command()(avatar)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The demo person, and a picture of nobody."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.open(DEMO_PERSON).resize((576, 768)).save(folder / "a.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(folder / "b.png")
    return folder


def test_everything_is_in_the_report(photos: Path, tmp_path: Path) -> None:
    sheets = tmp_path / "sheets"
    printed = run("--photos", str(photos), "--people", "1", "--count", "10000", "--sheets", str(sheets), "--json")
    report = json.loads(printed)
    assert report["gaussians"] == 10_000
    assert report["machine"]["cores"] >= 1
    assert report["peak_memory_mb"] > 100
    person = report["photos"]["a.png"]
    assert person["psnr"] > 20
    assert person["ssim"] > 0.85
    assert person["iou"] > 0.9
    assert 0 < person["face"]["ssim"] <= 1
    assert sum(person["cpu_s"].values()) > 0
    assert "nobody was found" in report["photos"]["b.png"]["failed"]
    assert list(report["people"]) == ["1 photo"]
    measured = report["people"]["1 photo"]["0"]
    assert measured["used"] == 1
    assert measured["posed"]["0"]["person"]["psnr"] > 15
    sides = measured["fitted"]
    assert set(sides) == {"0", "30", "-30", "60", "-60", "90", "-90", "180"}
    assert sides["0"]["person"]["psnr"] > 20
    assert min(side["person"]["iou"] for side in sides.values()) > 0.5
    for side in sides.values():  # the same person, with more white around
        assert side["whole"]["iou"] == pytest.approx(side["person"]["iou"], abs=0.03)
    assert sides["90"]["whole"]["psnr"] > sides["90"]["person"]["psnr"] + 2
    assert {path.name for path in sheets.iterdir()} == {"a.png", "synthetic_00_1_photo.png"}


def test_the_table_names_photos_and_failures(photos: Path) -> None:
    printed = run("--photos", str(photos), "--people", "0", "--count", "10000")
    assert "a.png" in printed
    assert "nobody was found" in printed
    assert "peak memory" in printed


def test_frames_are_a_range() -> None:
    assert parse_frames("100:300:50") == [100, 150, 200, 250, 300]
    for wrong in ("", "7", "1:2", "0:10:1", "5:1:1", "1:5:0", "a:b:c"):
        with pytest.raises(typer.BadParameter, match="not like"):
            parse_frames(wrong)
