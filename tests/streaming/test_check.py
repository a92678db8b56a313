"""The self-test page in real Chromiums: all is well on a good one, and the right line says what is wrong on others."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from live import live_server, run
from turn_server import TURNSERVER, coturn

from lhm_runtime.avatar import Avatar
from streaming.app import WEB
from streaming.bench.chromium import Page, open_page

pytestmark = [
    pytest.mark.skipif(not (WEB / "check.html").is_file(), reason="the page is not built (make web)"),
    pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here"),
]

LINES = (
    "Object.fromEntries([...document.querySelectorAll('#lines > li')].map((row) => [row.id, "
    "{tone: row.dataset.tone, text: row.innerText}]))"
)
NO_UDP = "--webrtc-ip-handling-policy=disable_non_proxied_udp"


async def done(page: Page) -> dict[str, dict[str, str]]:
    """What each line says in the end."""
    await page.wait_for("document.querySelector('body[data-done]') !== null", 50.0)
    lines: dict[str, dict[str, str]] = await page.evaluate(LINES)
    return lines


def test_everything_works_with_a_camera_and_udp(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            coturn(tmp_path) if TURNSERVER else nullcontext() as turn,
            live_server(tmp_path, avatar, rtc={"turn": turn} if turn else {}) as server,
            open_page(f"{server.address}/check?x=secret") as page,
        ):
            await done(page)
            await page.evaluate("document.querySelectorAll('#lines button').forEach((ask) => ask.click())")
            await page.wait_for(
                "document.querySelectorAll('#camera[data-tone=ok], #microphone[data-tone=ok]').length == 2"
            )
            lines = await page.evaluate(LINES)
            tones = {line: said["tone"] for line, said in lines.items()}
            assert tones.pop("webgl") == "warning"  # Chromium's own software renderer
            assert tones.pop("turn") == ("ok" if TURNSERVER else "skipped")
            assert tones.pop("latency") in {"ok", "warning"}  # a busy machine is late
            assert set(tones.values()) == {"ok"}, lines
            assert "straight from the server" in lines["media"]["text"]
            assert "fake" in lines["microphone"]["text"].lower()
            assert (await server.http.get("/api/state")).json()["sessions"] == []
            report = await copied(page)
            assert "ok       Camera: " in report
            assert "secret" not in report
            assert not [line for line in page.console if "Error" in line], page.console

    run(main())


def test_what_does_not_work_says_what_to_do(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        bad: dict[str, Any] = {"allow_camera": False, "flags": (NO_UDP, "--disable-3d-apis")}
        async with live_server(tmp_path, avatar) as server, open_page(f"{server.address}/check", **bad) as page:
            lines = await done(page)
            failed = {line for line, said in lines.items() if said["tone"] == "failed"}
            assert failed == {"camera", "webgl", "loopback", "media"}, lines
            assert "allow the camera" in lines["camera"]["text"]
            assert "hardware acceleration" in lines["webgl"]["text"]
            assert "limit WebRTC" in lines["loopback"]["text"]
            assert "UDP is blocked" in lines["media"]["text"]
            assert "firewall" in lines["media"]["text"]
            assert lines["turn"]["tone"] == "warning"
            assert "4 things do not work" in await page.evaluate("document.getElementById('summary').textContent")

    run(main())


def test_a_server_that_is_full_is_told_as_such(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar, server={"max_sessions": 1}) as server:
            await server.start_session()
            async with open_page(f"{server.address}/check") as page:
                lines = await done(page)
                assert lines["media"]["tone"] == "failed"
                assert "max_sessions" in lines["media"]["text"]
                assert {lines[line]["tone"] for line in ("server", "loopback", "tracking")} == {"ok"}

    run(main())


async def copied(page: Page) -> str:
    """What the button puts into the clipboard."""
    await page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    await page.call("Page.bringToFront")
    await page.evaluate("document.getElementById('copy').click()")
    await page.wait_for("'shown' in document.getElementById('toast').dataset")
    said = await page.evaluate("document.getElementById('toast').textContent")
    text = await page.evaluate("navigator.clipboard.readText()") if said == "Report copied" else said
    assert isinstance(text, str), json.dumps(text)
    return text
