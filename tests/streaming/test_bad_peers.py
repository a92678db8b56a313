"""People and programs that do not behave: each gets a clear answer, and whoever watches sees no difference."""

import asyncio
import contextlib
import json
import random
import time
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiortc.clock
import av
import numpy as np
import pytest
from dancer import RAISED, Dancer, reach
from live import LiveServer, Visitor, live_server, run, visit
from websockets.exceptions import ConnectionClosed

from lhm_runtime.avatar import Avatar
from streaming.sources.messages import Sender

SDP = {"content-type": "application/sdp"}
TRICKLE = {"content-type": "application/trickle-ice-sdpfrag"}
TEN_MB = 10_000_000


async def offer_of(visitor: Visitor) -> str:
    visitor.connection.addTransceiver("video", direction="recvonly")
    return await visitor.offer()


async def wait_until(condition: Callable[[], bool], limit_s: float = 15.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)


def damage(offer: str, dice: random.Random) -> str:
    """An offer as a broken program may send it."""
    lines = offer.split("\r\n")
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(lines))
        match dice.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[dice.randrange(len(lines))])
            case 2:
                lines[at] = lines[at][: dice.randint(0, len(lines[at]))]
            case 3:
                lines[at] = lines[at].replace(
                    *dice.choice([("0", "99999999999"), (" ", ""), (":", "="), ("a", "\x00")])
                )
            case _:
                lines = lines[: at + 1]
        lines = lines or [""]
    return "\r\n".join(lines)


def test_damaged_offers_are_answered_or_refused_and_never_kept(avatar: Avatar, tmp_path: Path) -> None:
    """150 offers with lines missing, doubled, cut or garbled; what is answered all the same is given up in time."""

    async def main() -> None:
        async with (
            live_server(tmp_path, avatar, rtc={"connect_timeout_s": 1.0}) as server,
            AsyncExitStack() as stack,
            visit() as model,
        ):
            session = await server.start_session()
            viewer = await server.watch(session, stack)
            offer, dice = await offer_of(model), random.Random(5)
            statuses = set()
            for _ in range(150):
                answer = await server.http.post(f"/whep/{session}", content=damage(offer, dice), headers=SDP)
                statuses.add(answer.status_code)
                assert answer.status_code in {201, 400, 406, 503}, answer.text
                if answer.status_code != 201:
                    assert answer.json()["error"]["message"]
            assert {201, 400} <= statuses
            await wait_until(lambda: len(server.services.sessions._peers) == 1)
            await viewer.see(3)

    run(main())


