"""The stages from photos to an avatar: read, fit, project."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.body_proportions import with_proportions
from lhm_runtime.reconstruction.fitting import BodyFit, fit_body
from lhm_runtime.reconstruction.gaps import clear_gaps
from lhm_runtime.reconstruction.lhm.choice import METHODS, Method, choose
from lhm_runtime.reconstruction.parted_lips import part_lips
from lhm_runtime.reconstruction.photo import Photo, read_photo
from lhm_runtime.reconstruction.pockets import tuck_hidden_hands
from lhm_runtime.reconstruction.progress import Progress, split
from lhm_runtime.reconstruction.projection import project, project_seconds
from lhm_runtime.reconstruction.stance import covered_share, share_stance
from lhm_runtime.reconstruction.still_models import StillModels

if TYPE_CHECKING:
    from lhm_runtime.reconstruction.lhm.cost import StageCost
    from lhm_runtime.reconstruction.lhm.run import LhmRun, Precision

__all__ = ["METHODS", "Method", "Reconstruction", "reconstruct"]

MIN_COUNT, MAX_COUNT = 10_000, 160_000
"""How many Gaussians an avatar may have."""

_READING_S, _FITTING_S = 0.5, 0.15
"""Seconds a photo of a megapixel takes, on one core."""
_LHM_CARD_S, _LHM_CPU_S = 5.0, 600.0
"""Seconds that LHM takes, for the progress alone."""
_LEAST_OVERLAP = 0.85
"""Of the body and the matte in a further photo, in times of the first photo's: clothes and hair take as much there."""


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """An avatar and what it was made of."""

    avatar: Avatar
    photos: tuple[Photo, ...]
    """Those that it was made of, as they were given: the one from the front first."""
    fits: tuple[BodyFit, ...]
    """The body in each photo: posed so, the avatar covers the person there."""
    warnings: tuple[str, ...]
    """What is unsure, one sentence each."""
    method: str
    """What made it, and why that."""
    costs: tuple["StageCost", ...] = ()
    """Time and memory of LHM's stages."""


def reconstruct(
    photos: Path | Photo | Sequence[Path | Photo],
    *,
    method: Method = "auto",
    count: int = 40_000,
    body: BodyModel | None = None,
    progress: Progress | None = None,
    weights: Path | None = None,
    device: str | None = None,
    precision: "Precision | None" = None,
) -> Reconstruction:
    """Make an avatar of one or more photos of one person.

    Args:
        photos: files, or photos already read; the one from the front first, further ones fill what it does not show.
        method: how; ``auto`` says in the result what it took.
        count: Gaussians of a projection, 10,000 to 160,000; LHM has as many as its query points.
        body: the free body that ships with the package where None.
        progress: told the name of what is being done, and the share of the whole job that is done: it never falls.
        weights: folder of LHM's files, where they are not among the models.
        device: for LHM, ``cpu`` or ``cuda``; a card where there is one, where None.
        precision: for LHM, of the large weights; what the device is fast at where None.

    Raises:
        InvalidInputError: no photo, an unknown method or a count outside these bounds.
        PhotoError: a file is no picture, or shows nobody.
        FileFormatError: a file of LHM's is damaged, or of another network than asked for.
        BackendError: MediaPipe, a model file, torch, a device or memory is missing.
    """
    given = list(photos) if isinstance(photos, Sequence) else [photos]
    if not given:
        raise InvalidInputError("an avatar needs at least one photo, got none")
    if method not in METHODS:
        raise InvalidInputError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if not MIN_COUNT <= count <= MAX_COUNT:
        raise InvalidInputError(f"count is {count}, expected {MIN_COUNT:,} to {MAX_COUNT:,} Gaussians")
    run, why = choose(method, len(given), weights=weights, device=device, precision=precision)
    if run is not None:
        return _run_lhm(run, why, given, progress)
    unread = sum(not isinstance(photo, Photo) for photo in given)
    reading, fitting, projecting = split(
        progress, [_READING_S * unread, _FITTING_S * len(given), project_seconds(len(given))]
    )
    body = with_proportions(BodyModel.default() if body is None else body)
    read, fits, dropped = _fit(_read(given, reading), body, fitting)
    avatar = project(read, fits, body, count=count, progress=projecting)
    # what further photos leave unsure, as their subject seen from behind, the first one tells
    warnings = tuple(dict.fromkeys((*read[0].warnings, *fits[0].warnings, *dropped)))
    return Reconstruction(avatar, tuple(read), tuple(fits), warnings, why)


def _run_lhm(run: "LhmRun", why: str, given: Sequence[Path | Photo], progress: Progress | None) -> Reconstruction:
    """The first photo through LHM; the free body is fitted for its pose and camera alone."""
    seconds = _LHM_CARD_S if run.device.startswith("cuda") else _LHM_CPU_S
    reading, fitting, running = split(progress, [_READING_S, _FITTING_S, seconds])
    photos = _read(given[:1], reading)
    _, fits, _ = _fit(photos, with_proportions(BodyModel.default()), fitting)
    canonical = run.reconstruct(photos[0], running)
    alone = () if len(given) == 1 else (f"LHM looks at one photo: the first of {len(given)} was taken",)
    return Reconstruction(
        avatar=run.finish(canonical, photos[0]),
        photos=tuple(photos),
        fits=tuple(fits),
        warnings=(*photos[0].warnings, *run.warnings, *alone),
        method=why,
        costs=canonical.costs,
    )


def _read(given: Sequence[Path | Photo], tell: Progress) -> list[Photo]:
    photos: list[Photo] = []
    with ExitStack() as stack:
        models: StillModels | None = None
        for photo in given:
            if isinstance(photo, Photo):
                photos.append(photo)
                continue
            tell("finding the person", len(photos) / len(given))
            models = stack.enter_context(StillModels()) if models is None else models
            photos.append(read_photo(photo, models=models))
    return photos


def _fit(photos: Sequence[Photo], body: BodyModel, tell: Progress) -> tuple[list[Photo], list[BodyFit], list[str]]:
    """Fit each photo; the first tells the shape. Returns the photos of use, their fits, and why others are not."""
    fits: list[BodyFit] = []
    for photo in photos:
        tell("fitting the body", len(fits) / len(photos))
        height, width = photo.alpha.shape
        fits.append(
            fit_body(
                photo.landmarks,
                (width, height),
                body,
                alpha=None if fits else photo.alpha,
                betas=fits[0].betas if fits else None,
                focal_px=photo.focal_px,
            )
        )
    used, together = list(range(len(photos))), fits
    while len(used) > 1:
        together = share_stance([photos[k].landmarks for k in used], [fits[k] for k in used], body)
        overlap = [covered_share(fit, photos[k].alpha, body) for k, fit in zip(used, together, strict=True)]
        worst = 1 + int(np.argmin(overlap[1:]))
        if overlap[worst] >= _LEAST_OVERLAP * overlap[0]:
            break
        del used[worst]
        together = [fits[0]]
    reasons = [
        f"photo {k + 1} was left out: the body found in it does not stand as in the first one"
        for k in range(len(photos))
        if k not in used
    ]
    kept = [photos[k] for k in used]
    tucked = [tuck_hidden_hands(photo, fit, body) for photo, fit in zip(kept, together, strict=True)]
    cleared = [clear_gaps(photo, fit, body) for photo, fit in zip(kept, tucked, strict=True)]
    spoken = [part_lips(photo, fit, body) for photo, fit in zip(kept, tucked, strict=True)]
    return cleared, spoken, reasons
