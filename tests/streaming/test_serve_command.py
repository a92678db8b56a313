"""The server as a program: it starts, says where, and stops when asked to."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from live import add_avatar
from PIL import Image

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import BackendError, InvalidInputError
from streaming import demo_check
from streaming.app import create_app
from streaming.config import load_config
from streaming.sample_avatars import BUILTIN, DEMO

# tests that run in the background have interrupts switched off, and a program inherits that
PROGRAM = """
import signal, typer
from streaming.serve_command import {0}
signal.signal(signal.SIGINT, signal.default_int_handler)
app = typer.Typer()
app.command()({0})
app()
"""


@contextmanager
def started(
    folder: Path, *arguments: str, command: str = "serve", port: int | None = 0
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, once it has said where it listens."""
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(command), *([] if port is None else ["--port", str(port)]), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        address = None
        for line in process.stdout:
            if found := re.search(r"http://\S+?:\d+", line):
                address = found[0]
                break
        assert address, process.communicate(timeout=10)
        yield process, address
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path: Path, avatar: Avatar) -> Path:
    """With all avatars that would be made, up to date."""
    for sample in (BUILTIN, *DEMO):
        add_avatar(tmp_path / "lhm-live", avatar, sample.id, made_of=sample.made_of)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "how"), [("serve", signal.SIGINT), ("serve", signal.SIGTERM), ("demo", signal.SIGTERM)]
)
def test_it_serves_until_it_is_stopped(folder: Path, command: str, how: signal.Signals) -> None:
    with started(folder, command=command) as (process, address):
        assert address.startswith("http://localhost:")
        assert httpx.get(f"{address}/healthz", trust_env=False).text == "ok\n"
        process.send_signal(how)
        _, errors = process.communicate(timeout=20)
        assert "Traceback" not in errors
        assert process.returncode == (0 if how is signal.SIGINT else -how)


def test_the_demo_takes_another_port_and_says_so(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = folder / "mine.yaml"
        settings.write_text(f"server: {{port: {port}}}")
        with started(folder, "--config", str(settings), command="demo", port=None) as (process, address):
            other = int(address.rpartition(":")[2])
            assert port < other <= port + 20
            assert httpx.get(f"{address}/healthz", trust_env=False).text == "ok\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert "Traceback" not in errors
            assert process.returncode == 0
            assert f"port {port} is taken: using {other}" in errors


def test_the_demo_checks_itself(folder: Path) -> None:
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    film = folder / "out" / "demo.mp4"
    film.parent.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format("demo"), "--check", "--port", "0", "-o", str(film)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"latency: .* \d+ ms p50, \d+ ms p95", done.stdout)
    with av.open(film) as container:
        pictures = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)]
    assert len(pictures) > 60
    assert max(np.abs(picture - pictures[0]).mean() for picture in pictures) > 0.5
    assert Image.open(film.with_suffix(".png")).width == 8 * 480
    assert not list((folder / "lhm-live" / "recordings").iterdir())


def test_the_check_fails_where_nothing_moves(folder: Path, tmp_path: Path) -> None:
    """What it says counts only if it could say otherwise."""
    still = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(BackendError, match="stand still"):
        demo_check._require_motion([still] * 10)
    demo_check._require_motion([still, still + np.uint8(9)])


def test_a_port_that_is_taken(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(AssertionError, match="another program"), started(folder, "--port", port):
            raise RuntimeError("it started")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{data: /dev/null}", r"nothing can be kept in /dev/null \(storage.data\): it is no folder"),
        ("{data: /proc/none}", r"nothing can be kept in /proc/none \(storage.data\): No such file"),
        ("{replays: /none}", r"/none is no folder \(storage.replays\)"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, settings: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"storage: {settings}")
    with pytest.raises(InvalidInputError, match=said):
        create_app(load_config(tmp_path / "mine.yaml"))


def test_a_setting_that_does_not_exist(folder: Path) -> None:
    (folder / "mine.yaml").write_text("server: {prot: 1}")
    with (
        pytest.raises(AssertionError, match=r"server\.prot: no such setting"),
        started(folder, "--config", str(folder / "mine.yaml")),
    ):
        raise RuntimeError("it started")


def test_the_sample_person_is_made_when_there_is_none(tmp_path: Path) -> None:
    with started(tmp_path) as (process, address):
        for _ in range(600):
            if '"id":"builtin"' in httpx.get(f"{address}/api/state", trust_env=False).text:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("no sample person")
        assert process.poll() is None
        assert (tmp_path / "lhm-live" / "avatars" / "builtin.png").is_file()
