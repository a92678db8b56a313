"""``lhm-live models``: what is listed, and fetching from a hub on loopback that drops, lies and answers in parts."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from lhm_checkpoints import write_lhm
from typer.testing import CliRunner

from lhm_runtime.models import MODELS, MODELS_VARIABLE
from lhm_runtime.reconstruction.lhm.weights import PUBLISHED
from streaming.cli import app

SAPIENS_FILE = "sapiens_1b_epoch_173_torchscript.pt2"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return tmp_path / "models" / "lhm"


class Hub(ThreadingHTTPServer):
    """Serves files as the hub does: /OWNER/NAME/resolve/REVISION/FILE, with sha256 as ETag, whole or from a byte on."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.lies: set[str] = set()
        """Files of which other bytes are sent than are announced."""
        self.drops: set[str] = set()
        """Files whose first sending breaks off half way."""
        self.sent: list[tuple[str, int]] = []
        """Each file that was asked for, and from which byte on."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        match = re.fullmatch(r"/([\w-]+/[\w-]+)/resolve/[\w-]+/([\w.]+)", self.path)
        name = f"{match[1]}/{match[2]}" if match else ""
        data = self.server.files.get(name)
        if data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data) - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.server.sent.append((name, first))
        body = bytes(len(data)) if name in self.server.lies else data
        if name in self.server.drops:
            self.server.drops.remove(name)
            self.wfile.write(body[first : len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body[first:])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = write_lhm(tmp_path_factory.mktemp("published"))
    return {
        "3DAIGC/LHM-MINI/model.safetensors": (folder / "model.safetensors").read_bytes(),
        "3DAIGC/LHM-MINI/config.json": (folder / "config.json").read_bytes(),
        f"facebook/sapiens-pretrain-1b-torchscript/{SAPIENS_FILE}": (folder / SAPIENS_FILE).read_bytes(),
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    with Hub(dict(files)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(name: str, address: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's client reads its address once."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", "from streaming.cli import main; main()", "models", "get", name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_the_list_is_whole_and_asks_nobody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = CliRunner().invoke(app, ["models", "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.output)
    rows = {row["name"]: row for row in content["models"]}
    assert set(rows) == {one.name.lower() for one in PUBLISHED} | {model.name for model in MODELS}
    assert all(row["licence"] and row["source"] and row["megabytes"] > 0 for row in rows.values())
    assert rows["lhm-500m"]["state"] == "absent"
    assert rows["pose_landmarker_lite.task"]["state"] == "here"
    assert content["folder"] == str(root)
    assert content["runnable"] == []
    text = CliRunner().invoke(app, ["models"]).output
    assert "lhm-500m" in text
    assert "CC-BY-NC-4.0" in text
    assert "Until then reconstruct works by projection" in text


def test_what_is_here_is_told_apart_from_what_is_damaged(root: Path, files: dict[str, bytes]) -> None:
    weights = files["3DAIGC/LHM-MINI/model.safetensors"]
    for name, data in (("LHM-MINI", weights), ("LHM-1B", weights[:-1])):
        (root / name).mkdir(parents=True)
        (root / name / "model.safetensors").write_bytes(data)
    (root / "LHM-1B" / "config.json").write_text("{}")
    (root / SAPIENS_FILE).write_bytes(b"")
    content = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)
    states = {row["name"]: row["state"] for row in content["models"]}
    assert states["lhm-mini"] == "without config.json"
    assert states["lhm-1b"] == "is truncated or damaged"
    assert states["sapiens-1b"] == "here"
    assert content["runnable"] == ["lhm-1b", "lhm-mini"]


def test_a_network_comes_with_its_encoder_whole_and_resumed(hub: Hub, root: Path) -> None:
    weights = "3DAIGC/LHM-MINI/model.safetensors"
    hub.drops.add(weights)
    result = get("lhm-mini", hub.address)
    assert result.returncode == 0, result.stderr
    for name, path in (
        (weights, root / "LHM-MINI" / "model.safetensors"),
        ("3DAIGC/LHM-MINI/config.json", root / "LHM-MINI" / "config.json"),
        (f"facebook/sapiens-pretrain-1b-torchscript/{SAPIENS_FILE}", root / SAPIENS_FILE),
    ):
        assert path.read_bytes() == hub.files[name]
    starts = [first for name, first in hub.sent if name == weights]
    assert starts[0] == 0
    assert len(starts) == 2
    assert 0 < starts[1] <= len(hub.files[weights]) // 2
    assert "CC-BY-NC-4.0" in result.stderr
    assert "lhm-live reconstruct PHOTO --method lhm-mini" in result.stderr
    hub.sent.clear()
    again = get("lhm-mini", hub.address)
    assert again.returncode == 0
    assert "is here already" in again.stdout
    assert hub.sent == []


def test_what_arrives_damaged_is_removed(hub: Hub, root: Path) -> None:
    hub.lies.add(f"facebook/sapiens-pretrain-1b-torchscript/{SAPIENS_FILE}")
    result = get("sapiens-1b", hub.address)
    assert result.returncode == 1
    assert "arrived damaged and was removed (sha256 " in result.stderr
    assert not (root / SAPIENS_FILE).exists()


def test_offline_it_says_which_files_to_put_where(root: Path) -> None:
    result = get("lhm-1b-hf", "http://127.0.0.1:9")
    assert result.returncode == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert "could not be fetched" in line
    for file in ("model.safetensors", "config.json"):
        assert f"{file} as {root / 'LHM-1B-HF' / file}" in line
    assert "Traceback" not in result.stderr
    assert not root.exists()


def test_what_the_hub_does_not_have(hub: Hub) -> None:
    result = get("lhm-500m", hub.address)
    assert result.returncode == 1
    assert "LHM-500M could not be fetched" in result.stderr


def test_without_the_extra(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = CliRunner().invoke(app, ["models", "get", "lhm-mini"])
    assert result.exit_code == 1
    assert "pip install 'lhm-live[lhm]', or put by hand, from 3DAIGC/LHM-MINI on Hugging Face" in result.output
    assert str(root / "LHM-MINI" / "config.json") in result.output


def test_what_no_program_may_fetch(root: Path) -> None:
    result = CliRunner().invoke(app, ["models", "get", "points-40000"])
    assert result.exit_code == 1
    assert "LHM_prior_model.tar" in result.output
    assert str(root / "1_40000.ply") in result.output
    unknown = CliRunner().invoke(app, ["models", "get", "lhm-7b"])
    assert unknown.exit_code == 1
    assert "nothing is published as 'lhm-7b'; known are lhm-mini" in unknown.output


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1_000_000))
    result = CliRunner().invoke(app, ["models", "get", "lhm-mini"])
    assert result.exit_code == 1
    assert "takes about 2.8 GB, and 0.0 are free at" in result.output
