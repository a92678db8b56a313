"""``lhm-live serve`` and ``lhm-live demo``: the server, from a terminal."""

import asyncio
import contextlib
import os
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
import uvicorn
from rich.console import Console

import lhm_runtime
from lhm_runtime.errors import BackendError
from streaming.app import create_app
from streaming.config import Config, load_config
from streaming.logs import configure_logging
from streaming.services import Services
from streaming.signaling import MAX_MESSAGE_BYTES

BUILTIN_ID: Final = "builtin"
"""The built-in person's avatar."""
DEMO_ID: Final = "demo"
"""The demo photo's avatar."""
DEMO_PHOTO: Final = Path(lhm_runtime.__file__).parent / "assets" / "demo_person.png"

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE.yaml", help="Settings; see configs/default.yaml.")
]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 lets the network in.")]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one.")]
OpenOption = Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")]


def serve(
    *, config: ConfigOption = None, host: HostOption = None, port: PortOption = None, open_page: OpenOption = False
) -> None:
    """Serve the studio page: photos become avatars, cameras move them, browsers watch.

    Ctrl-C stops it. Cameras work on http://localhost and over https only: browsers want it so.

    \b
    [bold]Examples[/bold]
      lhm-live serve
      lhm-live serve --config configs/default.yaml --port 9000
      LHM_LIVE_VIDEO__FPS=60 lhm-live serve
    """
    run_server(_settings(config, host, port), open_page=open_page)


def demo(
    *, config: ConfigOption = None, host: HostOption = None, port: PortOption = None, open_page: OpenOption = True
) -> None:
    """Serve with an avatar of the demo photo, and open the page.

    \b
    [bold]Examples[/bold]
      lhm-live demo
      lhm-live demo --no-open --port 9000
    """
    run_server(_settings(config, host, port), open_page=open_page, demo_photo=DEMO_PHOTO)


def run_server(
    config: Config,
    *,
    open_page: bool = False,
    demo_photo: Path | None = None,
    on_started: Callable[[str], None] | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        config: all settings.
        open_page: open a browser, where there is a screen.
        demo_photo: make an avatar of it first, unless there is one from before.
        on_started: called with the page's address.

    Raises:
        BackendError: the address is taken, or not this machine's.
    """
    configure_logging(config.log)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands the interrupt on once everything has ended
        asyncio.run(_serve(config, open_page, demo_photo, on_started))


class _Server(uvicorn.Server):
    """uvicorn's, which says where it listens before it begins."""

    def __init__(self, settings: uvicorn.Config, on_started: Callable[["_Server"], None]) -> None:
        super().__init__(settings)
        self._on_started = on_started

    @property
    def address(self) -> str:
        """Of the page, as people on this machine open it."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        name = "localhost" if host in {"127.0.0.1", "0.0.0.0", "::", "::1"} else host  # noqa: S104
        return f"http://{name}:{port}"

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            self._on_started(self)


async def _serve(
    config: Config, open_page: bool, demo_photo: Path | None, on_started: Callable[[str], None] | None
) -> None:
    app = create_app(config)
    preparing: set[asyncio.Task[None]] = set()

    def begin(server: _Server) -> None:
        async def prepare() -> None:
            await _prepare_avatars(app.state.services, demo_photo)
            _announce(server.address, open_page)
            if on_started is not None:
                on_started(server.address)

        preparing.add(asyncio.create_task(prepare(), name="prepare"))

    settings = uvicorn.Config(
        app,
        host=config.server.host,
        port=config.server.port,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    server = _Server(settings, begin)
    try:
        await server.serve()
    except SystemExit as exit_:  # uvicorn's way to say that the port is taken
        raise BackendError(
            f"cannot listen on {config.server.host}:{config.server.port}: another program does, or the address is not "
            "this machine's; choose another with --port"
        ) from exit_
    finally:
        for task in preparing:
            task.cancel()


async def _prepare_avatars(services: Services, photo: Path | None) -> None:
    """Begin what is missing; wait for the avatar of ``photo`` if there is one, the built-in person comes by itself."""
    jobs, known = services.jobs, services.avatars.list()
    demo_job = jobs.start("Demo", photo, avatar_id=DEMO_ID) if photo is not None and DEMO_ID not in known else None
    if BUILTIN_ID not in known:
        jobs.start("Sample person", None, avatar_id=BUILTIN_ID)
    if demo_job is None:
        return
    console = Console(stderr=True)
    with console.status("making an avatar of the demo photo") as status:
        async for step in jobs.follow(demo_job.id):
            status.update(f"making an avatar of the demo photo: {step.stage}")
            demo_job = step
    if demo_job.state == "failed":
        console.print(f"note: no avatar of the demo photo: {demo_job.message}", style="yellow", markup=False)


def _announce(address: str, open_page: bool) -> None:
    console = Console(highlight=False)
    console.print(f"\n  lhm-live is ready: [bold link={address}]{address}[/bold link]    (Ctrl-C stops it)\n")
    has_screen = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if open_page and has_screen:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(address)


def _settings(path: Path | None, host: str | None, port: int | None) -> Config:
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return load_config(path, **({"server": given} if given else {}))
