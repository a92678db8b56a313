"""``lhm-live camera``: a session as a camera of this computer."""

from typing import Annotated

import typer


def camera(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Id of a session, or a link for viewers or OBS.")],
    *,
    server: Annotated[str, typer.Option(metavar="URL", help="Where a bare id is.")] = "http://127.0.0.1:8080",
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which camera, as /dev/video4.  \\[default: the first]")
    ] = None,
    fps: Annotated[float, typer.Option(min=1, max=60, help="What the camera claims; it gets what comes.")] = 30.0,
) -> None:
    """Show a session as a camera of this computer, for Zoom, Teams and games.

    It goes on until Ctrl-C. Needs the extra camera (pip install 'lhm-live\\[camera]'), and on Linux v4l2loopback,
    elsewhere OBS Studio. A camera knows no transparency: the session's background is in the picture. docs/obs.md says
    more.

    \b
    [bold]Examples[/bold]
      lhm-live camera SESSION
      lhm-live camera "http://localhost:8080/view/SESSION" --device /dev/video4
    """
    import asyncio  # noqa: PLC0415 - what follows takes a second to import, which is not needed to say --help

    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415

    from streaming.virtual_camera import Watched, open_virtual_camera, show_on_camera  # noqa: PLC0415

    watched = Watched.parse(session, server)
    open_device = open_virtual_camera(device)
    with Console(soft_wrap=True, highlight=False).status("Connecting") as status:
        asyncio.run(show_on_camera(watched, open_device, fps, lambda words: status.update(escape(words))))
