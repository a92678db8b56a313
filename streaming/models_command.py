"""``lhm-live models``: which weights there are, what they may be used for, which are here; and fetching them."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors import SafetensorError, safe_open

from lhm_runtime.errors import BackendError
from lhm_runtime.models import MODELS, find_model
from lhm_runtime.reconstruction.lhm.config import WEIGHTS_NAME
from lhm_runtime.reconstruction.lhm.weights import (
    NETWORKS,
    PUBLISHED,
    SAPIENS,
    Published,
    find_file,
    find_published,
    networks_here,
    storage_folder,
)
from streaming.arguments import report

app = typer.Typer(
    add_completion=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
)


_WIDTH = 160
"""Of the list where no terminal has one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    name: str
    purpose: str
    megabytes: float
    licence: str
    source: str
    state: str
    """``here``, ``absent``, or what is wrong."""


@app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List weight files: sizes, licences, where from, which are here; fetch them.

    The list asks nobody. Without any of LHM's weights, photos become avatars by projection.

    \b
    [bold]Examples[/bold]
      lhm-live models
      lhm-live models get lhm-500m
    """
    if context.invoked_subcommand is not None:
        return
    rows = list_models()
    runnable = [name.lower() for name in networks_here()]
    if as_json:
        content = {"models": [asdict(row) for row in rows], "folder": str(storage_folder()), "runnable": runnable}
        typer.echo(json.dumps(content, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "size", "licence", "here", "what it is for, and where it comes from"):
        table.add_column(column, justify="right" if column == "size" else "left", no_wrap=column in {"name", "size"})
    for row in rows:
        size = f"{row.megabytes / 1000:.2f} GB" if row.megabytes >= 1000 else f"{row.megabytes:.1f} MB"
        about = escape(f"{row.purpose} ({row.source})")
        table.add_row(row.name, size, escape(row.licence), escape(row.state), about)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(table)
    console.print(_say_what_runs(runnable), markup=False)


@app.command()
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As 'lhm-live models' lists it.")],
) -> None:
    """Fetch weights from the Hugging Face hub: a network with the body encoder it needs, or one file.

    What is here already is kept; what broke off goes on where it stopped; what comes is compared with the published
    sha256. This is the only command that asks another machine for weights.

    \b
    [bold]Examples[/bold]
      lhm-live models get lhm-mini
      LHM_LIVE_MODELS=/data/models lhm-live models get lhm-500m
    """
    wanted = find_published(name)
    for published in (wanted, SAPIENS) if wanted in NETWORKS else (wanted,):
        fetch(published)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if wanted in NETWORKS:
        console.print(f"now: lhm-live reconstruct PHOTO --method {wanted.name.lower()} -o me.avatar", markup=False)


def list_models() -> list[Row]:
    """All weight files that anything here reads."""
    bundled = []
    for model in MODELS:
        try:
            find_model(model.name)
            state = "here"
        except BackendError:
            state = "absent or damaged"
        bundled.append(Row(model.name, "tracking", model.size / 1e6, model.licence, "in the package", state))
    return [
        *(Row(one.name.lower(), one.purpose, one.megabytes, one.licence, one.source, _state(one)) for one in PUBLISHED),
        *bundled,
    ]


def fetch(published: Published) -> None:
    """Fetch what is not here of it.

    Raises:
        BackendError: it is not on the hub, the hub cannot be reached, huggingface-hub is missing, the disk is full, or
            what came is damaged; the message says which files to put where by hand.
    """
    missing = [file for file in published.files if find_file(published, file) is None]
    if published in NETWORKS and (damage := _damage(published)):
        missing = [WEIGHTS_NAME]
        Console(stderr=True).print(f"{published.name.lower()} {damage}: fetching it again", markup=False)
    if not missing:
        report("is here already", storage_folder() / next(iter(published.files.values())))
        return
    root = storage_folder()
    by_hand = "; ".join(f"{file} as {root / published.files[file]}" for file in missing)
    advice = f"put by hand, from {published.source}: {by_hand}"
    if published.repository is None:
        raise BackendError(f"{published.name} cannot be fetched by a program: {advice}")
    if find_spec("huggingface_hub") is None:
        raise BackendError(f"fetching needs huggingface-hub: pip install 'lhm-live[lhm]', or {advice}")
    free = shutil.disk_usage(next(folder for folder in root.parents if folder.exists())).free
    if free < 1e6 * published.megabytes:
        raise BackendError(
            f"{published.name} takes about {published.megabytes / 1000:.1f} GB, and {free / 1e9:.1f} are free at "
            f"{root}: make room, or name another folder by LHM_LIVE_MODELS"
        )
    Console(stderr=True, soft_wrap=True).print(
        f"{published.name}: {published.purpose}; {published.licence}; about {published.megabytes / 1000:.1f} GB",
        markup=False,
    )
    for file in missing:
        path = _download(published, file, root / published.files[file], advice)
        report(f"{path.stat().st_size:,} bytes", path)


def _download(published: Published, file: str, target: Path, advice: str) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # takes half a second, and only this command may
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url  # noqa: PLC0415
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415

    repository = str(published.repository)
    try:
        known = get_hf_file_metadata(hf_hub_url(repository, file))
        path = Path(hf_hub_download(repository, file, local_dir=target.parent, revision=known.commit_hash))
    except (HTTPError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BackendError(
            f"{published.name} could not be fetched ({reason[:200]}): try again later, or {advice}"
        ) from error
    sha256 = _published_sha256(known.etag)
    if sha256 and (found := _sha256(path)) != sha256:
        path.unlink()
        raise BackendError(
            f"{file} of {repository} arrived damaged and was removed (sha256 {found[:12]}..., published "
            f"{sha256[:12]}...): fetch it again"
        )
    return path


def _published_sha256(etag: str | None) -> str:
    """The hub's mark of a large file is its sha256; of a small one it is another number."""
    return etag if etag is not None and len(etag) == 64 and set(etag) <= set("0123456789abcdef") else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(published: Published) -> str:
    absent = [file for file in published.files if find_file(published, file) is None]
    if absent:
        return "absent" if len(absent) == len(published.files) else f"without {', '.join(absent)}"
    return _damage(published) or "here"


def _damage(published: Published) -> str:
    """What is wrong with a network's weights, by their header and length; nothing where they are not here."""
    path = find_file(published, WEIGHTS_NAME) if published in NETWORKS else None
    if path is None:
        return ""
    try:
        with safe_open(path, framework="np"):
            return ""
    except (SafetensorError, OSError):
        return "is truncated or damaged"


def _say_what_runs(runnable: list[str]) -> str:
    if not runnable:
        advice = "lhm-live models get lhm-500m fetches it with what it needs"
        return f"No network of LHM can be run yet: {advice}. Until then reconstruct works by projection."
    torch = "" if find_spec("torch") else ", once torch is installed: pip install 'lhm-live[lhm]'"
    return f"LHM can be run{torch}: lhm-live reconstruct PHOTO --method {runnable[0]} (here: {', '.join(runnable)})"
