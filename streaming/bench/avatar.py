"""``lhm-live bench avatar``: how good reconstructed avatars are, and how long they take."""

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lhm_runtime.errors import InvalidInputError, PhotoError
from streaming.bench.machine import this_machine
from streaming.picture_files import write_sheet

MethodChoice = Literal["auto", "projection"]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif")
DEMO_PHOTOS = ("demo_portrait.png", "demo_person.png")


def avatar(
    photos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photos of one person each; the two demo photos if left out.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also make an avatar of a video's first frame, and move it.")
    ] = None,
    frames: Annotated[str, typer.Option(metavar="FROM:TO:STEP", help="Frames of the video compared.")] = "100:300:10",
    people: Annotated[
        int, typer.Option(min=0, max=1000, help="Synthetic people, compared with the truth from all sides.")
    ] = 20,
    more: Annotated[
        bool, typer.Option("--more", help="Make them also of two and of four photos, and of a turning video.")
    ] = False,
    method: Annotated[MethodChoice, typer.Option(help="What reconstructs.")] = "auto",
    count: Annotated[int, typer.Option(min=10_000, max=160_000, help="Gaussians of each avatar.")] = 40_000,
    sheets: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write a preview sheet for each photo and person there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure reconstruction: the photo's own view, later frames of a video, and unseen sides of synthetic people.

    PSNR and SSIM are in the person's box on white at 512 pixels high; the video's and the synthetic people's also over
    whole frames, as papers have them. A face is compared by SSIM of its box and by how far its points lie from the
    photo's when found again in the same view.

    \b
    [bold]Examples[/bold]
      lhm-live bench avatar
      lhm-live bench avatar --photos DIR --video FILE --sheets out --json
    """
    chosen = parse_frames(frames)
    if sheets is not None:
        sheets.mkdir(parents=True, exist_ok=True)
    report = measure(photos, video, chosen, people, method, count, sheets, more=more)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def parse_frames(text: str) -> list[int]:
    """Numbers of ``FROM:TO:STEP``, both ends included."""
    try:
        first, last, step = (int(number) for number in text.split(":"))
        chosen = list(range(first, last + 1, step))
    except ValueError:
        chosen = []
    if not chosen or chosen[0] < 1:
        raise typer.BadParameter(f"{text!r} is not like 100:300:10, from frame 1 on", param_hint="--frames")
    return chosen


def measure(
    photos: Path | None,
    video: Path | None,
    frames: Sequence[int],
    people: int,
    method: MethodChoice,
    count: int,
    sheets: Path | None,
    *,
    more: bool = False,
) -> dict[str, Any]:
    """Everything the command prints."""
    from lhm_runtime.reconstruction.still_models import StillModels  # noqa: PLC0415 - OpenCV, MediaPipe

    report: dict[str, Any] = {"machine": asdict(this_machine()), "method": method, "gaussians": count}
    with StillModels() as models, Progress(console=Console(stderr=True), transient=True) as progress:
        report["photos"] = _measure_photos(photos, models, method, count, sheets, progress)
        if video is not None:
            report["video"] = _measure_video(video, frames, models, method, count, progress)
        if people:
            report["people"] = _measure_people(people, models, method, count, sheets, progress, more)
    # ru_maxrss counts bytes on macOS and kibibytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    report["peak_memory_mb"] = round(peak / 1e6)
    return report


def _measure_photos(
    folder: Path | None, models: Any, method: MethodChoice, count: int, sheets: Path | None, progress: Progress
) -> dict[str, Any]:
    from streaming.bench.avatar_quality import measure_photo  # noqa: PLC0415
    from streaming.preview import COLUMNS, draw_preview  # noqa: PLC0415

    with as_file(files("lhm_runtime") / "assets") as assets:
        paths = [assets / name for name in DEMO_PHOTOS] if folder is None else _pictures_in(folder)
        results: dict[str, Any] = {}
        for path in progress.track(paths, description="photos"):
            try:
                result = measure_photo(path, models, method, count)
            except PhotoError as error:
                results[path.name] = {"failed": str(error)}
                continue
            face = result.face
            results[path.name] = {
                **asdict(result.score),
                "face": None if face is None else asdict(face),
                "cpu_s": result.clock.cpu_s,
                "wall_s": result.clock.wall_s,
                "megapixels": round(result.made.photos[0].alpha.size / 1e6, 2),
                "fit_reprojection": result.made.fits[0].reprojection,
                "warnings": result.made.warnings,
            }
            if sheets is not None:
                write_sheet(sheets / f"{path.stem}.png", draw_preview(result.made), columns=COLUMNS)
    return results


def _measure_video(
    path: Path, frames: Sequence[int], models: Any, method: MethodChoice, count: int, progress: Progress
) -> dict[str, Any]:
    from streaming.bench.avatar_quality import measure_video  # noqa: PLC0415

    progress.add_task("video", total=None)
    results = measure_video(path, frames, models, method, count)
    return {
        "file": path.name,
        "asked": len(frames),
        "frames": [asdict(result) for result in results],
    }


def _measure_people(
    people: int,
    models: Any,
    method: MethodChoice,
    count: int,
    sheets: Path | None,
    progress: Progress,
    more: bool,
) -> dict[str, Any]:
    from streaming.bench.avatar_quality import SOURCES, measure_people  # noqa: PLC0415

    sources = list(SOURCES) if more else list(SOURCES)[:1]
    results: dict[str, Any] = {source: {} for source in sources}
    measured = measure_people(range(people), models, method, count, sources)
    for result in progress.track(measured, total=people * len(sources), description="synthetic people"):
        results[result.source][str(result.seed)] = (
            {"failed": result.failure}
            if result.failure
            else {
                "used": result.used,
                "fitted": {str(yaw): asdict(score) for yaw, score in result.scores.items()},
                "posed": {str(yaw): asdict(score) for yaw, score in result.posed.items()},
            }
        )
        if sheets is not None and result.pairs:
            height = result.pairs[0].shape[0]
            width = max(pair.shape[1] for pair in result.pairs)
            tiles = [
                np.pad(pair, ((0, height - pair.shape[0]), (0, width - pair.shape[1]), (0, 0)), constant_values=255)
                for pair in result.pairs
            ]
            name = f"synthetic_{result.seed:02d}_{result.source.replace(' ', '_')}.png"
            write_sheet(sheets / name, tiles, columns=len(tiles))
    return results


def _pictures_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise InvalidInputError(f"{folder} holds no picture ({', '.join(PICTURE_SUFFIXES)})")
    return found


def _print(report: dict[str, Any]) -> None:
    console = Console()
    photos = Table(title=f"same view, {report['method']}, {report['gaussians']} Gaussians")
    photos.add_column("photo", overflow="fold")
    for name in ("PSNR", "SSIM", "IoU", "face", "points", "CPU s", "MP"):
        photos.add_column(name, justify="right", no_wrap=True)
    good = {name: result for name, result in report["photos"].items() if "failed" not in result}
    for name, result in good.items():
        face = result["face"] or {"ssim": float("nan"), "points": float("nan")}
        photos.add_row(
            name,
            *_cells(result),
            f"{face['ssim']:.3f}",
            f"{face['points']:.3f}",
            f"{sum(result['cpu_s'].values()):.1f}",
            f"{result['megapixels']:.2f}",
        )
    if good:
        photos.add_row("mean", *_mean_cells(list(good.values())), "", "", "", "", style="bold")
    console.print(photos)
    for name, result in report["photos"].items():
        if "failed" in result:
            console.print(f"{name}: {result['failed']}", style="red", markup=False)
    _print_stages(console, list(good.values()))
    if "video" in report:
        _print_video(console, report["video"])
    if "people" in report:
        _print_people(console, report["people"])
    console.print(f"peak memory {report['peak_memory_mb']} MB")
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), style="dim")


def _print_stages(console: Console, results: list[dict[str, Any]]) -> None:
    table = Table(title="seconds a photo, mean")
    for name in ("stage", "CPU", "wall"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in dict.fromkeys(stage for result in results for stage in result["cpu_s"]):
        times = [[result[key].get(stage, 0.0) for key in ("cpu_s", "wall_s")] for result in results]
        table.add_row(stage, *(f"{value:.2f}" for value in np.mean(times, axis=0)))
    console.print(table)


def _print_video(console: Console, video: dict[str, Any]) -> None:
    table = Table(title=f"{video['file']}: made of frame 0, {len(video['frames'])} of {video['asked']} frames compared")
    columns = {"whole": "whole", "person": "box", "by_landmarks": "by landmarks"}
    table.add_column("frame", justify="right")
    for name in columns.values():
        for measure in (f"{name} PSNR", "SSIM", "IoU"):
            table.add_column(measure, justify="right")
    for frame in video["frames"]:
        table.add_row(str(frame["frame"]), *(cell for key in columns for cell in _cells(frame[key])))
    means = [_mean_cells([frame[key] for frame in video["frames"]]) for key in columns]
    table.add_row("mean", *(cell for mean in means for cell in mean), style="bold")
    console.print(table)


def _print_people(console: Console, people: dict[str, Any]) -> None:
    from streaming.bench.avatar_quality import YAWS_DEG  # noqa: PLC0415

    titles = {"fitted": "in the pose found in the first photo", "posed": "in the pose they have in truth"}
    for kind, title in titles.items():
        table = Table(title=f"synthetic people, {title}")
        for name in ("made of", "side", "box PSNR", "SSIM", "IoU", "worst PSNR", "whole PSNR", "SSIM", "people"):
            table.add_column(name, justify="left" if name == "made of" else "right")
        for source, results in people.items():
            good = [result[kind] for result in results.values() if "failed" not in result]
            for yaw in YAWS_DEG if good else ():
                in_box, whole = ([person[str(yaw)][frame] for person in good] for frame in ("person", "whole"))
                worst = min(score["psnr"] for score in in_box)
                cells = (*_mean_cells(in_box), f"{worst:.1f}", *_mean_cells(whole)[:2])
                table.add_row(source, f"{yaw}°", *cells, f"{len(good)} of {len(results)}")
        console.print(table)


def _cells(score: dict[str, float]) -> list[str]:
    return [f"{score['psnr']:.2f}", f"{score['ssim']:.3f}", f"{score['iou']:.3f}"]


def _mean_cells(scores: list[dict[str, float]]) -> list[str]:
    return _cells({key: float(np.mean([score[key] for score in scores])) for key in ("psnr", "ssim", "iou")})
