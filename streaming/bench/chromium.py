"""A headless Chromium with a fake camera, driven over its DevTools protocol: for benchmarks and tests."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from lhm_runtime.errors import BackendError

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_START_S = 30.0
_FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--no-sandbox",
    "--remote-debugging-port=0",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--allow-loopback-in-peer-connection",
    "--use-fake-device-for-media-stream",
    "--enable-unsafe-swiftshader",
    "--mute-audio",
)


class Page:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.console: list[str] = []
        """What the page printed and what it threw."""

    async def evaluate(self, script: str) -> Any:
        """The value of a script, awaited if it is a promise; raises BackendError where it throws."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BackendError(f"the page threw {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    async def wait_for(self, script: str, limit_s: float = 20.0) -> Any:
        """The value of ``script`` once it is true; raises BackendError when that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not (value := await self.evaluate(script)):
                    await asyncio.sleep(0.05)
                return value
        raise BackendError(f"{script} was not true within {limit_s:g} s; the page says {self.console[-5:]}")

    async def go(self, url: str) -> None:
        """Leave for another address."""
        await self.call("Page.navigate", url=url)

    async def prepare(self, script: str) -> None:
        """Have a script run before the page's own, from the next address on."""
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    @asynccontextmanager
    async def open_window(self) -> AsyncIterator["Page"]:
        """Another window of the same Chromium, empty: in a tab behind this one pages would sleep."""
        target = (await self.call("Target.createTarget", url="about:blank", newWindow=True))["targetId"]
        async with _attach(f"ws://127.0.0.1:{self._socket.remote_address[1]}/devtools/page/{target}") as page:
            yield page

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        result: dict[str, Any] = await answer
        return result

    async def listen(self) -> None:
        """Read what Chromium says, until it ends."""
        async for text in self._socket:
            message = json.loads(text)
            answer = self._answers.pop(message.get("id", 0), None)
            if answer is not None and not answer.done():
                if "error" in message:
                    answer.set_exception(BackendError(f"Chromium: {message['error']['message']}"))
                else:
                    answer.set_result(message["result"])
            elif message.get("method") == "Runtime.consoleAPICalled":
                self.console.append(" ".join(str(part.get("value", "")) for part in message["params"]["args"]))
            elif message.get("method") == "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.console.append(str(details.get("exception", {}).get("description", details["text"])))


@asynccontextmanager
async def open_page(
    url: str,
    *,
    camera: Path | None = None,
    allow_camera: bool = True,
    first: str | None = None,
    flags: Sequence[str] = (),
) -> AsyncIterator[Page]:
    """Open ``url`` in a fresh Chromium.

    Args:
        url: of the page.
        camera: a .y4m or .mjpeg that plays as the camera, over and over; a moving pattern where None.
        allow_camera: what the user answers when the page asks for the camera.
        first: a script that runs before the page's own.
        flags: for Chromium's command line, as ``--disable-3d-apis``.

    Raises:
        BackendError: there is no Chromium, or it does not start.
    """
    program = find_chromium()
    flags = [*_FLAGS, *flags, *([f"--use-file-for-fake-video-capture={camera}"] if camera else [])]
    if allow_camera:
        flags.append("--use-fake-ui-for-media-stream")
    with tempfile.TemporaryDirectory(prefix="lhm-live-chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            *flags,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _wait_for_port(Path(profile) / "DevToolsActivePort", process)
            async with _attach(await _first_page(port)) as page:
                if not allow_camera:
                    await page.call("Browser.setPermission", permission={"name": "camera"}, setting="denied")
                if first is not None:
                    await page.prepare(first)
                await page.go(url)
                yield page
        finally:
            if process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 5.0)
            if process.returncode is None:
                process.kill()
                await process.wait()


def find_chromium() -> str:
    """Path of a Chromium; raises BackendError where there is none."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    raise BackendError(f"no {' or '.join(_NAMES)} on this machine: apt-get install chromium")


async def _first_page(port: int) -> str:
    """Where the first page of the Chromium that listens on ``port`` can be driven."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /json/list HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    targets = json.loads((await _read_body(reader)) or b"[]")
    writer.close()
    return str(next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"))


@asynccontextmanager
async def _attach(url: str) -> AsyncIterator[Page]:
    async with connect(url, max_size=None, proxy=None) as socket:
        page = Page(socket)
        listening = asyncio.create_task(page.listen(), name="listen to Chromium")
        try:
            await page.call("Runtime.enable")
            await page.call("Page.enable")
            yield page
        finally:
            listening.cancel()
            await asyncio.wait([listening])


async def _read_body(reader: asyncio.StreamReader) -> bytes:
    length = 0
    while (line := await reader.readline()).strip():
        name, _, value = line.decode().partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return await reader.readexactly(length)


async def _wait_for_port(file: Path, process: asyncio.subprocess.Process) -> int:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_S):
            while process.returncode is None:
                if file.is_file() and (lines := file.read_text().splitlines()):
                    return int(lines[0])
                await asyncio.sleep(0.05)
    raise BackendError(f"Chromium did not start within {_START_S:g} s (exit code {process.returncode})")
