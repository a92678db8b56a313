"""``bench lhm`` measures in one run what it prints, and says on what machine."""

import json
import sys

import pytest
from typer.testing import CliRunner

from streaming.bench import app


def test_its_report() -> None:
    result = CliRunner().invoke(app, ["lhm", "--network", "lhm-mini", "--divisor", "16", "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["shapes"] == {"points": 1250, "image_tokens": 320, "width": 64, "layers": 2}
    seconds = report["cpu_s"]
    assert report["speedup"] == pytest.approx(seconds["plain"] / seconds["ours"], rel=0.1)
    assert report["largest_difference"] < 1e-4
    assert report["machine"]["commit"]
    needs = report["gigabytes_on_a_card"]["bf16"]
    assert set(needs) == {"body features", "head features", "transformer"}
    assert max(needs.values()) < 8


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(app, ["lhm"])
    assert result.exit_code == 1
    assert "pip install 'lhm-live[lhm]'" in str(result.exception)
