"""``lhm-live serve`` as a program: what it logs of who comes, and where it refuses to start."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from live import add_avatar, hear, run
from websockets.asyncio.client import connect

from lhm_runtime.avatar import Avatar
from streaming.access import Grant, Role, sign

SECRET = "a secret that only this server's tests have"  # noqa: S105


def token(role: Role, session: str | None = None, lasts_s: float = 60) -> str:
    return sign(SECRET, Grant(role, session, time.time() + lasts_s))


@contextmanager
def served(folder: Path, settings: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``lhm-live serve`` as a program, once it has said where it listens."""
    command = "import sys; from streaming.cli import main; sys.argv = ['lhm-live', *sys.argv[1:]]; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", "--port", "0", "--config", str(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_DATA_HOME": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert process.stdout is not None
    try:
        found = next(match for line in process.stdout if (match := re.search(r"http://\S+?:\d+", line)))
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def test_neither_tokens_nor_secrets_are_logged(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        for name in ("builtin", "someone"):
            add_avatar(tmp_path / "lhm-live", avatar, name)
        settings = tmp_path / "mine.yaml"
        turn = "{urls: ['turn:127.0.0.1:9'], secret: the-turn-servers-own-secret}"
        settings.write_text(
            f"access: {{required: always, secret: {SECRET!r}}}\nrtc: {{turn: {turn}}}\nlog: {{level: debug}}\n"
        )
        with served(tmp_path, settings) as (process, address):
            given = [token("admin"), token("view", "none"), token("admin", lasts_s=-60), token("admin")[:-3]]
            handed_out = ""
            async with httpx.AsyncClient(base_url=address, trust_env=False) as http:
                for one in given:
                    for path in ("/", "/api/state", "/api/nothing", "/whep/none"):
                        await http.get(path, params={"token": one})
                    await http.get("/api/state", headers={"authorization": f"Bearer {one}"})
                    async with connect(
                        f"{address.replace('http', 'ws')}/v1/signal/none?token={one}", proxy=None
                    ) as socket:
                        await hear(socket, "error")
                state = (await http.get("/api/state", params={"token": given[0]})).json()
                handed_out = state["ice_servers"][0]["credential"]
                session = await http.post("/api/sessions", params={"token": given[0]}, json={"avatar": "someone"})
                url = f"{address.replace('http', 'ws')}/v1/signal/{session.json()['id']}?token={given[0]}"
                async with connect(url, proxy=None) as socket:
                    assert (await hear(socket, "ice"))["servers"]
            process.terminate()
            printed, logged = process.communicate(timeout=20)
            assert "session started" in logged
            for word in (SECRET, "the-turn-servers-own-secret", handed_out, *(one.split(".")[2] for one in given)):
                assert word
                assert word not in printed + logged

    run(main())


def test_it_refuses_to_open_to_the_network(tmp_path: Path) -> None:
    """One command sets it up; until then it says which."""
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "COLUMNS": "200", "NO_COLOR": "1"}
    command = "import sys; from streaming.cli import main; sys.argv = ['lhm-live', *sys.argv[1:]]; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "serve", "--host", "0.0.0.0", "--port", "0"],  # noqa: S104
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "run lhm-live token once" in done.stderr
    assert "Traceback" not in done.stderr
