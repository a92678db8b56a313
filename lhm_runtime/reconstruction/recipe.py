"""The stages from photos to an avatar: read, fit, project."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.body_proportions import with_proportions
from lhm_runtime.reconstruction.fitting import BodyFit, fit_body
from lhm_runtime.reconstruction.photo import Photo, read_photo
from lhm_runtime.reconstruction.progress import Progress, split
from lhm_runtime.reconstruction.projection import project, project_seconds
from lhm_runtime.reconstruction.stance import covered_share, share_stance
from lhm_runtime.reconstruction.still_models import StillModels

Method = Literal["auto", "projection"]
"""``projection`` needs no weights; ``auto`` takes the best that is installed, which so far is projection."""

METHODS: tuple[Method, ...] = get_args(Method)

MIN_COUNT, MAX_COUNT = 10_000, 160_000
"""How many Gaussians an avatar may have."""

_READING_S, _FITTING_S = 0.5, 0.15
"""Seconds a photo of a megapixel takes, on one core."""
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


def reconstruct(
    photos: Path | Photo | Sequence[Path | Photo],
    *,
    method: Method = "auto",
    count: int = 40_000,
    body: BodyModel | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Make an avatar of one or more photos of one person.

    Args:
        photos: files, or photos already read; the one from the front first, further ones fill what it does not show.
        method: how.
        count: Gaussians, 10,000 to 160,000.
        body: the free body that ships with the package where None.
        progress: told the name of what is being done, and the share of the whole job that is done: it never falls.

    Raises:
        InvalidInputError: no photo, an unknown method or a count outside these bounds.
        PhotoError: a file is no picture, or shows nobody.
        BackendError: MediaPipe or a model file is missing.
    """
    given = list(photos) if isinstance(photos, Sequence) else [photos]
    if not given:
        raise InvalidInputError("an avatar needs at least one photo, got none")
    if method not in METHODS:
        raise InvalidInputError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if not MIN_COUNT <= count <= MAX_COUNT:
        raise InvalidInputError(f"count is {count}, expected {MIN_COUNT:,} to {MAX_COUNT:,} Gaussians")
    unread = sum(not isinstance(photo, Photo) for photo in given)
    reading, fitting, projecting = split(
        progress, [_READING_S * unread, _FITTING_S * len(given), project_seconds(len(given))]
    )
    body = with_proportions(BodyModel.default() if body is None else body)
    read, fits, dropped = _fit(_read(given, reading), body, fitting)
    avatar = project(read, fits, body, count=count, progress=projecting)
    # what further photos leave unsure, as their subject seen from behind, the first one tells
    warnings = tuple(dict.fromkeys((*read[0].warnings, *fits[0].warnings, *dropped)))
    return Reconstruction(avatar, tuple(read), tuple(fits), warnings)


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
    return [photos[k] for k in used], together, reasons
