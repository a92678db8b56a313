"""How a websocket of ours ends: whoever has had enough first ends it for all, and the other side is told why."""

import asyncio
import contextlib
from typing import Any, Final

from fastapi import WebSocket, WebSocketDisconnect

from streaming.errors import RefusedError

GOODBYE_S: Final = 1.0
"""Nobody is waited for longer."""


async def until_first(ways: set[asyncio.Task[Any]], lasts_s: float | None = None) -> set[asyncio.Task[Any]]:
    """Which of ``ways`` ended first, the others ended with them; none where ``lasts_s`` was over before."""
    try:
        done, _ = await asyncio.wait(ways, timeout=lasts_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
    return done


async def close_socket(socket: WebSocket, code: int, refusal: RefusedError | None, reason: str | None = None) -> None:
    """End it, with what was refused or else the reason; one that does not read is not waited for."""
    with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
        async with asyncio.timeout(GOODBYE_S):
            if refusal is not None:
                await socket.send_json({"type": "error", "code": refusal.code, "message": str(refusal)})
            await socket.close(code, refusal.code if refusal else reason)
