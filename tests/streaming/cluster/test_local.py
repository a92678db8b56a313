"""A cluster of this machine alone, as a program: it starts, runs a session, and stops when it is told to."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from live import add_avatar

from lhm_runtime.avatar import Avatar
from streaming.sample_avatars import BUILTIN

pytest.importorskip("ray", reason="the extra scale is not installed")

START_S = 90.0

# tests that run in the background have interrupts switched off, and a program inherits that
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from streaming.cli import main
main()
"""


def test_it_runs_a_session_and_stops_in_order_though_told_twice_at_once(avatar: Avatar, tmp_path: Path) -> None:
    """Ctrl-C reaches Ray's processes too, and timeout or npm tell their program of it a second time."""
    add_avatar(tmp_path, avatar, "builtin", BUILTIN.made_of)  # or it would be made, which takes seconds
    environment = {**os.environ, "LHM_LIVE_STORAGE__DATA": str(tmp_path), "COLUMNS": "200", "NO_COLOR": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", "--cluster", "local", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        address = next((found[0] for line in process.stdout if (found := re.search(r"http://\S+?:\d+", line))), None)
        assert address, process.communicate(timeout=10)
        give_up = time.monotonic() + START_S
        while True:
            answer = httpx.post(f"{address}/api/sessions", json={"avatar": "builtin"}, timeout=40, trust_env=False)
            if answer.status_code != 503 or time.monotonic() > give_up:
                break
            time.sleep(0.5)
        assert answer.status_code == 201, answer.text
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.05)  # or they are one
        _, errors = process.communicate(timeout=40)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert "Traceback" not in errors
    assert "with all of its sessions" in errors
    assert process.returncode == 0
