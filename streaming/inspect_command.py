"""``lhm-live inspect``: an avatar without skinning, LHM's attention over the photo, and both regularisers by part."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from streaming.arguments import BUILTIN, open_avatar, report, require_writable
from streaming.inspection_pictures import COLUMNS, draw_attention, draw_canonical
from streaming.lhm_options import DeviceOption, DtypeOption, WeightsOption
from streaming.native_noise import native_noise_apart
from streaming.picture_files import write_sheet

if TYPE_CHECKING:
    from lhm_runtime.reconstruction.regularisers import PartReport

NetworkChoice = Literal["lhm", "lhm-mini", "lhm-500m", "lhm-500m-hf", "lhm-1b", "lhm-1b-hf"]


def inspect(
    context: typer.Context,
    *,
    what: Annotated[
        str, typer.Argument(metavar="AVATAR|PHOTO", help="An .avatar file, the word 'builtin', or a photo for LHM.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="SHEET.png", help="Also draw a sheet of pictures.")
    ] = None,
    method: Annotated[
        NetworkChoice, typer.Option(help="For a photo: which network; lhm is the best that is here.")
    ] = "lhm",
    weights: WeightsOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    layer: Annotated[
        int | None, typer.Option(min=1, help="For a photo: whose attention is drawn; the last layer's if left out.")
    ] = None,
    person: Annotated[int, typer.Option(min=1, help="Who, where a photo shows several: 1 is the largest.")] = 1,
) -> None:
    """Look at an avatar before it is moved, or at what LHM's network makes of a photo.

    Of an avatar: its Gaussians at zero pose, where no skinning has touched them, and LHM's two regularisers for each
    part of the body: how far Gaussians are from round, and from the body. Of a photo: the same of what the network
    gives, in its own pose, and where in the photo points of the body look.

    \b
    [bold]Examples[/bold]
      lhm-live inspect me.avatar -o me.png
      lhm-live inspect me.jpg --method lhm-500m --layer 3 -o attention.png
    """
    if out is not None:
        require_writable(out, ".png", "--out")
    if what == BUILTIN or Path(what).suffix.lower() in {".avatar", ".ply"}:
        from lhm_runtime.reconstruction.regularisers import report_avatar  # noqa: PLC0415

        avatar = open_avatar(what)
        _print_parts(report_avatar(avatar), "from the free body of the avatar's proportions")
        if out is not None:
            pictures = draw_canonical(avatar.gaussians, avatar.rest_joints)
            write_sheet(out, pictures, columns=len(pictures))
            report("the avatar at zero pose, unskinned", out)
        return
    with native_noise_apart(context):
        _inspect_photo(Path(what), out, method, weights, device, dtype, layer, person)


def _inspect_photo(
    path: Path,
    out: Path | None,
    method: NetworkChoice,
    weights: Path | None,
    device: DeviceOption,
    dtype: DtypeOption,
    layer: int | None,
    person: int,
) -> None:
    from lhm_runtime.reconstruction.lhm.choice import choose  # noqa: PLC0415

    run, _ = choose(method, 1, weights=weights, device=device, precision=dtype)
    if run is None:
        raise typer.BadParameter(f"{method} has no network to look into", param_hint="--method")
    layers = run.checkpoint.config.layers
    if layer is not None and layer > layers:
        raise typer.BadParameter(f"{run.name} has {layers} layers", param_hint="--layer")
    from lhm_runtime.reconstruction.lhm.attention_maps import look_inside  # noqa: PLC0415
    from lhm_runtime.reconstruction.photo import read_photo  # noqa: PLC0415
    from lhm_runtime.reconstruction.regularisers import report_parts  # noqa: PLC0415

    photo = read_photo(path, person=person - 1)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with console.status("running the network") as status:
        canonical, maps = look_inside(run, photo, lambda stage, done: status.update(f"{stage}, {done:.0%} done"))
    offsets = canonical.gaussians.means - canonical.query_points
    _print_parts(
        report_parts(canonical.gaussians.scales, offsets, canonical.rig.skin_weights.argmax(axis=1)),
        "from the query points",
    )
    for cost in canonical.costs:
        console.print(str(cost), markup=False)
    if out is not None:
        pictures = [
            *draw_canonical(canonical.gaussians, canonical.body.rest_joints()),
            *draw_attention(canonical, maps, (layers if layer is None else layer) - 1),
        ]
        write_sheet(out, pictures, columns=COLUMNS)
        report("the network's Gaussians, unskinned, and its attention", out)


def _print_parts(parts: "Sequence[PartReport]", measured: str) -> None:
    table = Table(title=f"regularisers of LHM, means; distances {measured}", title_justify="left")
    for column in ("part", "Gaussians", "ASAP", "needles", "ACAP mm", "floating"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part in parts:
        table.add_row(
            part.part,
            f"{part.count:,}",
            f"{part.asap:.2f}",
            f"{part.needles:.1%}",
            f"{1000 * part.acap_m:.2f}",
            f"{part.floating:.1%}",
        )
    Console(highlight=False).print(table)
