"""The command ``lhm-live``: which commands there are. Each is imported when it is called for, as some take a second."""

import os
import signal
from importlib import import_module
from importlib.metadata import version
from types import FrameType
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from lhm_runtime.errors import LhmLiveError

_HELP_OPTIONS: Final = {"help_option_names": ["-h", "--help"]}


class Place(NamedTuple):
    """Where a command is."""

    module: str
    name: str
    says: str
    """The first line of its help."""
    panel: str


_LIVE, _FILES, _MACHINE = "Live", "Avatars and films", "This machine"

COMMANDS: Final = {
    "demo": Place("serve_command", "demo", "Avatars of the demo photos, live in the browser.", _LIVE),
    "serve": Place(
        "serve_command",
        "serve",
        "Serve the studio page: photos become avatars, cameras move them, browsers watch.",
        _LIVE,
    ),
    "cluster": Place(
        "cluster_command", "app", "Look after the machines that sessions run on (serve --cluster).", _LIVE
    ),
    "token": Place(
        "token_command",
        "token",
        "Print links that let somebody in, where the server asks for them: to watch, to drive, or for everything.",
        _LIVE,
    ),
    "feed": Place(
        "feed_command",
        "feed",
        "Play a motion file to a session, a broker or VTuber software, as if it were a live rig.",
        _LIVE,
    ),
    "relay": Place(
        "relay_command",
        "relay",
        "Publish a session by a relay, so that the server's work does not grow with its audience.",
        _LIVE,
    ),
    "camera": Place(
        "camera_command",
        "camera",
        "Show a session as a camera of this computer, for Zoom, Teams and games.",
        _LIVE,
    ),
    "reconstruct": Place(
        "reconstruct_command",
        "reconstruct_command",
        "Make an avatar of a photo, in seconds and on this machine alone.",
        _FILES,
    ),
    "render": Place(
        "render_command",
        "render",
        "Draw an avatar in motion, into a video, a sheet of pictures or a folder of transparent PNGs.",
        _FILES,
    ),
    "film": Place(
        "render_command",
        "film",
        "Show the built-in person from all sides, then waving: a video and a sheet of pictures.",
        _FILES,
    ),
    "track": Place(
        "track_command",
        "track",
        "Follow a person in a video, or before a camera, and write the motion to a file.",
        _FILES,
    ),
    "info": Place(
        "avatar_commands",
        "info",
        "Say what is in an avatar: where it came from, how large it is, what moves it.",
        _FILES,
    ),
    "export": Place(
        "avatar_commands",
        "export",
        "Write an avatar in one pose as a standard 3D Gaussian Splatting .ply, for viewers and editors.",
        _FILES,
    ),
    "import-ply": Place(
        "avatar_commands",
        "import_ply_command",
        "Make an avatar of a .ply: every Gaussian follows the nearest spot of the free body.",
        _FILES,
    ),
    "inspect": Place(
        "inspect_command",
        "inspect",
        "Look at an avatar before it is moved, or at what LHM's network makes of a photo.",
        _FILES,
    ),
    "models": Place(
        "models_command", "app", "List weight files: sizes, licences, where from, which are here; fetch them.", _MACHINE
    ),
    "doctor": Place(
        "doctor_command", "doctor", "Say what works on this machine, what does not, and how to get it.", _MACHINE
    ),
    "bench": Place(
        "bench", "app", "Measure this machine; every table in benchmarks/README.md names its command.", _MACHINE
    ),
}


class Commands(TyperGroup):
    """Knows the commands by name; prints what they raise on purpose as one line, and a stop by the user as a word."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {
            name: TyperCommand(name, help=place.says, rich_help_panel=place.panel) for name, place in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, where help has to do with what COMMANDS says of it."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (LhmLiveError, OSError) as error:
            if ctx.params["debug"] or isinstance(error, BrokenPipeError):
                raise
            said = str(error)
            if isinstance(error, OSError) and error.filename:
                said = f"{error.filename}: {error.strerror}"
            line = " ".join(said.split())
            Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {line}", style="red", markup=False)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as stop:
            Console(stderr=True).print("stopped")
            raise typer.Exit(130) from stop


def load(name: str) -> Any:
    """The command, imported."""
    place = COMMANDS[name]
    found = getattr(import_module(f"streaming.{place.module}"), place.name)
    if isinstance(found, typer.Typer):
        return get_command(found)
    alone = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=_HELP_OPTIONS,
    )
    alone.command(name)(found)
    return get_command(alone)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=_HELP_OPTIONS,
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lhm-live {version('lhm-live')}")
        raise typer.Exit


@app.callback()
def lhm_live(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the full traceback of an error, and what libraries print.")
    ] = False,
    version_: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Animatable 3D Gaussian avatars, drawn and streamed in real time without a GPU.

    \b
    [bold]Start here[/bold]
      lhm-live doctor              does everything work on this machine?
      lhm-live demo                move an avatar in the browser
      lhm-live reconstruct me.jpg -o me.avatar

    Every command has its own --help with examples.
    """


class _Terminated(BaseException):
    """SIGTERM came."""


def main() -> None:
    """Run the command line; SIGTERM ends it as Ctrl-C does, so that no half-written file stays behind."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        app()
    except _Terminated:
        signal.signal(signal.SIGTERM, before)
        os.kill(os.getpid(), signal.SIGTERM)  # so that whoever waits for it is told what ended it
