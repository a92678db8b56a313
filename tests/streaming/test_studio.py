"""The studio page in a real Chromium: what its controls do to a real server."""

import asyncio
import io
import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
from live import LiveServer, add_avatar, live_server, run
from vmc_peer import arms, as_one, frame, free_port
from websockets.asyncio.client import connect

from lhm_runtime.avatar import Avatar
from streaming.app import WEB
from streaming.bench.chromium import Page, open_page

pytestmark = [
    pytest.mark.skipif(not (WEB / "index.html").is_file(), reason="the page is not built (make web)"),
    pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here"),
]

LIVE = "document.getElementById('stage')?.hasAttribute('data-live')"
FRAMES = "document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames"


@asynccontextmanager
async def studio(server: LiveServer, **browser: Any) -> AsyncIterator[Page]:
    async with open_page(server.address, **browser) as page:
        await page.wait_for(LIVE, 30.0)
        yield page


async def state_of(server: LiveServer, page: Page) -> dict[str, Any]:
    session = (await page.evaluate("location.hash")).partition("=")[2]
    return dict((await server.http.get(f"/api/sessions/{session}")).json())


async def see(server: LiveServer, page: Page, **wanted: Any) -> dict[str, Any]:
    """The session, once it is as wanted."""
    state: dict[str, Any] = {}
    for _ in range(150):
        state = await state_of(server, page)
        if state.items() >= wanted.items():
            return state
        await asyncio.sleep(0.1)
    raise AssertionError(f"{state} is not {wanted}; the page says {page.console[-5:]}")


async def click(page: Page, selector: str) -> None:
    await page.evaluate(f"document.querySelector({selector!r}).click()")


