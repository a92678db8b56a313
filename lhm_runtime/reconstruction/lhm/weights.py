"""LHM's files: who publishes them under which licence, and where they lie on this machine. Fetches nothing.

A folder of models (``models.model_folders``) may hold ``lhm/``, and in it

    LHM-500M/model.safetensors, config.json      a network, in a folder by its published name
    sapiens_1b_epoch_173_torchscript.pt2         the body encoder, which all networks share
    1_40000.ply, for LHM-MINI 1_20000.ply        the query points

Deeper folders are known where the publishers pack them so. Needs no torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.models import MODELS_VARIABLE, model_folders
from lhm_runtime.reconstruction.lhm.config import CONFIG_NAME, VARIANTS, WEIGHTS_NAME, find_variant

FOLDER: Final = "lhm"
"""In a folder of models."""

LICENCE: Final = "CC-BY-NC-4.0"
"""Of the networks: not for commercial use. They embed SMPL-X, which is for research alone, by its own terms."""


@dataclass(frozen=True, slots=True)
class Published:
    """Something that a publisher offers, and a user fetches."""

    name: str
    """What it is called here; ``lhm-live models get`` takes it in any case."""
    files: Mapping[str, str]
    """File in the publisher's repository -> file below ``lhm/``."""
    megabytes: int
    """About, all files together; what is known of files that nobody here may bundle."""
    licence: str
    purpose: str
    repository: str | None
    """On the Hugging Face hub; None where it is not there."""
    source: str
    """How a person finds it."""


SAPIENS: Final = Published(
    "sapiens-1b",
    MappingProxyType({"sapiens_1b_epoch_173_torchscript.pt2": "sapiens_1b_epoch_173_torchscript.pt2"}),
    4_680,
    "CC-BY-NC-4.0",
    "body encoder of every LHM network",
    "facebook/sapiens-pretrain-1b-torchscript",
    "facebook/sapiens-pretrain-1b-torchscript on Hugging Face",
)

_CHECKPOINT_MEGABYTES: Final = {"LHM-MINI": 2_776, "LHM-500M": 3_830, "LHM-1B": 6_850}
_KIND: Final = {
    "LHM-MINI": "half and full bodies, the smallest",
    "LHM-500M": "full bodies",
    "LHM-500M-HF": "half and full bodies",
    "LHM-1B": "full bodies, the best",
    "LHM-1B-HF": "half and full bodies, the best",
}

NETWORKS: Final = tuple(
    Published(
        name,
        MappingProxyType({file: f"{name}/{file}" for file in (WEIGHTS_NAME, CONFIG_NAME)}),
        _CHECKPOINT_MEGABYTES[name.removesuffix("-HF")],
        LICENCE,
        _KIND[name],
        f"3DAIGC/{name}",
        f"3DAIGC/{name} on Hugging Face",
    )
    for name in VARIANTS
)
"""The networks, in the order of ``VARIANTS``."""

POINTS: Final = tuple(
    Published(
        f"points-{count}",
        MappingProxyType({f"1_{count}.ply": f"1_{count}.ply"}),
        1,
        "SMPL-X's: research only",
        f"query points of {who}; without them near ones are drawn",
        None,
        where,
    )
    for count, who, where in (
        (40_000, "LHM-500M and LHM-1B", "dense_sample_points/1_40000.ply of LHM_prior_model.tar, linked by aigc3d/LHM"),
        (20_000, "LHM-MINI", "1_20000.ply, fetched by the inference code of aigc3d/LHM"),
    )
)

PUBLISHED: Final = (*NETWORKS, SAPIENS, *POINTS)
"""All of it."""

BEST_FIRST: Final = ("LHM-1B", "LHM-1B-HF", "LHM-500M", "LHM-500M-HF", "LHM-MINI")
"""Networks by how good their avatars are (LHM, tables 2 and 4; bigger is better)."""

_SAPIENS_PLACES = ("", "sapiens", "sapiens/pretrained/checkpoints/sapiens_1b")
_POINTS_PLACES = ("", "dense_sample_points")


@dataclass(frozen=True, slots=True)
class LhmFiles:
    """What one run of LHM reads."""

    variant: str | None
    """Published name that is asked for; None: whatever the checkpoint is."""
    checkpoint: Path
    """``model.safetensors``, or a folder with it."""
    sapiens: Path
    folder: Path | None
    """Where else to look for query points."""


