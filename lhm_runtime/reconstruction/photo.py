"""A photo becomes what reconstruction needs: the person's pixels, matte and landmarks, and what is unsure."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from lhm_runtime.avatar import Shown
from lhm_runtime.errors import InvalidInputError, PhotoError
from lhm_runtime.motion.person_choice import Body, choose_person
from lhm_runtime.reconstruction.flesh import draw_flesh
from lhm_runtime.reconstruction.matting import keep_large_parts, refine_matte
from lhm_runtime.reconstruction.photo_doubts import list_doubts, shot_of
from lhm_runtime.reconstruction.picture import check_size, read_mask, read_picture
from lhm_runtime.reconstruction.still_models import Person, StillModels
from lhm_runtime.types import Landmarks

Matting = Callable[[UInt8[np.ndarray, "h w 3"]], Float32[np.ndarray, "h w"]]
"""A better matting model: from a picture of one person to their alpha, 0 to 1."""

LARGEST_SIDE, SMALLEST_SIDE = 1536, 512
"""Photos are worked on with a longest side between these, pixels."""

_CROP_MARGIN = 0.3  # air around the person, in sides of their box; perspective is guessed from the picture's size
_SMALL = 0.5  # share of the picture below which it is cut to the person
_USUAL_FOCAL = 1.2  # in longer sides: 43 mm in 35 mm terms
_MIN_PERSON = 48
_COVERED = 0.5  # share of the visible body points that a mask must hold
_VISIBLE = 0.5
_WHITE = 255


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """One person in one picture; everything is in the pixels of ``rgb``."""

    rgb: UInt8[np.ndarray, "h w 3"]
    """The photo, upright, cut and scaled to a working size."""
    alpha: Float32[np.ndarray, "h w"]
    """Matte of the person, 0 to 1."""
    landmarks: Landmarks
    """What was found of the person."""
    sha256: str
    """Of the file, hex; of the pixels where there was no file."""
    shot: Shown
    """How much of the person is seen."""
    warnings: tuple[str, ...]
    """What is unsure, one sentence each."""
    focal_px: float
    """Focal length: the camera's own where the file says it, else a usual one for the picture that this is cut from."""
    matte_given: bool = False
    """Whether the matte is the photo's own, a mask or a model's, and so not to be questioned."""


def read_photo(
    path: Path,
    *,
    person: int = 0,
    mask_path: Path | None = None,
    matte: Matting | None = None,
    models: StillModels | None = None,
) -> Photo:
    """Read a picture file and find the person in it.

    Args:
        path: a photo in any format of ``read_picture``, 64 pixels to 60 megapixels.
        person: 0 the largest, 1 the next, and so on.
        mask_path: a picture of the same shape that is white (or opaque) where the person is.
        matte: used instead of MediaPipe's silhouette when neither a mask nor the photo's own transparency is there.
        models: loaded models, for callers with many photos; without them they are loaded and closed again.

    Raises:
        PhotoError: the file cannot be read, nobody is in it, or there is no person number ``person``.
        BackendError: MediaPipe or a model file is missing.
    """
    picture = read_picture(path)
    height, width = picture.rgb.shape[:2]
    alpha = picture.alpha if mask_path is None else read_mask(mask_path, width, height)
    return see_person(
        picture.rgb,
        alpha=alpha,
        name=str(path),
        sha256=picture.sha256,
        person=person,
        matte=matte,
        models=models,
        focal_px=picture.focal_px,
    )


