"""A hat's brim: a sheet round the head that no body grows into, laid as a ring at the tilt the photo shows it at."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.spatial import cKDTree

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.anatomy import ARMS, HANDS, Anatomy, Part
from lhm_runtime.reconstruction.builtin_person.sampling import Patch, strokes
from lhm_runtime.reconstruction.colouring import read_colours
from lhm_runtime.reconstruction.filling import Surface
from lhm_runtime.reconstruction.hair import Head
from lhm_runtime.reconstruction.mesh_image import MeshImage
from lhm_runtime.reconstruction.view import View

MOST_SHARE = 0.06
"""Of all Gaussians, at most so many are a brim."""

_ROWS_M, _AWAY_M, _WIDEST_M = 0.005, 0.002, 0.30
"""Steps in which the outline beside the head is measured, upwards and sideways, and how far sideways."""
_HEIGHTS_M, _LOOKED_M = (-0.06, 0.16), 0.14
"""Where a brim may be widest, above the eyes; how far above and below that the outline is looked at."""
_LEAST_M, _UNEVEN, _ARM_NEAR = 0.12, 1.35, 1.2
"""A brim's half width at least, and at most that of one side in times of the other; arms no further off than so many
of them may be what sticks out."""
_NEAR, _CROWN, _BELOW = 0.45, (0.25, 0.65), 0.85
"""So far above and below a brim, in times of its half width, crown and hair are narrower than it: between these and
at most this, in the same. Round hair is not."""
_BESIDE = (0.78, 0.96)
"""Between these shares of its half width a brim stands free of head and hair, and shows how it is tilted."""
_THICK_M, _STEEPEST = 0.008, 0.6
"""How thick a brim's rim looks, and its steepest tilt against the line of sight, as a sine: what is taller is none."""
_SPACING_M, _INNER_M = 0.005, 0.065
"""Of Gaussians on the ring, and where it begins: inside the head, which hides that."""
_SAME, _LEAST_SEEN, _NEIGHBOURS = 0.25, 60, 12
"""Furthest that colours of one hat differ from its typical one; fewer pixels of it say nothing; of how many seen ones
an unseen one's colour is the median."""


@dataclass(frozen=True, eq=False)
class Brim:
    """A flat ring round the head, in the camera's frame of the view it was found in, metres."""

    centre: Float64[np.ndarray, " 3"]
    left: Float64[np.ndarray, " 3"]
    """Unit vector to the side on which the person's left is."""
    ahead: Float64[np.ndarray, " 3"]
    """Unit vector in its plane towards the camera."""
    radius: float
    hidden: Bool[np.ndarray, "h w"]
    """Pixels of the view that show the brim beside crown and hair."""


def take_off(brim: Brim | None, view: View) -> View:
    """The view that the brim was found in, at any resolution, with the brim gone from its matte; the same for None."""
    if brim is None:
        return view
    gone = cv2.resize(brim.hidden.astype(np.float32), view.size, interpolation=cv2.INTER_LINEAR)
    return replace(view, alpha=(view.alpha * (gone < 0.5)).astype(np.float32))


