"""What a photo shows of the person's surface: which samples it sees, how surely, and their colours."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.spatial import cKDTree

from lhm_runtime.reconstruction.anatomy import FEET, HANDS, Anatomy, Part, smooth_along
from lhm_runtime.reconstruction.builtin_person.sampling import Samples
from lhm_runtime.reconstruction.mesh_image import MeshImage
from lhm_runtime.reconstruction.view import View

_DEPTH_SLACK_M = 0.012
_LEAST_COSINE = 0.12
_RIM_COSINE, _RIM_NEIGHBOURS, _STRANGE, _SHADE_COUNTS = 0.4, 24, 0.11, 0.4
"""Where skin and clothes turn away like this, what is seen must be like one of the colours seen squarely nearby, of
whose difference brightness counts for a share, as a rim lies in shade: a fit a few millimetres off reads the collar on
the jaw, hair on the cheek beyond the nose, shadow on ears, and what shows between two legs on either of them."""
_RIM_M = 0.012
"""Nearer to the matte's border than this a head is on the rim too: lamps behind it shine in."""
_SKIN_COSINES = (0.15, 0.5)
"""Skin of the head is not believed where it turns away more than the first of these, fully from the second on."""
_EDGE_PX, _EDGE_M = 1.2, 0.004
"""Samples nearer than either to the matte's border show the background's colours."""
_OCCLUDER_REACH_M, _OCCLUDER_GAP_M = 0.018, 0.05
"""Beside the outline of something this much nearer to the camera, its colours spill over."""
_SPILL_REACH_M = 0.07
_PALETTE, _LEAST_PALETTE, _STRAYS = 1500, 60, 0.04
"""Colours that stand for a limb; the share of them that may be another's."""
_SURE, _COMMON_COUNT, _COMMON_PARTS, _MOST_GAIN, _DARK = 0.5, 50, 3, 1.6, 0.02
"""Exposures are compared by the median colour of parts that both photos show well."""
_SHARPNESS = 4
"""Power of a photo's quality by which detail is shared out: nearly all of it to the best."""
_GRAZING, _LEAST_QUALITY = 0.1, 1e-12
_MOST_EVENED = 4.0
"""How many times its own quality a sample's surroundings may lend it."""
_EVEN_ROUNDS, _BAND_ROUNDS = 4, 40
"""Rings of the surface over which qualities are evened out, and that part the two bands: about 1 and 5 cm."""


@dataclass(frozen=True, eq=False)
class Observation:
    """What one photo says about each sample."""

    rgb: Float64[np.ndarray, "n 3"]
    confidence: Float64[np.ndarray, " n"]
    """0 (not seen) to 1."""
    facing: Float64[np.ndarray, " n"]
    """Cosine of the angle between normal and view."""
    fineness: float = 1.0
    """Pixels along a metre, in those of a photo of the finest kind."""
    gain: Float64[np.ndarray, " 3"] = field(default_factory=lambda: np.ones(3))
    """What the photo's colours were multiplied by to match the first photo's exposure."""


