"""``lhm-live reconstruct``: photos, or a video of someone turning round, become an avatar file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lhm_runtime.avatar import save_avatar
from lhm_runtime.errors import PhotoError
from streaming.arguments import require_writable
from streaming.lhm_options import DeviceOption, DtypeOption, WeightsOption
from streaming.native_noise import native_noise_apart
from streaming.picture_files import write_sheet
from streaming.video_input import VideoInput

if TYPE_CHECKING:
    from lhm_runtime.reconstruction.photo import Photo
    from lhm_runtime.reconstruction.still_models import StillModels

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")

MethodChoice = Literal["auto", "projection", "lhm", "lhm-mini", "lhm-500m", "lhm-500m-hf", "lhm-1b", "lhm-1b-hf"]

_LOOKS = 40
"""Frames of a turning video that are looked at."""
_USUAL_LENGTH = 240
"""Frames of one that does not say how many it has."""
_SIDES_DEG = (0, 180, 90, -90, 45, -45)
"""Sides wanted of a person who turns, in order of worth."""
_NEAR_DEG = 25.0
_SHARP_DEG = 12.0
"""Of frames this near to the best heading, the sharpest is taken."""
_LEAST_TURN_DEG = 60.0
"""Who turns less shows no side."""
_INSIDE = 0.9
_STEADY = 0.75
"""Size of someone, in times of the usual one in a video, below which they are taken for someone else."""
_READING_S, _MAKING_S = 0.5, 3.5
"""Seconds on one core: to find someone in a photo, and to make the avatar."""


def reconstruct_command(
    context: typer.Context,
    *,
    photo: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTO", exists=True, dir_okay=False, help="From the front; or a video of someone turning round."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="OUT.avatar", help="The file to write; beside PHOTO if left out."),
    ] = None,
    back: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A photo of the same person from behind.")
    ] = None,
    side: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="A photo from the side; may be given twice."),
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(metavar="SHEET.png", help="Also draw a sheet: sides, poses, expressions.")
    ] = None,
    method: Annotated[
        MethodChoice,
        typer.Option(
            help="projection needs no weights; lhm-... is LHM's network of that name, lhm the best that is here; auto "
            "takes it for one photo where it is here, and says what it took."
        ),
    ] = "auto",
    count: Annotated[
        int, typer.Option(min=10_000, max=160_000, help="Gaussians of a projection: more show finer detail.")
    ] = 40_000,
    person: Annotated[int, typer.Option(min=1, help="Who, where PHOTO shows several: 1 is the largest.")] = 1,
    mask: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A picture of PHOTO's shape, white where the person is; found if left out.",
        ),
    ] = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
) -> None:
    """Make an avatar of a photo, in seconds and on this machine alone.

    Best is one person from the front, in good light, the arms a little away from the body. More photos show more
    sides: what none of them shows is made up.

    \b
    [bold]Examples[/bold]
      lhm-live reconstruct me.jpg -o me.avatar --preview me.png
      lhm-live reconstruct front.jpg --back back.jpg --side left.jpg -o me.avatar
      lhm-live reconstruct turning.mp4 -o me.avatar
      lhm-live reconstruct friends.jpg --person 2 -o friend.avatar
      lhm-live reconstruct me.jpg --method lhm-500m -o me.avatar    its weights: lhm-live models
    """
    out = photo.with_suffix(".avatar") if out is None else out
    require_writable(out, ".avatar", "--out")
    if preview is not None:
        require_writable(preview, ".png", "--preview")
    more = [*([back] if back else []), *(side or [])]
    is_video = photo.suffix.lower() in VIDEO_SUFFIXES
    if is_video and (more or mask):
        raise typer.BadParameter("a video stands alone: give no --back, --side or --mask with it", param_hint="PHOTO")

    # OpenCV and MediaPipe take a second to load, which other commands do without
    from lhm_runtime.reconstruction import reconstruct  # noqa: PLC0415
    from lhm_runtime.reconstruction.photo import read_photo  # noqa: PLC0415
    from lhm_runtime.reconstruction.progress import split  # noqa: PLC0415
    from lhm_runtime.reconstruction.still_models import StillModels  # noqa: PLC0415

    with native_noise_apart(context), _progress() as tell:
        reading, making, drawing = split(
            tell, [_READING_S * (_LOOKS / 4 if is_video else 1 + len(more)), _MAKING_S, 1.0]
        )
        reading("finding the person", 0.0)
        with StillModels() as models:
            if is_video:
                photos = see_turning_person(photo, models, partial(reading, "looking at the video"))
            else:
                photos = [read_photo(photo, person=person - 1, mask_path=mask, models=models)]
                for path in more:
                    reading("finding the person", len(photos) / (1 + len(more)))
                    photos.append(read_photo(path, models=models))
        made = reconstruct(
            photos, method=method, count=count, progress=making, weights=weights, device=device, precision=dtype
        )
        save_avatar(made.avatar, out)
        if preview is not None:
            from streaming.preview import COLUMNS, draw_preview  # noqa: PLC0415

            drawing("drawing the preview", 0.0)
            write_sheet(preview, draw_preview(made), columns=COLUMNS)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    say(f"method: {made.method}", markup=False)
    for cost in made.costs:
        say(f"  {cost}", markup=False)
    _report(made.warnings, f"{len(made.avatar)} Gaussians from {_count_photos(len(made.photos))}", out, preview)


@dataclass(frozen=True, slots=True)
class Look:
    """Someone in one frame of a video."""

    turn_deg: float
    """How far they are turned from the camera, as ``turn_of`` says."""
    sharpness: float
    """Variance of the Laplacian of the brightness on them: blur lowers it (Pech-Pacheco et al. 2000)."""


def see_turning_person(path: Path, models: "StillModels", tell: Callable[[float], None]) -> "list[Photo]":
    """The frames of a video that show someone best from each side, the one from the front first.

    Raises:
        PhotoError: nobody is in the video, nobody faces the camera in it, or they do not turn.
        FileFormatError: not a video that can be read.
    """
    from lhm_runtime.reconstruction.photo import see_person  # noqa: PLC0415

    looks = _look_at_frames(path, models, lambda done: tell(0.7 * done))
    chosen = choose_sides(looks)
    if not looks:
        raise PhotoError(f"{path} shows nobody: film one person who turns round slowly, all of them in the picture")
    if not chosen:
        raise PhotoError(
            f"{path} shows nobody from the front: film one person who turns round slowly, and faces the camera once"
        )
    if max(abs(looks[number].turn_deg) for number in chosen) < _LEAST_TURN_DEG:
        raise PhotoError(
            f"nobody turns round in {path}: turn all the way in about ten seconds, or give a photo instead of the video"
        )
    photos: dict[int, Photo] = {}
    with VideoInput(str(path)) as video:
        for frame in video:
            if frame.index in chosen:
                tell(0.7 + 0.3 * len(photos) / len(chosen))
                name = f"frame {frame.index} of {path}"
                photos[frame.index] = see_person(frame.rgb, name=name, models=models, crop=False)
            if len(photos) == len(chosen):
                break
    return [photos[number] for number in chosen]


def _look_at_frames(path: Path, models: "StillModels", tell: Callable[[float], None]) -> dict[int, Look]:
    """The largest person in each of about ``_LOOKS`` frames; those who are much smaller than most are others."""
    import cv2  # noqa: PLC0415

    from lhm_runtime.reconstruction.photo_doubts import turn_of  # noqa: PLC0415

    looks: dict[int, Look] = {}
    sizes: dict[int, float] = {}
    with VideoInput(str(path)) as video:
        step = max((video.length or _USUAL_LENGTH) // _LOOKS, 1)
        for frame in video:
            if frame.index % step:
                continue
            tell(min(frame.index / (step * _LOOKS), 1.0))
            people = models.find_people(frame.rgb)
            if people:
                body, silhouette = people[0].body, people[0].silhouette
                detail = cv2.Laplacian(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
                inside = silhouette > _INSIDE
                sharpness = float(detail[inside].var()) if inside.any() else 0.0
                looks[frame.index] = Look(turn_of(body.world), sharpness)
                sizes[frame.index] = body.pixels_per_metre
    usual = float(np.median(list(sizes.values()))) if sizes else 0.0
    return {number: look for number, look in looks.items() if sizes[number] > _STEADY * usual}


def choose_sides(looks: Mapping[int, Look]) -> list[int]:
    """The frame for each side, the front first: the sharpest of those turned nearly as wanted.

    Empty when no frame shows the front.
    """
    chosen: list[int] = []
    for side in _SIDES_DEG:
        away = {number: abs((look.turn_deg - side + 180) % 360 - 180) for number, look in looks.items()}
        nearest = min(away.values(), default=180.0)
        if nearest < _NEAR_DEG:
            near = [number for number in away if away[number] <= nearest + _SHARP_DEG and away[number] < _NEAR_DEG]
            best = max(near, key=lambda number: looks[number].sharpness)
            if best not in chosen:
                chosen.append(best)
        elif side == 0:
            return []
    return chosen


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """One bar over the whole job, which says what is being done."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda stage, done: progress.update(task, description=stage, completed=done)


def _report(warnings: Sequence[str], what: str, out: Path, preview: Path | None) -> None:
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for warning in warnings:
        errors.print(f"note: {warning}", style="yellow", markup=False)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"wrote {out}: {what}", markup=False)
    if preview is not None:
        console.print(f"wrote {preview}: how it looks", markup=False)


def _count_photos(count: int) -> str:
    return "one photo" if count == 1 else f"{count} photos"
