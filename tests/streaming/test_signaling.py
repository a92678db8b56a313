"""Signalling over HTTP and websocket: what is answered, and what is refused how."""

import asyncio
import json
from contextlib import AsyncExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from aiortc.mediastreams import MediaStreamTrack
from live import hear, live_server, only_codec, run, visit
from peers import moving_picture

from lhm_runtime.avatar import Avatar

SDP = {"content-type": "application/sdp"}
MINIMAL = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


def code_of(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


def test_whep_from_offer_to_goodbye(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            async with visit() as visitor:
                visitor.connection.addTransceiver("video", direction="recvonly")
                answer = await server.http.post(f"/whep/{session}", content=await visitor.offer(), headers=SDP)
                assert answer.status_code == 201
                assert answer.headers["content-type"].startswith("application/sdp")
                location = answer.headers["location"]
                assert location.startswith(f"/whep/{session}/")
                candidate = "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host"
                fragment = f"a=mid:0\r\na={candidate}\r\na=end-of-candidates\r\n"
                trickle = {"content-type": "application/trickle-ice-sdpfrag", "if-match": answer.headers["etag"]}
                assert (await server.http.patch(location, content=fragment, headers=trickle)).status_code == 204
                for match, status in (({}, 428), ({"if-match": '"other"'}, 412), ({"if-match": "*"}, 422)):
                    refused = await server.http.patch(
                        location, content=fragment, headers={"content-type": trickle["content-type"], **match}
                    )
                    assert refused.status_code == status, refused.text
                bad = await server.http.patch(location, content="a=candidate:nonsense\r\n", headers=trickle)
                assert (bad.status_code, code_of(bad)) == (400, "bad_candidate")
                assert (await server.http.patch(location, content=fragment, headers=SDP)).status_code == 415
                await visitor.accept(answer.text)
                await visitor.see()
                assert (await server.http.delete(location)).status_code == 200
                gone = await server.http.delete(location)
                assert (gone.status_code, code_of(gone)) == (404, "unknown_peer")
            viewer = await server.watch(session, stack)
            await viewer.see()

    run(main())


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_a_viewer_gets_a_codec_it_knows(avatar: Avatar, tmp_path: Path, codec: str) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, visit() as visitor:
            session = await server.start_session()
            visitor.connection.addTransceiver("video", direction="recvonly")
            only_codec(visitor.connection, codec)
            answer = await server.http.post(f"/whep/{session}", content=await visitor.offer(), headers=SDP)
            assert answer.status_code == 201
            assert f" {codec}/90000" in answer.text
            await visitor.accept(answer.text)
            await visitor.see()

    run(main())


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        ("", SDP, 400, "bad_offer"),
        ("hello", SDP, 400, "bad_offer"),
        (MINIMAL, SDP, 400, "bad_offer"),
        (MINIMAL + "m=video nonsense\r\n", SDP, 400, "bad_offer"),
        (MINIMAL + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n", SDP, 400, "bad_offer"),
        (MINIMAL + "m=video 9 UDP/TLS/RTP/SAVPF 98\r\na=rtpmap:98 AV1/90000\r\n", SDP, 406, "no_common_codec"),
        (b"\xff\xfe\x00", SDP, 400, "bad_offer"),
        (MINIMAL, {"content-type": "application/json"}, 415, "wrong_type"),
        (MINIMAL, {}, 415, "wrong_type"),
        ("v" * 100_000, SDP, 413, "too_large"),
        ("v" * 10_000_000, SDP, 413, "too_large"),
    ],
)
def test_offers_that_are_none(
    avatar: Avatar, tmp_path: Path, body: Any, headers: dict[str, str], status: int, code: str
) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            viewer = await server.watch(session, stack)
            refused = await server.http.post(f"/whep/{session}", content=body, headers=headers)
            assert (refused.status_code, code_of(refused)) == (status, code)
            assert refused.json()["error"]["message"]
            await viewer.see(3)

    run(main())


def test_unknown_sessions_and_endless_bodies(avatar: Avatar, tmp_path: Path) -> None:
    async def endless() -> Any:
        for _ in range(200):
            yield b"v" * 65536

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            for path in ("/whep/nobody", "/whip/nobody"):
                refused = await server.http.post(path, content="", headers=SDP)
                assert (refused.status_code, code_of(refused)) == (404, "unknown_session")
            session = await server.start_session()
            refused = await server.http.post(f"/whip/{session}", content="", headers=SDP)
            assert (refused.status_code, code_of(refused)) == (409, "other_source")
            refused = await server.http.post(f"/whep/{session}", content=endless(), headers=SDP)
            assert (refused.status_code, code_of(refused)) == (413, "too_large")
            async with server.signal("nobody") as socket:
                assert (await hear(socket, "error"))["code"] == "unknown_session"
                await socket.wait_closed()
                assert socket.close_code == 4404

    run(main())


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("not json", "bad_message"),
        ("[" * 5000, "bad_message"),
        ('"text"', "bad_message"),
        ('{"type": "dance"}', "unknown_message"),
        ('{"type": "offer"}', "bad_offer"),
        ('{"type": "offer", "sdp": "v=0"}', "bad_offer"),
        ('{"type": "candidate", "candidate": {"candidate": 5}}', "bad_candidate"),
        ('{"type": "candidate", "candidate": {"candidate": "candidate:x"}}', "bad_candidate"),
        ('{"type": "control", "framing": "feet"}', "bad_message"),
        ('{"type": "control", "colour": "red"}', "bad_message"),
        ('{"type": "control", "yaw": NaN}', "bad_message"),
        ('{"type": "report", "fps": -1}', "bad_message"),
    ],
)
def test_messages_that_are_none(avatar: Avatar, tmp_path: Path, message: str, code: str) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session()
            async with server.signal(session) as socket:
                await socket.send(message)
                assert (await hear(socket, "error"))["code"] == code

    run(main())


