"""The server as a program: it starts, says where it is, and stops when asked to."""

import asyncio
import contextlib
import os
import sys
import webbrowser
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import uvicorn
from rich.console import Console

from lhm_runtime.errors import BackendError
from streaming.app import create_app
from streaming.config import Config, load_config
from streaming.logs import configure_logging
from streaming.sample_avatars import BUILTIN, start_missing
from streaming.services import Services
from streaming.signaling import MAX_MESSAGE_BYTES

Meanwhile = Callable[[Services, str], Awaitable[None]]
"""Gets the services and the page's address; the server stops when it returns."""

_GOODBYE_S: Final = 5


def run_server(config: Config, *, browser: bool = False) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        config: all settings.
        browser: open the page in one, where there is a screen.

    Raises:
        BackendError: the address is taken, or not this machine's.
    """

    async def attend(services: Services, address: str) -> None:
        start_missing(services, [BUILTIN])
        announce(address, browser=browser)
        await asyncio.Event().wait()

    run_with(config, attend)


def run_with(config: Config, meanwhile: Meanwhile) -> None:
    """Serve until ``meanwhile`` returns, Ctrl-C or SIGTERM; raises what ``meanwhile`` raises, and as ``run_server``."""
    configure_logging(config.log)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands the interrupt on once everything has ended
        asyncio.run(_serve(config, meanwhile))


def announce(address: str, *, browser: bool) -> None:
    """Say where the page is, and open it."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n  lhm-live is ready: [bold link={address}]{address}[/bold link]    (Ctrl-C stops it)\n")
    has_screen = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if browser and has_screen:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(address)


def settings_of(path: Path | None, host: str | None, port: int | None) -> Config:
    """The settings of a file, with what the command line says otherwise; raises InvalidInputError."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return load_config(path, **({"server": given} if given else {}))


class _Server(uvicorn.Server):
    """uvicorn's, which says where it listens before it begins."""

    def __init__(self, settings: uvicorn.Config, on_started: Callable[[str], None]) -> None:
        super().__init__(settings)
        self._on_started = on_started

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            name = "localhost" if host in {"127.0.0.1", "0.0.0.0", "::", "::1"} else host  # noqa: S104
            self._on_started(f"http://{name}:{port}")


async def _serve(config: Config, meanwhile: Meanwhile) -> None:
    app = create_app(config)
    attending: set[asyncio.Task[None]] = set()

    async def attend(address: str) -> None:
        try:
            await meanwhile(app.state.services, address)
        finally:
            server.should_exit = True

    settings = uvicorn.Config(
        app,
        host=config.server.host,
        port=config.server.port,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GOODBYE_S,
        server_header=False,
    )
    server = _Server(settings, lambda address: attending.add(asyncio.create_task(attend(address), name="attend")))
    try:
        await server.serve()
    except SystemExit as exit_:  # uvicorn's way to say that the port is taken
        raise BackendError(
            f"cannot listen on {config.server.host}:{config.server.port}: another program does, or the address is not "
            "this machine's; choose another with --port"
        ) from exit_
    finally:
        for task in attending:
            task.cancel()
        for outcome in await asyncio.gather(*attending, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
