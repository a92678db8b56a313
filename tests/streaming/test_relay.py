"""Sessions on their way to an audience: by a real Janus, and by WHIP."""

import asyncio
import shutil
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiortc import RTCSessionDescription
from aiortc.rtp import unpack_header_extensions
from apart import needs_own_network, run_apart
from janus_server import RELAY, SECRET, needs_janus, run_janus
from live import LiveServer, Visitor, live_server, run, visit
from typer.testing import CliRunner

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import InvalidInputError
from streaming import cli
from streaming.app import WEB
from streaming.audio import Microphone
from streaming.bench.chromium import open_page
from streaming.config import load_config
from streaming.lowlatency import connected
from streaming.relay.janus_session import open_janus

NOT_LOOPBACK = {"loopback": "never"}
FRAMES = "document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames"
SPOKEN = b"\xfc" + bytes(40)
"""An Opus packet of 20 ms."""


async def watch_relay(server: LiveServer, session: str, stack: AsyncExitStack) -> Visitor:
    """A viewer by way of the session's Janus, connected."""
    visitor = await stack.enter_async_context(visit())
    invited = await server.http.post(f"/api/sessions/{session}/relay/viewers")
    assert invited.status_code == 201, invited.text
    visitor.location = invited.headers["location"]
    await visitor.connection.setRemoteDescription(RTCSessionDescription(invited.json()["sdp"], "offer"))
    await visitor.connection.setLocalDescription(await visitor.connection.createAnswer())
    answered = await server.http.put(visitor.location, json={"sdp": visitor.connection.localDescription.sdp})
    assert answered.status_code == 204, answered.text
    await connected(visitor.connection, 15.0)
    return visitor


async def relay_state(server: LiveServer, session: str, wanted: str, within_s: float = 15.0) -> dict[str, Any]:
    """What the session says of its relay once that is as wanted."""
    state: dict[str, Any] = {}
    async with asyncio.timeout(within_s):
        while state.get("state") != wanted:
            await asyncio.sleep(0.05)
            state = (await server.http.get(f"/api/sessions/{session}/relay")).json()
    return state


async def see_motion(visitor: Visitor) -> None:
    """Fail unless the person in the picture moves."""
    before = await visitor.see()
    assert before.std() > 10
    await visitor.see_until(lambda picture: bool(np.abs(picture - before).max() > 40))


async def extensions(visitor: Visitor) -> list[tuple[int, bytes]]:
    """Header extensions of the next RTP packet."""
    (video,) = (each for each in visitor.connection.getReceivers() if each.track.kind == "video")
    take, came = video.transport._handle_rtp_data, asyncio.get_running_loop().create_future()

    async def look(data: bytes, arrival_time_ms: int) -> None:
        if not came.done():
            profile, words = struct.unpack_from("!HH", data, 12)
            came.set_result(unpack_header_extensions(profile, data[16 : 16 + 4 * words]))
        await take(data, arrival_time_ms)

    video.transport._handle_rtp_data = look
    async with asyncio.timeout(10.0):
        return list(await came)


async def leave_mountpoint(number: int, secret: str) -> None:
    """What a server leaves behind that crashed."""
    media = [{"type": "video", "mid": "v", "pt": 96, "codec": "h264", "port": 0}]
    body = {"request": "create", "type": "rtp", "id": number, "description": "lhm-live", "secret": secret}
    async with open_janus("ws://127.0.0.1:8188", SECRET) as janus:
        await janus.send(await janus.attach(), {**body, "media": media})


async def mountpoints() -> list[int]:
    """The numbers of those that there are."""
    async with open_janus("ws://127.0.0.1:8188", SECRET) as janus:
        said, _ = await janus.send(await janus.attach(), {"request": "list"})
    return [stream["id"] for stream in said["list"]]


