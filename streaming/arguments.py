"""What several commands take and say alike."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lhm_runtime.avatar import Avatar, load_avatar
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.builtin_person import build_person

BUILTIN = "builtin"
"""Stands for the built-in person wherever an avatar file is asked for."""

AvatarArgument = Annotated[
    str,
    typer.Argument(metavar="AVATAR", help="An .avatar file, or the word 'builtin' for the built-in person."),
]


def open_avatar(name: str) -> Avatar:
    """The avatar of a file, or the built-in person; raises LhmLiveError where there is none."""
    if name == BUILTIN:
        with Console(stderr=True).status("making the built-in person"):
            return build_person()
    if Path(name).suffix.lower() == ".ply":
        raise InvalidInputError(f"{name} is not an avatar yet: lhm-live import-ply {name} -o {Path(name).stem}.avatar")
    return load_avatar(Path(name))


def require_writable(path: Path, suffix: str, option: str) -> None:
    """Raise BadParameter unless ``path`` has the suffix and can be made: better now than after the work."""
    if path.suffix.lower() != suffix:
        raise typer.BadParameter(f"{path} should end in {suffix}", param_hint=option)
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file", param_hint=option)
    require_folder_for(path, option)


def require_folder_for(path: Path, option: str) -> None:
    """Raise BadParameter unless the folder that ``path`` shall be in is there, and may be written to."""
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path} cannot be written: there is no folder {path.parent}", param_hint=option)
    if not os.access(path.parent, os.W_OK):
        raise typer.BadParameter(
            f"{path} cannot be written: nothing may be written to {path.parent.absolute()}", param_hint=option
        )


def report(what: str, path: Path) -> None:
    """Say what was written."""
    Console(soft_wrap=True, highlight=False).print(f"wrote {path}: {what}", markup=False)
