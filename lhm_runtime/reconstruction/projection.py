"""Photos and the body fitted to them become an avatar, by geometry alone: nothing here was learned from people.

``project`` is the recipe; each stage is a module:

- ``draping``: the body grows into clothes and hair until it fills the matte;
- ``discs``: Gaussians spread over that surface;
- ``colouring``: colours where a photo shows them, and ``filling`` where none does;
- ``hair``, ``hairline``, ``curtain``, ``hat``: where hair is, how it hangs round the head, and what is worn on it;
- ``mouth_and_eyes``, ``parted_lips``, ``eyelids``, ``attachments``: what is behind lids and lips, how they shut, and
  what sticks out;
- ``edges``, ``splats``: little hangs out of the matte, and the drawn picture answers the photo;
- ``complexion``: skin of the head where it turns away, without streaks.

What each needs to know of the body is in ``anatomy``, and of a photo in ``view``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import get_args

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Float32, Float64

from lhm_runtime.avatar import Avatar, AvatarMetadata, Shown
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.anatomy import HANDS, Anatomy, Part, study
from lhm_runtime.reconstruction.attachments import MOST_SHARE, attach_rest
from lhm_runtime.reconstruction.builtin_person.figure import vertex_normals, widest_stretch
from lhm_runtime.reconstruction.builtin_person.sampling import Patch, concatenate
from lhm_runtime.reconstruction.carrying import carried_weights, pose_patch, rig_patch
from lhm_runtime.reconstruction.colouring import Blend, Observation, blend, match_exposure, observe
from lhm_runtime.reconstruction.complexion import even_out
from lhm_runtime.reconstruction.curtain import MOST_SHARE as HUNG_SHARE
from lhm_runtime.reconstruction.curtain import hang_hair
from lhm_runtime.reconstruction.discs import lay_discs, sample_normals, spread
from lhm_runtime.reconstruction.draping import fill_matte, unseen_vertices
from lhm_runtime.reconstruction.edges import draw_in
from lhm_runtime.reconstruction.eyelids import find_lids, fit_blinks, paint_lids
from lhm_runtime.reconstruction.filling import Surface, fill_unseen
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.hair import find_hair, on_scalp
from lhm_runtime.reconstruction.hairline import falls_over, hung_over, shown_as_hair, strange_to_hair
from lhm_runtime.reconstruction.hat import MOST_SHARE as BRIM_SHARE
from lhm_runtime.reconstruction.hat import Brim, find_brim, in_crown, keep_below, lay_brim, take_off
from lhm_runtime.reconstruction.mesh_image import MeshImage, draw_mesh
from lhm_runtime.reconstruction.mouth_and_eyes import INSIDE_SHARE, colour_eyes, in_openings, make_inside, open_pixels
from lhm_runtime.reconstruction.parted_lips import seal_lips
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.pockets import hidden_hands
from lhm_runtime.reconstruction.progress import Progress, split
from lhm_runtime.reconstruction.skirts import hang_skirt, hem_height
from lhm_runtime.reconstruction.splats import damp_ringing, solve_colours, unmixed, weigh
from lhm_runtime.reconstruction.view import View, make_view

MIN_COUNT = 4_000
"""Fewer Gaussians than this cannot show the eyes."""

_SHAPE_PX_PER_M, _COLOUR_PX_PER_M = 450.0, 900.0
"""Resolutions at which the outline is followed and colours are read."""
_SOLVE_PX = 560
"""Height of the person, pixels, at which colours are solved for: about what avatars are shown at."""
_COLOUR_FREEDOM, _HEAD_FREEDOM, _HUNG_LIMIT = (0.06, 0.3), 0.16, 0.3
"""Furthest that colours may move to match the photo, on rims and where they face it, anywhere on the head, and of what
was hung on."""
_MOSTLY, _RIM_FACING = 0.5, 0.5
_STAGES: Mapping[str, tuple[float, float]] = {
    "filling the outline": (0.9, 0.0),
    "laying Gaussians": (1.0, 0.05),
    "reading colours": (0.15, 0.2),
    "inferring the unseen": (0.4, 0.0),
    "matching the photo": (0.5, 0.3),
}
"""Seconds that each stage takes on one core for a photo of a megapixel: for the first one, and for each more."""


def project_seconds(photo_count: int) -> float:
    """About how long ``project`` takes on one core: of use as a share of a longer job."""
    return sum(_seconds_by_stage(photo_count))


def project(
    photos: Sequence[Photo],
    fits: Sequence[BodyFit],
    body: BodyModel,
    *,
    count: int = 40_000,
    progress: Progress | None = None,
) -> Avatar:
    """Make an avatar of exactly ``count`` Gaussians; equal arguments give equal arrays on the same machine.

    Args:
        photos: of one person. The first, from the front, has the last word on shape and exposure; the others fill
            what it does not show.
        fits: the body in each; the shape is that of the first.
        body: with MediaPipe's face landmarks, as the bundled one.
        count: at least 4,000; made for 10,000 to 160,000.
        progress: told the name of each stage and the share of all work that is done.

    Raises:
        InvalidInputError: no photo, not one fit for each, an empty matte, too small a count, or a body without face
            landmarks.
    """
    _check(photos, fits, body, count)

    draping, laying, reading, inferring, matching = (
        partial(part, stage)
        for stage, part in zip(_STAGES, split(progress, _seconds_by_stage(len(photos))), strict=True)
    )
    draping(0.0)
    anatomy, betas = study(body), fits[0].betas
    views = [make_view(photo, fit, betas, body) for photo, fit in zip(photos, fits, strict=True)]
    bare = body.rest_vertices(betas).astype(np.float64)
    views, vertex_weights = _carry(views, bare, body, anatomy)
    # further photos are of another moment and their fits a few centimetres off: measured on people known from all
    # sides, their outlines make the shape worse than the guess from the first one's
    brim, rest, views[0], body = _drape(views[0], bare, body, anatomy)
    joints = _joints(body.rest_joints(betas), rest - bare, anatomy)

    laying(0.0)
    views = [view.limited(_COLOUR_PX_PER_M, rest) for view in views]
    meshes = [draw_mesh(view.project(view.posed(rest)), anatomy.faces, *view.size, two_sided=True) for view in views]
    bared = [take_off(brim, views[0]), *views[1:]]
    inside_count = round(INSIDE_SHARE * count)
    densities = [_pixel_density(view, rest, mesh, anatomy) for view, mesh in zip(views, meshes, strict=True)]
    hair = find_hair(bared[0], meshes[0], body, anatomy)
    ring = lay_brim(brim, views[0], meshes[0], round(BRIM_SHARE * count), anatomy)
    attached = attach_rest(bared[0], meshes[0], round(MOST_SHARE * count), vertex_weights, anatomy)
    hung = keep_below(
        brim,
        views[0],
        hang_hair(bared[0], meshes[0], hair, rest, round(HUNG_SHARE * count), vertex_weights, anatomy),
    )
    skin_count = count - inside_count - sum(len(patch.means) for patch in (ring, attached, hung))
    stretch = widest_stretch(body, rest, anatomy.faces)
    samples = spread(rest, np.max(densities, axis=0), skin_count, stretch, body, anatomy)
    surface = Surface.of(samples, rest, body, anatomy)

    reading(0.0)
    crown = in_crown(brim, views[0], surface)
    hairy = (
        crown
        | on_scalp(surface.template, (surface.part == Part.HEAD) & ~surface.face, body, anatomy)
        | falls_over(bared[0], meshes[0], hair, surface, anatomy)
    )
    hidden = [hidden_hands(view, rest, anatomy)[anatomy.faces[samples.triangles, 0]] for view in views]
    seen, rim = _observe_all(bared, meshes, hidden, surface, hairy, anatomy)
    on_head = np.isin(surface.part, (Part.HEAD, Part.NECK))
    blended = blend(seen, samples, on_head, anatomy)
    # what shows of a hidden hand says nothing of what lies about it
    blended = replace(blended, shares=np.where(hidden, 0.0, blended.shares))
    lids = find_lids(views[0], rest, samples, body, anatomy)
    confidence = np.where(lids.folded, 0.0, np.max([observation.confidence for observation in seen], axis=0))

    inferring(0.0)
    under, strands = hung_over(hung, surface, anatomy), shown_as_hair(views[0], hair, seen[0], surface, anatomy)
    confidence = np.where(strange_to_hair(seen[0], strands, hairy & ~crown, under, surface), 0, confidence)
    rgb = fill_unseen(blended.rgb, confidence, surface, hairy | under, crown, strands, anatomy)
    rgb = paint_lids(np.where((rim & (confidence == 0))[:, None], seen[0].rgb, rgb), confidence, lids)
    skin = lay_discs(samples, rest, rgb, stretch, body, anatomy)
    eyes, mouth = make_inside(rest, joints, inside_count, np.median(rgb[surface.face], axis=0), body, anatomy)

    matching(0.0)
    person = concatenate([skin, _look_into(views, eyes, vertex_weights, anatomy), mouth, ring, attached, hung])
    weights = carried_weights(person, vertex_weights, anatomy)
    # a further photo shows another moment: what it lacks is not therefore nothing
    person = draw_in(views[0], person, weights, _held(views[0], rest, person, anatomy), anatomy)
    avatar = rig_patch(person, weights, joints, body, anatomy, _metadata(body, photos))
    others = inside_count + len(ring.means), len(attached.means) + len(hung.means)
    freedom, limit = _may_move(seen, blended, confidence, on_head & ~lids.folded, *others)
    rgb = damp_ringing(
        _answer(views, [o.gain for o in seen], blended, avatar, freedom, limit, matching),
        avatar.gaussians,
        (np.flatnonzero(on_head), np.arange(count - len(hung.means) * (len(photos) == 1), count)),
    )
    rgb[: len(hairy)] = _even(rgb[: len(hairy)], hairy | under, seen, surface, anatomy)
    return replace(avatar, gaussians=replace(avatar.gaussians, rgb=rgb))


def _seconds_by_stage(photo_count: int) -> list[float]:
    return [first + (photo_count - 1) * more for first, more in _STAGES.values()]


def _metadata(body: BodyModel, photos: Sequence[Photo]) -> AvatarMetadata:
    return AvatarMetadata(
        reconstructor="projection 1",
        body_model=body.name,
        body_model_sha256=body.sha256,
        licence="as the photo",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        photo_sha256=photos[0].sha256,
        shown=min((photo.shot for photo in photos), key=get_args(Shown).index),
    )


def _check(photos: Sequence[Photo], fits: Sequence[BodyFit], body: BodyModel, count: int) -> None:
    if not photos or len(photos) != len(fits):
        raise InvalidInputError(
            f"{len(photos)} photos and {len(fits)} fits; give at least one photo and a fit for each"
        )
    for k, photo in enumerate(photos):
        if (photo.alpha > 0.5).sum() < 100:
            raise InvalidInputError(
                f"the matte of photo {k} is empty: nobody is in it, or the mask is of something else"
            )
    if count < MIN_COUNT:
        raise InvalidInputError(f"count is {count}, a projected person needs at least {MIN_COUNT} Gaussians")
    if body.mediapipe_faces_idx is None or len(body.mediapipe_faces_idx) != 478:
        raise InvalidInputError(
            f"body model {body.name!r} has no 478 MediaPipe face landmarks, which eyes and mouth are placed by; "
            "pass the bundled body (BodyModel.default())"
        )


def _pixel_density(
    view: View, rest: Float[np.ndarray, "v 3"], mesh: MeshImage, anatomy: Anatomy
) -> Float64[np.ndarray, " v"]:
    """Pixels per square metre of surface at each vertex, 0 where it is not seen."""
    points = view.posed(rest)
    seen = np.zeros(len(rest), bool)
    seen[anatomy.faces[np.unique(mesh.face[mesh.covered])]] = True
    normals = vertex_normals(points, anatomy.faces)
    cosine = np.abs((normals * points).sum(axis=1)) / np.linalg.norm(points, axis=1)
    return np.where(seen, np.maximum(cosine, 0.05) * (view.focal[0] / points[:, 2]) ** 2, 0.0)


def _carry(
    views: list[View], bare: Float[np.ndarray, "v 3"], body: BodyModel, anatomy: Anatomy
) -> tuple[list[View], Float64[np.ndarray, "v 55"]]:
    """What carries each vertex, a skirt's being both legs, and the views with that."""
    vertex_weights = body.skin_weights.astype(np.float64)
    hem = hem_height(views[0], bare, anatomy)
    if hem is None:
        return views, vertex_weights
    vertex_weights = hang_skirt(vertex_weights, bare, hem, anatomy)
    return [view.carried_by(vertex_weights) for view in views], vertex_weights


