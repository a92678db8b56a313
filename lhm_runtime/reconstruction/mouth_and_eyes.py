"""Eyeballs that turn, teeth and a dark mouth: what is behind lids and lips."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.spatial import cKDTree

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.anatomy import Anatomy
from lhm_runtime.reconstruction.builtin_person.features import make_eyes, make_teeth, teeth_depth
from lhm_runtime.reconstruction.builtin_person.figure import Figure, vertex_normals
from lhm_runtime.reconstruction.builtin_person.look import Look
from lhm_runtime.reconstruction.builtin_person.sampling import OVERSAMPLING, Patch, concatenate, cover, scatter, thin
from lhm_runtime.reconstruction.builtin_person.shading import Rgb, mix, signed_distance, smoothstep
from lhm_runtime.reconstruction.builtin_person.skin import EYE_LOWER, EYE_UPPER, LIPS_INNER
from lhm_runtime.reconstruction.colouring import read_colours
from lhm_runtime.reconstruction.eyelids import sink_behind_lids
from lhm_runtime.reconstruction.view import View

INSIDE_SHARE = 0.03
"""Of all Gaussians."""

_UPPER_LIP = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
_LIPS_RING = LIPS_INNER + _UPPER_LIP[-2:0:-1]
_EYE_RINGS = [upper + lower[-2:0:-1] for upper, lower in zip(EYE_UPPER, EYE_LOWER, strict=True)]
"""The right eye's, then the left's."""
_MOUTH: Rgb = (0.30, 0.09, 0.09)
_TONGUE: Rgb = (0.62, 0.30, 0.30)
_TYPICAL_SKIN, _TYPICAL_CHROMA = 0.72, 0.2
"""Skin that the built-in colours of teeth and eyes go with."""
_IRISES = (slice(468, 473), slice(473, 478))
"""Centre and rim, the right eye's, then the left's."""
_UPPER_LIP_MIDDLE, _LOWER_LIP_MIDDLE = 13, 14
_LID_M, _LIP_M, _PARTED_M = 0.0008, 0.002, 0.0025
"""Marks are off by so much: what is nearer to an opening may show what is in it. Lips closer than this are shut."""
_BEHIND_TEETH_M, _PALATE_M = 0.001, 0.012
"""The lining begins so far behind the teeth, and ends so far above the upper lip's edge."""
_IRIS: Rgb = (0.30, 0.20, 0.14)
"""Where no photo shows it: brown, as most people's."""
_IRIS_M = 0.0062
_EYE_SIZE = 0.93
_LEAST_IRIS_PX, _LEAST_OPENING, _LEAST_SEEN = 2.5, 0.18, 8
"""Smaller irises, narrower lids and fewer Gaussians in sight say nothing of the eye."""


def make_inside(
    rest: Float[np.ndarray, "v 3"],
    joints: Float[np.ndarray, "55 3"],
    count: int,
    tone: Float[np.ndarray, " 3"],
    body: BodyModel,
    anatomy: Anatomy,
) -> tuple[Patch, Patch]:
    """Eyeballs, and teeth with the lining of the mouth, ``count`` Gaussians together.

    Args:
        tone: colour of the skin in the photo, which says how bright and how colourful all is.
    """
    assert anatomy.landmarks is not None  # noqa: S101 (project checked)
    figure = Figure(
        body=body,
        look=Look(iris=_IRIS),
        vertices=rest,
        normals=vertex_normals(rest, anatomy.faces),
        faces=anatomy.faces,
        joints=joints,
        landmarks=anatomy.landmarks @ rest,
        neighbours=anatomy.average,
        stretch=np.ones(len(rest)),
        shade=np.ones(len(rest)),
    )
    eye_count, teeth_count = round(0.43 * count), round(0.14 * count)
    eyes = concatenate([_sunk(eye, rest, body, anatomy) for eye in make_eyes(figure, eye_count)])
    teeth = concatenate(make_teeth(figure, teeth_count))
    lining = _line_mouth(figure, count - eye_count - teeth_count, anatomy)
    light = np.clip(tone.mean() / _TYPICAL_SKIN, 0.02, 1.2)
    colourful = np.clip(np.ptp(tone) / _TYPICAL_CHROMA, 0, 1)  # a black and white photo has grey lips

    def lit(patch: Patch, light: float) -> Patch:
        grey = patch.rgb.mean(axis=1, keepdims=True)
        return replace(patch, rgb=light * (grey + colourful * (patch.rgb - grey)))

    # half of what makes skin dark is dye, which teeth and eyes have not
    half = float(np.sqrt(light))
    return lit(eyes, half), concatenate([lit(teeth, half), lit(lining, float(light))])