def test_control_report_and_ping(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session(source="browser")
            driver = await server.join(session, stack)
            assert driver.socket is not None
            assert driver.control is not None
            await driver.socket.send(json.dumps({"type": "control", "framing": "half"}))
            while (await hear(driver.socket, "state"))["framing"] != "half":
                pass
            await driver.socket.send(json.dumps({"type": "report", "fps": 30, "glass_to_glass_ms": 40.0, "dropped": 2}))
            driver.control.send(json.dumps({"type": "ping", "t": 17}))
            while not driver.heard:
                await asyncio.sleep(0.01)
            pong = driver.heard[0]
            assert (pong["type"], pong["t"]) == ("pong", 17)
            shown = (await server.http.get("/metrics")).text
            assert "lhm_live_glass_to_glass_seconds_count" in shown

    run(main())


def test_a_page_that_never_reads_is_left_behind(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            viewer = await server.watch(session, stack)
            host, port = server.address.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            reader._transport.pause_reading()
            writer.write(
                f"GET /v1/signal/{session} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            live = server.services.sessions
            while len(live._peers) < 2:
                await asyncio.sleep(0.01)
            silent = next(peer for peer in live._peers.values() if peer.id not in viewer.location)
            for round_ in range(4000):
                silent.tell({"type": "state", "round": round_, "text": "x" * 4000})
                if round_ % 20 == 0:
                    await asyncio.sleep(0)
                if silent.closed.is_set():
                    break
            await asyncio.wait_for(silent.closed.wait(), 10)
            await viewer.see(3)

    run(main())


def test_a_peer_that_vanishes_is_forgotten(avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.peer._SILENCE_S", 4.0)

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            viewer = await server.watch(session, stack)
            await viewer.see()
            stays = await server.watch(session, stack)
            mute(viewer.connection)
            for _ in range(150):
                if len(server.services.sessions._peers) == 1:
                    break
                await asyncio.sleep(0.1)
            assert [peer.id in stays.location for peer in server.services.sessions._peers.values()] == [True]
            await stays.see(3)

    run(main())


def mute(connection: Any) -> None:
    """Let nothing out any more, without a goodbye."""

    async def nothing(*_: object) -> None:
        """The cable is cut."""

    ice = connection.getTransceivers()[0].receiver.transport.transport
    ice._send = nothing
    ice._connection.send_stun = lambda *_: None
    ice._connection.sendto = nothing
    for protocol in ice._connection._protocols:
        protocol.send_stun = lambda *_: None
        protocol.transport.sendto = lambda *_: None


def test_no_more_viewers_than_allowed(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar, server={"max_viewers": 1}) as server, AsyncExitStack() as stack:
            session = await server.start_session()
            await server.watch(session, stack)
            refused = await server.http.post(f"/whep/{session}", content=MINIMAL, headers=SDP)
            assert (refused.status_code, code_of(refused)) == (503, "full")
            async with server.signal(session) as socket:
                assert (await hear(socket, "error"))["code"] == "full"

    run(main())


def test_other_pages_may_not_use_the_server(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        allowed = "https://friend.example"
        async with live_server(tmp_path, avatar, server={"origins": [allowed]}) as server:
            wish = {"avatar": "someone"}
            for origin, status in (("https://evil.example", 403), (allowed, 201), (server.address, 201)):
                answer = await server.http.post("/api/sessions", json=wish, headers={"origin": origin})
                assert answer.status_code == status

    run(main())


def test_a_camera_by_whip(avatar: Avatar, tmp_path: Path) -> None:
    class Camera(MediaStreamTrack):
        kind = "video"
        given = 0

        async def recv(self) -> av.VideoFrame:
            await asyncio.sleep(1 / 30)
            frame = av.VideoFrame.from_ndarray(moving_picture(self.given, 128, 128), format="yuv420p")
            frame.pts, frame.time_base = self.given * 3000, Fraction(1, 90_000)
            self.given += 1
            return frame

    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, visit() as visitor:
            session = await server.start_session(source="webcam")
            visitor.connection.addTransceiver(Camera(), direction="sendonly")
            answer = await server.http.post(f"/whip/{session}", content=await visitor.offer(), headers=SDP)
            assert answer.status_code == 201, answer.text
            location = answer.headers["location"]
            assert location.startswith(f"/whip/{session}/")
            await visitor.accept(answer.text)
            webcam = server.services.sessions.get(session)._drivers.webcam
            frames: list[float] = []
            while not hasattr(webcam, "_worker"):  # the source opens
                await asyncio.sleep(0.01)
            webcam._worker.submit = lambda _, timestamp_s: frames.append(timestamp_s)
            while len(frames) < 10:
                await asyncio.sleep(0.05)
            assert (await server.http.delete(location)).status_code == 200
            await asyncio.sleep(0.5)
            count = len(frames)
            await asyncio.sleep(0.5)
            assert len(frames) == count

    run(main())


def test_ice_servers_are_told_as_links(avatar: Avatar, tmp_path: Path) -> None:
    servers = [
        {"urls": ["stun:stun.example.org"]},
        {"urls": ["turn:turn.example.org?transport=udp"], "username": "me", "credential": 'se"cret'},
    ]

    async def main() -> None:
        async with live_server(tmp_path, avatar, rtc={"ice_servers": servers}) as server:
            session = await server.start_session()
            for kind in ("whep", "whip"):
                asked = await server.http.options(f"/{kind}/{session}")
                assert (asked.status_code, asked.headers["accept-post"]) == (204, "application/sdp")
                assert asked.headers.get_list("link") == [
                    '<stun:stun.example.org>; rel="ice-server"',
                    '<turn:turn.example.org?transport=udp>; rel="ice-server"; username="me"; '
                    'credential="se\\"cret"; credential-type="password"',
                ]
            assert (await server.http.options("/whep/nobody")).status_code == 404

    run(main())


def test_without_ice_servers_there_are_no_links(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, visit() as visitor:
            session = await server.start_session()
            visitor.connection.addTransceiver("video", direction="recvonly")
            answer = await server.http.post(f"/whep/{session}", content=await visitor.offer(), headers=SDP)
            assert "link" not in answer.headers
            assert answer.headers["accept-patch"] == "application/trickle-ice-sdpfrag"
            assert answer.headers["etag"].startswith('"')
            unknown = await server.http.patch(f"/wisp/{session}/x", content="")
            assert unknown.status_code == 404

    run(main())
