"""What only a real Chromium can show: its own tracking, the picture it really draws, a server that went and came."""

import asyncio
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
from dancer import RAISED, Dancer, reach
from live import LiveServer, live_server, run
from people import DEMO_PERSON
from PIL import Image

from lhm_runtime.avatar import Avatar
from streaming.app import WEB
from streaming.bench.chromium import Page, open_page

pytestmark = [
    pytest.mark.skipif(not (WEB / "index.html").is_file(), reason="the page is not built (make web)"),
    pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here"),
]

WIDTH, HEIGHT = 96, 120
PIXELS = f"""(() => {{
  const video = document.querySelector('video'), canvas = document.createElement('canvas')
  canvas.width = {WIDTH}; canvas.height = {HEIGHT}
  const pen = canvas.getContext('2d')
  pen.drawImage(video, 0, 0, {WIDTH}, {HEIGHT})
  const {{ data }} = pen.getImageData(0, 0, {WIDTH}, {HEIGHT})
  return Array.from({{ length: {WIDTH * HEIGHT} }}, (_, i) => data[4 * i + 1])
}})()"""
FRAMES = "(document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0)"


async def see(page: Page) -> np.ndarray:
    """Green of what is on the screen, [HEIGHT, WIDTH]."""
    return np.array(await page.evaluate(PIXELS)).reshape(HEIGHT, WIDTH)


async def choose(page: Page, source: str) -> None:
    """What is to move the avatar."""
    await page.wait_for("document.querySelector('video')?.videoWidth > 0")  # from when it has a session, it listens
    choice = f"document.querySelector('input[name=source][value={source}]')"
    await page.evaluate(f"{choice}.click()")


async def shows_pictures(page: Page, limit_s: float = 20.0) -> None:
    """Until ten more pictures were shown."""
    shown = await page.evaluate(FRAMES)
    await page.wait_for(f"{FRAMES} > 10 && {FRAMES} !== {shown}", limit_s)


def head_at(picture: np.ndarray) -> float | None:
    """Where the head is from left to right, as a share of the width; the ground is plain."""
    person = np.abs(picture - picture[2, -3]) > 30
    rows = person.any(axis=1).nonzero()[0]
    if rows.size < HEIGHT // 3:
        return None
    head = person[rows[0] : rows[0] + HEIGHT // 12]
    return float(head.nonzero()[1].mean() / WIDTH)


def test_the_browser_shows_the_pose_the_driver_takes(avatar: Avatar, tmp_path: Path) -> None:
    """Two known poses, in turn: the drawn frames differ as the poses do."""

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="browser")
            driver = await server.join(session, stack)
            page = await stack.enter_async_context(open_page(f"{server.address}/view/{session}"))
            dancer, raised = Dancer(avatar), False

            async def dance() -> None:
                for sequence in range(10_000):
                    driver.pose.send(dancer.message(sequence, time.time(), raised=raised))  # type: ignore[union-attr]
                    await asyncio.sleep(1 / 30)

            dancing = stack.enter_context(_running(dance()))
            await shows_pictures(page)
            frames: dict[bool, list[np.ndarray]] = {False: [], True: []}
            for raised in (False, True, False, True):
                async with asyncio.timeout(10):
                    while (reach(await see(page)) > RAISED) != raised:
                        await asyncio.sleep(0.05)
                await asyncio.sleep(0.7)
                frames[raised].append(await see(page))
            assert not dancing.done()
            apart = [np.abs(a - b).mean() for a in frames[False] for b in frames[True]]
            alike = [np.abs(pair[0] - pair[1]).mean() for pair in frames.values()]
            assert min(apart) > 4 * max(alike)

    run(main())


class _running:  # noqa: N801 - reads as a phrase where it is used
    """A task that ends with the block."""

    def __init__(self, work: object) -> None:
        self._work = work

    def __enter__(self) -> "asyncio.Task[None]":
        self._task = asyncio.create_task(self._work)  # type: ignore[arg-type]
        return self._task

    def __exit__(self, *_: object) -> None:
        self._task.cancel()