def _drape(
    view: View, bare: Float64[np.ndarray, "v 3"], body: BodyModel, anatomy: Anatomy
) -> tuple[Brim | None, Float64[np.ndarray, "v 3"], View, BodyModel]:
    """A hat's brim where there is one, the body grown into all but that, the view of it, and how its lids close."""
    coarse = view.limited(_SHAPE_PX_PER_M, bare)
    brim = find_brim(coarse, bare, anatomy)
    view, rest = seal_lips(view, bare, fill_matte(take_off(brim, coarse), bare, anatomy), body, anatomy)
    return brim, rest, view, fit_blinks(rest, body, anatomy)


def _joints(
    joints: Float32[np.ndarray, "55 3"], moved: Float64[np.ndarray, "v 3"], anatomy: Anatomy
) -> Float64[np.ndarray, "55 3"]:
    """Joints of the draped body: the eyes went with their lids."""
    placed = joints.astype(np.float64)
    for joint, ball in (("left_eye_smplhf", anatomy.left_eye), ("right_eye_smplhf", anatomy.right_eye)):
        placed[JOINT_INDEX[joint]] += moved[ball].mean(axis=0)
    return placed


def _look_into(
    views: Sequence[View], eyes: Patch, vertex_weights: Float[np.ndarray, "v 55"], anatomy: Anatomy
) -> Patch:
    """Eyes coloured by the first photo that shows a face."""
    for view in views:
        if view.landmarks.face_image is not None:
            at, _ = pose_patch(view, eyes, carried_weights(eyes, vertex_weights, anatomy), anatomy)
            return replace(eyes, rgb=colour_eyes(view, eyes.rgb, at))
    return eyes


