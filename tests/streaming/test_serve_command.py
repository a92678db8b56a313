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

import httpx
import pytest
from live import add_avatar

from lhm_runtime.avatar import Avatar

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
def started(folder: Path, *arguments: str, command: str = "serve") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, once it has said where it listens."""
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(command), "--port", "0", *arguments],
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
    for avatar_id in ("builtin", "demo"):
        add_avatar(tmp_path / "lhm-live", avatar, avatar_id)
    return tmp_path


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["serve", "demo"])
def test_it_serves_until_it_is_stopped(folder: Path, command: str, how: signal.Signals) -> None:
    with started(folder, command=command) as (process, address):
        assert address.startswith("http://localhost:")
        assert httpx.get(f"{address}/healthz", trust_env=False).text == "ok\n"
        process.send_signal(how)
        _, errors = process.communicate(timeout=20)
        assert "Traceback" not in errors
        assert process.returncode in {0, -how}


def test_a_port_that_is_taken(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(AssertionError, match="another program"), started(folder, "--port", port):
            raise RuntimeError("it started")


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