def test_the_pages_own_tracking_moves_the_avatar(avatar: Avatar, tmp_path: Path) -> None:
    """The picture of the demo person leans to one side and the other before the fake camera; only points come here."""
    camera = tmp_path / "camera.mjpeg"
    film_leaning(camera)

    async def main() -> None:
        async with live_server(tmp_path / "data", avatar) as server, AsyncExitStack() as stack:
            page = await stack.enter_async_context(open_page(server.address, camera=camera))
            await choose(page, "browser")
            await wait_for_samples(server)
            await shows_pictures(page)
            heads: list[float] = []
            async with asyncio.timeout(25):
                while len(heads) < 20 or max(heads) - min(heads) < 0.12:
                    if (at := head_at(await see(page))) is not None:
                        heads.append(at)
                    await asyncio.sleep(0.1)
            (session,) = server.services.sessions.all
            assert session.messages.refused == 0
            assert session.state.source == "browser"

    run(main())


async def wait_for_samples(server: LiveServer) -> None:
    """Until the page has loaded its models and sends what it sees; without a graphics card that takes a while."""
    async with asyncio.timeout(40):
        while not any(session.messages.used for session in server.services.sessions.all):
            await asyncio.sleep(0.1)


def film_leaning(path: Path) -> None:
    """Two seconds upright and to the left, two upright and to the right."""
    person = Image.open(DEMO_PERSON).convert("RGB")
    ground = person.resize((1, 1)).getpixel((0, 0))
    with av.open(path, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=15, options={"q:v": "3"})
        stream.width, stream.height, stream.pix_fmt = 480, 640, "yuvj420p"
        for index in range(60):
            turned = person.rotate(
                18 * np.sin(2 * np.pi * index / 60), Image.Resampling.BILINEAR, center=(384, 900), fillcolor=ground
            )
            frame = av.VideoFrame.from_ndarray(np.array(turned.resize((480, 640))), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode())


def test_after_a_restart_of_the_server_the_page_goes_on_by_itself(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            async with live_server(tmp_path, avatar) as server:
                page = await stack.enter_async_context(open_page(server.address))
                await choose(page, "replay")
                await shows_pictures(page)
                port = urlsplit(server.address).port
                sessions = {session.id for session in server.services.sessions.all}
            await asyncio.sleep(1.0)
            shown = await page.evaluate(FRAMES)
            async with live_server(tmp_path, avatar, port=port or 0) as server:
                async with asyncio.timeout(30):
                    while not any(session.viewers for session in server.services.sessions.all):
                        await asyncio.sleep(0.1)
                assert sessions.isdisjoint(session.id for session in server.services.sessions.all)
                await page.wait_for(f"{FRAMES} !== {shown} && {FRAMES} > 10")
                first = await see(page)
                async with asyncio.timeout(10):
                    while np.abs(await see(page) - first).mean() < 1.0:
                        await asyncio.sleep(0.1)

    run(main())


def test_a_recording_plays_in_the_browser_for_as_long_as_it_was_made(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="replay", replay="wave")
            viewer = await server.watch(session, stack)
            await viewer.see()
            started = await server.http.post(f"/api/sessions/{session}/recording")
            assert started.status_code == 201, started.text
            start = time.monotonic()
            await asyncio.sleep(3.0)
            assert (await server.http.delete(f"/api/sessions/{session}/recording")).status_code == 200
            took = time.monotonic() - start
            film = tmp_path / "film.mp4"
            film.write_bytes((await server.http.get(started.headers["location"])).content)
            with av.open(film) as container:
                times = [frame.time for frame in container.decode(video=0)]
            assert times[-1] - times[0] == pytest.approx(took, abs=0.7)
            assert len(times) > 20 * (took - 0.7)
            page = await stack.enter_async_context(open_page(f"{server.address}/view/{session}"))
            played = await page.evaluate(
                f"""new Promise((done, fail) => {{
                  const film = document.createElement('video')
                  film.muted = true
                  film.onerror = () => fail(new Error(film.error.message))
                  film.onended = () => done([film.duration, film.getVideoPlaybackQuality().totalVideoFrames])
                  film.src = {started.headers["location"]!r}
                  film.play()
                }})"""
            )
            assert played[0] == pytest.approx(times[-1], abs=0.2)
            assert played[1] > 15 * (took - 0.7)

    run(main())
