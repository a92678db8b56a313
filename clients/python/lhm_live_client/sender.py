"""A connection that drives a session."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lhm_live_client.wire import pack_bones


class Refused(Exception):  # noqa: N818 - said as the server says it
    """The server does not take samples, or no longer; the message is its own."""


class PoseSender:
    """Sends moments of an SMPL-X skeleton to ``ws://HOST/v1/pose/SESSION``; use it in ``async with``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.report: dict[str, Any] = {}
        """The server's last word on what became of the samples: received, used, refused, overtaken, too_fast."""
        self.complaint: str | None = None
        """What was wrong with one of them, if anything was."""
        self._sequence = 0
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> "PoseSender":
        """Raises Refused: no such session, or another one drives it; OSError: no server."""
        try:
            self._socket = await connect(self.url, proxy=None, compression=None)
        except InvalidStatus as error:
            raise Refused(f"{self.url}: {error}") from error
        self._listening = asyncio.create_task(self._listen(self._socket), name="listen to the server")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.cancel()
        await asyncio.wait([self._listening])
        if self._socket is not None:
            await self._socket.close()

    async def send(
        self,
        rotvec: Mapping[str, Sequence[float]],
        root: Sequence[float] | None = None,
        expression: Mapping[str, float] | None = None,
        captured_ms: float | None = None,
    ) -> None:
        """Send one moment, taken now unless ``captured_ms`` says when; the rest is as for ``pack_bones``.

        Raises:
            Refused: the server has closed the connection.
        """
        when_ms = time.time() * 1e3 if captured_ms is None else captured_ms
        await self.send_message(pack_bones(self._sequence, when_ms, rotvec, root, expression))
        self._sequence += 1

    async def send_message(self, message: bytes | str) -> None:
        """Send a sample that is written already, binary or JSON; raises as ``send``."""
        if self._socket is None:
            raise Refused("not connected; use async with")
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            await asyncio.wait([self._listening])
            raise Refused(self.complaint or f"{self.url}: {error}") from error

    async def _listen(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            async for text in socket:
                match json.loads(text):
                    case {"type": "ack", **report}:
                        self.report = report
                    case {"type": "error", "message": str(message)}:
                        self.complaint = message