def find_brim(view: View, rest: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> Brim | None:
    """The brim that stands out on both sides of a head, with a crown above it and less below; None where none does."""
    head = Head.of(rest, anatomy)
    T = view.zero_to_camera[JOINT_INDEX["head"]]
    up = T[:, 1] / np.linalg.norm(T[:, 1])
    axis = T[:, :3] @ head.axis + T[:, 3]
    left = np.cross(up, axis)
    left *= np.sign(left @ T[:, 0]) / np.linalg.norm(left)
    heights = np.arange(_HEIGHTS_M[0] - _LOOKED_M, _HEIGHTS_M[1] + _LOOKED_M, _ROWS_M)
    reach = np.stack([_reach(view, axis + heights[:, None] * up, side * left) for side in (1, -1)])
    narrow = reach.min(axis=0)
    possible = np.flatnonzero((heights > _HEIGHTS_M[0]) & (heights < _HEIGHTS_M[1]))
    at = int(possible[np.argmax(narrow[possible])])
    half = float(reach[:, at].mean())
    uneven = reach[:, at].max() / max(reach[:, at].min(), 1e-6)
    if half < _LEAST_M or uneven > _UNEVEN or half > _WIDEST_M - 2 * _AWAY_M:
        return None
    off = view.posed(rest)[np.isin(anatomy.part, ARMS + HANDS)] - axis
    if (np.hypot(off @ left, off @ up - heights[at]) < _ARM_NEAR * half).any():
        return None
    near = round(_NEAR * half / _ROWS_M)
    crown, hair = reach[:, at + near].mean(), reach[:, at - near].mean()
    if not _CROWN[0] * half < crown < _CROWN[1] * half or hair > _BELOW * half:
        return None
    tall = _half_height(view, axis + heights[at] * up, left, up, reach[:, at])
    sine = max(0.0, (tall - _THICK_M / 2) / half)
    if sine > _STEEPEST:
        return None
    offset = 0.5 * (reach[0, at] - reach[1, at])
    centre = axis + heights[at] * up + offset * left
    sight = centre / np.linalg.norm(centre)
    upright = np.cross(sight, left)
    upright *= np.sign(upright @ up) / np.linalg.norm(upright)
    hidden = _beside(view, axis, up, left, heights, at, tall, reach)
    rises = _rises(view, centre, left, upright, half, tall)
    ahead = rises * sine * upright - np.sqrt(1 - sine * sine) * sight
    return Brim(centre, left, ahead / np.linalg.norm(ahead), half, hidden)


def in_crown(brim: Brim | None, view: View, surface: Surface) -> Bool[np.ndarray, " n"]:
    """Samples of the head that a hat's crown covers."""
    head = (surface.part == Part.HEAD) & ~surface.face
    inside: np.ndarray = head & _above(brim, view, surface.samples.points)
    return inside


def keep_below(brim: Brim | None, view: View, hung: Patch) -> Patch:
    """Of hanging hair what is not within a hat."""
    return hung[~_above(brim, view, hung.means)]


def _above(brim: Brim | None, view: View, points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Which points at zero pose lie on the crown's side of the brim."""
    if brim is None:
        return np.zeros(len(points), bool)
    T = view.zero_to_camera[JOINT_INDEX["head"]]
    normal = np.cross(brim.left, brim.ahead)
    normal *= np.sign(normal @ T[:, 1])
    above: np.ndarray = (points @ T[:, :3].T + T[:, 3] - brim.centre) @ normal > 0
    return above


def _reach(view: View, axis: Float[np.ndarray, "r 3"], aside: Float[np.ndarray, " 3"]) -> Float64[np.ndarray, " r"]:
    """How far the matte goes to one side of each point of the axis, metres; 0 where that is not in it."""
    away = np.arange(0.0, _WIDEST_M, _AWAY_M)
    inside = _in_matte(view, (axis[:, None] + away[:, None] * aside).reshape(-1, 3)).reshape(len(axis), -1)
    ends: np.ndarray = np.where(inside.all(axis=1), len(away) - 1, (~inside).argmax(axis=1))
    return ends * _AWAY_M


def _in_matte(view: View, points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    x, y = view.project(points)[:, :2].astype(int).T
    within = (x >= 0) & (x < view.size[0]) & (y >= 0) & (y < view.size[1])
    inside: np.ndarray = within & (view.alpha[y.clip(0, view.size[1] - 1), x.clip(0, view.size[0] - 1)] > 0.5)
    return inside


def _half_height(
    view: View,
    middle: Float[np.ndarray, " 3"],
    left: Float[np.ndarray, " 3"],
    up: Float[np.ndarray, " 3"],
    reach: Float[np.ndarray, " 2"],
) -> float:
    """Half the height, metres, of the ellipse as which the brim is seen, by what shows of it on either side."""
    found = []
    shares = np.linspace(*_BESIDE, 10)
    for side, half in zip((1, -1), reach, strict=True):
        columns = middle + (side * half * shares)[:, None] * left
        extent = _reach(view, columns, up) + _reach(view, columns, -up)
        found.append(0.5 * extent / np.sqrt(1 - shares * shares))
    return float(np.median(found))


def _beside(
    view: View,
    axis: Float[np.ndarray, " 3"],
    up: Float[np.ndarray, " 3"],
    left: Float[np.ndarray, " 3"],
    heights: Float[np.ndarray, " r"],
    at: int,
    tall: float,
    reach: Float[np.ndarray, "2 r"],
) -> Bool[np.ndarray, "h w"]:
    """Pixels further out than the line from where crown and brim meet to where the outline leaves the brim below."""
    span = round((tall + 2 * _ROWS_M) / _ROWS_M)
    rows = np.arange(max(at - span, 0), min(at + span + 1, len(heights)))
    limit = np.stack([np.interp(rows, rows[[0, -1]], side[rows[[0, -1]]]) for side in reach])
    column, row = np.meshgrid(np.arange(view.size[0]) + 0.5, np.arange(view.size[1]) + 0.5)
    rays = np.stack([(column - view.centre[0]) / view.focal[0], (row - view.centre[1]) / view.focal[1]], axis=-1)
    points = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=2) * axis[2] - axis
    aside, above = points @ left, points @ up
    allowed = np.stack([np.interp(above, heights[rows], one) for one in limit])
    near = (above >= heights[rows[0]]) & (above <= heights[rows[-1]])
    hidden: np.ndarray = near & (np.abs(aside) > np.where(aside > 0, *allowed))
    return hidden


def _rises(
    view: View,
    centre: Float[np.ndarray, " 3"],
    left: Float[np.ndarray, " 3"],
    upright: Float[np.ndarray, " 3"],
    half: float,
    tall: float,
) -> float:
    """1 where the brim's near edge is its upper one, seen from below; -1 where the lower one is, over the forehead."""
    sides = np.linspace(*_BESIDE, 12)[:, None] * half * left
    typical = np.median(_colours(view, np.concatenate([centre + sides, centre - sides])), axis=0)
    across = np.linspace(-0.3, 0.3, 13)[:, None] * half * left
    edges = [_colours(view, centre + sign * 0.8 * tall * upright + across) for sign in (1, -1)]
    upper, lower = (float(np.median(np.linalg.norm(edge - typical, axis=1))) for edge in edges)
    return 1.0 if upper < lower else -1.0


def _colours(view: View, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
    return read_colours(view.extended, view.project(points)[:, :2])


def lay_brim(brim: Brim | None, view: View, mesh: MeshImage, most: int, anatomy: Anatomy) -> Patch:
    """At most ``most`` Gaussians: as the photo shows the ring, and where head and hair hide it, as it is elsewhere.

    Args:
        view: the photo, with the brim.
        mesh: the body without it, as that view sees it.
    """
    empty = np.zeros((0, 3))
    if brim is None:
        return strokes(empty, empty, empty, empty, empty, 0.95).riding(np.zeros(0, np.int64), expressive=False)
    area = np.pi * (brim.radius**2 - _INNER_M**2)
    gap = max(_SPACING_M, float(np.sqrt(area / max(most, 1))) * 1.02)
    rings = [
        np.stack([np.full(n, r), (np.arange(n) + 0.5 * (k % 2)) * 2 * np.pi / n], axis=1)
        for k, r in enumerate(np.arange(brim.radius - gap, _INNER_M, -gap))
        for n in [round(2 * np.pi * r / gap)]
    ]
    radius, angle = np.concatenate(rings)[:most].T
    aside, ahead = radius * np.sin(angle), radius * np.cos(angle)
    points = brim.centre + aside[:, None] * brim.left + ahead[:, None] * brim.ahead
    image = view.project(points)
    x, y = (image[:, k].astype(int).clip(0, view.size[k] - 1) for k in (0, 1))
    seen = _in_matte(view, points) & (image[:, 2] < mesh.depth[y, x])
    rgb = read_colours(view.extended, image[:, :2])
    free = seen & (np.abs(aside) > _BESIDE[0] * brim.radius)
    typical = np.median(rgb[free if free.any() else slice(None)], axis=0)
    seen &= np.linalg.norm(rgb - typical, axis=1) < _SAME
    if seen.sum() < _LEAST_SEEN:
        rgb[:] = typical
    else:
        places = np.stack([np.abs(aside), radius], axis=1)
        near = cKDTree(places[seen]).query(places[~seen], k=_NEIGHBOURS)[1]
        rgb[~seen] = np.median(rgb[seen][near], axis=1)
    T = view.zero_to_camera[JOINT_INDEX["head"]]
    turn = np.linalg.inv(T[:, :3])
    normal = np.cross(brim.left, brim.ahead)
    n = len(points)
    patch = strokes(
        (points - T[:, 3]) @ turn.T,
        np.tile(turn @ brim.left, (n, 1)),
        np.tile(turn @ normal, (n, 1)),
        np.tile([0.7 * gap, 0.7 * gap, 0.0025], (n, 1)),
        rgb,
        0.95,
    )
    triangle = int(np.flatnonzero((anatomy.part[anatomy.faces] == Part.HEAD).all(axis=1) & anatomy.outer)[0])
    return patch.riding(np.full(n, triangle), JOINT_INDEX["head"], expressive=False)
