"""``lhm-live serve`` and ``lhm-live demo``: the server, from a terminal."""

from pathlib import Path
from typing import Annotated

import typer

# the server itself takes a second to import, which is not needed to say --help
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE.yaml", help="Settings; see configs/default.yaml.")
]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 lets the network in, with tokens.")]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one.")]
BrowserOption = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")]


def serve(
    *,
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    browser: BrowserOption = False,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS|local", help="Run sessions on the machines of a Ray cluster: docs/cluster.md."),
    ] = None,
) -> None:
    """Serve the studio page: photos become avatars, cameras move them, browsers watch.

    Ctrl-C stops it. Cameras work on http://localhost and over https only: browsers want it so (server.tls_cert).
    Before the network is let in, lhm-live token makes the links that people come in by.

    \b
    [bold]Examples[/bold]
      lhm-live serve
      lhm-live serve --config configs/default.yaml --port 9000
      lhm-live token --host 0.0.0.0 && lhm-live serve --host 0.0.0.0
      LHM_LIVE_VIDEO__FPS=60 lhm-live serve
      lhm-live serve --cluster 10.0.0.1:6379
    """
    from streaming.server import run_server, settings_of  # noqa: PLC0415

    run_server(settings_of(config, host, port), browser=browser, cluster=cluster)


def demo(
    *,
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    browser: BrowserOption = True,
    check: Annotated[
        bool, typer.Option("--check", help="Watch it here instead, write OUT and its .png, and end.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.mp4", help="What --check records.")] = Path(
        "demo.mp4"
    ),
) -> None:
    """Avatars of the demo photos, live in the browser.

    They are made the first time, which takes half a minute, and again when a newer lhm-live would make better ones.
    Where the port is taken another one is. Ctrl-C stops it.

    \b
    [bold]Examples[/bold]
      lhm-live demo
      lhm-live demo --no-browser --port 9000
      lhm-live demo --check -o demo.mp4     for machines without a screen: does it work?
    """
    from streaming.arguments import require_writable  # noqa: PLC0415
    from streaming.demo import run_demo  # noqa: PLC0415
    from streaming.server import settings_of  # noqa: PLC0415

    if check:
        require_writable(out, ".mp4", "--out")
    run_demo(settings_of(config, host, port), browser=browser, find_port=port is None, check_to=out if check else None)
