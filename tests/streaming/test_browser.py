"""A real Chromium with a fake camera against a real server."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from live import LiveServer, live_server, run
from people import picture_of_person

from lhm_runtime.avatar import Avatar
from streaming.app import WEB
from streaming.bench.chromium import Page, open_page

pytestmark = [
    pytest.mark.skipif(not (WEB / "index.html").is_file(), reason="the page is not built (make web)"),
    pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here"),
]

PIXELS = """(() => {
  const video = document.querySelector('video'), canvas = document.createElement('canvas')
  canvas.width = canvas.height = 32
  const pen = canvas.getContext('2d')
  pen.drawImage(video, 0, 0, 32, 32)
  return [...pen.getImageData(0, 0, 32, 32).data]
})()"""
SHOWN = "(document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0) > 10"


@asynccontextmanager
async def studio(server: LiveServer, **browser: Any) -> AsyncIterator[Page]:
    async with open_page(server.address, **browser) as page:
        await page.wait_for("document.getElementById('go')?.disabled === false")
        yield page


async def pixels(page: Page) -> np.ndarray:
    return np.array(await page.evaluate(PIXELS)).reshape(32, 32, 4)[..., :3]


async def begin(page: Page, source: str) -> None:
    await page.wait_for(SHOWN)  # somebody stands there at once
    await page.evaluate(f"document.querySelector('input[name=source][value={source}]').click()")


async def difference(page: Page, first: np.ndarray, least: float, limit_s: float = 20.0) -> float:
    """How far the picture has come from ``first``, once that is at least ``least``."""
    best = 0.0
    for _ in range(int(limit_s / 0.1)):
        best = max(best, float(np.abs(await pixels(page) - first).mean()))
        if best >= least:
            return best
        await asyncio.sleep(0.1)
    raise AssertionError(f"the picture changed by {best:.2f} at most; the page says {page.console[-5:]}")


def test_three_clicks_to_a_moving_avatar(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, studio(server) as page:
            await begin(page, "replay")
            await page.wait_for(SHOWN)
            await difference(page, await pixels(page), 1.0)
            assert not [line for line in page.console if "Error" in line], page.console

    run(main())


def test_the_bare_viewer_leaves_and_returns(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session(probe=True)
            for _ in range(2):
                async with open_page(f"{server.address}/view/{session}?probe=1") as page:
                    await page.wait_for(SHOWN)
                for _ in range(50):
                    if server.services.sessions.get(session).viewers == 0:
                        break
                    await asyncio.sleep(0.1)
                assert server.services.sessions.get(session).viewers == 0

    run(main())


def test_a_refused_camera_is_explained(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, studio(server, allow_camera=False) as page:
            await begin(page, "browser")
            assert "amera" in await page.wait_for(
                "!document.getElementById('trouble').hidden && document.getElementById('trouble').innerText"
            )
            assert [session.wish.source for session in server.services.sessions.all] == ["idle"]

    run(main())


def test_the_camera_moves_the_avatar_with_the_server_tracking(avatar: Avatar, tmp_path: Path) -> None:
    camera = tmp_path / "camera.mjpeg"
    film_wave(camera)

    async def main() -> None:
        async with live_server(tmp_path / "data", avatar) as server, studio(server, camera=camera) as page:
            await begin(page, "webcam")
            await page.wait_for(SHOWN, 30.0)
            await difference(page, await pixels(page), 1.0, 30.0)

    run(main())


def film_wave(path: Path) -> None:
    """The built-in person waving, for Chromium's fake camera."""
    with av.open(path, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=15, options={"q:v": "3"})
        stream.width, stream.height, stream.pix_fmt = 360, 640, "yuvj420p"
        for index in range(60):
            frame = av.VideoFrame.from_ndarray(picture_of_person(index), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode())