def observe(
    view: View,
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    part: Int64[np.ndarray, " n"],
    face: Bool[np.ndarray, " n"],
    hairy: Bool[np.ndarray, " n"],
    mesh: MeshImage,
    anatomy: Anatomy,
) -> Observation:
    """Read the colour of each sample from a photo.

    Args:
        points: samples in the camera's frame.
        normals: their unit normals there.
        part: ``Part`` of each.
        face: samples on the face.
        hairy: samples that may be hair, which has many colours.
        mesh: the surface as the view sees it.
    """
    width, height = view.size
    scale = view.pixels_per_metre(points)
    image = view.project(points)
    column, row = image[:, 0].astype(int), image[:, 1].astype(int)
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column.clip(0, width - 1), row.clip(0, height - 1)
    cosine = -(normals * points).sum(axis=1) / np.linalg.norm(points, axis=1)
    depth = np.minimum(mesh.depth, 99).astype(np.float32)
    inside = cv2.distanceTransform((view.alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 3)[row, column]
    nearest = cv2.erode(depth, np.ones((3, 3)))[row, column]
    seen = (
        within
        & (inside > max(_EDGE_PX, _EDGE_M * scale))
        & (points[:, 2] < nearest + _DEPTH_SLACK_M + 0.01 * (cosine < 0.5))
    )
    head = np.isin(part, (Part.HEAD, Part.NECK))
    radius = max(1, round(_OCCLUDER_REACH_M * scale))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    beside = points[:, 2] >= cv2.erode(depth, disc)[row, column] + _OCCLUDER_GAP_M + _OCCLUDER_REACH_M / 2
    confidence = np.where(seen & (cosine > _LEAST_COSINE), np.clip((cosine - 0.1) / 0.3, 0, 1), 0.0)
    # hair is no clean surface; skin that turns away shows what lies behind the fit, drawn out over a cheek
    confidence = np.where(seen & head & hairy, np.maximum(confidence, 0.6), confidence)
    low, high = _SKIN_COSINES
    confidence = np.where(seen & head & ~hairy, np.clip((cosine - low) / (high - low), 0, 1), confidence)
    rgb = read_colours(view.extended, image[:, :2])
    shown = confidence > 0
    outermost = head & (inside < _RIM_M * scale)
    confidence[strange_rims(rgb, confidence, outermost, points, ~hairy, lighter=True)] = 0
    confidence[strange_rims(rgb, confidence, cosine < _RIM_COSINE, points, ~hairy)] = 0
    spilt = find_spill(rgb, shown, beside & ~head, image[:, :2], part, face, mesh, scale, anatomy)
    return Observation(rgb, np.where(spilt, 0.0, confidence), cosine)


def strange_rims(
    rgb: Float[np.ndarray, "n 3"],
    confidence: Float[np.ndarray, " n"],
    on_rim: Bool[np.ndarray, " n"],
    points: Float[np.ndarray, "n 3"],
    judged: Bool[np.ndarray, " n"],
    *,
    lighter: bool = False,
) -> Int64[np.ndarray, " k"]:
    """Samples on rims whose colour is met nowhere near off the rim; of those only what is lighter, if so wanted."""
    seen = judged & (confidence > 0)
    firm, rim = np.flatnonzero(seen & ~on_rim), np.flatnonzero(seen & on_rim)
    if len(firm) < _RIM_NEIGHBOURS or len(rim) == 0:
        return np.zeros(0, np.int64)
    near = firm[cKDTree(points[firm]).query(points[rim], k=_RIM_NEIGHBOURS)[1]]
    unlike = colour_change(rgb[rim, None], rgb[near], _SHADE_COUNTS)
    strange = np.sort(unlike, axis=1)[:, 2] > _STRANGE
    if lighter:
        strange &= rgb[rim].mean(axis=1) > rgb[near].mean(axis=2).max(axis=1)
    found: np.ndarray = rim[strange]
    return found


def colour_change(
    one: Float[np.ndarray, "... 3"], other: Float[np.ndarray, "... 3"], of_brightness: float | Float[np.ndarray, "..."]
) -> Float64[np.ndarray, "..."]:
    """Difference between colours, of which brightness counts for a share: the same dye in shade is darker alone."""
    step = one - other
    direction = other / np.maximum(np.linalg.norm(other, axis=-1, keepdims=True), 1e-9)
    brighter = (step * direction).sum(axis=-1)
    dyed = np.linalg.norm(step - brighter[..., None] * direction, axis=-1)
    change: np.ndarray = np.hypot(dyed, of_brightness * brighter)
    return change


_LIMB = np.array([0, 1, 1, 2, 3, 2, 3, 4, 4, 4, 4])
"""By ``Part``: trunk, head, the arms and the legs, which may hide one another."""
_TRUNK, _HEAD, _ARM_LIMBS, _LEGS = 0, 1, (2, 3), 4


def find_spill(
    rgb: Float[np.ndarray, "n 3"],
    seen: Bool[np.ndarray, " n"],
    beside: Bool[np.ndarray, " n"],
    xy: Float[np.ndarray, "n 2"],
    part: Int64[np.ndarray, " n"],
    face: Bool[np.ndarray, " n"],
    mesh: MeshImage,
    scale: float,
    anatomy: Anatomy,
) -> Bool[np.ndarray, " n"]:
    """Samples that carry the colour of another limb that lies before them in the photo.

    A sample near another limb is judged by whether its colour is met on that limb or on its own, well away from
    any border. The fit is a centimetre or two off, so hands print themselves on hips otherwise.

    Args:
        beside: samples that lie close behind something nearer; they must look like their own limb.
    """
    limb = _LIMB[part]
    drawn = np.where(mesh.covered, _LIMB[anatomy.part[anatomy.faces[np.maximum(mesh.face, 0), 0]]], -1)
    height, width = drawn.shape
    column = xy[:, 0].astype(int).clip(0, width - 1)
    row = xy[:, 1].astype(int).clip(0, height - 1)
    apart = np.stack(
        [cv2.distanceTransform((drawn != k).astype(np.uint8), cv2.DIST_L2, 3)[row, column] / scale for k in range(5)]
    )
    foreign = np.where(np.arange(5)[:, None] == limb, np.inf, apart)
    # shoes may well look like hands, and tell nothing of trousers
    core = seen & ~beside & (foreign.min(axis=0) > 0.03) & ~np.isin(part, FEET)
    core |= seen & np.isin(part, HANDS)
    palette = {k: _palette(rgb[core & ((limb == k) | (face & (k in _ARM_LIMBS)))]) for k in range(5)}
    spilt: np.ndarray = beside & seen
    for own in range(5):
        for other in range(5):
            # between trunk and legs there is no gap to see across, and a neck is as bare as a face
            if other == own or {own, other} == {_LEGS, _TRUNK} or _HEAD in {own, other}:
                continue
            at = np.flatnonzero(
                seen & (limb == own) & (apart[other] < _SPILL_REACH_M) & ~np.isin(part, (*HANDS, *FEET))
            )
            own_palette, other_palette = palette[own], palette[other]
            if len(at) == 0 or own_palette is None:
                continue
            mine = _unlikeness(rgb[at], own_palette)
            spilt[at[mine < 0.07]] = False
            if other_palette is None:
                continue
            strange = mine > 0.16
            theirs = _unlikeness(rgb[at[strange]], other_palette)
            spilt[at[strange]] |= mine[strange] > 2.5 * theirs + 0.04
    return spilt


def _palette(rgb: Float[np.ndarray, "n 3"]) -> cKDTree | None:
    """Colours of a limb to compare with; None where too little of it is seen."""
    return cKDTree(rgb[:: max(1, len(rgb) // _PALETTE)]) if len(rgb) >= _LEAST_PALETTE else None


def _unlikeness(rgb: Float[np.ndarray, "n 3"], palette: cKDTree) -> Float64[np.ndarray, " n"]:
    """Distance to the colours of a limb, robust against a few strays."""
    return np.asarray(palette.query(rgb, k=[max(2, round(_STRAYS * palette.n))])[0])[:, 0]


def match_exposure(other: Observation, first: Observation, part: Int64[np.ndarray, " n"]) -> Observation:
    """Scale another photo's colours so that the parts of the body that both show look as in the first."""
    ratios = []
    for p in Part:
        theirs, ours = (o.rgb[(part == p) & (o.confidence > _SURE)] for o in (other, first))
        if min(len(theirs), len(ours)) >= _COMMON_COUNT:
            ratios.append((np.median(ours, axis=0) + _DARK) / (np.median(theirs, axis=0) + _DARK))
    if len(ratios) < _COMMON_PARTS:
        return other
    gain = np.clip(np.median(ratios, axis=0), 1 / _MOST_GAIN, _MOST_GAIN)
    return replace(other, rgb=np.clip(other.rgb * gain, 0, 1), gain=gain)


@dataclass(frozen=True, eq=False)
class Blend:
    """The colours of n samples, agreed upon by k photos."""

    rgb: Float64[np.ndarray, "n 3"]
    shares: Float64[np.ndarray, "k n"]
    """Of each photo in the detail of each sample."""
    shifts: Float64[np.ndarray, "k n 3"]
    """What light and shade of each photo differ by from those agreed upon."""


def blend(seen: Sequence[Observation], samples: Samples, head: Bool[np.ndarray, " n"], anatomy: Anatomy) -> Blend:
    """Colours of all photos without seams.

    Two bands (Burt and Adelson 1983), parted on the surface: what differs between photos over a hand's width, as light
    and shade, passes slowly from one to the next; detail comes from the photo that sees it best, lest it blur.

    Args:
        seen: what each photo says; the head is the first one's as far as that shows it: features would double.
        samples: where on the surface.
        head: samples on the head.
    """
    first = seen[0]
    if len(seen) == 1:
        return Blend(first.rgb, np.ones((1, len(head))), np.zeros((1, *first.rgb.shape)))
    confidence = np.stack([observation.confidence for observation in seen])
    quality = np.stack([np.square(o.confidence * o.facing.clip(_GRAZING, 1) * o.fineness) for o in seen])
    quality[1:, head] *= np.square(1 - confidence[0, head])
    even = np.stack(
        [
            smooth_over(samples, one[:, None], confident, _EVEN_ROUNDS, anatomy)[:, 0]
            for one, confident in zip(quality, confidence, strict=True)
        ]
    )
    quality = np.where(confidence > 0, np.minimum(even, _MOST_EVENED * quality), 0.0) + _LEAST_QUALITY
    broad, sharp = (weight / weight.sum(axis=0) for weight in (quality, quality**_SHARPNESS))
    low = np.stack([smooth_over(samples, o.rgb, o.confidence, _BAND_ROUNDS, anatomy) for o in seen])
    agreed = np.einsum("kn,knc->nc", broad, low)
    shifts = agreed - low
    rgb = np.einsum("kn,knc->nc", sharp, np.stack([o.rgb for o in seen]) + shifts)
    return Blend(rgb.clip(0, 1), sharp, shifts)


def smooth_over(
    samples: Samples,
    values: Float[np.ndarray, "n c"],
    weight: Float[np.ndarray, " n"],
    rounds: int,
    anatomy: Anatomy,
) -> Float64[np.ndarray, "n c"]:
    """Weighted means around each sample, along the surface; a sample's own value where nothing near it has weight."""
    corners = anatomy.faces[samples.triangles].ravel()
    share = (samples.barycentric * weight[:, None]).ravel()
    count = anatomy.average.shape[0]
    columns = [np.bincount(corners, share * np.repeat(column, 3), count) for column in values.T]
    summed = smooth_along(anatomy.average, np.stack([*columns, np.bincount(corners, share, count)], axis=1), rounds)
    around = samples.interpolate(anatomy.faces, summed)
    total = around[:, -1:]
    mean: np.ndarray = np.where(total > 1e-9, around[:, :-1] / np.maximum(total, 1e-9), values)
    return mean


def read_colours(image: Float32[np.ndarray, "h w ..."], xy: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n ..."]:
    """Bilinear values at pixels (the first centre at 0.5); the border's beyond it."""
    height, width = image.shape[:2]
    x = np.clip(xy[:, 0] - 0.5, 0, width - 1.001)
    y = np.clip(xy[:, 1] - 0.5, 0, height - 1.001)
    left, top = x.astype(np.int64), y.astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = x - left, y - top
    if image.ndim == 3:
        across, down = across[:, None], down[:, None]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    values: np.ndarray = upper * (1 - down) + lower * down
    return values