def test_offers_that_are_never_followed_up_are_given_up(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        limits = {"rtc": {"connect_timeout_s": 3.0}, "server": {"max_viewers": 12}}
        async with live_server(tmp_path, avatar, **limits) as server, AsyncExitStack() as stack, visit() as model:
            session = await server.start_session()
            viewer = await server.watch(session, stack)
            offer = await offer_of(model)
            statuses = [
                (await server.http.post(f"/whep/{session}", content=offer, headers=SDP)).status_code for _ in range(15)
            ]
            assert statuses == [201] * 11 + [503] * 4
            assert server.services.sessions.get(session).viewers == 1
            await wait_until(lambda: len(server.services.sessions._peers) == 1)
            await viewer.see(3)
            await server.watch(session, stack)

    run(main())


def test_ten_megabytes_are_refused_wherever_they_are_sent(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            viewer = await server.watch(session, stack)
            for method, path, headers in (
                ("POST", "/api/sessions", {"content-type": "application/json"}),
                ("PATCH", f"/api/sessions/{session}", {"content-type": "application/json"}),
                ("POST", f"/whep/{session}", SDP),
                ("PATCH", viewer.location, {**TRICKLE, "if-match": f'"{viewer.location.rsplit("/", 1)[1]}"'}),
            ):
                for body in (b'"' + b"v" * TEN_MB + b'"', _in_pieces()):  # with its length, and without
                    refused = await server.http.request(method, path, content=body, headers=headers)
                    assert refused.status_code == 413, (path, refused.text)
                    assert refused.json()["error"]["code"] == "too_large"
            async with server.signal(session) as socket:
                with contextlib.suppress(ConnectionClosed):
                    await socket.send("v" * TEN_MB)
                await socket.wait_closed()
                assert socket.close_code == 1009  # too big, RFC 6455
            await viewer.see(3)

    run(main())


async def _in_pieces() -> Any:
    for _ in range(TEN_MB // 65536):
        yield b"v" * 65536


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "multipart/form-data", "nonsense"])
def test_wrong_content_types(avatar: Avatar, tmp_path: Path, content_type: str) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            viewer = await server.watch(session, stack)
            headers = {"content-type": content_type}
            for method, path, expected in (
                ("POST", f"/whep/{session}", {415}),
                ("PATCH", viewer.location, {415}),
                ("POST", "/api/sessions", {400, 415, 422}),
                ("POST", "/api/avatars", {400, 415, 422}),
            ):
                refused = await server.http.request(method, path, content=b'{"avatar": "someone"}', headers=headers)
                assert refused.status_code in expected, (path, refused.status_code, refused.text)
                assert refused.json()["error"]["message"]
            assert len(server.services.sessions.all) == 1
            await viewer.see(3)

    run(main())


def test_a_picture_far_larger_unpacked_than_sent_is_refused_by_its_worker(avatar: Avatar, tmp_path: Path) -> None:
    """9,000 x 9,900 grey pixels in 90 kB: few enough for the first look, too many to work on."""
    width, height = 9_000, 9_900

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    rows = zlib.compress(bytes((width + 1) * height), 1)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert len(bomb) < 500_000

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            viewer = await server.watch(await server.start_session(), stack)
            answer = await server.http.post("/api/avatars", files={"photo": ("me.png", bomb)})
            if answer.status_code == 202:
                job: dict[str, Any] = {"state": "running"}
                while job["state"] == "running":
                    await asyncio.sleep(0.2)
                    job = (await server.http.get(f"/api/jobs/{answer.json()['job']}")).json()
                assert job["state"] == "failed"
                message = job["message"]
            else:
                assert answer.status_code in {413, 415}
                message = answer.json()["error"]["message"]
            assert message
            assert not list((tmp_path / "uploads").glob("*"))
            await viewer.see(3)

    run(main())


async def arms_seen(visitor: Visitor, *, raised: bool) -> None:
    """Until the picture shows them so; fails when it never does."""
    await visitor.see_until(lambda picture: (reach(picture) > RAISED) == raised, frames=60)


def test_landmarks_at_a_thousand_a_second_are_followed_without_lag(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            other = await server.watch(await server.start_session(), stack)
            session = await server.start_session(source="browser")
            driver = await server.join(session, stack)
            dancer, sequence = Dancer(avatar), 0
            # as the data channel hands them on; aiortc's own sending of so many would take this process' core
            messages, sender = server.services.sessions.get(session).messages, Sender()

            async def dance(seconds: float, *, raised: bool) -> None:
                nonlocal sequence
                start, sent = time.monotonic(), 0
                while (elapsed := time.monotonic() - start) < seconds:
                    while sent < 1000 * elapsed:
                        sequence, sent = sequence + 1, sent + 1
                        messages.receive(dancer.message(sequence, time.time(), raised=raised), sender)
                    await asyncio.sleep(0.002)

            for raised in (False, True, False):
                dancing = asyncio.create_task(dance(2.0, raised=raised))
                await asyncio.sleep(1.0)
                while not driver.tracks[0]._queue.empty():
                    await driver.see()
                await arms_seen(driver, raised=raised)
                assert not dancing.done()  # nothing has piled up
                await dancing
            await other.see(3)

    run(main())


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 1e9])
def test_a_driver_whose_clock_jumps_goes_on_driving(avatar: Avatar, tmp_path: Path, jump_s: float) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            driver = await server.join(await server.start_session(source="browser"), stack)
            dancer, pose = Dancer(avatar), driver.pose
            clock = {"offset": 0.0, "raised": False}

            async def dance() -> None:
                sequence = 0
                while True:
                    sequence += 1
                    pose.send(  # type: ignore[union-attr]
                        dancer.message(
                            sequence, 5000.0 + time.monotonic() + clock["offset"], raised=bool(clock["raised"])
                        )
                    )
                    await asyncio.sleep(1 / 30)

            dancing = asyncio.create_task(dance())
            await arms_seen(driver, raised=False)
            clock["raised"] = True
            await arms_seen(driver, raised=True)
            clock.update(offset=jump_s, raised=False)
            await arms_seen(driver, raised=False)
            clock["raised"] = True
            await arms_seen(driver, raised=True)
            dancing.cancel()
            await asyncio.wait([dancing])

    run(main())


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0])
def test_a_server_whose_wall_clock_jumps_goes_on_showing(
    avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """As when the time is set: only time.time moves, and what aiortc derives from it."""

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="replay", replay="wave", probe=True)
            viewer = await server.watch(session, stack)
            await viewer.see(5)
            wall, ntp = time.time, aiortc.clock.current_ntp_time
            monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
            monkeypatch.setattr(aiortc.clock, "current_ntp_time", lambda: ntp() + int(jump_s * 2**32))
            before = await viewer.see()
            start = time.monotonic()
            await viewer.see_until(lambda picture: float(np.abs(picture - before).mean()) > 1.0)
            for _ in range(60):  # over the next reports, which carry the time
                await viewer.see()
            assert time.monotonic() - start < 10
            await server.watch(session, stack)

    run(main())