def _observe_all(
    views: Sequence[View],
    meshes: Sequence[MeshImage],
    hidden: Sequence[Bool[np.ndarray, " n"]],
    surface: Surface,
    hairy: Bool[np.ndarray, " n"],
    anatomy: Anatomy,
) -> tuple[list[Observation], Bool[np.ndarray, " n"]]:
    """What each photo says in the light of the first, and which samples look like the rim of a pocket."""
    seen = [
        _observe(view, mesh, surface.rest, surface, hairy, anatomy) for view, mesh in zip(views, meshes, strict=True)
    ]
    # what peeps out of a pocket is the pocket's rim: it looks so, but the hand does not
    rim = hidden[0] & (seen[0].confidence > _MOSTLY)
    seen = [replace(o, confidence=np.where(away, 0.0, o.confidence)) for o, away in zip(seen, hidden, strict=True)]
    return [seen[0], *(match_exposure(other, seen[0], surface.part) for other in seen[1:])], rim


def _observe(
    view: View,
    mesh: MeshImage,
    rest: Float[np.ndarray, "v 3"],
    surface: Surface,
    hairy: Bool[np.ndarray, " n"],
    anatomy: Anatomy,
) -> Observation:
    """What a photo says of the skin; what lies between lids or lips is not skin."""
    posed = view.posed(rest)
    points = surface.samples.interpolate(anatomy.faces, posed)
    normals = sample_normals(posed, surface.samples, anatomy)
    seen = observe(view, points, normals, surface.part, surface.face, hairy, mesh, anatomy)
    head = surface.part == Part.HEAD
    open_ = head & in_openings(view, view.project(points)[:, :2], view.pixels_per_metre(points[head]))
    fineness = min(view.pixels_per_metre(points) / _COLOUR_PX_PER_M, 1.0)
    return replace(seen, confidence=np.where(open_, 0.0, seen.confidence), fineness=fineness)


