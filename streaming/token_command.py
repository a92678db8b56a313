"""``lhm-live token``: links that let people in."""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from streaming.access import Grant, Role, make_secret, sign
from streaming.serve_command import ConfigOption, HostOption, PortOption


def token(
    *,
    role: Annotated[
        Role, typer.Option(help="view: watch; drive: also move the avatar and change the picture; admin: everything.")
    ] = "admin",
    session: Annotated[str | None, typer.Option(metavar="ID", help="Only this one; not for admin.")] = None,
    minutes: Annotated[
        int | None, typer.Option(min=1, max=43_200, help="How long it is good.  \\[default: access.minutes]")
    ] = None,
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the token alone.")] = False,
) -> None:
    """Print links that let somebody in, where the server asks for them: to watch, to drive, or for everything.

    The first time it makes the secret by which the server knows its own tokens; a server that was started before has
    to be started again. A link is a key: whoever has it may do what it says, until it expires. To void all of them,
    delete the file with the secret, and start the server again.

    \b
    [bold]Examples[/bold]
      lhm-live token --host 0.0.0.0
      lhm-live token --role drive --session 1f2e3d4c --minutes 60
      curl -H "Authorization: Bearer $(lhm-live token -q)" http://localhost:8080/metrics
    """
    from streaming.server import address_of, settings_of  # noqa: PLC0415 - takes a second to import

    settings = settings_of(config, host, port)
    secret = make_secret(settings)
    until_s = time.time() + 60 * (minutes or settings.access.minutes)
    signed = sign(secret, Grant(role, session, until_s))
    console = Console(highlight=False, soft_wrap=True)
    if quiet:
        console.print(signed, markup=False)
        return
    address = address_of(settings, settings.server.host, settings.server.port)
    watching = sign(secret, Grant("view", session, until_s))  # a link for viewers is given to them: it allows no more
    lines = [("token", signed)]
    if role != "view":
        lines.append(("studio", f"{address}/?token={signed}{f'#session={session}' if session else ''}"))
    lines += [(page, f"{address}/{page}/{session or 'SESSION'}?token={watching}") for page in ("view", "obs")]
    for name, value in lines:
        console.print(f"{name:<8}{value}", markup=False)
    until = datetime.fromtimestamp(until_s, UTC)
    hint = "" if session else "; put a session's id in the place of SESSION"
    console.print(f"{role} until {until:%Y-%m-%d %H:%M} UTC{hint}", markup=False)
