"""Janus' own protocol (its JSON API, over a websocket): one session, its handles, and what they ask and hear."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from lhm_runtime.errors import BackendError

Message = dict[str, Any]

_PROTOCOL: Final = Subprotocol("janus-protocol")
_PLUGIN: Final = "janus.plugin.streaming"
_ANSWER_S: Final = 5.0
_KEEP_ALIVE_S: Final = 5.0
_GOODBYE_S: Final = 0.5
_MOST_BYTES: Final = 1 << 20


class JanusSession:
    """What ``open_janus`` opens; it belongs to one event loop."""

    def __init__(self, socket: ClientConnection, secret: str | None) -> None:
        self._socket = socket
        self._known = {} if secret is None else {"apisecret": secret}
        self._asked: dict[str, asyncio.Queue[Message]] = {}
        self._on_hangup: dict[int, Callable[[], None]] = {}
        self._gone = asyncio.Event()
        self._why = ""

    async def begin(self) -> None:
        """Open the session; ``listen`` runs by then."""
        self._known["session_id"] = (await self._ask({"janus": "create"}))["data"]["id"]

    async def attach(self, on_hangup: Callable[[], None] = lambda: None) -> int:
        """A new handle of the streaming plugin; ``on_hangup`` is called when Janus ends its peer connection."""
        handle = int((await self._ask({"janus": "attach", "plugin": _PLUGIN}))["data"]["id"])
        self._on_hangup[handle] = on_hangup
        return handle

    async def detach(self, handle: int) -> None:
        """Give a handle back, and with it its peer connection."""
        self._on_hangup.pop(handle, None)
        await self._ask({"janus": "detach", "handle_id": handle})

    async def send(self, handle: int, body: Message, jsep: Message | None = None) -> tuple[Message, Message]:
        """Ask the plugin; what it says, and its SDP with its type (empty where there is none).

        Raises:
            BackendError: it refuses, or Janus does not answer.
        """
        extra = {} if jsep is None else {"jsep": jsep}
        answer = await self._ask({"janus": "message", "handle_id": handle, "body": body, **extra})
        said = answer.get("plugindata", {}).get("data", {})
        if "error" in said:
            raise BackendError(f"Janus refuses to {body['request']}: {said['error']} ({said.get('error_code')})")
        return said, answer.get("jsep", {})

    async def listen(self) -> None:
        """Take in what Janus says until it goes."""
        self._why = "Janus has closed the connection"
        try:
            async for text in self._socket:
                self._hear(json.loads(text))
        except (WebSocketException, OSError, ValueError) as error:
            self._why = f"Janus has gone: {error}"
        except BackendError as error:
            self._why = str(error)
        finally:
            self._gone.set()
            for answers in self._asked.values():
                answers.put_nowait({"janus": "gone"})

    async def until_gone(self) -> None:
        """Wait until Janus goes; raises BackendError then."""
        await self._gone.wait()
        raise BackendError(self._why)

    async def keep_alive(self) -> None:
        """Ask Janus every few seconds whether it is there; raises BackendError when it does not say so."""
        while True:
            await asyncio.sleep(_KEEP_ALIVE_S)
            await self._ask({"janus": "keepalive"}, is_taken=True)

    def _hear(self, message: Message) -> None:
        kind, transaction = message.get("janus"), message.get("transaction")
        if kind in {"hangup", "detached"} and message.get("sender") in self._on_hangup:
            self._on_hangup[message["sender"]]()
        elif kind == "timeout":
            raise BackendError("Janus has given up our session")
        elif transaction in self._asked:
            self._asked[transaction].put_nowait(message)

    async def _ask(self, message: Message, *, is_taken: bool = False) -> Message:
        """The answer to a message; where ``is_taken``, that Janus has taken it in (ack) is answer enough."""
        if self._gone.is_set():
            raise BackendError(self._why)
        transaction = secrets.token_hex(8)
        answers = self._asked[transaction] = asyncio.Queue()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._socket.send(json.dumps({**message, **self._known, "transaction": transaction}))
                answer = await answers.get()
                while answer["janus"] == "ack" and not is_taken:
                    answer = await answers.get()
        except TimeoutError as error:
            raise BackendError(f"Janus has not answered for {_ANSWER_S:g} s") from error
        except (WebSocketException, OSError) as error:
            raise BackendError(f"Janus has gone: {error}") from error
        finally:
            del self._asked[transaction]
        if answer["janus"] == "gone":
            raise BackendError(self._why)
        if answer["janus"] == "error":
            fault = answer.get("error", {})
            raise BackendError(f"Janus refuses: {fault.get('reason')} ({fault.get('code')})")
        return answer


@asynccontextmanager
async def open_janus(url: str, secret: str | None) -> AsyncIterator[JanusSession]:
    """A session with the Janus at ``url`` (ws: or wss:).

    Raises:
        BackendError: it cannot be reached, or wants another secret.
    """
    try:
        async with asyncio.timeout(_ANSWER_S):
            socket = await connect(
                url, subprotocols=[_PROTOCOL], proxy=None, max_size=_MOST_BYTES, close_timeout=_GOODBYE_S
            )
    except (WebSocketException, OSError, TimeoutError, ValueError) as error:
        raise BackendError(f"there is no Janus at {url}: {error or type(error).__name__}") from error
    session = JanusSession(socket, secret)
    listening = asyncio.create_task(session.listen(), name="listen to Janus")
    try:
        await session.begin()
        yield session
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        with contextlib.suppress(WebSocketException, OSError):
            await socket.close()
