"""``lhm-live info``, ``export`` and ``import-ply``: avatar files."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from lhm_runtime.avatar import AvatarMetadata, pose_gaussians, save_avatar
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.sequences import load_motion
from lhm_runtime.ply import export_ply, import_ply
from lhm_runtime.reconstruction.rigging import rig_gaussians
from lhm_runtime.types import SmplxPose
from streaming.arguments import BUILTIN, AvatarArgument, open_avatar, report, require_writable
from streaming.inspection import describe_avatar, describe_gaussians

_OWN_POSES = ("tpose", "relaxed")


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
        facts = describe_avatar(open_avatar(avatar))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    if avatar != BUILTIN:
        table.add_row("file", f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
    for name, value in facts:
        table.add_row(name, value)
    Console(highlight=False).print(table, markup=False)


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
    require_writable(out, ".ply", "OUT.ply")
    if frame and pose in _OWN_POSES:
        raise typer.BadParameter(f"{pose} has one frame alone; name a FILE by --pose", param_hint="--frame")
    person = open_avatar(avatar)
    chosen = _still_pose(pose, frame, person.expression_names)
    matrices = joint_matrices(chosen, person.rest_joints)
    export_ply(pose_gaussians(person, matrices, chosen.expression), out)
    report(f"{len(person)} Gaussians", out)


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
    require_writable(out, ".avatar", "--out")
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
    report(f"{len(person)} Gaussians", out)


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
