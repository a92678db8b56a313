"""The page for OBS in a real Chromium, against what the renderer draws."""

import asyncio
import base64
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import live_server, run
from PIL import Image

from lhm_runtime.avatar import Avatar
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming.app import WEB
from streaming.bench.chromium import Page, open_page

pytestmark = [
    pytest.mark.skipif(not (WEB / "obs.html").is_file(), reason="the page is not built (make web)"),
    pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here"),
]

WIDTH, HEIGHT = 512, 640
LIVE = "window.lhm?.phase().name === 'live' && !document.querySelector('canvas').hidden"
WORDS = "(({ hidden, textContent }) => (hidden ? '' : textContent))(document.getElementById('status') ?? {})"
LUMA = np.array([0.299, 0.587, 0.114])
NOTHING, WHITE, GREEN = (0, 0, 0, 0), (255, 255, 255, 1), (0, 255, 0, 1)


class Watching:
    """What a renderer is asked for last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._render = Renderer.render
        self._asked: tuple[Any, ...] | None = None

        def render(renderer: Renderer, *asked: Any, **how: Any) -> Any:
            self._asked = (np.array(asked[0]), np.array(asked[1]), asked[2])
            return self._render(renderer, *asked, **how)

        monkeypatch.setattr(Renderer, "render", render)

    def exact(self, avatar: Avatar) -> np.ndarray:
        """RGB times alpha, and alpha, 0 to 255: what the last picture is without a codec."""
        assert self._asked is not None
        return np.array(self._render(Renderer(avatar), *self._asked, pixel_format="rgba_premultiplied"), float)


def ghost() -> Avatar:
    """The built-in person, half transparent from the chest down."""
    avatar = build_person(20_000)
    gaussians = avatar.gaussians
    opacity = gaussians.opacity.copy()
    opacity[gaussians.means[:, 1] < np.quantile(gaussians.means[:, 1], 0.45)] *= 0.08
    return replace(avatar, gaussians=replace(gaussians, opacity=opacity))


async def lay(page: Page, width: int, height: int) -> None:
    """As a browser source of this size."""
    await page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


async def shoot(page: Page, behind: tuple[int, int, int, int]) -> np.ndarray:
    """The page as RGBA, over a colour or over nothing."""
    await page.call("Emulation.setDefaultBackgroundColorOverride", color=dict(zip("rgba", behind, strict=True)))
    shot = await page.call("Page.captureScreenshot", format="png")
    return np.array(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGBA"), float)


def extent(alpha: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is seen."""
    rows, columns = (alpha > 128).any(axis=1).nonzero()[0], (alpha > 128).any(axis=0).nonzero()[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def test_the_avatar_on_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    avatar = ghost()
    watching = Watching(monkeypatch)

    async def main() -> None:
        async with live_server(tmp_path, avatar, video={"width": WIDTH, "height": HEIGHT}) as server:
            # held still, so that the exact picture of every frame is known
            session = await server.start_session(source="replay", replay="wave", speed=0)
            async with open_page("about:blank") as page:
                await lay(page, WIDTH, HEIGHT)
                await page.go(f"{server.address}/obs/{session}")
                await page.wait_for(LIVE)
                await page.wait_for(f"document.querySelector('canvas').width === {WIDTH}")
                await asyncio.sleep(3.0)  # the codec sharpens what stands still
                seen = await shoot(page, NOTHING)
                over_white, over_green = await shoot(page, WHITE), await shoot(page, GREEN)
                exact = watching.exact(avatar)
                require_alpha(seen[..., 3], exact[..., 3])
                for over, colour in ((over_white, WHITE), (over_green, GREEN)):
                    require_no_fringe(over[..., :3], exact, np.array(colour[:3]))

                left, _, right, _ = extent(exact[..., 3])
                await require_key(page, f"{server.address}/obs/{session}", over_green, exact[..., 3])
                await page.go(f"{server.address}/obs/{session}?width={WIDTH // 2}&mirror=1")
                await page.wait_for(LIVE)
                await asyncio.sleep(1.0)
                half = extent((await shoot(page, NOTHING))[..., 3])
                assert abs(half[0] - (WIDTH - 1 - right) / 2) <= 2
                assert abs(half[2] - (WIDTH - 1 - left) / 2) <= 2
                assert not page.console, page.console

    run(main())


def require_alpha(seen: np.ndarray, exact: np.ndarray) -> None:
    assert {seen[y, x] for x in (0, -1) for y in (0, -1)} == {0}
    assert np.mean(seen[exact == 0] == 0) > 0.99
    assert np.percentile(seen[exact == 255], 5) == 255
    band = (exact > 90) & (exact < 170)
    assert band.sum() > 10_000
    error = seen[band] - exact[band]
    assert abs(error.mean()) < 1
    assert np.percentile(np.abs(error), 95) <= 6


def require_no_fringe(over: np.ndarray, exact: np.ndarray, colour: np.ndarray) -> None:
    """A fringe is a row of pixels at the outline, darker or brighter than both sides, in all directions."""
    alpha = exact[..., 3:] / 255
    error = (over - (exact[..., :3] + (1 - alpha) * colour)) @ LUMA
    outline = ((exact[..., 3] > 8) & (exact[..., 3] < 90)) | ((exact[..., 3] > 170) & (exact[..., 3] < 247))
    assert outline.sum() > 1_000
    assert abs(error[outline].mean()) < 1.5
    assert np.percentile(error[outline], 2) > -12
    outside = exact[..., 3] <= 8
    assert np.percentile(error[outside], 0.5) > -6


async def require_key(page: Page, address: str, over_green: np.ndarray, alpha: np.ndarray) -> None:
    """The colour key is the same picture with a page that is green itself."""
    await page.go(f"{address}?bg=00ff00")
    await page.wait_for(LIVE)
    await asyncio.sleep(2.0)
    keyed = await shoot(page, NOTHING)
    assert (keyed[..., 3] == 255).all()
    assert (keyed[alpha == 0][:, :3] == (0, 255, 0)).mean() > 0.98
    assert np.abs(keyed[..., :3] - over_green[..., :3]).mean() < 1


def test_before_the_first_picture_it_says_what_is_wrong(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, open_page(f"{server.address}/obs/nobody") as page:
            assert "nobody" in await page.wait_for(WORDS)
            await page.go(f"{server.address}/obs/nobody?bg=green")
            assert "six hex digits" in await page.wait_for(WORDS)

    run(main())


def test_it_comes_back_and_keeps_quiet(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, open_page("about:blank") as page:
            await lay(page, 1280, 720)
            session = await server.start_session()
            await page.go(f"{server.address}/obs/{session}?fit=cover")
            await page.wait_for(LIVE)
            await page.evaluate(
                "window.drawn = 0; const gl = WebGLRenderingContext.prototype, draw = gl.drawArrays;"
                "gl.drawArrays = function (...asked) { window.drawn += 1; draw.apply(this, asked) }"
            )
            rate = await page.evaluate(
                "new Promise((tell) => { const start = performance.now();"
                "setTimeout(() => tell((1000 * drawn) / (performance.now() - start)), 3000) })"
            )
            sent = (await server.http.get(f"/api/sessions/{session}")).json()["fps"]
            assert rate > 0.8 * sent > 0  # 30, where the machine has nothing else to do
            left, top, right, bottom = extent((await shoot(page, NOTHING))[..., 3])
            assert (top, bottom) == (0, 719)  # it fills the source
            assert left < 640 < right

            await page.evaluate(
                "window.gpu = document.querySelector('canvas').getContext('webgl').getExtension('WEBGL_lose_context');"
                "gpu.loseContext()"
            )
            await asyncio.sleep(0.3)
            await page.evaluate("gpu.restoreContext()")
            await asyncio.sleep(1.0)
            assert (await shoot(page, NOTHING))[360, 640, 3] == 255  # after a reset of the graphics card

            await server.http.delete(f"/api/sessions/{session}")
            await page.wait_for("window.lhm.phase().name === 'ended'")
            assert (await shoot(page, NOTHING))[360, 640, 3] == 255  # a short break holds the last picture
            assert await page.evaluate(WORDS) == ""
            await page.wait_for("getComputedStyle(document.querySelector('canvas')).opacity === '0'", 25.0)
            assert await page.evaluate(WORDS) == ""
            assert (await shoot(page, NOTHING))[..., 3].max() == 0

    run(main())