def find_published(name: str) -> Published:
    """What is published under that name, in any case; raises InvalidInputError with the known names."""
    for published in PUBLISHED:
        if published.name.lower() == name.lower():
            return published
    known = ", ".join(published.name.lower() for published in PUBLISHED)
    raise InvalidInputError(f"nothing is published as {name!r}; known are {known}")


def storage_folder() -> Path:
    """Where fetched files go: ``lhm/`` in the folder that the environment names, or else in the user's cache."""
    return _roots()[0]


def find_file(published: Published, file: str) -> Path | None:
    """Where a file of it lies, of those below ``lhm/`` that ``files`` names; None where it does not."""
    if published in NETWORKS and file == WEIGHTS_NAME:
        return _find_network(_roots(), published.name)
    places = _SAPIENS_PLACES if published is SAPIENS else _POINTS_PLACES
    return _first(root / place / published.files[file] for root in _roots() for place in places)


def find_lhm(variant: str | None = None, folder: Path | None = None) -> LhmFiles:
    """The files of a network.

    Args:
        variant: published name; the best that is here, or whatever lies in ``folder``, where None.
        folder: of a checkpoint that lies elsewhere; its Sapiens and points may lie there too.

    Raises:
        InvalidInputError: no network is published under that name.
        BackendError: something is missing; the message says which files to put where.
    """
    if variant is not None:
        variant = _published_name(variant)
    if folder is not None:
        if not folder.exists():
            raise BackendError(f"there is no {folder}: expected LHM's {WEIGHTS_NAME}, or a folder with it")
        checkpoint: Path | None = folder
    else:
        variant = next(iter(networks_here()), None) if variant is None else variant
        checkpoint = None if variant is None else _find_network(_roots(), variant)
    roots = [*([folder if folder.is_dir() else folder.parent] if folder else []), *_roots()]
    file = next(iter(SAPIENS.files))
    sapiens = _first(root / place / file for root in roots for place in _SAPIENS_PLACES)
    if checkpoint is None or sapiens is None:
        raise BackendError(say_what_is_missing(variant, checkpoint=checkpoint, sapiens=sapiens))
    return LhmFiles(variant, checkpoint, sapiens, roots[0] if folder else None)


def find_points(count: int, folder: Path | None = None) -> Path | None:
    """The file of so many query points, in ``folder`` or among the models; None where there is none."""
    roots = [*([folder] if folder else []), *_roots()]
    return _first(root / place / f"1_{count}.ply" for root in roots for place in _POINTS_PLACES)


def networks_here() -> list[str]:
    """Published names of the networks that can be run with what is here, best first."""
    if find_file(SAPIENS, next(iter(SAPIENS.files))) is None:
        return []
    return [name for name in BEST_FIRST if _find_network(_roots(), name) is not None]


def say_what_is_missing(variant: str | None, *, checkpoint: Path | None, sapiens: Path | None) -> str:
    """One sentence: what to fetch from where, where to put it, and what works meanwhile."""
    name = variant or "LHM-500M"
    network, root = find_published(name), storage_folder()
    lacking = []
    if checkpoint is None:
        lacking.append(f"{WEIGHTS_NAME} of {network.source} as {root / name / WEIGHTS_NAME}")
    if sapiens is None:
        file = next(iter(SAPIENS.files))
        lacking.append(f"{file} of {SAPIENS.source} as {root / file}")
    return (
        f"{name} is not complete on this machine: put {', and '.join(lacking)} (any folder named by {MODELS_VARIABLE} "
        f"will do, with {FOLDER}/ in it), or let lhm-live models get {name.lower()} fetch them; "
        "without them --method projection works"
    )


def _published_name(variant: str) -> str:
    find_variant(variant)
    return variant.upper()


def _roots() -> list[Path]:
    return [folder / FOLDER for folder in model_folders()[1:]]  # the first is the package, which bundles none of this


def _find_network(roots: list[Path], name: str) -> Path | None:
    for root in roots:
        steps = sorted((root / name).glob(f"step_*/{WEIGHTS_NAME}"), reverse=True)
        found = _first([root / name / WEIGHTS_NAME, *steps])
        if found is not None:
            return found
    return None


def _first(candidates: Iterable[Path]) -> Path | None:
    return next((path for path in candidates if path.is_file()), None)