def _held(view: View, rest: Float[np.ndarray, "v 3"], person: Patch, anatomy: Anatomy) -> Bool[np.ndarray, " n"]:
    """Gaussians that the matte has no say over: of hands, which it follows badly, and of what the photo lacks."""
    vertex = anatomy.faces[person.triangles, 0]
    held: np.ndarray = unseen_vertices(view, view.posed(rest), anatomy)[vertex] | np.isin(anatomy.part[vertex], HANDS)
    return held


def _may_move(
    seen: Sequence[Observation],
    blended: Blend,
    confidence: Float[np.ndarray, " n"],
    on_head: Bool[np.ndarray, " n"],
    inside_count: int,
    hung_count: int,
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """How freely, and how far, colours of skin, of what is inside it and of what hangs on it follow the photo."""
    # on the head nothing else can be meant by what shows in the photo, however unsure
    sure = np.where(on_head, 1.0, np.clip((confidence - 0.2) / 0.3, 0, 1))
    best = blended.shares > _MOSTLY
    facing = np.max([np.where(at, o.facing, 0) for o, at in zip(seen, best, strict=True)], axis=0)
    fixed, hung = np.zeros(inside_count), np.ones(hung_count)
    return np.concatenate([sure, fixed, hung]), np.concatenate(
        [
            np.maximum(_colour_limit(facing), _HEAD_FREEDOM * on_head * np.clip(facing / _RIM_FACING, 0, 1)),
            fixed,
            _HUNG_LIMIT * hung,
        ]
    )


def _even(
    rgb: Float32[np.ndarray, "n 3"],
    hairy: Bool[np.ndarray, " n"],
    seen: Sequence[Observation],
    surface: Surface,
    anatomy: Anatomy,
) -> Float32[np.ndarray, "n 3"]:
    """Colours without streaks on what no photo sees squarely of the head's bare skin."""
    bare = (surface.part == Part.HEAD) & ~hairy
    facing = np.max([observation.facing for observation in seen], axis=0)
    return even_out(rgb, bare, surface.face, facing, surface.samples, anatomy)


def _colour_limit(facing: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Furthest that a colour may move to match the photo: little on rims, which would show it when they turn."""
    low, high = _COLOUR_FREEDOM
    limit: np.ndarray = low + (high - low) * np.clip((facing - 0.3) / 0.4, 0, 1)
    return limit


def _answer(
    views: Sequence[View],
    gains: Sequence[Float[np.ndarray, " 3"]],
    blended: Blend,
    avatar: Avatar,
    freedom: Float[np.ndarray, " n"],
    limit: Float[np.ndarray, " n"],
    tell: Callable[[float], None],
) -> Float32[np.ndarray, "n 3"]:
    """Colours with which the drawn person looks most like all photos at once.

    A pixel counts as much as its photo is the one that sees best what is drawn there, and in the light agreed upon.
    The first Gaussians are the skin; the others are the first photo's.
    """
    maps, wanted, trusted = [], [], []
    rest = len(avatar) - blended.shares.shape[1]
    for k, (view, gain) in enumerate(zip(views, gains, strict=True)):
        tall = int(np.ptp(np.flatnonzero((view.alpha > 0.5).any(axis=1)))) + 1
        small = view.resized(_SOLVE_PX / tall)
        drawn = weigh(small, avatar)
        light = drawn.sum(axis=1)
        share = np.pad(blended.shares[k], (0, rest), constant_values=float(k == 0))
        shift = np.pad(blended.shifts[k], ((0, rest), (0, 0)))
        pixels = np.minimum(small.extended.reshape(-1, 3) * gain, 1)
        maps.append(drawn)
        wanted.append(pixels * light[:, None] + drawn @ shift)
        skin = ~open_pixels(small)
        trusted.append(skin * unmixed(small) * (drawn @ share) / np.maximum(light, 1e-6))
        tell(0.2 + 0.4 * (k + 1) / len(views))
    solved = solve_colours(
        sp.csr_array(sp.vstack(maps, format="csr")),
        np.concatenate(wanted).astype(np.float32),
        np.concatenate(trusted).astype(np.float32),
        avatar.gaussians.rgb,
        freedom,
        limit,
    )
    rgb: np.ndarray = np.clip(solved, 0, 1).astype(np.float32)
    return rgb
