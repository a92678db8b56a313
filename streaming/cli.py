"""The command ``lhm-live``."""

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from lhm_runtime.avatar import Avatar, AvatarMetadata, load_avatar, pose_gaussians, save_avatar
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.errors import InvalidInputError, LhmLiveError
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.sequences import load_motion
from lhm_runtime.ply import export_ply, import_ply
from lhm_runtime.rasterizer import Framing, PixelFormat, Renderer
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.rigging import rig_gaussians
from lhm_runtime.types import MAX_IMAGE_SIDE, SmplxPose
from streaming.bench import app as bench
from streaming.doctor import examine, works
from streaming.film import Film, draw, plan_demo, plan_film, sample_frames
from streaming.inspection import describe_avatar, describe_gaussians
from streaming.picture_files import write_frames, write_sheet
from streaming.reconstruct_command import reconstruct_command
from streaming.serve_command import demo as demo_studio
from streaming.serve_command import serve
from streaming.track_command import track
from streaming.video_file import write_video

BUILTIN = "builtin"
"""Stands for the built-in person wherever an avatar file is asked for."""

DEFAULT_BACKGROUND = "E9ECEF"
SHEET_PICTURES = 8
_DEMO_SIZE = (720, 960)
_DEMO_TILE = (270, 360)


class OneLineErrors(TyperGroup):
    """Prints what was raised on purpose as one line, and a stop by the user as a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (LhmLiveError, OSError) as error:
            if ctx.params["debug"] or isinstance(error, BrokenPipeError):
                raise
            line = " ".join(str(error).split())
            Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {line}", style="red", markup=False)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as stop:
            Console(stderr=True).print("stopped")
            raise typer.Exit(130) from stop


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

AvatarArgument = Annotated[
    str,
    typer.Argument(metavar="AVATAR", help="An .avatar file, or the word 'builtin' for the built-in person."),
]
ThreadsOption = Annotated[
    int, typer.Option(min=1, max=256, help="Rendering threads; 1 is best unless cores stand idle.")
]


@app.callback()
def lhm_live(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
) -> None:
    """Animatable 3D Gaussian avatars, drawn in real time without a GPU.

    \b
    [bold]Start here[/bold]
      lhm-live doctor              does everything work on this machine?
      lhm-live demo                the built-in person on video: demo.mp4
      lhm-live render me.avatar --pose dance.npz -o dance.mp4

    Every command has its own --help with examples.
    """


@app.command()
def render(
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="NAME.mp4: a video. NAME.png: one sheet of pictures. Else: a new folder of PNGs.",
        ),
    ],
    avatar: Annotated[
        str | None,
        typer.Argument(metavar="AVATAR", help="An .avatar file; the built-in person when left out."),
    ] = None,
    body: Annotated[bool, typer.Option("--body", help="Show the built-in person.")] = False,
    pose: Annotated[
        str,
        typer.Option(
            metavar="FILE|wave|turntable",
            help="How it moves: 'wave', 'turntable' (the camera goes round), an AMASS .npz, a .bvh, a recording "
            ".npz, or a folder of LHM smplx_params.",
        ),
    ] = "turntable",
    size: Annotated[str, typer.Option(metavar="N|WxH", help="Picture size in pixels; even for a video.")] = "512",
    framing: Annotated[Framing, typer.Option(help="How much of the person is seen.")] = "full",
    fps: Annotated[float, typer.Option(min=1, max=240, help="Frames a second.")] = 30.0,
    seconds: Annotated[
        float | None,
        typer.Option(max=3600, help="Length; the motion's own when left out. Recordings are cut, not stretched."),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="RRGGBB",
            help=f"Colour behind the person; {DEFAULT_BACKGROUND} when left out, transparent in a folder.",
        ),
    ] = None,
    threads: ThreadsOption = 1,
) -> None:
    """Draw an avatar in motion, into a video, a sheet of pictures or a folder of transparent PNGs.

    \b
    [bold]Examples[/bold]
      lhm-live render --body --pose wave -o wave.mp4
      lhm-live render me.avatar -o me.png             eight sides, one sheet
      lhm-live render me.avatar --pose dance.npz --size 720x1280 -o dance.mp4
      lhm-live render me.avatar --pose clip/smplx_params --framing half -o c.mp4
      lhm-live render --body --pose wave --background 00B140 -o green.mp4
      lhm-live render me.avatar --pose wave -o frames    frames/00000.png, ...
    """
    if body and avatar not in {None, BUILTIN}:
        raise typer.BadParameter("give an AVATAR or --body, not both", param_hint="--body")
    kind = _output_kind(out)
    picture_size = _parse_size(size)
    if kind == "video" and (picture_size[0] % 2 or picture_size[1] % 2):
        raise typer.BadParameter(f"{size} is odd; a video needs even sizes", param_hint="--size")
    colour = _parse_colour(background or DEFAULT_BACKGROUND)
    film = plan_film(
        _open_avatar(avatar or BUILTIN), pose, size=picture_size, framing=framing, fps=fps, seconds=seconds
    )
    if kind == "video":
        _record(film, out, fps, colour, threads)
    elif kind == "sheet":
        frames = sample_frames(len(film), SHEET_PICTURES)
        with Renderer(film.avatar, threads=threads) as renderer:
            pictures = draw(film, renderer, "rgb", background=colour, frames=frames)
            write_sheet(out, _track(pictures, len(frames)))
        _report(f"{len(frames)} pictures of {picture_size[0]}x{picture_size[1]}", out)
    else:
        pixel_format: PixelFormat = "rgba" if background is None else "rgb"
        with Renderer(film.avatar, threads=threads) as renderer:
            pictures = draw(film, renderer, pixel_format, background=colour)
            write_frames(out, _track(pictures, len(film)))
        _report(f"{len(film)} frames of {picture_size[0]}x{picture_size[1]}", out)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The video; a sheet of pictures goes beside it.")] = Path(
        "demo.mp4"
    ),
    threads: ThreadsOption = 1,
) -> None:
    """Show the built-in person from all sides, then waving: a video and a sheet of pictures.

    \b
    [bold]Example[/bold]
      lhm-live demo -o demo.mp4            also writes demo.png
    """
    if out.suffix.lower() != ".mp4":
        raise typer.BadParameter(f"{out} should end in .mp4", param_hint="--out")
    avatar = _open_avatar(BUILTIN)
    colour = _parse_colour(DEFAULT_BACKGROUND)
    _record(plan_demo(avatar, size=_DEMO_SIZE), out, 30.0, colour, threads)
    sheet = out.with_suffix(".png")
    with Renderer(avatar, threads=threads) as renderer:
        films = [plan_film(avatar, pose, size=_DEMO_TILE) for pose in ("turntable", "wave")]
        tiles = [
            picture.copy()
            for film in films
            for picture in draw(
                film, renderer, "rgb", background=colour, frames=sample_frames(len(film), SHEET_PICTURES)
            )
        ]
    write_sheet(sheet, tiles, columns=SHEET_PICTURES)
    _report(f"{len(tiles)} pictures: all sides, and the wave", sheet)


@app.command()
def info(
    avatar: Annotated[
        str, typer.Argument(metavar="AVATAR", help="An .avatar or 3DGS .ply file, or the word 'builtin'.")
    ],
) -> None:
    """Say what is in an avatar: where it came from, how large it is, what moves it.

    \b
    [bold]Examples[/bold]
      lhm-live info me.avatar
      lhm-live info scan.ply
    """
    path = Path(avatar)
    if path.suffix.lower() == ".ply":
        facts = describe_gaussians(import_ply(path))
    else:
        facts = describe_avatar(_open_avatar(avatar))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    if avatar != BUILTIN:
        table.add_row("file", f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
    for name, value in facts:
        table.add_row(name, value)
    Console(highlight=False).print(table, markup=False)


@app.command()
def export(
    avatar: AvatarArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.ply", help="The file to write.")],
    pose: Annotated[
        str, typer.Option(metavar="FILE|tpose|relaxed", help="In which pose; a FILE as for 'render --pose'.")
    ] = "tpose",
    frame: Annotated[int, typer.Option(min=0, help="Which frame of a FILE.")] = 0,
) -> None:
    """Write an avatar in one pose as a standard 3D Gaussian Splatting .ply, for viewers and editors.

    \b
    [bold]Examples[/bold]
      lhm-live export me.avatar me.ply
      lhm-live export me.avatar jump.ply --pose jump.npz --frame 120
    """
    if out.suffix.lower() != ".ply":
        raise typer.BadParameter(f"{out} should end in .ply", param_hint="OUT.ply")
    person = _open_avatar(avatar)
    chosen = _still_pose(pose, frame, person.expression_names)
    matrices = joint_matrices(chosen, person.rest_joints)
    export_ply(pose_gaussians(person, matrices, chosen.expression), out)
    _report(f"{len(person)} Gaussians", out)


@app.command("import-ply")
def import_ply_command(
    ply: Annotated[Path, typer.Argument(metavar="IN.ply", help="A 3DGS .ply of one person in T-pose.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.avatar", help="The file to write.")],
    licence: Annotated[
        str, typer.Option(help="What may be done with it: an SPDX identifier or a few words.")
    ] = "unknown",
) -> None:
    """Make an avatar of a .ply: every Gaussian follows the nearest spot of the free body.

    The person must stand in T-pose, in metres, y up, facing +z, the pelvis near (0, -0.35, 0): as 'export'
    writes it.

    \b
    [bold]Example[/bold]
      lhm-live import-ply edited.ply -o edited.avatar --licence CC-BY-4.0
    """
    if out.suffix.lower() != ".avatar":
        raise typer.BadParameter(f"{out} should end in .avatar", param_hint="--out")
    body = BodyModel.default()
    metadata = AvatarMetadata(
        reconstructor="ply-import 1",
        body_model=body.name,
        body_model_sha256=body.sha256,
        licence=licence,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    person = rig_gaussians(import_ply(ply), body, metadata)
    save_avatar(person, out)
    _report(f"{len(person)} Gaussians", out)


@app.command()
def doctor() -> None:
    """Say what works on this machine, what does not, and how to get it.

    The exit code is 0 when avatars can be drawn and recorded.
    """
    findings = examine()
    marks = {"ok": "[green]ok[/green]", "absent": "[yellow]--[/yellow]", "broken": "[red]!![/red]"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(marks[finding.verdict], finding.subject, finding.detail.replace("[", r"\["))
    console = Console(highlight=False)
    console.print(table)
    if not works(findings):
        console.print("\n[red]Something the default path needs is broken: see the lines marked !!.[/red]")
        raise typer.Exit(1)
    console.print("\nAvatars can be drawn and recorded here. Try [bold]lhm-live demo[/bold].")


def _record(film: Film, out: Path, fps: float, background: tuple[float, float, float], threads: int) -> None:
    started = time.perf_counter()
    with Renderer(film.avatar, threads=threads) as renderer:
        encoder = write_video(out, _track(draw(film, renderer, "i420", background=background), len(film)), fps)
    took = time.perf_counter() - started
    camera = film.cameras[0]
    _report(
        f"{len(film)} frames of {camera.width}x{camera.height} at {fps:g} fps with {encoder}, "
        f"{1000 * took / len(film):.1f} ms a frame",
        out,
    )


def _track(pictures: Iterable[np.ndarray], total: int) -> Iterable[np.ndarray]:
    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(pictures, total=total)


def _report(what: str, path: Path) -> None:
    Console(soft_wrap=True, highlight=False).print(f"wrote {path}: {what}", markup=False)


def _open_avatar(name: str) -> Avatar:
    if name == BUILTIN:
        with Console(stderr=True).status("making the built-in person"):
            return build_person()
    if Path(name).suffix.lower() == ".ply":
        raise InvalidInputError(f"{name} is not an avatar yet: lhm-live import-ply {name} -o {Path(name).stem}.avatar")
    return load_avatar(Path(name))


def _still_pose(pose: str, frame: int, expression_names: tuple[str, ...]) -> SmplxPose:
    if pose == "tpose":
        zero = np.zeros((55, 3), np.float32)
        return SmplxPose(zero, zero[0], np.zeros(len(expression_names), np.float32), 0.0)
    if pose == "relaxed":
        return relaxed_pose(expression_names)
    if not Path(pose).exists():
        raise InvalidInputError(f"pose {pose!r} is neither tpose nor relaxed nor a file or folder that exists")
    motion = load_motion(Path(pose)).with_expressions(expression_names)
    if frame >= len(motion):
        raise InvalidInputError(f"--frame is {frame}, but {pose} has frames 0 to {len(motion) - 1}")
    return motion.pose(frame)


def _output_kind(out: Path) -> Literal["video", "sheet", "folder"]:
    match out.suffix.lower():
        case ".mp4":
            return "video"
        case ".png":
            return "sheet"
        case "":
            return "folder"
        case other:
            raise typer.BadParameter(
                f"{other} is not written here: name an .mp4, a .png or a folder", param_hint="--out"
            )


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= width <= MAX_IMAGE_SIDE and 1 <= height <= MAX_IMAGE_SIDE):
        raise typer.BadParameter(f"{text!r} is not like 512 or 720x1280, up to {MAX_IMAGE_SIDE}", param_hint="--size")
    return width, height


def _parse_colour(text: str) -> tuple[float, float, float]:
    if not re.fullmatch(r"[0-9a-fA-F]{6}", text):
        raise typer.BadParameter(f"{text!r} is not six hex digits like {DEFAULT_BACKGROUND}", param_hint="--background")
    red, green, blue = bytes.fromhex(text)
    return red / 255, green / 255, blue / 255


app.command("reconstruct")(reconstruct_command)
app.command()(track)
app.command()(serve)
app.command("studio")(demo_studio)
app.add_typer(bench, name="bench")


def main() -> None:
    """Run the command line."""
    app()