async def press(page: Page, key: str) -> None:
    await page.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
    await page.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def test_person_and_driver_change_without_a_new_connection(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            add_avatar(tmp_path, replace(avatar), "other")
            async with studio(server) as page:
                began = await see(server, page, source="idle", viewers=1)
                frames = await page.evaluate(FRAMES)
                await click(page, "input[value=replay]")
                await see(server, page, source="replay", replay="wave")
                other = "other" if began["avatar"] != "other" else "someone"
                await click(page, f"[data-avatar={other}]")
                await see(server, page, avatar=other, source="replay")
                await click(page, "input[value=webcam]")  # Chromium's own moving pattern
                await see(server, page, source="webcam")
                await page.wait_for("!document.getElementById('self').hidden")
                await click(page, "#go")
                state = await see(server, page, source="idle")
                await page.wait_for("document.getElementById('self').hidden")
                assert state["id"] == began["id"]
                assert await page.evaluate(FRAMES) > frames
                assert not [line for line in page.console if "Error" in line], page.console

    run(main())


def test_keys_change_the_picture(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, studio(server) as page:
            for key, framing in (("3", "head"), ("2", "half"), ("1", "full")):
                await press(page, key)
                await see(server, page, framing=framing)
            mirror = (await state_of(server, page))["mirror"]
            await press(page, "m")
            await see(server, page, mirror=not mirror)
            await press(page, "t")
            await see(server, page, probe=True)
            await click(page, ".checker")
            await see(server, page, background="transparent")
            await page.wait_for("document.getElementById('stage').hasAttribute('data-stacked')")
            await press(page, "?")
            assert await page.evaluate("document.getElementById('help').open")

    run(main())


def test_a_recording_of_the_page_is_the_servers(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, studio(server) as page:
            await press(page, "r")
            await page.wait_for("!document.getElementById('recording').hidden")
            await asyncio.sleep(1.5)
            await press(page, "r")
            await page.wait_for("document.querySelectorAll('#films li').length === 1")
            assert await page.evaluate("document.getElementById('recording').hidden")
            (film,) = (await server.http.get("/api/recordings")).json()
            with av.open(io.BytesIO((await server.http.get(film["url"])).content)) as container:
                assert list(container.decode(video=0))
            poses = await page.evaluate("document.querySelector('#films a[download]').getAttribute('href')")
            assert poses == film["motion_url"]

    run(main())


def test_a_camera_that_is_refused_leaves_what_was(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, studio(server, allow_camera=False) as page:
            await click(page, "input[value=replay]")
            await see(server, page, source="replay")
            await click(page, "input[value=browser]")
            await page.wait_for("!document.getElementById('trouble').hidden")
            await see(server, page, source="replay")
            assert await page.evaluate("document.querySelector('input[name=source]:checked').value") == "replay"

    run(main())


def test_a_session_that_is_ended_is_replaced(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, studio(server) as page:
            ended = (await state_of(server, page))["id"]
            await asyncio.sleep(10.0)  # one that ends at once is not started again unasked
            await server.http.delete(f"/api/sessions/{ended}")
            await page.wait_for(f"!location.hash.includes('{ended}') && {LIVE}", 20.0)
            await see(server, page, source="idle", viewers=1)

    run(main())


def test_programs_on_the_network_are_told_where_to_send(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        ports = {"vmc": {"port": free_port()}, "facemocap": {"port": free_port()}, "mqtt": {"port": free_port()}}
        async with live_server(tmp_path, avatar, **ports) as server, studio(server) as page:
            hint = "document.querySelector('.extra[data-shown] .heard')"
            assert await page.evaluate("document.querySelector('[value=merged]').closest('label').hidden")
            await click(page, "input[value=vmc]")
            await see(server, page, source="vmc")
            await page.wait_for(f"{hint}?.textContent.includes('Send VMC to 127.0.0.1:{ports['vmc']['port']}')")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(100):
                    for packet in as_one(frame(arms(30.0))):
                        sender.sendto(packet, ("127.0.0.1", ports["vmc"]["port"]))
                    if await page.evaluate(f"{hint}.hasAttribute('data-heard')"):
                        break
                    await asyncio.sleep(0.03)
            assert "samples a second" in await page.evaluate(f"{hint}.textContent")
            await click(page, "#vmc")
            await see(server, page, vmc=True)
            await page.wait_for(f"!{hint}.hasAttribute('data-heard')")  # it fell silent

            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.bind(("127.0.0.1", ports["facemocap"]["port"]))
                await click(page, "input[value=facemocap]")
                await page.wait_for("!document.getElementById('trouble').hidden")
                said = await page.evaluate("document.getElementById('trouble').innerText")
                assert str(ports["facemocap"]["port"]) in said
            await see(server, page, source="vmc")

            await click(page, "input[value=socket]")
            state = await see(server, page, source="socket")
            url = await page.evaluate("document.getElementById('pose-url').textContent")
            assert url == f"{server.address.replace('http', 'ws')}/v1/pose/{state['id']}"
            async with connect(url, proxy=None) as program:
                assert json.loads(await program.recv())["type"] == "welcome"

            await click(page, "input[value=mqtt]")  # which rig?
            assert await page.evaluate("document.activeElement.id") == "rig"
            await see(server, page, source="socket")
            await page.evaluate("document.getElementById('rig').value = 'stage'")
            await click(page, "#rig-form button")
            await page.wait_for("!document.getElementById('trouble').hidden")
            assert "MQTT broker" in await page.evaluate("document.getElementById('trouble').innerText")

    run(main())


def test_a_recorded_motion_is_held_sped_up_and_sought(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, studio(server) as page:
            await click(page, "input[value=replay]")
            await see(server, page, source="replay", speed=1.0, loop=True)
            await click(page, "#hold")
            await see(server, page, speed=0.0)
            await page.wait_for("document.getElementById('hold').ariaLabel === 'Play'")
            await page.evaluate(
                "(slider => { slider.value = 3; slider.dispatchEvent(new Event('input'));"
                " slider.dispatchEvent(new Event('change')) })(document.getElementById('place'))"
            )
            await see(server, page, place_s=3.0)
            await page.wait_for("document.getElementById('place-text').value.startsWith('3.0 / 4.0')")
            await click(page, "#hold")
            await see(server, page, speed=1.0)
            await page.evaluate(
                "(speed => { speed.value = '2'; speed.dispatchEvent(new Event('change')) })"
                "(document.getElementById('speed'))"
            )
            await click(page, "#loop")
            await see(server, page, speed=2.0, loop=False)

    run(main())


def test_everything_has_a_name(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, studio(server) as page:
            nameless = await page.evaluate(
                "[...document.querySelectorAll('button, input, select, video, [role]')].filter((e) => !(e.ariaLabel "
                "|| e.textContent.trim() || e.closest('label')?.textContent.trim() "
                "|| e.hasAttribute('aria-labelledby') "
                "|| e.getAttribute('role') === 'status' || e.getAttribute('role') === 'alert'))"
                ".map((e) => e.outerHTML.slice(0, 90))"
            )
            assert nameless == []

    run(main())
