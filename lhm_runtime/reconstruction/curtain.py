"""Hair that hangs below the skull: what a photo shows of it at the outline goes on round the back of the head."""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.anatomy import Anatomy, Part
from lhm_runtime.reconstruction.builtin_person.sampling import Patch, strokes
from lhm_runtime.reconstruction.builtin_person.shading import noise
from lhm_runtime.reconstruction.colouring import read_colours
from lhm_runtime.reconstruction.hair import HairImage, Head, contrast_of, streaks
from lhm_runtime.reconstruction.mesh_image import MeshImage
from lhm_runtime.reconstruction.view import View

MOST_SHARE = 0.06
"""Of all Gaussians, at most so many hang."""

_ROWS_M, _LONGEST_M, _WIDEST_M = 0.005, 0.28, 0.19
"""Hair is looked for in rows so far apart, down to so far below the eyes (further down, dark clothes pass for it), and
so far from the head's axis."""
_LEAST_LOCK_M, _GAP_M = 0.008, 0.03
"""A row with less hair beside the head has none; a gap no longer than this does not end it."""
_EAR_M, _LEAST_HANG_M = 0.03, 0.045
"""Ears' height below the eyes, and how far below it hair must reach to hang."""
_SPACING_M = (0.007, 0.012)
"""Of strokes across and along strands."""
_CLEARANCE_M, _BURIED_M = 0.008, 0.04
"""Hair lies so far over the body; where the body is further out than this it lies on the other side of it."""
_LEAST_AWAY_M = 0.05
"""Nearer to the axis than this are face and neck."""
_TURNED = 0.4
"""A head turned more than this away from the camera, radians, hides one side's hair."""
_FRONTMOST, _RAGGED_M, _LOCK_M = 2.3, 0.008, 0.014
"""Azimuth at which hair ends towards the face, how ragged its hem is, and how wide locks are."""
_LEVEL_COUNT, _LEAST_SEEN = 200, 60
"""Of how many pixels a colour is the median; fewer pixels of hanging hair than these say nothing."""
_RIDES_AT = 0.55
"""Hair moves as the skin this share of the way from the axis to it: what is further out, shoulders, moves apart."""


def hang_hair(
    view: View,
    mesh: MeshImage,
    hair: HairImage | None,
    rest: Float[np.ndarray, "v 3"],
    most: int,
    vertex_weights: Float[np.ndarray, "v 55"],
    anatomy: Anatomy,
) -> Patch:
    """Hair that reaches below the ears, as strokes all round the back of the head, from temple to temple.

    What the photo shows of it, beside jaw and neck, is where it ends there; behind, it falls straight from the skull.
    """
    if hair is None:
        return _nothing()
    head = Head.of(rest, anatomy)
    lateral, outlines = _measure(view, hair, head)
    turn = np.arctan2(lateral[0], -lateral[2]) - np.pi / 2  # outlines lie at right angles to the view
    reach = _hang(outlines, both=bool(abs(turn) < _TURNED))
    if reach is None:
        return _nothing()
    width, inner, hem = reach
    azimuth, height, radius, spacing = _lay(width, inner, hem, head, most)
    posed = view.posed(rest)
    T = view.zero_to_camera[JOINT_INDEX["head"]]
    azimuth = azimuth + turn
    own = (posed - T[:, 3]) @ np.linalg.inv(T[:, :3]).T
    keep, radius = _clear_of_body(head, own, azimuth, height, radius, anatomy)
    azimuth, height, radius = azimuth[keep], height[keep], radius[keep]
    points = head.point(azimuth, radius, height)
    in_camera = points @ T[:, :3].T + T[:, 3]
    image = view.project(in_camera)
    x, y = image[:, :2].astype(int).T
    within = (x >= 0) & (x < view.size[0]) & (y >= 0) & (y < view.size[1])
    x, y = x.clip(0, view.size[0] - 1), y.clip(0, view.size[1] - 1)
    shows = within & (image[:, 2] < mesh.depth[y, x])
    before_head = mesh.covered[y, x] & (anatomy.part[anatomy.faces[np.maximum(mesh.face[y, x], 0), 0]] == Part.HEAD)
    is_hair = hair.at(image[:, :2]) & ~before_head  # hair on the head's surface is its own
    rgb = _colours(view, hair, head, T, height, azimuth - turn)
    rgb *= streaks(head, points, contrast_of(hair.rgb[hair.mask]))[:, None]
    rgb[shows & is_hair] = read_colours(view.extended, image[:, :2])[shows & is_hair]
    shown = np.flatnonzero(~shows | is_hair)
    points, in_camera, rgb = points[shown], in_camera[shown], rgb[shown]

    triangles = _carriers(head, own, points, anatomy)
    weights = vertex_weights[anatomy.faces[triangles]].mean(axis=1)
    blended = (weights @ view.zero_to_camera.reshape(55, 12)).reshape(-1, 3, 4)
    means = np.linalg.solve(blended[:, :, :3], (in_camera - blended[:, :, 3])[:, :, None])[:, :, 0]
    out = points - head.axis
    out[:, 1] = 0
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
    n = len(means)
    scales = np.tile([0.75 * spacing[1], 0.7 * spacing[0], 0.002], (n, 1))
    patch = strokes(means, np.tile([0.0, 1, 0], (n, 1)), out, scales, rgb, 0.95)
    return patch.riding(triangles, expressive=False)


