"""A session's packets to any server that takes a stream by WHIP (RFC 9725), over a peer connection that we offer."""

import asyncio
import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from email.message import Message
from typing import IO, Final
from urllib.parse import urljoin, urlsplit

from aiortc import RTCIceServer, RTCRtpSender, RTCSessionDescription

from lhm_runtime.errors import BackendError
from streaming.lowlatency import connected, make_peer_connection, prefer_codec, watch_peer
from streaming.relay.settings import WhipRelay
from streaming.relay.tracks import Tracks

_SDP: Final = "application/sdp"
_ANSWER_S: Final = 10.0
_GOODBYE_S: Final = 2.0
_CONNECT_S: Final = 15.0
_MOST_BYTES: Final = 64 * 1024
_MOST_REDIRECTS: Final = 3


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    """urllib would make a GET of a redirected POST."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """None: the redirect is an answer like others."""


_opener = urllib.request.build_opener(_Unfollowed)


async def publish_by_whip(
    url: str, relay: WhipRelay, tracks: Tracks, ice_servers: Sequence[RTCIceServer], on_live: Callable[[], None]
) -> None:
    """Publish until the connection or the pictures end; ``on_live`` is called once it stands.

    Args:
        url: the endpoint, of this session.
        relay: its codec and token.
        tracks: what to send.
        ice_servers: STUN and TURN.
        on_live: see above.

    Raises:
        BackendError: the server refuses, cannot be reached, or has gone.
        ConnectError: it answered, but no connection came about.
    """
    token = None if relay.token is None else relay.token.get_secret_value()
    connection = make_peer_connection(ice_servers)
    resource: str | None = None
    try:
        prefer_codec(connection.addTransceiver(tracks.pictures, direction="sendonly"), relay.codec)
        sound = connection.addTransceiver(tracks.sound, direction="sendonly")
        capabilities = RTCRtpSender.getCapabilities("audio").codecs
        sound.setCodecPreferences([codec for codec in capabilities if codec.name.lower() == "opus"])
        await connection.setLocalDescription(await connection.createOffer())
        resource, answer = await asyncio.to_thread(_post, url, token, str(connection.localDescription.sdp))
        try:
            await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        except Exception as error:
            raise BackendError(
                f"{_server(url)} answers with an SDP that is of no use; does it take {relay.codec}? ({error})"
            ) from error
        await connected(connection, _CONNECT_S)
        on_live()
        raise BackendError(await watch_peer(connection))
    finally:
        await connection.close()
        if resource is not None:
            with contextlib.suppress(BackendError):
                await asyncio.to_thread(_ask, "DELETE", resource, token, None, _GOODBYE_S)


def _post(url: str, token: str | None, offer: str) -> tuple[str | None, str]:
    """The address of what was begun there, if it has one, and the SDP answer; raises BackendError."""
    for _ in range(_MOST_REDIRECTS + 1):
        status, location, body = _ask("POST", url, token, offer, _ANSWER_S)
        if status in {307, 308} and location is not None:
            url = location
            continue
        if status != 201:
            raise BackendError(f"{_server(url)} does not take the stream: {status} {body[:200]}")
        return location, body
    raise BackendError(f"{_server(url)} sends us on and on (more than {_MOST_REDIRECTS} redirects)")


def _ask(method: str, url: str, token: str | None, body: str | None, patience_s: float) -> tuple[int, str | None, str]:
    """Status, Location as an absolute address, and text of an answer; raises BackendError where there is none."""
    headers = {} if body is None else {"Content-Type": _SDP}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else body.encode()
    try:
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - http, by the settings
        try:
            response = _opener.open(request, timeout=patience_s)
        except urllib.error.HTTPError as refusal:
            response = refusal
        with response:
            location = response.headers.get("Location")
            text = response.read(_MOST_BYTES).decode(errors="replace")
            return response.status, location and urljoin(url, location), text
    except (OSError, ValueError) as error:
        raise BackendError(f"{_server(url)} does not answer: {getattr(error, 'reason', error)}") from error


def _server(url: str) -> str:
    """Of an address what may be told: the rest of it often is a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"
