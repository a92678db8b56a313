"""The stages from photos to an avatar: read, fit, project."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.body_proportions import with_proportions
from lhm_runtime.reconstruction.fitting import BodyFit, fit_body
from lhm_runtime.reconstruction.photo import Photo, read_photo
from lhm_runtime.reconstruction.projection import project
from lhm_runtime.reconstruction.still_models import StillModels

Method = Literal["auto", "projection"]
"""``projection`` needs no weights; ``auto`` takes the best that is installed, which so far is projection."""

METHODS: tuple[Method, ...] = get_args(Method)

MIN_COUNT, MAX_COUNT = 10_000, 160_000
"""How many Gaussians an avatar may have."""


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """An avatar and what it was made of."""

    avatar: Avatar
    photos: tuple[Photo, ...]
    """As they were given: the one from the front first."""
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
    progress: Callable[[str, float], None] | None = None,
) -> Reconstruction:
    """Make an avatar of one or more photos of one person.

    Args:
        photos: files, or photos already read; the one from the front first, further ones fill what it does not show.
        method: how.
        count: Gaussians, 10,000 to 160,000.
        body: the free body that ships with the package where None.
        progress: called with the name of a stage and the share of it that is done, 0 when it begins.

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
    tell = _say_nothing if progress is None else progress
    body = with_proportions(BodyModel.default() if body is None else body)
    read = _read(given, tell)
    fits = _fit(read, body, tell)
    avatar = project(read, fits, body, count=count, progress=tell)
    # what further photos leave unsure, as their subject seen from behind, the first one tells
    warnings = tuple(dict.fromkeys((*read[0].warnings, *fits[0].warnings)))
    return Reconstruction(avatar, tuple(read), tuple(fits), warnings)


def _read(given: Sequence[Path | Photo], tell: Callable[[str, float], None]) -> list[Photo]:
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


def _fit(photos: Sequence[Photo], body: BodyModel, tell: Callable[[str, float], None]) -> list[BodyFit]:
    """Fit each photo; the first one tells the shape, which later ones keep."""
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
    return fits


def _say_nothing(stage: str, done: float) -> None:
    """For callers who do not ask."""