def lhm_live(*arguments: str) -> str:
    """What the program prints."""
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@needs_janus
@needs_own_network
def test_an_audience_by_janus_and_janus_dies(avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relays = {"hall": RELAY, "stranger": {"kind": "janus", "secret": "a guess"}}

    async def main() -> None:
        async with AsyncExitStack() as stack:
            janus = await stack.enter_async_context(run_janus(tmp_path))
            server = await stack.enter_async_context(
                live_server(tmp_path, avatar, relay=relays, rtc=NOT_LOOPBACK, server={"linger_s": 1.0})
            )
            await leave_mountpoint(7, SECRET)
            await leave_mountpoint(8, "another one's")
            monkeypatch.setattr("streaming.relay.janus._ABANDONED_MS", 100)
            await asyncio.sleep(0.2)
            session = await server.start_session(source="replay", replay="wave", relay="hall", audio=True)
            await relay_state(server, session, "live")
            known = await mountpoints()
            assert (7 in known, 8 in known, len(known)) == (False, True, 2)
            eight = [await watch_relay(server, session, stack) for _ in range(8)]
            for visitor in eight:
                await see_motion(visitor)
            assert b"\0\0\0" in [value for _, value in await extensions(eight[0])]  # to be shown at once
            state = await relay_state(server, session, "live")
            assert (state["name"], state["kind"], state["viewers"], state["problem"]) == ("hall", "janus", 8, None)
            live = server.services.sessions.get(session)
            assert live.viewers == 1  # to us they are one, and everything is from Janus
            assert server.services.sessions._peers == {}

            microphone = Microphone(live.audio)
            sound = next(track for track in eight[0].tracks if track.kind == "audio")
            heard = asyncio.create_task(sound.recv())
            async with asyncio.timeout(10.0):
                for count in range(10_000):
                    if heard.done():
                        break
                    microphone.receive(SPOKEN, 960 * count)
                    await asyncio.sleep(0.02)
            assert heard.result().sample_rate == 48_000

            assert (await server.http.delete(eight[7].location)).status_code == 204
            assert (await server.http.delete(eight[7].location)).status_code == 404
            assert (await relay_state(server, session, "live"))["viewers"] == 7

            direct = await server.watch(session, stack)
            await direct.see()
            await janus.end(signal.SIGKILL)
            lost = await relay_state(server, session, "waiting", 2.0)
            assert "Janus" in lost["problem"]
            refused = await server.http.post(f"/api/sessions/{session}/relay/viewers")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            await see_motion(direct)  # nobody else notices
            await janus.start()
            await relay_state(server, session, "live", 6.0)
            await see_motion(await watch_relay(server, session, stack))

            assert (await server.http.patch(f"/api/sessions/{session}", json={"relay": "off"})).json()["relay"] is None
            assert (await server.http.get(f"/api/sessions/{session}/relay")).status_code == 404
            assert await mountpoints() == []
            await server.http.patch(f"/api/sessions/{session}", json={"relay": "stranger"})
            assert "Unauthorized" in (await relay_state(server, session, "waiting"))["problem"]
            await direct.see()

    run_apart(main())


@needs_janus
@needs_own_network
@pytest.mark.skipif(not (WEB / "view.html").is_file(), reason="the page is not built (make web)")
@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here")
def test_a_page_watches_by_janus_and_comes_back(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            janus = await stack.enter_async_context(run_janus(tmp_path))
            server = await stack.enter_async_context(
                live_server(tmp_path, avatar, relay={"hall": RELAY}, rtc=NOT_LOOPBACK)
            )
            session = await server.start_session(source="replay", replay="wave", relay="hall")
            page = await stack.enter_async_context(open_page(f"{server.address}/view/{session}?via=janus"))
            await page.wait_for("window.lhm?.phase().name === 'live'", 30.0)
            assert (await relay_state(server, session, "live"))["viewers"] == 1
            assert server.services.sessions._peers == {}  # nothing comes from us
            await janus.end(signal.SIGKILL)
            await page.wait_for("lhm.phase().name !== 'live'")
            await janus.start()
            await page.wait_for("lhm.phase().name === 'live'")
            shown = await page.evaluate(FRAMES)
            await page.wait_for(f"{FRAMES} > {shown + 15}")
            await server.http.delete(f"/api/sessions/{session}")
            await page.wait_for("lhm.phase().name === 'ended'")

    run_apart(main())


@contextmanager
def front_door(token: str) -> Iterator[tuple[str, dict[str, str]]]:
    """An address that sends those on who have the token, and whereto by what they ask for."""
    behind: dict[str, str] = {}

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            known = self.headers["Authorization"] == f"Bearer {token}" and self.path in behind
            self.send_response(307 if known else 403)
            self.send_header("Location", behind.get(self.path, ""))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", behind
    finally:
        server.shutdown()
        server.server_close()


def test_published_by_whip_and_again_when_it_breaks(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            door, behind = stack.enter_context(front_door("let us in"))
            relays = {
                "out": {"kind": "whip", "url": f"{door}/{{session}}", "token": "let us in"},
                "locked": {"kind": "whip", "url": f"{door}/{{session}}", "token": "nonsense", "codec": "vp8"},
            }
            server = await stack.enter_async_context(live_server(tmp_path, avatar, relay=relays))
            camera = await server.start_session(source="webcam")
            webcam = server.services.sessions.get(camera)._drivers.webcam
            while not hasattr(webcam, "_worker"):  # the source opens
                await asyncio.sleep(0.01)
            pictures: list[np.ndarray] = []
            webcam._worker.submit = lambda picture, _: pictures.append(picture)

            session = await server.start_session(source="replay", replay="wave", relay="locked")
            behind[f"/{session}"] = f"{server.address}/whip/{camera}"
            assert "403" in (await relay_state(server, session, "waiting"))["problem"]
            changed = await server.http.patch(f"/api/sessions/{session}", json={"relay": "out"})
            assert (changed.status_code, changed.json()["relay"]) == (200, "out")
            for _ in range(2):
                assert (await relay_state(server, session, "live"))["kind"] == "whip"
                pictures.clear()
                while len(pictures) < 10:
                    await asyncio.sleep(0.05)
                (publisher,) = server.services.sessions._peers_of(camera)
                await publisher.close()  # as a server does that fails
                await relay_state(server, session, "waiting", 15.0)
            await relay_state(server, session, "live")
            assert (await server.http.delete(f"/api/sessions/{session}")).status_code == 204
            assert not server.services.sessions._peers_of(camera)  # it took its leave

    run(main())


def test_what_cannot_be_relayed_is_refused(avatar: Avatar, tmp_path: Path) -> None:
    relays = {
        "hall": {**RELAY, "url": "ws://127.0.0.1:9"},
        "out": {"kind": "whip", "url": "http://127.0.0.1:9/whip/KEY"},
    }

    async def main() -> None:
        async with live_server(tmp_path, avatar, relay=relays) as server:
            refused = await server.http.post("/api/sessions", json={"avatar": "someone", "relay": "none"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "unknown_relay")
            assert "hall, out" in refused.json()["error"]["message"]
            session = await server.start_session(relay="hall")
            refused = await server.http.patch(f"/api/sessions/{session}", json={"relay": "none"})
            assert refused.status_code == 422
            waiting = await relay_state(server, session, "waiting")
            assert "ws://127.0.0.1:9" in waiting["problem"]
            assert SECRET not in str(waiting)
            refused = await server.http.post(f"/api/sessions/{session}/relay/viewers")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "relay_waiting")
            said = await asyncio.to_thread(lhm_live, "relay", session, "out", "--server", server.address)
            assert f"{session} goes to out" in said
            await relay_state(server, session, "waiting")
            said = await asyncio.to_thread(lhm_live, "relay", session, "--server", server.address)
            assert "out (whip) is" in said
            assert "http://127.0.0.1:9 does not answer" in said
            assert "KEY" not in said  # addresses of ingests have keys in them
            refused = await server.http.post(f"/api/sessions/{session}/relay/viewers")
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "other_relay")

    run(main())


def test_settings_that_make_no_sense() -> None:
    for relay, complaint in (
        ({"off": RELAY}, "off"),
        ({"hall": {"kind": "smoke"}}, "kind"),
        ({"hall": {"kind": "whip"}}, "url"),
        ({"hall": {**RELAY, "url": "http://127.0.0.1"}}, "url"),
        ({"hall": {**RELAY, "token": "x"}}, "no such setting"),
    ):
        with pytest.raises(InvalidInputError, match=complaint):
            load_config(relay=relay)
