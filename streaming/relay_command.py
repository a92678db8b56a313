"""``lhm-live relay``: a session goes to an audience, or no longer."""

from typing import Annotated

import typer


def relay(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Id of a session, or the studio's link to it.")],
    name: Annotated[
        str | None, typer.Argument(metavar="RELAY", help="One of the server's relays, or off; without: how it goes.")
    ] = None,
    *,
    server: Annotated[str, typer.Option(metavar="URL", help="Where a bare id is.")] = "http://127.0.0.1:8080",
    token: Annotated[
        str | None, typer.Option(help="An admin's (lhm-live token -q), where the server asks for one.")
    ] = None,
) -> None:
    """Publish a session by a relay, so that the server's work does not grow with its audience.

    Relays are in the server's settings (relay:): a Janus, or any server that takes WHIP. docs/relay.md says more.

    \b
    [bold]Examples[/bold]
      lhm-live relay SESSION hall
      lhm-live relay SESSION            how it goes, and where to watch
      lhm-live relay SESSION off
    """
    import asyncio  # noqa: PLC0415 - what follows takes a second to import, which is not needed to say --help

    from rich.console import Console  # noqa: PLC0415

    from streaming.relay.settings import OFF  # noqa: PLC0415
    from streaming.virtual_camera import Watched  # noqa: PLC0415
    from streaming.watching import call_server  # noqa: PLC0415

    where = Watched.parse(session, server)
    path, token = f"/api/sessions/{where.session}", token or where.token
    lines = []
    if name is not None:
        state = asyncio.run(call_server(where.address, "PATCH", path, {"relay": name}, token=token))
        lines.append(f"session {where.session} goes to {state['relay'] or 'no relay'}")
    if name != OFF:
        state = asyncio.run(call_server(where.address, "GET", f"{path}/relay", token=token))
        problem = "" if state["problem"] is None else f": {state['problem']}"
        lines.append(f"{state['name']} ({state['kind']}) is {state['state']}{problem}")
        if state["kind"] == "janus":
            lines.append(f"{state['viewers'] or 0} watch at {where.address}/view/{where.session}?via=janus")
    Console(soft_wrap=True, highlight=False).print("\n".join(lines), markup=False)
