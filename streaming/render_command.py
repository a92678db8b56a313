"""``lhm-live render`` and ``lhm-live film``: avatars in motion, into files."""

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.takes import SUFFIX, Take, read_take
from lhm_runtime.rasterizer import Framing, PixelFormat, Renderer
from lhm_runtime.types import MAX_IMAGE_SIDE
from streaming.arguments import BUILTIN, open_avatar, report, require_folder_for, require_writable
from streaming.avatar_store import AvatarStore
from streaming.config import load_config
from streaming.errors import RefusedError
from streaming.film import DEFAULT_FPS, Film, draw, plan_demo, plan_film, plan_take, sample_frames
from streaming.picture_files import write_frames, write_sheet
from streaming.stage import DEFAULT_BACKGROUND, background_rgb
from streaming.video_file import write_video

SHEET_PICTURES = 8
_DEFAULT_SIZE = (512, 512)
_FILM_SIZE = (720, 960)
_FILM_TILE = (270, 360)

ThreadsOption = Annotated[
    int, typer.Option(min=1, max=256, help="Rendering threads; 1 is best unless cores stand idle.")
]


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
        typer.Argument(
            metavar="AVATAR", help="An .avatar file; when left out, whom a take shows, else the built-in person."
        ),
    ] = None,
    other: Annotated[str | None, typer.Option("--avatar", metavar="AVATAR", help="The same, as an option.")] = None,
    body: Annotated[bool, typer.Option("--body", help="Show the built-in person.")] = False,
    pose: Annotated[
        str,
        typer.Option(
            metavar="FILE|wave|turntable",
            help="How it moves: 'wave', 'turntable' (the camera goes round), a take (.motion), an AMASS .npz, a "
            ".bvh, a recording .npz, or a folder of LHM smplx_params.",
        ),
    ] = "turntable",
    size: Annotated[
        str | None,
        typer.Option(metavar="N|WxH", help="Picture size in pixels, even for a video; 512, or a take's own."),
    ] = None,
    framing: Annotated[
        Framing | None,
        typer.Option(help="How much of the person is seen; as in the take, or as their photo showed if left out."),
    ] = None,
    fps: Annotated[float | None, typer.Option(min=1, max=240, help="Frames a second; 30, or a take's own.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(max=3600, help="Length; the motion's own when left out. Recordings are cut, not stretched."),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="RRGGBB",
            help=f"Colour behind the person; {DEFAULT_BACKGROUND} or a take's own when left out, transparent in a "
            "folder.",
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
      lhm-live render --pose take.motion -o again.mp4    as the film it was made with
      lhm-live render other.avatar --pose take.motion --size 1080x1920 -o o.mp4
    """
    named = {name for name in (avatar, other, BUILTIN if body else None) if name is not None}
    if len(named) > 1:
        raise typer.BadParameter("give AVATAR, --avatar or --body, not both", param_hint="--avatar")
    kind = _output_kind(out)
    require_folder_for(out, "--out")
    colour = None if background is None else _parse_colour(background)
    wanted = None if size is None else _parse_size(size)
    if kind == "video" and wanted is not None and (wanted[0] % 2 or wanted[1] % 2):
        raise typer.BadParameter(f"{size} is odd; a video needs even sizes", param_hint="--size")
    film = _plan(next(iter(named), None), pose, wanted, framing, fps, seconds)
    camera = film.cameras[0]
    shape = f"{camera.width}x{camera.height}"
    if kind == "video":
        _record(film, out, threads, colour)
    elif kind == "sheet":
        frames = sample_frames(len(film), SHEET_PICTURES)
        with Renderer(film.avatar, threads=threads) as renderer:
            pictures = draw(film, renderer, "rgb", background=colour, frames=frames)
            write_sheet(out, _track(pictures, len(frames)))
        report(f"{len(frames)} pictures of {shape}", out)
    else:
        pixel_format: PixelFormat = "rgba" if background is None else "rgb"
        with Renderer(film.avatar, threads=threads) as renderer:
            pictures = draw(film, renderer, pixel_format, background=colour)
            write_frames(out, _track(pictures, len(film)))
        report(f"{len(film)} frames of {shape}", out)


def film(
    out: Annotated[Path, typer.Option("--out", "-o", help="The video; a sheet of pictures goes beside it.")] = Path(
        "film.mp4"
    ),
    threads: ThreadsOption = 1,
) -> None:
    """Show the built-in person from all sides, then waving: a video and a sheet of pictures.

    \b
    [bold]Example[/bold]
      lhm-live film -o person.mp4            also writes person.png
    """
    require_writable(out, ".mp4", "--out")
    avatar = open_avatar(BUILTIN)
    _record(plan_demo(avatar, size=_FILM_SIZE), out, threads)
    sheet = out.with_suffix(".png")
    with Renderer(avatar, threads=threads) as renderer:
        films = [plan_film(avatar, pose, size=_FILM_TILE) for pose in ("turntable", "wave")]
        tiles = [
            picture.copy()
            for film in films
            for picture in draw(film, renderer, "rgb", frames=sample_frames(len(film), SHEET_PICTURES))
        ]
    write_sheet(sheet, tiles, columns=SHEET_PICTURES)
    report(f"{len(tiles)} pictures: all sides, and the wave", sheet)


def _plan(
    name: str | None,
    pose: str,
    size: tuple[int, int] | None,
    framing: Framing | None,
    fps: float | None,
    seconds: float | None,
) -> Film:
    path = Path(pose)
    if path.suffix.lower() == SUFFIX and path.is_file():
        take = read_take(path)
        avatar = _find_shown(path, take) if name is None else open_avatar(name)
        return plan_take(avatar, take, size=size, framing=framing, fps=fps, seconds=seconds)
    shown = open_avatar(name or BUILTIN)
    return plan_film(
        shown,
        pose,
        size=size or _DEFAULT_SIZE,
        framing=framing,
        fps=DEFAULT_FPS if fps is None else fps,
        seconds=seconds,
    )


def _find_shown(path: Path, take: Take) -> Avatar:
    """Whom a take shows at first, of the avatars of the server on this machine."""
    avatar_id, folder = take.scenes[0].avatar, load_config().storage.data / "avatars"
    try:
        return AvatarStore(folder).load(avatar_id)
    except (RefusedError, OSError) as error:
        if avatar_id == BUILTIN:
            return open_avatar(BUILTIN)
        raise InvalidInputError(
            f"{path} shows the avatar {avatar_id!r}, which is not in {folder}; name the .avatar file to be shown"
        ) from error


def _record(film: Film, out: Path, threads: int, background: tuple[float, float, float] | None = None) -> None:
    started = time.perf_counter()
    with Renderer(film.avatar, threads=threads) as renderer:
        encoder = write_video(out, _track(draw(film, renderer, "i420", background=background), len(film)), film.fps)
    took = time.perf_counter() - started
    camera = film.cameras[0]
    report(
        f"{len(film)} frames of {camera.width}x{camera.height} at {film.fps:g} fps with {encoder}, "
        f"{1000 * took / len(film):.1f} ms a frame",
        out,
    )


def _track(pictures: Iterable[np.ndarray], total: int) -> Iterable[np.ndarray]:
    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(pictures, total=total)


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
    return background_rgb(text)