def see_person(
    rgb: UInt8[np.ndarray, "h w 3"],
    *,
    alpha: Float32[np.ndarray, "h w"] | None = None,
    name: str = "the picture",
    sha256: str = "",
    person: int = 0,
    matte: Matting | None = None,
    models: StillModels | None = None,
    focal_px: float | None = None,
    crop: bool = True,
) -> Photo:
    """Find the person in decoded pixels, as of a video frame; arguments and errors as for ``read_photo``.

    Args:
        rgb: the picture.
        alpha: where the person is known to be, 0 to 1.
        name: what messages call the picture.
        sha256: of the file it came from; the pixels' own when empty.
        person: 0 the largest, 1 the next, and so on.
        matte: a matting model.
        models: loaded models.
        focal_px: of the camera, in pixels of ``rgb``; a usual one where None.
        crop: whether the picture may be cut to a person who is small in it; never for frames of one camera.
    """
    check_size(name, rgb.shape[1], rgb.shape[0])
    if person < 0:
        raise InvalidInputError(f"person is {person}, expected 0 (the largest) or more")
    sha256 = sha256 or hashlib.sha256(rgb.tobytes()).hexdigest()
    with ExitStack() as stack:
        models = stack.enter_context(StillModels()) if models is None else models
        picture, known = _resize(rgb, alpha)
        people = models.find_people(_on_white(picture, known))
        chosen, count = _choose(people, person, name), len(people)
        scale = picture.shape[1] / rgb.shape[1]
        if crop and (scale < 1 or _share(chosen.body, picture.shape) < _SMALL):
            box, body = _box_around(chosen.body, picture.shape, rgb.shape)
            nearer, known_nearer = _resize(rgb[box], None if alpha is None else alpha[box])
            nearer_scale = nearer.shape[1] / (box[1].stop - box[1].start)
            found = models.find_people(_on_white(nearer, known_nearer))
            same = choose_person([other.body for other in found], _scale(body, nearer_scale))
            if same is not None:
                picture, known, people, scale = nearer, known_nearer, found, nearer_scale
                chosen = next(other for other in found if other.body is same)
        looked_at = _on_white(picture, known)
        settled = models.settle(looked_at, chosen)
        landmarks = models.find_landmarks(looked_at, settled.body)
    others = [other.silhouette for other in people if other is not chosen]
    matted = _estimate_matte(picture, settled, others, matte) if known is None else known
    _require_person(name, matted, chosen.body, scale)
    return Photo(
        rgb=picture,
        alpha=matted,
        landmarks=landmarks,
        sha256=sha256,
        shot=shot_of(landmarks),
        warnings=list_doubts(picture, matted, landmarks, people=count, scale=scale),
        focal_px=scale * (_USUAL_FOCAL * max(rgb.shape[:2]) if focal_px is None else focal_px),
        matte_given=known is not None or matte is not None,
    )


def _choose(people: Sequence[Person], person: int, name: str) -> Person:
    if not people:
        raise PhotoError(
            f"nobody was found in {name}: use a photo of one person from the front, the head and shoulders at least, "
            "large in the picture and in good light"
        )
    if person >= len(people):
        raise PhotoError(
            f"{name} shows {'one person' if len(people) == 1 else f'{len(people)} people'}; there is no number "
            f"{person + 1} (1 is the largest)"
        )
    return people[person]


def _resize(
    rgb: UInt8[np.ndarray, "h w 3"], alpha: Float32[np.ndarray, "h w"] | None
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], Float32[np.ndarray, "h2 w2"] | None]:
    """Picture and alpha at working size; colours are weighted by alpha, so that what is hidden does not bleed."""
    height, width = rgb.shape[:2]
    longest = max(height, width)
    scale = min(max(longest, SMALLEST_SIDE), LARGEST_SIDE) / longest
    if scale == 1:
        return np.ascontiguousarray(rgb), alpha
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(rgb, size, interpolation=how), np.uint8)
    if alpha is None:
        return resized, None
    opacity = np.clip(cv2.resize(alpha, size, interpolation=how), 0, 1).astype(np.float32)
    weighted = cv2.resize(rgb * alpha[:, :, None], size, interpolation=how)
    straight = np.clip(weighted / np.maximum(opacity, 1 / 255)[:, :, None], 0, 255)
    return np.where(opacity[:, :, None] > 1 / 255, np.rint(straight), resized).astype(np.uint8), opacity


