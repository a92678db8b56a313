"""The fitted body grows into clothes and hair: its vertices move until its outline fills the matte.

Two passes along the normals make back and front grow with the sides; then free moves in the picture's plane bring
outline and face to where the photo has them. Bending energy spreads what the outline says over the surface.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Float64, Int64
from scipy.sparse.linalg import splu

from lhm_runtime.reconstruction.anatomy import ARMS, FEET, HANDS, LEGS, Anatomy, Part, smooth_along
from lhm_runtime.reconstruction.builtin_person.figure import vertex_normals
from lhm_runtime.reconstruction.clothing import shoe, shoe_and_flatten, span_back, widen_trousers
from lhm_runtime.reconstruction.mesh_image import draw_mesh
from lhm_runtime.reconstruction.view import View, signed_distance

_INSET_M = 0.004
"""How far inside the matte the surface stays: about a sigma of the Gaussians that will lie on it."""
_NORMAL_PASSES = (60.0, 25.0)
_PLANE_PASSES = (8.0, 3.0, 1.5)
"""Stiffness of each pass."""
_SLOPE = 0.03
"""What slopes of the displacement along the normals cost, in times of bends."""
_SUNK_M, _SUNK_FROM = 0.006, 0.15
"""How far the side that faces away lies inside, where no outline was followed: Gaussians are thicker than surfaces.
From this cosine of the angle to the view on."""

_REACH_M = {Part.HEAD: 0.16, Part.NECK: 0.04, Part.TORSO: 0.14}
_REACH_M |= dict.fromkeys(ARMS, 0.14) | dict.fromkeys(LEGS, 0.12)
_REACH_M |= dict.fromkeys(HANDS, 0.015) | dict.fromkeys(FEET, 0.10)
"""Furthest outward move of each part's outline."""
_JAW_REACH_M = 0.015
"""Long hair beside jaw, ears and neck is not theirs: it becomes a sheet of its own."""
_BROW_M, _EARS_M, _NAPE_M = (-0.03, 0.04), (0.085, 0.11), 0.065
"""The scalp begins between these heights above the eyes, or between these distances behind them, where the ears end;
there it reaches down to so far below the eyes."""
_INWARD_M, _FEET_INWARD_M = 0.09, 0.045
"""A foot further out than this was turned wrongly by the fit, and would be torn."""
_OUTWARD_M = 0.17
_MEETING_GAP_M = 0.12
"""Limbs that the matte shows grown together meet half-way when no further apart than this."""
_THICKEN_M = (-0.035, 0.15)
_THICKEN_ARM_M = (-0.004, 0.035)
_UNSEEN_PULL = 0.02
_NECK_PULL = 0.1
_BEHIND_PULL = 0.5
_BARE_PULL = 0.3
_FACE_ROUNDS, _NEAR_FACE = 8, 0.05
"""Jaw and ears hold still, but not so near to the face, in rings of the surface and share of it there."""
_BESIDE_HANDS_M = 0.03
_FACE_PULL = 4.0
_LIDS_M = 0.028
_SURE = 0.5
_ROUND_A_LIMB = 40
"""Rings of the surface whose average is that of a limb's cross-section."""
_NEVER = 10**6


@dataclass(frozen=True, eq=False)
class Outline:
    """Vertices on the body's outline in a view, and where the matte's border is."""

    vertices: Int64[np.ndarray, " k"]
    outward: Float64[np.ndarray, "k 2"]
    """Direction of the normal in the picture."""
    distance: Float64[np.ndarray, " k"]
    """Pixels along it to the border."""


def fill_matte(
    view: View, rest: Float[np.ndarray, "v 3"], anatomy: Anatomy, *, thicken: bool = True
) -> Float64[np.ndarray, "v 3"]:
    """Neutral zero-pose vertices that fill the view's matte when posed; what the view says nothing of bends along.

    Args:
        thicken: whether what does not show grows with the outline: a guess to be made once, from the first photo.
    """
    unseen = unseen_vertices(view, view.posed(rest), anatomy)
    if thicken:
        rest = widen_trousers(span_back(shoe_and_flatten(rest, anatomy), anatomy), unseen, anatomy)
    points = view.posed(rest)
    scale = view.pixels_per_metre(points)
    inside = signed_distance(view.alpha > 0.5) - _INSET_M * scale
    scalp = _on_scalp(rest, anatomy)
    reach = _reach(scalp, anatomy)
    # the face follows its landmarks, and the mouth follows it
    free = smooth_along(anatomy.average, anatomy.face.astype(float), _FACE_ROUNDS) > _NEAR_FACE
    bare = _BARE_PULL * (anatomy.part == Part.HEAD) * (scalp < 1) * ~free * _outside(anatomy)
    behind = _behind_hands(view, points, anatomy)
    for stiffness in _NORMAL_PASSES if thicken else ():
        # between limbs that have grown together no outline says how thick they are
        outline = find_outline(view, points, inside, reach, unseen, anatomy, meeting=False)
        points = points + _thicken(points, view, outline, unseen, behind, bare, stiffness, anatomy)
    for stiffness in _PLANE_PASSES:
        outline = find_outline(view, points, inside, reach, unseen, anatomy)
        points = points + _shift(points, view, outline, unseen, bare, stiffness, anatomy)
    if not thicken:
        return view.unposed(points)
    # the outline pulls at toes one by one
    return shoe(view.unposed(sink_back(points, anatomy)), anatomy)


