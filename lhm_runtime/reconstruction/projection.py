"""Photos and the body fitted to them become an avatar, by geometry alone: nothing here was learned from people.

``project`` is the recipe; each stage is a module:

- ``draping``: the body grows into clothes and hair until it fills the matte;
- ``discs``: Gaussians spread over that surface;
- ``colouring``: colours where a photo shows them, and ``filling`` where none does;
- ``mouth_and_eyes``, ``attachments``: what is behind lids and lips, and what sticks out;
- ``edges``, ``splats``: nothing hangs out of the matte, and the drawn picture answers the photo.

What each needs to know of the body is in ``anatomy``, and of a photo in ``view``.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from jaxtyping import Bool, Float, Float64

from lhm_runtime.avatar import Avatar, AvatarMetadata
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.anatomy import HANDS, Anatomy, Part, study
from lhm_runtime.reconstruction.attachments import MOST_SHARE, attach_rest
from lhm_runtime.reconstruction.builtin_person.figure import vertex_normals
from lhm_runtime.reconstruction.builtin_person.sampling import Patch, concatenate, cover
from lhm_runtime.reconstruction.carrying import carried_weights, image_covariance, pose_patch, rig_patch
from lhm_runtime.reconstruction.colouring import Observation, match_exposure, observe, share_out
from lhm_runtime.reconstruction.discs import disc_sizes, sample_normals, spread
from lhm_runtime.reconstruction.draping import fill_matte, unseen_vertices
from lhm_runtime.reconstruction.edges import draw_in
from lhm_runtime.reconstruction.filling import Surface, fill_unseen, scalp
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.mesh_image import MeshImage, draw_mesh
from lhm_runtime.reconstruction.mouth_and_eyes import INSIDE_SHARE, colour_eyes, in_openings, make_inside
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.splats import solve_colours, splat_weights
from lhm_runtime.reconstruction.view import View, make_view

MIN_COUNT = 4_000
"""Fewer Gaussians than this cannot show the eyes."""

_SHAPE_PX_PER_M, _COLOUR_PX_PER_M = 450.0, 600.0
"""Resolutions at which the outline is followed and colours are read."""
_SOLVE_PX = 560
"""Height of the person, pixels, at which colours are solved for: about what avatars are shown at."""
_COLOUR_FREEDOM = (0.06, 0.3)
_FLAT = np.array([1.0, 1.0, 0.25])
"""Sizes of a disc along and across the surface."""
_STAGES = ("filling the outline", "laying Gaussians", "reading colours", "inferring the unseen", "matching the photo")


def project(
    photos: Sequence[Photo],
    fits: Sequence[BodyFit],
    body: BodyModel,
    *,
    count: int = 40_000,
    progress: Callable[[str, float], None] | None = None,
) -> Avatar:
    """Make an avatar of exactly ``count`` Gaussians; equal arguments give equal arrays on the same machine.

    Args:
        photos: of one person. The first, from the front, has the last word on shape and exposure; the others fill
            what it does not show.
        fits: the body in each; the shape is that of the first.
        body: with MediaPipe's face landmarks, as the bundled one.
        count: at least 4,000; made for 10,000 to 160,000.
        progress: called with the name of each stage and the share of all work that is done.

    Raises:
        InvalidInputError: no photo, not one fit for each, an empty matte, too small a count, or a body without face
            landmarks.
    """
    _check(photos, fits, body, count)

    def tell(stage: int) -> None:
        if progress is not None:
            progress(_STAGES[stage], stage / len(_STAGES))

    tell(0)
    anatomy, betas = study(body), fits[0].betas
    views = [make_view(photo, fit, betas, body) for photo, fit in zip(photos, fits, strict=True)]
    bare = body.rest_vertices(betas).astype(np.float64)
    rest = _drape(views, bare, anatomy)
    joints = body.rest_joints(betas).astype(np.float64)
    for joint, ball in (("left_eye_smplhf", anatomy.left_eye), ("right_eye_smplhf", anatomy.right_eye)):
        joints[JOINT_INDEX[joint]] += (rest - bare)[ball].mean(axis=0)

    tell(1)
    views = [view.limited(_COLOUR_PX_PER_M, rest) for view in views]
    meshes = [draw_mesh(view.project(view.posed(rest)), anatomy.faces, *view.size, two_sided=True) for view in views]
    vertex_weights = body.skin_weights.astype(np.float64)
    attached = attach_rest(views[0], meshes[0], round(MOST_SHARE * count), vertex_weights, anatomy)
    inside_count = round(INSIDE_SHARE * count)
    densities = [_pixel_density(view, rest, mesh, anatomy) for view, mesh in zip(views, meshes, strict=True)]
    skin_count = count - inside_count - len(attached.means)
    samples = spread(rest, np.max(densities, axis=0), skin_count, body, anatomy)
    surface = Surface.of(samples, rest, body, anatomy)

    tell(2)
    seen = [_observe(view, mesh, rest, surface, anatomy) for view, mesh in zip(views, meshes, strict=True)]
    seen = [seen[0], *(match_exposure(other, seen[0], surface.part) for other in seen[1:])]
    shares = share_out(seen)
    rgb = np.einsum("kn,knc->nc", shares, np.stack([observation.rgb for observation in seen]))
    confidence = np.max([observation.confidence for observation in seen], axis=0)

    tell(3)
    rgb = fill_unseen(rgb, confidence, surface, scalp(surface, body, anatomy), anatomy)
    normals = sample_normals(rest, samples, anatomy)
    sizes = disc_sizes(samples, normals, rest, body, anatomy)
    skin = replace(cover(samples, normals, rgb, thickness=1.0), scales=sizes[:, None] * _FLAT)
    eyes, mouth = make_inside(rest, joints, inside_count, np.median(rgb[surface.face], axis=0), body, anatomy)
    for view in views:
        if view.landmarks.face_image is not None:
            at, _ = pose_patch(view, eyes, carried_weights(eyes, vertex_weights, anatomy), anatomy)
            eyes = replace(eyes, rgb=colour_eyes(view, eyes.rgb, at))
            break

    tell(4)
    person = concatenate([skin, eyes, mouth, attached])
    weights = carried_weights(person, vertex_weights, anatomy)
    # on the head nothing else can be meant by what shows in the photo, however unsure
    bust = np.isin(surface.part, (Part.HEAD, Part.NECK))
    fixed = np.zeros(inside_count)
    for view, observation, share in reversed(list(zip(views, seen, shares, strict=True))):
        person = draw_in(view, person, weights, _held(view, rest, person, anatomy), anatomy)
        hung = np.full(len(attached.means), float(view is views[0]))
        sure = np.where(bust, 1.0, np.clip((observation.confidence - 0.2) / 0.3, 0, 1))
        freedom = np.concatenate([share * sure, fixed, hung])
        limit = np.concatenate([_colour_limit(observation.facing), fixed, 0.2 * hung])
        person = replace(person, rgb=_answer(view, person, weights, freedom, limit, observation.gain, anatomy))
    return rig_patch(person, weights, joints, body, anatomy, _metadata(body, photos[0]))


def _drape(views: Sequence[View], bare: Float64[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, "v 3"]:
    """The body in its clothes at zero pose; the first view once more where others came after it."""
    rest = bare
    for k, view in enumerate(views if len(views) == 1 else [*views, views[0]]):
        rest = fill_matte(view.limited(_SHAPE_PX_PER_M, rest), rest, anatomy, thicken=k == 0)
    return rest


def _metadata(body: BodyModel, photo: Photo) -> AvatarMetadata:
    return AvatarMetadata(
        reconstructor="projection 1",
        body_model=body.name,
        body_model_sha256=body.sha256,
        licence="as the photo",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        photo_sha256=photo.sha256,
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


def _observe(
    view: View, mesh: MeshImage, rest: Float[np.ndarray, "v 3"], surface: Surface, anatomy: Anatomy
) -> Observation:
    """What a photo says of the skin; what lies between lids or lips is not skin."""
    posed = view.posed(rest)
    points = surface.samples.interpolate(anatomy.faces, posed)
    normals = sample_normals(posed, surface.samples, anatomy)
    seen = observe(view, points, normals, surface.part, surface.face, mesh, anatomy)
    open_ = in_openings(view, view.project(points)[:, :2]) & (surface.part == Part.HEAD)
    return replace(seen, confidence=np.where(open_, 0.0, seen.confidence))


def _held(view: View, rest: Float[np.ndarray, "v 3"], person: Patch, anatomy: Anatomy) -> Bool[np.ndarray, " n"]:
    """Gaussians that the matte has no say over: of hands, which it follows badly, and of what the photo lacks."""
    vertex = anatomy.faces[person.triangles, 0]
    held: np.ndarray = unseen_vertices(view, view.posed(rest), anatomy)[vertex] | np.isin(anatomy.part[vertex], HANDS)
    return held


def _colour_limit(facing: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Furthest that a colour may move to match the photo: little on rims, which would show it when they turn."""
    low, high = _COLOUR_FREEDOM
    limit: np.ndarray = low + (high - low) * np.clip((facing - 0.3) / 0.4, 0, 1)
    return limit


def _answer(
    view: View,
    person: Patch,
    weights: Float[np.ndarray, "n 55"],
    freedom: Float[np.ndarray, " n"],
    limit: Float[np.ndarray, " n"],
    gain: Float[np.ndarray, " 3"],
    anatomy: Anatomy,
) -> Float64[np.ndarray, "n 3"]:
    """Colours with which the drawn person looks most like the photo."""
    tall = int(np.ptp(np.flatnonzero((view.alpha > 0.5).any(axis=1)))) + 1
    small = view.resized(_SOLVE_PX / tall)
    points, linear = pose_patch(small, person, weights, anatomy)
    drawn = splat_weights(
        small.project(points), image_covariance(small, points, linear, person), person.opacity, *small.size
    )
    wanted = small.extended.reshape(-1, 3) * gain * drawn.sum(axis=1)[:, None]
    trusted = (small.alpha.ravel() > 0.9).astype(np.float32)
    return solve_colours(drawn, wanted.astype(np.float32), trusted, person.rgb, freedom, limit)