def _nothing() -> Patch:
    empty = np.zeros((0, 3))
    return strokes(empty, empty, empty, empty, empty, 0.95).riding(np.zeros(0, np.int64), expressive=False)


def _measure(view: View, hair: HairImage, head: Head) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, "2 r 3"]]:
    """The person's left as the view sees it, and for each side and row below the eyes how wide hair is there, and from
    where to where it reaches from the axis, metres."""
    T = view.zero_to_camera[JOINT_INDEX["head"]]
    down = np.arange(0.0, _LONGEST_M, _ROWS_M)
    axis = head.point(np.zeros(len(down)), np.zeros(len(down)), -down) @ T[:, :3].T + T[:, 3]
    across = np.cross(T[:, 1], axis[0])
    across *= np.sign(across @ T[:, 0]) / np.linalg.norm(across)
    away = np.arange(_LEAST_AWAY_M, _WIDEST_M, 0.002)
    outlines = np.zeros((2, len(down), 3))
    for side, sign in enumerate((1.0, -1.0)):
        places = axis[:, None] + sign * away[:, None] * across
        shown = hair.at(view.project(places.reshape(-1, 3))[:, :2]).reshape(len(down), len(away))
        outlines[side, :, 0] = 0.002 * shown.sum(axis=1)
        outlines[side, :, 1] = away[shown.argmax(axis=1)]
        outlines[side, :, 2] = away[len(away) - 1 - shown[:, ::-1].argmax(axis=1)]
    return T[:, :3].T @ across, outlines


def _hang(
    outlines: Float64[np.ndarray, "2 r 3"], *, both: bool
) -> tuple[Float64[np.ndarray, "2 r"], Float64[np.ndarray, "2 r"], Float64[np.ndarray, " 2"]] | None:
    """Outer and inner reach by side and row, and how far below the eyes hair ends; None where it does not hang.

    Args:
        both: whether the view shows both sides alike: then hair must hang on both, or it lies over one shoulder.
    """
    rows = outlines.shape[1]
    ear, gap = round(_EAR_M / _ROWS_M), round(_GAP_M / _ROWS_M)
    hem = np.zeros(2)
    outer, inner = np.zeros((2, rows)), np.zeros((2, rows))
    for side in range(2):
        has = outlines[side, :, 0] >= _LEAST_LOCK_M
        last = ear
        for row in range(ear, rows):
            if row - last > gap:
                break
            if has[row]:
                last = row
        hem[side] = last * _ROWS_M
        known = np.flatnonzero(has[: last + 1])
        if len(known) >= 2:
            outer[side], inner[side] = (
                gaussian_filter1d(np.interp(np.arange(rows), known, outlines[side, known, k]), 3, mode="nearest")
                for k in (2, 1)
            )
    if (hem.min() if both else hem.max()) < _EAR_M + _LEAST_HANG_M:
        return None
    if hem.min() < _EAR_M + _LEAST_HANG_M:  # what one side does not show may be behind the other
        short = int(hem.argmin())
        outer[short], inner[short] = outer[1 - short], inner[1 - short]
        hem[short] = 0.7 * hem[1 - short]
    return outer, inner, hem


def _lay(
    outer: Float64[np.ndarray, "2 r"],
    inner: Float64[np.ndarray, "2 r"],
    hem: Float64[np.ndarray, " 2"],
    head: Head,
    most: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]:
    """Azimuths, heights and radii of strokes, evenly over the curtain, and their spacing."""
    girth = np.pi * (head.back + outer.max()) * 0.75
    area = girth * hem.mean()
    coarser = max(1.0, np.sqrt(1.25 * area / (_SPACING_M[0] * _SPACING_M[1] * max(most, 1))))
    across, along = coarser * _SPACING_M[0], coarser * _SPACING_M[1]
    columns, rows = int(np.ceil(girth / across)), int(np.ceil((hem.max() + 0.01) / along))
    column, row = (grid.ravel() for grid in np.meshgrid(np.arange(columns), np.arange(rows)))
    azimuth = ((column + 0.5) / columns - 0.5) * 2 * _FRONTMOST
    height = -(row + 0.5 * (column % 2)) * along
    left = 0.5 + 0.5 * np.sin(azimuth.clip(-np.pi / 2, np.pi / 2))
    ragged = _RAGGED_M * noise(azimuth[:, None] * head.back / _LOCK_M, 63)
    down = np.clip(-height / _ROWS_M, 0, outer.shape[1] - 1.001)
    base = down.astype(int)
    reach, edge = (
        np.where(azimuth > 0, *((1 - down % 1) * at[side][base] + (down % 1) * at[side][base + 1] for side in (0, 1)))
        for at in (outer, inner)
    )
    depth = np.where(np.abs(azimuth) < np.pi / 2, head.back, head.front)
    radius = 1 / np.hypot(np.sin(azimuth) / np.maximum(reach, 0.03), np.cos(azimuth) / depth)
    # from the front hair shows only where the photo has it
    keep = (-height < left * hem[0] + (1 - left) * hem[1] + ragged) & (
        (np.abs(azimuth) < np.pi / 2) | (radius * np.abs(np.sin(azimuth)) > edge)
    )
    return azimuth[keep], height[keep], radius[keep], (across, along)


