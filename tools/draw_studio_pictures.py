"""Draw docs/images/{studio,transparent,dark,phone,phone_splats,drivers,check}.png: ``lhm-live demo`` in Chromium.

python tools/draw_studio_pictures.py http://localhost:8080
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

from streaming.bench.chromium import Page, open_page

OUT = Path(__file__).parents[1] / "docs" / "images"
LIVE = "document.getElementById('stage')?.hasAttribute('data-live')"
MADE = "fetch('/api/state').then((answer) => answer.json()).then(({ jobs }) => jobs.length === 0)"
HAND_UP_S = 1.7
DRAWN_S = 15.0
ASK = """((method, path, body) => fetch(path, {
  method, headers: { 'Content-Type': 'application/json' }, body: body && JSON.stringify(body)
}).then((answer) => answer.text()).then((text) => text && JSON.parse(text)))"""
PHONE = (
    "Mozilla/5.0 (Linux; Android 14; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36"
)


async def main(address: str) -> None:
    """Take them all."""
    async with open_page("about:blank") as page:
        await visit(page, address, 1280, 800)
        await page.wait_for(MADE, 120.0)
        await click(page, "[data-avatar=demo-person]", "input[value=replay]")
        await keep(page, "studio")
        await click(page, "[data-avatar=builtin]")
        await asyncio.sleep(1.0)  # framing follows the avatar; then it is chosen
        await click(page, "input[name=framing][value=half]", ".checker", "input[value=idle]")
        await asyncio.sleep(1.0)
        await click(page, "input[value=replay]")
        await keep(page, "transparent")
        await page.evaluate("localStorage.clear()")
        await visit(page, address, 1280, 800, scheme="dark")
        await click(page, "[data-avatar=builtin]", "input[value=replay]")
        await keep(page, "dark")
        await visit(page, address, 390, 844, phone=True)
        await click(page, "[data-avatar=builtin]", "input[value=replay]")
        await keep(page, "phone")
        await draw_splats(page, address)
        await draw_help(page, address)


async def draw_help(page: Page, address: str) -> None:
    """What the page says to whoever has VTuber software, and the self-test."""
    await page.evaluate("localStorage.clear()")
    await visit(page, address, 1280, 800)
    await click(page, "[data-avatar=demo-person]", "input[value=vmc]")
    await page.evaluate("document.querySelector('input[value=vmc]').closest('label').scrollIntoView({block: 'center'})")
    await keep(page, "drivers")
    await page.go(f"{address}/check")
    await page.wait_for("document.querySelector('body[data-done]') !== null", 90.0)
    height = await page.evaluate("document.documentElement.scrollHeight")
    await page.call("Emulation.setDeviceMetricsOverride", width=760, height=height, deviceScaleFactor=1, mobile=False)
    await keep(page, "check")


async def draw_splats(page: Page, address: str) -> None:
    """A phone that draws the avatar itself; where no graphics card does it, a picture takes seconds."""
    wish = {"avatar": "builtin", "source": "replay", "replay": "wave", "share_avatar": True}
    session = await page.evaluate(f"{ASK}('POST', '/api/sessions', {json.dumps(wish)}).then(({{ id }}) => id)")
    paused = {"speed": 0, "seek_s": HAND_UP_S}
    await page.evaluate(f"{ASK}('PATCH', '/api/sessions/{session}', {json.dumps(paused)})")
    await page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=3, mobile=True)
    await page.call("Emulation.setUserAgentOverride", userAgent=PHONE)
    await page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    await page.go(f"{address}/view/{session}?render=client&fallback=no")
    await page.wait_for("document.body?.dataset.drawn === 'here'", 60.0)
    await asyncio.sleep(DRAWN_S)
    await keep(page, "phone_splats", clip={"x": 0, "y": 0, "width": 390, "height": 844, "scale": 0.5})
    await page.call("Emulation.setTouchEmulationEnabled", enabled=False)
    await page.call("Emulation.setUserAgentOverride", userAgent="")
    await page.evaluate(f"{ASK}('DELETE', '/api/sessions/{session}')")


async def visit(
    page: Page, address: str, width: int, height: int, scheme: str = "light", *, phone: bool = False
) -> None:
    """Open the page as for the first time, on such a screen."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
    await page.call("Emulation.setDeviceMetricsOverride", **screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    await page.call("Emulation.setEmulatedMedia", media="screen", features=features)
    await page.go("about:blank")
    await page.go(address)
    await page.wait_for(LIVE, 60.0)


async def click(page: Page, *selectors: str) -> None:
    """Press what these find, one after the other."""
    for selector in selectors:
        await page.evaluate(f"document.querySelector({selector!r}).click()")
        await asyncio.sleep(0.3)


async def keep(page: Page, name: str, **how: Any) -> None:
    """A picture of the page, when the hand is up."""
    await asyncio.sleep(HAND_UP_S)
    picture = await page.call("Page.captureScreenshot", format="png", **how)
    (OUT / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
