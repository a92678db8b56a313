"""Samples over a websocket: how a rig, a script or a recording drives a session whose source is ``socket``.

Each message is one sample of protocol.py, binary or JSON. Answers are JSON: ``welcome`` with the limits, then, at most
one a second, ``ack`` with what became of the samples, and ``error``. Whoever comes last drives; the one before is sent
away. The close code says why: 1001 the session has ended, 1008 far too fast, 1009 too long, 4401 no token or a void
one, 4403 its role does not cover this, 4404 no such session, 4409 the session has another source, 4410 another sender
has come, 4429 too many connections.
"""

import asyncio
import contextlib
import time
from typing import Any, Final

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from structlog.stdlib import get_logger

from streaming import metrics
from streaming.errors import RefusedError
from streaming.gate import UNAUTHORIZED
from streaming.protocol import MAX_RATE_HZ, MAX_SAMPLE_BYTES, MAX_TEXT_BYTES, VERSION, Allowance
from streaming.services import Given, Here
from streaming.session import Session
from streaming.socket_ends import close_socket, until_first
from streaming.sources import SourceName
from streaming.sources.messages import Sender

ENDED, TOO_FAST, TOO_LONG, UNKNOWN, OTHER_SOURCE, REPLACED = 1001, 1008, 1009, 4404, 4409, 4410
"""Close codes; those from 4000 on are ours (RFC 6455, 7.4.2)."""

_TAKING: Final[tuple[SourceName, ...]] = ("socket", "browser", "merged")
"""Sources whose sessions samples may be sent to."""
_FLOOD_HZ: Final = 4 * MAX_RATE_HZ
"""A sender that goes on faster than this is sent away."""
_REPORT_S: Final = 1.0
_SETTLE_S: Final = 0.05
"""From a sample to the report that counts it."""

_log = get_logger(__name__)

router = APIRouter()


@router.websocket("/v1/pose/{session}")
async def take_samples(socket: WebSocket, session: str, here: Here, grant: Given) -> None:
    """Drive a session with samples, as long as the token lasts."""
    await socket.accept()
    line = _Line(socket)
    try:
        driven = here.sessions.get(session)
        _require_taking(driven)
    except RefusedError as refusal:
        await line.close(UNKNOWN if refusal.status == 404 else OTHER_SOURCE, refusal)
        return
    driven.admit(line.sender)
    _log.info("sender came", session=session)
    try:
        code, reason = await line.talk(driven, grant.lasts_s)
    finally:
        driven.dismiss(line.sender)
        _log.info("sender left", session=session, used=line.sender.used, refused=line.sender.refused)
    await line.close(code, reason)


class _Line:
    """The websocket of one sender."""

    def __init__(self, socket: WebSocket) -> None:
        self.sender = Sender(lambda complaint: self._complain("bad_sample", complaint))
        self._socket = socket
        self._complaint: dict[str, Any] | None = None
        self._news = asyncio.Event()
        self._dropped = 0

    async def talk(self, session: Session, lasts_s: float | None) -> tuple[int, RefusedError | None]:
        """Take samples until one side has had enough, at most ``lasts_s``; the close code, and why."""
        reading = asyncio.create_task(self._read(session), name="read samples")
        ways: set[asyncio.Task[Any]] = {
            reading,
            asyncio.create_task(self._report(), name="report on samples"),
            asyncio.create_task(session.ended.wait(), name="watch session"),
            asyncio.create_task(self.sender.replaced.wait(), name="watch for another sender"),
        }
        done = await until_first(ways, lasts_s)
        if not done:
            return UNAUTHORIZED, RefusedError(401, "token_expired", "the token has expired; ask for a new one")
        if session.ended.is_set():
            return ENDED, RefusedError(404, "session_ended", f"session {session.id} has ended")
        if self.sender.replaced.is_set():
            return REPLACED, RefusedError(409, "replaced", "another sender drives this session now")
        for way in done:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it has gone
                way.result()
        return reading.result() if reading in done and reading.exception() is None else (1000, None)

    async def close(self, code: int, refusal: RefusedError | None) -> None:
        """End it."""
        await close_socket(self._socket, code, refusal)

    async def _read(self, session: Session) -> tuple[int, RefusedError | None]:
        regular, most = Allowance(MAX_RATE_HZ), Allowance(_FLOOD_HZ, burst=int(_FLOOD_HZ))
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                return 1000, None
            text, data = event.get("text"), event.get("bytes")
            message: str | bytes = text if text is not None else data or b""
            try:
                _require_taking(session)
            except RefusedError as refusal:
                return OTHER_SOURCE, refusal
            if len(message) > MAX_TEXT_BYTES:
                return TOO_LONG, RefusedError(413, "too_large", f"message of {len(message)} bytes; see welcome")
            now_s = time.monotonic()
            if not most.take(now_s):
                return TOO_FAST, RefusedError(429, "flood", f"more than {_FLOOD_HZ:g} messages a second")
            if regular.take(now_s):
                session.messages.receive(message, self.sender)
                self._news.set()
            else:
                self._dropped += 1
                metrics.FRAMES_DROPPED.labels("sample_too_fast").inc()
                self._complain("too_fast", f"more than {MAX_RATE_HZ:g} samples a second; those beyond are dropped")

    async def _report(self) -> None:
        """Say what became of the samples, while any come."""
        limits = {"max_rate_hz": MAX_RATE_HZ, "max_bytes": MAX_SAMPLE_BYTES, "max_text_bytes": MAX_TEXT_BYTES}
        await self._socket.send_json({"type": "welcome", "version": VERSION, **limits})
        told, told_at = (0, 0, 0), time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_S):
                    await self._news.wait()
            await asyncio.sleep(_SETTLE_S)
            self._news.clear()
            if self._complaint is not None:
                complaint, self._complaint = self._complaint, None
                await self._socket.send_json(complaint)
            sender, now = self.sender, time.monotonic()
            heard = sender.received + self._dropped
            counts = (heard, sender.used, sender.refused)
            if counts == told:
                continue
            ack = {
                "type": "ack",
                "sequence": sender.last,
                "received": heard,
                "used": sender.used,
                "refused": sender.refused,
                "overtaken": sender.received - sender.used - sender.refused,
                "too_fast": self._dropped,
                "rate_hz": round((heard - told[0]) / max(now - told_at, _SETTLE_S), 1),
                "server_ms": time.time() * 1e3,
            }
            await self._socket.send_json(ack)
            told, told_at = counts, now
            await asyncio.sleep(_REPORT_S - _SETTLE_S)

    def _complain(self, code: str, message: str) -> None:
        self._complaint = {"type": "error", "code": code, "message": message}
        self._news.set()


def _require_taking(session: Session) -> None:
    source = session.wish.source
    if source not in _TAKING:
        raise RefusedError(409, "other_source", f"session {session.id} has source {source}; start one with socket")
