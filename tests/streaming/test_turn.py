"""Video through a TURN server, a real coturn, to somebody whom nothing else reaches."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from live import Visitor, hear, live_server, run
from turn_server import SECRET, coturn, needs_coturn

from lhm_runtime.avatar import Avatar
from streaming.config import Rtc
from streaming.turn import ice_servers


@asynccontextmanager
async def shut_in(servers: list[dict[str, Any]]) -> AsyncIterator[Visitor]:
    """Somebody who reaches nothing but these TURN servers."""
    given = [RTCIceServer(**server) for server in servers]
    visitor = Visitor(RTCPeerConnection(RTCConfiguration(given, RTCIceTransportPolicy.RELAY)))
    visitor.connection.on("track", visitor.tracks.append)
    try:
        yield visitor
    finally:
        await visitor.connection.close()


def test_credentials_are_good_for_a_while_and_fresh_each_time() -> None:
    rtc = Rtc.model_validate(
        {"ice_servers": [{"urls": ["stun:s"]}], "turn": {"urls": ["turn:t"], "secret": SECRET, "minutes": 5}}
    )
    plain, lent = ice_servers(rtc)
    assert (plain.urls, plain.username, lent.urls) == (("stun:s",), None, ("turn:t",))
    assert lent.username is not None
    assert lent.credential is not None
    until, _, user = lent.username.partition(":")
    assert 290 < int(until) - time.time() <= 300
    assert user
    expected = hmac.new(SECRET.encode(), lent.username.encode(), hashlib.sha1).digest()
    assert base64.b64decode(lent.credential.get_secret_value()) == expected
    assert SECRET not in repr(rtc)
    assert ice_servers(Rtc()) == ()


@needs_coturn
def test_video_by_relay_alone(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with coturn(tmp_path) as turn, live_server(tmp_path, avatar, rtc={"turn": turn}) as server:
            session = await server.start_session(source="replay", replay="wave")
            asked = await server.http.options(f"/whep/{session}")
            link = asked.headers["link"]
            found = re.fullmatch(r'<(.*)>; rel="ice-server"; username="(.*)"; credential="(.*)"; .*', link)
            assert found, link
            async with server.signal(session, role="view") as socket:
                (lent,) = (await hear(socket, "ice"))["servers"]
            assert [found[1]] == lent["urls"]
            async with shut_in([lent]) as visitor:
                visitor.connection.addTransceiver("video", direction="recvonly")
                offer = await visitor.offer()
                assert set(re.findall(r" typ (\w+)", offer)) == {"relay"}
                answer = await server.http.post(
                    f"/whep/{session}", content=offer, headers={"content-type": "application/sdp"}
                )
                assert answer.status_code == 201, answer.text
                assert "typ relay" in answer.text  # the server's own, for those who reach it by nothing else
                assert answer.headers["link"].startswith(f"<{turn['urls'][0]}>")
                await visitor.accept(answer.text)
                await visitor.see(10)

            wrong = {**lent, "credential": base64.b64encode(b"x" * 20).decode()}
            async with shut_in([wrong]) as visitor:
                visitor.connection.addTransceiver("video", direction="recvonly")
                assert "typ relay" not in await visitor.offer()

    run(main())
