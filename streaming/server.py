"""The server as a program: it starts, says where it is, and stops when asked to."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import time
import webbrowser
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.style import Style
from rich.text import Text

from lhm_runtime.errors import BackendError
from streaming.access import Grant, is_loopback, sign
from streaming.app import create_app
from streaming.config import Config, load_config
from streaming.logs import configure_logging
from streaming.sample_avatars import BUILTIN, start_missing
from streaming.services import Services
from streaming.signaling import MAX_MESSAGE_BYTES
from streaming.tls import certificate_names, has_tls

Meanwhile = Callable[[Services, str], Awaitable[None]]
"""Gets the services and the page's address; the server stops when it returns."""

_GOODBYE_S: Final = 5


def run_server(config: Config, *, browser: bool = False, cluster: str | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        config: all settings.
        browser: open the page in one, where there is a screen.
        cluster: the Ray cluster whose machines have the sessions; None: this program has them.

    Raises:
        BackendError: the address is taken, or not this machine's.
        InvalidInputError: the network would get in and nothing says who may, or the certificate is unusable.
    """

    async def attend(services: Services, address: str) -> None:
        start_missing(services, [BUILTIN])
        announce(services, address, browser=browser)
        await asyncio.Event().wait()

    run_with(config, attend, cluster)


def run_with(config: Config, meanwhile: Meanwhile, cluster: str | None = None) -> None:
    """Serve until ``meanwhile`` returns, Ctrl-C or SIGTERM; raises what ``meanwhile`` raises, and as ``run_server``."""
    configure_logging(config.log)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands the interrupt on once everything has ended
        asyncio.run(_serve(config, meanwhile, cluster))


def announce(services: Services, address: str, *, browser: bool) -> None:
    """Say where the page is, and open it.

    Where tokens are asked for the link has one, for everything, but only on a terminal: what is written to a file is
    read by others, later.
    """
    console = Console(highlight=False, soft_wrap=True)
    link, hint = address, ""
    if services.secret is not None and console.is_terminal:
        until_s = time.time() + 60 * services.config.access.minutes
        link += f"/?token={sign(services.secret, Grant('admin', expires_s=until_s))}"
    elif services.secret is not None:
        hint = "; lhm-live token prints links that let people in"
    shown = Text(link, Style(bold=True, link=link))  # as no markup: addresses may have brackets
    console.print(Text.assemble("\n  lhm-live is ready: ", shown, f"    (Ctrl-C stops it{hint})\n"))
    if not is_loopback(services.config.server.host) and services.secret is None:
        console.print("  Anybody who reaches it may do everything (access.open_to_everybody_on).\n", style="yellow")
    has_screen = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if browser and has_screen:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(link)


def address_of(config: Config, host: str, port: int) -> str:
    """The address by which people reach a server that listens on ``host`` and ``port``."""
    names = sorted(name for name in certificate_names(config) if "*" not in name)
    if config.server.names or names:
        name = (*config.server.names, *names)[0]
    elif host in {"0.0.0.0", "::"}:  # noqa: S104
        name = _own_address()
    else:
        name = "localhost" if is_loopback(host) else host
    return f"{'https' if has_tls(config) else 'http'}://{f'[{name}]' if ':' in name else name}:{port}"


def settings_of(path: Path | None, host: str | None, port: int | None) -> Config:
    """The settings of a file, with what the command line says otherwise; raises InvalidInputError."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return load_config(path, **({"server": given} if given else {}))


class _Server(uvicorn.Server):
    """uvicorn's, which says where it listens before it begins, and may drain before it stops."""

    def __init__(
        self,
        settings: uvicorn.Config,
        on_started: Callable[[str, int], None],
        drain: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """``drain``: awaited on SIGTERM before anything ends; None: it stops at once."""
        super().__init__(settings)
        self._on_started, self._drain = on_started, drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first SIGTERM; Ctrl-C, and a second SIGTERM, stop at once. Called between two bytecodes."""
        drain, self._drain = self._drain, None
        if sig == signal.SIGTERM and drain is not None and self.started:
            self._loop.call_soon_threadsafe(self._begin_draining, drain)
        else:
            super().handle_exit(sig, frame)

    def _begin_draining(self, drain: Callable[[], Awaitable[None]]) -> None:
        self._draining = asyncio.create_task(self._stop_drained(drain), name="drain")

    async def _stop_drained(self, drain: Callable[[], Awaitable[None]]) -> None:
        try:
            await drain()
        finally:
            super().handle_exit(signal.SIGTERM, None)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started and not self.should_exit:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_started(host, port)

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """A second Ctrl-C, or one that a wrapper passed on twice, hurries connections, not what ends in order."""
        await super().shutdown(sockets)  # type: ignore[arg-type]
        if self.force_exit:
            await self.lifespan.shutdown()


def _own_address() -> str:
    """This machine's address in its network; localhost where it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "localhost"
        return str(probe.getsockname()[0])


def _cannot_listen(config: Config, error: OSError) -> str:
    host, port = config.server.host, config.server.port
    if isinstance(error, socket.gaierror):
        reason = "no address is known by this name; server.host is 127.0.0.1, 0.0.0.0 or an address of this machine"
    elif error.errno == errno.EADDRINUSE:
        reason = "another program does; end it, or choose another port with --port"
    elif error.errno == errno.EADDRNOTAVAIL:
        reason = "the address is not this machine's; server.host is 127.0.0.1, 0.0.0.0 or one that is"
    elif isinstance(error, PermissionError):
        reason = "the system does not let this user take it; choose a port above 1023 with --port"
    else:
        reason = error.strerror or str(error)
    return f"cannot listen on {host}:{port}: {reason}"


def _application(config: Config, cluster: str | None) -> FastAPI:
    if cluster is None:
        return create_app(config)
    if cluster == "local":  # Ray's word for "keep to 127.0.0.1", which it reads when it is imported
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        from streaming.cluster.gateway import create_gateway  # noqa: PLC0415 - Ray is imported for nothing else
    except ModuleNotFoundError as error:
        raise BackendError(f"--cluster needs {error.name}: pip install 'lhm-live[scale]'") from error
    return create_gateway(config, cluster)


async def _serve(config: Config, meanwhile: Meanwhile, cluster: str | None) -> None:
    app = _application(config, cluster)
    attending: set[asyncio.Task[None]] = set()

    async def attend(host: str, port: int) -> None:
        try:
            await meanwhile(app.state.services, address_of(config, host, port))
        finally:
            server.should_exit = True

    settings = uvicorn.Config(
        app,
        host=config.server.host,
        port=config.server.port,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # messages are small, and each connection would keep a compressor
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GOODBYE_S,
        server_header=False,
        ssl_certfile=config.server.tls_cert,
        ssl_keyfile=config.server.tls_key,
    )

    def begin(host: str, port: int) -> None:
        attending.add(asyncio.create_task(attend(host, port), name="attend"))

    async def drain() -> None:
        await app.state.services.sessions.drain(config.server.drain_s)

    server = _Server(settings, begin, drain if config.server.drain_s else None)
    try:
        await server.serve()
    except SystemExit as exit_:
        # uvicorn's way to say that it cannot listen, or that the lifespan failed, which is in the log
        if not isinstance(exit_.__context__, OSError):
            raise BackendError("the server did not start; the log says why") from exit_
        raise BackendError(_cannot_listen(config, exit_.__context__)) from exit_
    finally:
        for task in attending:
            task.cancel()
        for outcome in await asyncio.gather(*attending, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
