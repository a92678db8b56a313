"""A real Janus with the settings of deploy/janus; run it in a network of its own (apart.py)."""

import asyncio
import contextlib
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

JANUS = shutil.which("janus")
SETTINGS = Path(__file__).parents[1] / "deploy" / "janus"
SECRET = "what Janus wants to hear"  # noqa: S105
RELAY: dict[str, Any] = {"kind": "janus", "secret": SECRET}

needs_janus = pytest.mark.skipif(JANUS is None, reason="Janus is not installed: apt-get install janus")


class RunningJanus:
    """One Janus, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "janus.log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        assert JANUS is not None
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(JANUS, "--configs-folder", str(SETTINGS), f"--apisecret={SECRET}"), stdout=log, stderr=log
            )
        for _ in range(500):
            assert self.process.returncode is None, self._log.read_text(errors="replace")[-2000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 8188), 0.2):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("Janus does not listen")

    async def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(by)
            await self.process.wait()


@asynccontextmanager
async def run_janus(folder: Path) -> AsyncIterator[RunningJanus]:
    janus = RunningJanus(folder)
    await janus.start()
    try:
        yield janus
    finally:
        await janus.end(signal.SIGKILL)
