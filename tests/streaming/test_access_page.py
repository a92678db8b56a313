"""The pages in a real Chromium, where the server asks for tokens: who has one gets in, and the address keeps none."""

import shutil
import time
from pathlib import Path

import pytest
from live import live_server, run

from lhm_runtime.avatar import Avatar
from streaming.access import Grant, Role, sign
from streaming.app import WEB
from streaming.bench.chromium import open_page

pytestmark = [
    pytest.mark.skipif(not (WEB / "index.html").is_file(), reason="the page is not built (make web)"),
    pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here"),
]

SECRET = "a secret that only this server's tests have"  # noqa: S105
LIVE = "document.getElementById('stage')?.hasAttribute('data-live')"
TROUBLE = "document.getElementById('trouble')?.hidden === false && document.getElementById('trouble').innerText"
LAST_COPIED = (
    "window.copied = '', navigator.clipboard.writeText = (text) => ((window.copied = text), Promise.resolve())"
)


def token(role: Role, session: str | None = None, lasts_s: float = 300) -> str:
    return sign(SECRET, Grant(role, session, time.time() + lasts_s))


def test_who_has_a_link_gets_in_and_who_has_none_is_told(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        access = {"required": "always", "secret": SECRET}
        async with live_server(tmp_path, avatar, access=access) as server, open_page(server.address) as page:
            assert "invitation" in (await page.wait_for(TROUBLE)).lower()
            await page.go(f"{server.address}/?token={token('admin', lasts_s=-60)}")
            assert "expired" in (await page.wait_for(TROUBLE)).lower()

            await page.go(f"{server.address}/?token={token('admin')}")
            await page.wait_for(LIVE, 30.0)
            assert "token" not in await page.evaluate("location.href + document.cookie")
            session = (await page.evaluate("location.hash")).partition("=")[2]
            events = f"fetch('/api/sessions/{session}').then((answer) => answer.status)"
            assert await page.evaluate(events) == 200

            await page.evaluate(LAST_COPIED)
            await page.evaluate("document.getElementById('share').click()")
            link = await page.wait_for("window.copied")
            assert link.startswith(f"{server.address}/view/{session}?token=")
            await page.go(link)
            await page.wait_for("window.lhm?.phase().name === 'live'", 30.0)
            assert "token" not in await page.evaluate("location.href")
            await page.evaluate("location.reload()")
            await page.wait_for("performance.now() < 5000 && window.lhm?.phase().name === 'live'", 30.0)

            await page.go(f"{server.address}/view/{session}?token={token('view', 'another')}")
            told = "document.getElementById('status')?.textContent.includes('another session')"
            await page.wait_for(told, 20.0)

    run(main())