def _sunk(eye: Patch, rest: Float[np.ndarray, "v 3"], body: BodyModel, anatomy: Anatomy) -> Patch:
    """An eyeball a little smaller and behind its lids: draping leaves them less exact than the body model's."""
    middle, _ = _ball(eye.means)
    means = middle + _EYE_SIZE * (eye.means - middle)
    means[:, 2] -= sink_behind_lids(means, rest, body, anatomy)
    return replace(eye, means=means, scales=_EYE_SIZE * eye.scales)


def _line_mouth(figure: Figure, count: int, anatomy: Anatomy) -> Patch:
    """Palate, cheeks and tongue, darker with depth: what lies behind the teeth, and no higher than can be looked at."""
    away = figure.vertices[anatomy.faces].mean(axis=1) - figure.landmarks[13]
    looked_at = (away[:, 2] < teeth_depth(away[:, 0]) - _BEHIND_TEETH_M) & (away[:, 1] < _PALATE_M)
    faces = np.flatnonzero(anatomy.inside_mouth & looked_at)
    candidates = scatter(figure.vertices, anatomy.faces[faces], np.ones(len(figure.vertices)), OVERSAMPLING * count, 5)
    samples = thin(candidates.on(faces), count, seed=5)
    depth = smoothstep(0.004, 0.03, figure.landmarks[13, 2] - samples.points[:, 2])
    tongue = samples.interpolate(anatomy.faces, figure.weight_of("jaw")) > 0.97
    rgb = mix(np.tile(_TONGUE, (count, 1)), _MOUTH, np.where(tongue, 0.35, 0.85) * depth + 0.1)
    rgb *= (1 - 0.75 * np.where(tongue, 0.4, 1.0) * depth)[:, None]
    return cover(samples, samples.normals, rgb, thickness=0.0007)


def in_openings(view: View, xy: Float[np.ndarray, "n 2"], scale: float) -> Bool[np.ndarray, " n"]:
    """Which pixels of the photo lie between the lids of an eye or between the lips, or so near that they may.

    Args:
        scale: pixels along a metre of the face.
    """
    inside = np.zeros(len(xy), bool)
    if view.landmarks.face_image is None:
        return inside
    marks = view.marks(view.landmarks.face_image)
    for ring in _EYE_RINGS:
        inside |= _within(xy, marks[ring], _LID_M * scale)
    parted = np.ptp(marks[[_UPPER_LIP_MIDDLE, _LOWER_LIP_MIDDLE], 1]) > _PARTED_M * scale
    inside |= _within(xy, marks[_LIPS_RING], _LIP_M * scale) if parted else _within(xy, marks[_LIPS_RING])
    return inside


def open_pixels(view: View) -> Bool[np.ndarray, " p"]:
    """Pixels that show eyes and teeth, which lids and lips must not answer for."""
    row, column = np.mgrid[: view.size[1], : view.size[0]]
    depth = view.zero_to_camera[JOINT_INDEX["head"]] @ [0, 1.6, 0, 1]
    return in_openings(view, np.stack([column.ravel(), row.ravel()], axis=1) + 0.5, view.focal[0] / depth[2])


def _within(
    xy: Float[np.ndarray, "n 2"], ring: Float[np.ndarray, "k 2"], margin: float = -0.3
) -> Bool[np.ndarray, " n"]:
    """Which points are inside a polygon, or no further than ``margin`` outside."""
    low, high = ring.min(axis=0) - 1 - max(margin, 0), ring.max(axis=0) + 1 + max(margin, 0)
    near = np.flatnonzero(((xy > low) & (xy < high)).all(axis=1))
    inside = np.zeros(len(xy), bool)
    inside[near] = signed_distance(xy[near], ring) > -margin
    return inside


