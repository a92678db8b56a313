"""What several commands take and say alike."""

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


def report(what: str, path: Path) -> None:
    """Say what was written."""
    Console(soft_wrap=True, highlight=False).print(f"wrote {path}: {what}", markup=False)