def sink_back(points: Float64[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, "v 3"]:
    """Draw in the skin that faces away from the camera; the outline has been set inside the matte already."""
    normals = vertex_normals(points, anatomy.faces)
    away = (normals * points).sum(axis=1) / np.linalg.norm(points, axis=1)
    away[~_outside(anatomy) | anatomy.face] = 0
    drawn: np.ndarray = points - (_SUNK_M * np.clip(2 * (away - _SUNK_FROM), 0, 1))[:, None] * normals
    return drawn


def _outside(anatomy: Anatomy) -> Bool[np.ndarray, " v"]:
    """Vertices of the outer skin alone: not of eyes, nor of what lies behind lids and lips."""
    outside = np.zeros(len(anatomy.part), bool)
    outside[anatomy.faces[anatomy.outer]] = True
    outside[anatomy.faces[~anatomy.outer]] = False
    return outside


def unseen_vertices(view: View, points: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> Bool[np.ndarray, " v"]:
    """Vertices of limbs that the tracker is unsure of where they leave the picture or the matte.

    Something may be before such a limb, or it was guessed wrongly: the nearest border of the matte is another limb's,
    to which it must not be drawn.
    """
    visibility = view.landmarks.body_visibility
    if visibility is None:
        return np.zeros(len(points), bool)
    width, height = view.size
    x, y = view.project(points)[:, :2].T
    outside = (x < 0) | (x > width) | (y < 0) | (y > height)
    inside = signed_distance(view.alpha > 0.5)[y.astype(int).clip(0, height - 1), x.astype(int).clip(0, width - 1)]
    outside |= smooth_along(anatomy.average, inside.astype(np.float64), _ROUND_A_LIMB) < 0
    unseen = np.zeros(len(points), bool)
    for part, marks in (
        (Part.LEFT_ARM, (13, 15)),
        (Part.RIGHT_ARM, (14, 16)),
        (Part.LEFT_LEG, (25, 27)),
        (Part.RIGHT_LEG, (26, 28)),
        (Part.LEFT_FOOT, (27, 31)),
        (Part.RIGHT_FOOT, (28, 32)),
        (Part.LEFT_HAND, (15, 19)),
        (Part.RIGHT_HAND, (16, 20)),
    ):
        if visibility[list(marks)].min() < _SURE:
            unseen |= (anatomy.part == part) & (outside | (part in HANDS + FEET))
    return unseen


def _behind_hands(view: View, points: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> Bool[np.ndarray, " v"]:
    """Vertices of trunk and legs that hands and forearms lie before, or close beside."""
    width, height = view.size
    image = view.project(points)
    mesh = draw_mesh(image, anatomy.faces, width, height)
    arm = np.isin(anatomy.part, HANDS + ARMS)[anatomy.faces[np.maximum(mesh.face, 0), 0]] & mesh.covered
    distance = cv2.distanceTransform(1 - arm.astype(np.uint8), cv2.DIST_L2, 3)
    column, row = image[:, 0].astype(int).clip(0, width - 1), image[:, 1].astype(int).clip(0, height - 1)
    near = distance[row, column] < _BESIDE_HANDS_M * view.pixels_per_metre(points)
    behind: np.ndarray = near & np.isin(anatomy.part, (Part.TORSO, *LEGS))
    return behind


def find_outline(
    view: View,
    points: Float[np.ndarray, "v 3"],
    inside: Float[np.ndarray, "h w"],
    reach: Float[np.ndarray, " v"],
    unseen: Bool[np.ndarray, " v"],
    anatomy: Anatomy,
    *,
    meeting: bool = True,
) -> Outline:
    """Search the matte's border along the normal of each vertex on the outline.

    Args:
        inside: distance to the border, pixels, positive in the matte.
        reach: furthest outward move of each vertex, metres.
        unseen: vertices that the matte says nothing of.
        meeting: whether limbs that the matte shows grown together meet half-way.
    """
    width, height = view.size
    scale = view.pixels_per_metre(points)
    image = view.project(points)
    covered = draw_mesh(image, anatomy.faces, width, height).covered.astype(np.uint8)
    # the picture's edge is not an outline
    framed = cv2.copyMakeBorder(covered, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    depth_in = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    column, row = image[:, 0].astype(int), image[:, 1].astype(int)
    within = (column > 4) & (column < width - 4) & (row > 4) & (row < height - 4)
    column, row = column.clip(0, width - 1), row.clip(0, height - 1)
    normals = vertex_normals(points, anatomy.faces)
    facing = np.abs((normals * points).sum(axis=1)) / np.linalg.norm(points, axis=1)
    at = np.flatnonzero(within & ~unseen & (depth_in[row, column] < max(2.5, 0.006 * scale)) & (facing < 0.5))
    outward = normals[at, :2] / np.maximum(np.linalg.norm(normals[at, :2], axis=1, keepdims=True), 1e-9)

    steps = np.arange(-round(_INWARD_M * scale), round(_OUTWARD_M * scale) + 1)
    here = int(-steps[0])
    x = np.rint(image[at, :1] + steps * outward[:, :1] - 0.5).astype(int).clip(0, width - 1)
    y = np.rint(image[at, 1:2] + steps * outward[:, 1:] - 0.5).astype(int).clip(0, height - 1)
    in_matte, on_body = inside[y, x] > 0, covered[y, x] > 0
    leaves = _first(~in_matte[:, here:])
    enters = _first(in_matte[:, here::-1])
    gap = max(3, round(0.01 * scale))
    other = _first(on_body[:, here + gap :]) + gap
    starts_in = in_matte[:, here]
    distance = np.full(len(at), np.nan)
    grows = starts_in & (leaves < other) & (leaves <= reach[at] * scale)
    distance[grows] = leaves[grows]
    shrinks = ~starts_in & (enters < _NEVER) & ((enters < _FEET_INWARD_M * scale) | ~np.isin(anatomy.part[at], FEET))
    distance[shrinks] = -enters[shrinks]
    meets = (
        ~np.isin(anatomy.part[at], FEET)
        & starts_in
        & (other < _NEVER)
        & (leaves >= other)
        & (other <= _MEETING_GAP_M * scale)
    )
    if meeting:
        distance[meets] = other[meets] / 2
    known = np.isfinite(distance)
    return Outline(at[known], outward[known], distance[known])


def _first(found: Bool[np.ndarray, "k s"]) -> Int64[np.ndarray, " k"]:
    """Index of the first True in each row."""
    return np.where(found.any(axis=1), found.argmax(axis=1), _NEVER)


def _on_scalp(rest: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, " v"]:
    """Share of hair's surface in each vertex's of the head: 0 on face, jaw and ears, where hair hangs before skin."""
    eyes = rest[np.concatenate([anatomy.left_eye, anatomy.right_eye])].mean(axis=0)
    _, above, ahead = (rest - eyes).T
    over = np.clip((above - _BROW_M[0]) / np.ptp(_BROW_M), 0, 1)
    behind = np.clip((-ahead - _EARS_M[0]) / np.ptp(_EARS_M), 0, 1) * (above > -_NAPE_M)
    share: np.ndarray = np.maximum(over, behind)
    return share


def _reach(scalp: Float[np.ndarray, " v"], anatomy: Anatomy) -> Float64[np.ndarray, " v"]:
    reach: np.ndarray = np.array([_REACH_M[part] for part in Part])[anatomy.part]
    grown = _JAW_REACH_M + scalp * (_REACH_M[Part.HEAD] - _JAW_REACH_M)
    return np.where(anatomy.part == Part.HEAD, grown, reach)


def _thicken(
    points: Float64[np.ndarray, "v 3"],
    view: View,
    outline: Outline,
    unseen: Bool[np.ndarray, " v"],
    behind: Bool[np.ndarray, " v"],
    bare: Float[np.ndarray, " v"],
    stiffness: float,
    anatomy: Anatomy,
) -> Float64[np.ndarray, "v 3"]:
    """Displacement along the normals; what is ``behind`` hands must not swallow them."""
    normals = vertex_normals(points, anatomy.faces)
    k, basis = outline.vertices, anatomy.coarse
    in_plane = np.linalg.norm(normals[k, :2], axis=1)
    wanted = outline.distance * points[k, 2] / view.focal[0] / np.maximum(in_plane, 0.7)
    keep = np.where(np.isin(anatomy.part, HANDS + FEET), 3.0, 0.0) + _UNSEEN_PULL * unseen + anatomy.face
    # aside they are not in the way: a coat is as wide there as above and below
    facing = np.abs((normals * points).sum(axis=1)) / np.linalg.norm(points, axis=1)
    keep += _NECK_PULL * (anatomy.part == Part.NECK) + _BEHIND_PULL * behind * facing
    keep += bare
    outer = basis[k]
    system = stiffness * (anatomy.coarse_bending + _SLOPE * anatomy.coarse_stretching)
    system = system + basis.T @ (sp.diags_array(keep + 1e-4) @ basis) + outer.T @ outer
    low, high = (np.full(len(points), limit) for limit in _THICKEN_M)
    arm = np.isin(anatomy.part, ARMS)
    low[arm], high[arm] = _THICKEN_ARM_M
    amount = np.clip(basis @ solve_sparse(system, outer.T @ wanted, anatomy.coarse_order), low, high)
    return _with_eyes(points, amount[:, None] * normals, anatomy)


def _shift(
    points: Float64[np.ndarray, "v 3"],
    view: View,
    outline: Outline,
    unseen: Bool[np.ndarray, " v"],
    bare: Float[np.ndarray, " v"],
    stiffness: float,
    anatomy: Anatomy,
) -> Float64[np.ndarray, "v 3"]:
    """Displacement in the picture's plane, which also brings the face to its landmarks."""
    k, basis = outline.vertices, anatomy.coarse
    wanted = outline.distance * points[k, 2] / view.focal[0]
    keep = np.where(np.isin(anatomy.part, HANDS), 0.5, 0.0) + _UNSEEN_PULL * unseen
    keep += _NECK_PULL * (anatomy.part == Part.NECK)
    keep += bare
    one = stiffness * anatomy.coarse_bending + basis.T @ (sp.diags_array(keep + 2e-4) @ basis)
    outer = basis[k]
    (xx, xy, yy), right = _normal_equations(outer, outline.outward, 1.0), np.zeros((2, basis.shape[1]))
    right += [outer.T @ (outline.outward[:, c] * wanted) for c in range(2)]
    # along the outline the border says nothing: a little friction
    friction = _normal_equations(outer, outline.outward[:, ::-1] * [-1, 1], 0.1)
    xx, xy, yy = xx + friction[0], xy + friction[1], yy + friction[2]
    if view.landmarks.face_image is not None and anatomy.landmarks is not None:
        marks = anatomy.landmarks[:468]
        at = marks @ points
        off = (view.marks(view.landmarks.face_image[:468]) - view.project(at)[:, :2]) * (at[:, 2:] / view.focal)
        normals = marks @ vertex_normals(points, anatomy.faces)
        weight = _FACE_PULL * ((normals * at).sum(axis=1) < -0.15 * np.linalg.norm(at, axis=1))
        on_face = sp.csr_array(marks @ basis)
        pull = on_face.T @ (sp.diags_array(weight) @ on_face)
        xx, yy = xx + pull, yy + pull
        right += [on_face.T @ (weight * off[:, c]) for c in range(2)]
    system = sp.block_array([[one + xx, xy], [xy, one + yy]], format="csc")
    order = np.stack([anatomy.coarse_order, anatomy.coarse_order + basis.shape[1]], axis=1).ravel()
    x, y = solve_sparse(system, right.ravel(), order).reshape(2, -1)
    moved = np.stack([basis @ x, basis @ y, np.zeros(len(points))], axis=1)
    return _with_eyes(points, moved, anatomy)


def _normal_equations(
    basis: sp.csr_array, direction: Float[np.ndarray, "k 2"], weight: float
) -> tuple[sp.csr_array, sp.csr_array, sp.csr_array]:
    """Blocks xx, xy and yy of the squares of displacements along a direction each."""
    x, y = direction.T
    xx, xy, yy = (
        sp.csr_array(basis.T @ (sp.diags_array(weight * product) @ basis)) for product in (x * x, x * y, y * y)
    )
    return xx, xy, yy


def _with_eyes(
    points: Float64[np.ndarray, "v 3"], moved: Float64[np.ndarray, "v 3"], anatomy: Anatomy
) -> Float64[np.ndarray, "v 3"]:
    """Let the eyeballs, which no surface connects to the face, follow their lids."""
    for ball in (anatomy.left_eye, anatomy.right_eye):
        near = np.linalg.norm(points - points[ball].mean(axis=0), axis=1) < _LIDS_M
        near[ball] = False
        if near.any():
            moved[ball] = moved[near].mean(axis=0)
    return moved


def solve_sparse(
    system: sp.sparray, right: Float64[np.ndarray, "n ..."], order: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n ..."]:
    """Solve a sparse symmetric positive definite system, eliminating unknowns in this order to keep it sparse."""
    columns = sp.csc_array(system)[:, order]
    factors = splu(sp.csc_array(sp.csr_array(columns)[order]), permc_spec="NATURAL", options={"SymmetricMode": True})
    solution = np.empty_like(right)
    solution[order] = factors.solve(right[order])
    return solution