def _clear_of_body(
    head: Head,
    own: Float[np.ndarray, "v 3"],
    azimuth: Float[np.ndarray, " n"],
    height: Float[np.ndarray, " n"],
    radius: Float[np.ndarray, " n"],
    anatomy: Anatomy,
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Which strokes are not buried in shoulders, and their radii, no less than the body's."""
    trunk = np.isin(anatomy.part, (Part.TORSO, Part.NECK, Part.LEFT_ARM, Part.RIGHT_ARM))
    trunk |= (anatomy.part == Part.HEAD) & (own[:, 2] < head.axis[2]) & (own[:, 1] < head.axis[1])  # the nape
    theirs = np.stack(head.polar(own[trunk]), axis=1)
    theirs = theirs[theirs[:, 2] > -_LONGEST_M - 0.05]
    size = np.array([0.1, 0.01])
    near = cKDTree(theirs[:, [0, 2]] / size).query(np.stack([azimuth, height], axis=1) / size, k=8)[1]
    body = theirs[near, 1].max(axis=1) + _CLEARANCE_M
    above = height > theirs[:, 2].max()
    raised = np.where(above, radius, np.maximum(radius, body))
    return raised < radius + _BURIED_M, raised


def _colours(
    view: View,
    hair: HairImage,
    head: Head,
    T: Float[np.ndarray, "3 4"],
    height: Float[np.ndarray, " n"],
    azimuth: Float[np.ndarray, " n"],
) -> Float64[np.ndarray, "n 3"]:
    """Medians of the hair seen at the same height, each side's its own, mixed behind."""
    row, column = np.nonzero(hair.mask)
    xy = (np.stack([column, row], axis=1) + 0.5) * hair.step
    at_axis = float((T[:, :3] @ head.axis + T[:, 3])[2])
    rays = np.concatenate([(xy - view.centre) / view.focal, np.ones((len(xy), 1))], axis=1) * at_axis
    local = (rays - T[:, 3]) @ np.linalg.inv(T[:, :3]).T - head.axis
    levels = np.arange(0.05, -_LONGEST_M - 0.03, -0.02)
    colours = np.zeros((2, len(levels), 3))
    seen = hair.rgb[row, column].astype(np.float64)
    hangs = (local[:, 1] < 0) & (np.abs(local[:, 0]) > _LEAST_AWAY_M)  # what is above may be a hat
    if hangs.sum() >= _LEAST_SEEN:
        local, seen = local[hangs], seen[hangs]
    for side, own in enumerate((local[:, 0] > 0, local[:, 0] <= 0)):
        pick = own if own.sum() >= _LEAST_SEEN else np.ones(len(own), bool)
        for k, level in enumerate(levels):
            near = np.argsort(np.abs(local[pick, 1] - level))[:_LEVEL_COUNT]
            colours[side, k] = np.median(seen[pick][near], axis=0)
    left = (0.5 + 0.5 * np.sin(azimuth.clip(-np.pi / 2, np.pi / 2)))[:, None]
    both = [np.stack([np.interp(-height, -levels, colours[side, :, c]) for c in range(3)], axis=1) for side in range(2)]
    mixed: np.ndarray = left * both[0] + (1 - left) * both[1]
    return mixed


def _carriers(
    head: Head, own: Float[np.ndarray, "v 3"], points: Float[np.ndarray, "n 3"], anatomy: Anatomy
) -> Int64[np.ndarray, " n"]:
    """Triangles of head, neck and trunk that hair rides on."""
    carriers = np.flatnonzero(
        np.isin(anatomy.part, (Part.HEAD, Part.NECK, Part.TORSO))[anatomy.faces].all(axis=1) & anatomy.outer
    )
    drawn_in = head.axis + (points - head.axis) * [_RIDES_AT, 1, _RIDES_AT]
    nearest: np.ndarray = carriers[cKDTree(own[anatomy.faces[carriers]].mean(axis=1)).query(drawn_in)[1]]
    return nearest