def test_a_viewer_that_never_reads_holds_nobody_up(avatar: Avatar, tmp_path: Path) -> None:
    """Its socket is open and nobody looks into it: the system throws away what comes."""

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="replay", replay="wave")
            viewer = await server.watch(session, stack)
            still = await server.watch(session, stack)
            await still.see()
            ice: Any = still.connection.getTransceivers()[0].receiver.transport.transport
            transport = ice._connection._nominated[1].protocol.transport
            loop: Any = asyncio.get_running_loop()
            loop._remove_reader(transport.get_extra_info("socket").fileno())
            start = time.monotonic()
            for _ in range(60):
                await viewer.see()
            assert time.monotonic() - start < 6  # 60 pictures are two seconds
            await server.watch(session, stack)

    run(main())


def test_a_page_that_never_takes_its_messages_does_not_fill_memory(avatar: Avatar, tmp_path: Path) -> None:
    """A control channel whose reader stands still: what does not fit is left out, and the picture goes on."""

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack, visit() as visitor:
            session = await server.start_session()
            visitor.connection.addTransceiver("video", direction="recvonly")
            control = visitor.connection.createDataChannel("control")
            answer = await server.http.post(f"/whep/{session}", content=await visitor.offer(), headers=SDP)
            await visitor.accept(answer.text)
            viewer = await server.watch(session, stack)
            await wait_until(lambda: control.readyState == "open")
            (peer,) = (p for p in server.services.sessions._peers.values() if p.id not in viewer.location)
            await wait_until(lambda: peer._control is not None)
            assert peer._control is not None
            for number in range(500):
                peer.tell({"type": "state", "number": number, "text": "x" * 2000})
            assert peer._control.bufferedAmount < 100_000
            await viewer.see(3)

    run(main())


def test_what_a_viewer_sends_drives_nobody(avatar: Avatar, tmp_path: Path) -> None:
    """Landmarks over a data channel of somebody who only watches, and control messages that are none."""

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack, visit() as visitor:
            session = await server.start_session(source="browser")
            driver = await server.join(session, stack)
            visitor.connection.addTransceiver("video", direction="recvonly")
            pose = visitor.connection.createDataChannel("pose", ordered=False, maxRetransmits=0)
            answer = await server.http.post(f"/whep/{session}", content=await visitor.offer(), headers=SDP)
            await visitor.accept(answer.text)
            await wait_until(lambda: pose.readyState == "open")
            dancer = Dancer(avatar)
            for sequence in range(60):
                pose.send(dancer.message(sequence, time.time(), raised=True))
                await asyncio.sleep(1 / 60)
            assert server.services.sessions.get(session).messages.used == 0
            assert reach(await driver.see()) < RAISED

    run(main())


def test_films_and_archives_named_as_photos(avatar: Avatar, tmp_path: Path) -> None:
    """What is named a picture and is none is told from its content."""
    film = tmp_path / "film.mp4"
    with av.open(film, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    script = b"#!/bin/sh\nrm -rf /\n"

    async def refuse(server: LiveServer, data: bytes) -> str:
        answer = await server.http.post("/api/avatars", files={"photo": ("me.jpg", data, "image/jpeg")})
        if answer.status_code == 202:  # an MP4 begins as a HEIC photo does
            while True:
                job = (await server.http.get(f"/api/jobs/{answer.json()['job']}")).json()
                if job["state"] != "running":
                    assert job["state"] == "failed"
                    return str(job["message"])
                await asyncio.sleep(0.1)
        assert answer.status_code == 415
        return str(answer.json()["error"]["message"])

    async def main() -> None:
        async with live_server(tmp_path / "data", avatar) as server:
            for data in (film.read_bytes(), script, b"GIF89a" + bytes(20), json.dumps({"photo": 1}).encode()):
                assert await refuse(server, data)
            assert not list((tmp_path / "data" / "uploads").glob("*"))

    run(main())