def _on_white(rgb: UInt8[np.ndarray, "h w 3"], alpha: Float32[np.ndarray, "h w"] | None) -> UInt8[np.ndarray, "h w 3"]:
    """What the models look at: a person cut out stands on white."""
    if alpha is None:
        return rgb
    return np.rint(_WHITE + alpha[:, :, None] * (rgb.astype(np.float32) - _WHITE)).astype(np.uint8)


def _box_around(
    body: Body, seen_shape: tuple[int, ...], full_shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], Body]:
    """The part of the full picture that holds the person with air around, and the body in pixels of that part."""
    full = _scale(body, full_shape[1] / seen_shape[1])
    left, top, right, bottom = full.box
    top -= 0.15 * full.pixels_per_metre  # the body's points end at the eyes
    margin = _CROP_MARGIN * max(right - left, bottom - top)
    x = np.clip([left - margin, right + margin], 0, full_shape[1]).astype(int)
    y = np.clip([top - margin, bottom + margin], 0, full_shape[0]).astype(int)
    image = full.image - np.array([x[0], y[0]], np.float32)
    return (slice(y[0], y[1]), slice(x[0], x[1])), Body(full.world, image.astype(np.float32), full.visibility)


def _scale(body: Body, scale: float) -> Body:
    return Body(body.world, (body.image * scale).astype(np.float32), body.visibility)


def _estimate_matte(
    picture: UInt8[np.ndarray, "h w 3"],
    person: Person,
    silhouettes: Sequence[Float32[np.ndarray, "h w"]],
    matte: Matting | None,
) -> Float32[np.ndarray, "h w"]:
    """The person's alpha by the given model or from MediaPipe's silhouette, without the silhouettes of others."""
    strange = np.max([np.zeros_like(person.silhouette), *silhouettes], axis=0) > person.silhouette
    if matte is None:
        own = np.where(strange, 0, person.silhouette).astype(np.float32)
        return refine_matte(picture, own, draw_flesh(person.body, own.shape))
    alpha = np.asarray(matte(picture))
    if alpha.shape != picture.shape[:2] or alpha.dtype != np.float32 or not ((alpha >= 0) & (alpha <= 1)).all():
        raise InvalidInputError(
            f"matte gave {alpha.dtype} {alpha.shape}, expected float32 {picture.shape[:2]} with values from 0 to 1"
        )
    return np.where(strange | ~keep_large_parts(alpha > 0), 0, alpha).astype(np.float32)


def _share(body: Body, shape: tuple[int, ...]) -> float:
    """Size of the person in sizes of the picture."""
    left, top, right, bottom = body.box
    return float(max((right - left) / shape[1], (bottom - top) / shape[0]))


def _require_person(name: str, alpha: Float32[np.ndarray, "h w"], body: Body, scale: float) -> None:
    """Raise PhotoError unless the matte holds someone large enough to be more than a blot."""
    seen = body.image[body.visibility > _VISIBLE]
    near = cv2.dilate(alpha, np.ones((9, 9), np.uint8))
    column, row = np.clip(seen.astype(int), 0, np.array(alpha.shape[::-1]) - 1).T
    covered = float((near[row, column] > _VISIBLE).mean()) if len(seen) else 0.0
    if covered < _COVERED:
        raise PhotoError(
            f"the matte of {name} holds only {covered:.0%} of the points where the person was found: give a mask of "
            "the person (white on black), or a photo with a plainer background"
        )
    rows, columns = np.nonzero(alpha > _VISIBLE)
    size = max(np.ptp(rows), np.ptp(columns)) / scale
    if size < _MIN_PERSON:
        raise PhotoError(
            f"the person found in {name} is only {size:.0f} pixels large; {_MIN_PERSON} is the least: take the photo "
            "from nearer"
        )