def colour_eyes(
    view: View, painted: Float[np.ndarray, "n 3"], points: Float[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n 3"]:
    """Colours of the eyeballs from the photo where the lids are open, continued round the iris and over the white.

    Args:
        painted: colours for where the photo says nothing.
        points: the eyeballs' Gaussians in the camera's frame, in the order of ``make_inside``.
    """
    rgb = painted.astype(np.float64)
    if view.landmarks.face_image is None:
        return rgb
    marks = view.marks(view.landmarks.face_image)
    half = len(points) - len(points) // 2
    for own, side in ((slice(0, half), 1), (slice(half, None), 0)):  # the left eye comes first
        rgb[own] = _colour_eye(view, rgb[own], points[own], marks[_IRISES[side]], marks[_EYE_RINGS[side]])
    return rgb


def _colour_eye(
    view: View,
    painted: Float64[np.ndarray, "n 3"],
    points: Float[np.ndarray, "n 3"],
    iris_marks: Float64[np.ndarray, "5 2"],
    ring: Float64[np.ndarray, "k 2"],
) -> Float64[np.ndarray, "n 3"]:
    iris_px = float(np.linalg.norm(iris_marks[1:] - iris_marks[0], axis=1).mean())
    opening = np.ptp(ring[:, 1]) / max(np.ptp(ring[:, 0]), 1e-6)
    if iris_px < _LEAST_IRIS_PX or opening < _LEAST_OPENING:
        return painted
    middle, radius = _ball(points)
    ahead = (points[0] - middle) / np.linalg.norm(points[0] - middle)  # the first Gaussian is where the eye looks
    gaze = _meet(iris_marks[0], middle, radius, view)
    turned = (points - middle) @ _shortest_turn(ahead, gaze).T + middle
    xy = view.project(turned)[:, :2]
    shown = _within(xy, ring) & (((turned - middle) * turned).sum(axis=1) < 0)
    seen = read_colours(view.extended, xy)
    off_axis = radius * np.arccos(np.clip((points - middle) @ ahead / radius, -1, 1))
    iris = off_axis < _IRIS_M
    rgb = painted.copy()
    known = np.flatnonzero(iris & shown)
    if len(known) >= _LEAST_SEEN:
        hidden = np.flatnonzero(iris & ~shown)
        k = min(9, len(known))
        near = cKDTree(off_axis[known, None]).query(off_axis[hidden, None], k=k)[1].reshape(len(hidden), k)
        rgb[hidden], rgb[known] = np.median(seen[known][near], axis=1), seen[known]
    known = np.flatnonzero(~iris & shown)
    if len(known) >= _LEAST_SEEN:
        rgb[~iris & ~shown], rgb[known] = np.quantile(seen[known], 0.7, axis=0), seen[known]
    return rgb


def _ball(points: Float[np.ndarray, "n 3"]) -> tuple[Float64[np.ndarray, " 3"], float]:
    """Centre and radius of the sphere through points: |p|^2 = 2 p.c + (r^2 - |c|^2) is linear in c and the rest."""
    solution = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None)[0]
    centre: np.ndarray = solution[:3]
    return centre, float(np.sqrt(max(solution[3] + centre @ centre, 0.0)))


def _meet(
    pixel: Float64[np.ndarray, " 2"], middle: Float64[np.ndarray, " 3"], radius: float, view: View
) -> Float64[np.ndarray, " 3"]:
    """Direction from a ball's centre to where a pixel's ray meets it, or comes nearest."""
    ray = np.append((pixel - view.centre) / view.focal, 1.0)
    ray /= np.linalg.norm(ray)
    along = ray @ middle
    off = middle - along * ray
    hit = (along - np.sqrt(max(radius**2 - off @ off, 0.0))) * ray - middle
    direction: np.ndarray = hit / np.linalg.norm(hit)
    return direction


def _shortest_turn(a: Float64[np.ndarray, " 3"], b: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, "3 3"]:
    """Rotation of unit vector a onto b."""
    axis, cosine = np.cross(a, b), float(a @ b)
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: np.ndarray = np.eye(3) + cross + cross @ cross / (1 + max(cosine, -0.99))
    return turn
