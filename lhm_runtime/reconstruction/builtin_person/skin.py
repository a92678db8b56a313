"""Bare skin of the built-in person: face, ears, neck, arms and hands, and the inside of the mouth."""

from dataclasses import fields, replace

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.spatial import cKDTree

from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.body.rotations import quat_wxyz_to_matrix
from lhm_runtime.reconstruction.builtin_person.figure import Figure
from lhm_runtime.reconstruction.builtin_person.hair import scalp
from lhm_runtime.reconstruction.builtin_person.sampling import (
    OVERSAMPLING,
    Patch,
    Samples,
    cover,
    lay_along,
    scatter,
    thin,
)
from lhm_runtime.reconstruction.builtin_person.shading import (
    Rgb,
    bump,
    distance_to_path,
    mix,
    noise,
    signed_distance,
    smoothstep,
)
from lhm_runtime.reconstruction.builtin_person.wardrobe import cut_shirt, cut_trousers

SKIN: Rgb = (0.90, 0.725, 0.625)
_FLUSH: Rgb = (0.86, 0.50, 0.43)
_LIPS: Rgb = (0.76, 0.425, 0.41)
_MOUTH: Rgb = (0.30, 0.09, 0.09)
_TONGUE: Rgb = (0.70, 0.36, 0.36)
_SOCK: Rgb = (0.32, 0.33, 0.36)
_WARM_SHADE: Rgb = (0.75, 1.0, 1.08)

# MediaPipe face mesh: closed rings and open paths, the person's right first
LIPS_OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
FACE_OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
FACE_OVAL += [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
LIPS_INNER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
EYE_UPPER = ([33, 246, 161, 160, 159, 158, 157, 173, 133], [263, 466, 388, 387, 386, 385, 384, 398, 362])
EYE_LOWER = ([33, 7, 163, 144, 145, 153, 154, 155, 133], [263, 249, 390, 373, 374, 380, 381, 382, 362])
BROW_UPPER = ([70, 63, 105, 66, 107], [300, 293, 334, 296, 336])
BROW_LOWER = ([46, 53, 52, 65, 55], [276, 283, 282, 295, 285])


def make_skin(figure: Figure, count: int) -> list[Patch]:
    """``count`` Gaussians, from dense around the eyes and lips to sparse on the arms.

    A 40th of them lies under the face as a coarse lining, so that no gap shows the back of the head.
    """
    lining = count // 40
    surface = _skin(figure, count - lining)
    under = thin(_lining_places(figure, surface), lining, seed=32)
    chosen = cKDTree(surface.means).query(under.points)[1]
    patch = Patch(**{f.name: getattr(surface, f.name)[chosen] for f in fields(Patch)})
    wide = cover(
        replace(under, points=under.points - 0.006 * under.normals), under.normals, patch.rgb, thickness=0.0007
    )
    return [surface, replace(patch, means=wide.means, quat_wxyz=wide.quat_wxyz, scales=wide.scales)]


def _lining_places(figure: Figure, surface: Patch) -> Samples:
    """Even candidates for the lining: one of the face's Gaussians in each 4 mm cell, away from its features."""
    p, marks = surface.means, figure.landmarks
    oval = signed_distance(p[:, :2], marks[FACE_OVAL, :2]) > -0.025
    far = ~_inside_head(figure, p)[0]
    eyes = EYE_UPPER[0] + EYE_LOWER[0] + EYE_UPPER[1] + EYE_LOWER[1]
    for ring, reach in ((LIPS_OUTER, 0.015), (eyes, 0.014), ([2, 4, 48, 278], 0.017)):
        far &= cKDTree(marks[ring]).query(p)[0] > reach
    normals = quat_wxyz_to_matrix(surface.quat_wxyz)[:, :, 2]
    outwards = (p - marks[152] + [0, 0, 0.08]) * [1, 0, 1]  # from an upright axis in the head
    facing = (normals * outwards).sum(axis=1) > 0.3 * np.linalg.norm(outwards, axis=1)
    candidates = np.flatnonzero(oval & far & facing & (p[:, 2] > marks[152, 2] - 0.06))
    cells = np.floor(p[candidates] / 0.004).astype(int)
    places = candidates[np.unique(cells, axis=0, return_index=True)[1]]
    return Samples(
        points=p[places],
        normals=normals[places],
        triangles=surface.triangles[places],
        barycentric=surface.barycentric[places],
        spacing=np.full(len(places), 0.004),
    )


def _skin(figure: Figure, count: int) -> Patch:
    """The visible surface."""
    shirt, trousers = cut_shirt(figure, figure.vertices), cut_trousers(figure, figure.vertices)
    head = figure.weight_of("neck", "head", "jaw", "left_eye_smplhf", "right_eye_smplhf")
    hands = figure.weight_of(*(n for n in JOINT_NAMES if n.endswith(("1", "2", "3")) and "spine" not in n))
    hands += figure.weight_of("left_wrist", "right_wrist")
    feet = figure.weight_of("left_ankle", "right_ankle", "left_foot", "right_foot")
    eyeballs = figure.weight_of("left_eye_smplhf", "right_eye_smplhf") > 0.9
    above_shoe = figure.joint("left_ankle")[1] - 0.015
    # the collar stands off the neck, so skin ends just inside it; sleeves hang open, so skin goes on
    bare = (head > 0.05) & (shirt.edges[:, 0] < 0.003) & ~eyeballs
    bare |= (np.abs(figure.vertices[:, 0]) > 0.19) & (shirt.edges[:, 1] < 0.02) & (shirt.edges[:, 2] > 0)
    bare |= (feet > 0.3) & (figure.vertices[:, 1] > above_shoe) & (trousers.inside < 0.03)
    used = np.flatnonzero(bare[figure.faces].all(axis=1))
    tucked = figure.vertices - 1.3 * np.clip(shirt.inside + 0.001, 0, 0.012)[:, None] * figure.normals
    density = (
        1
        + 0.9 * smoothstep(0.19, 0.24, np.abs(figure.vertices[:, 0]))
        + 6 * smoothstep(0.2, 0.8, hands)
        + _face_detail(figure) * smoothstep(0.3, 0.8, head)
    )
    density *= figure.stretch
    density *= np.where(scalp(figure, figure.vertices) > 0.012, 0.35, 1.0)
    candidates = scatter(tucked, figure.faces[used], density, OVERSAMPLING * count * 6 // 5, 31).on(used)
    inner, mouth = _inside_head(figure, candidates.points)
    keep = ~inner | mouth
    keep &= ~mouth | (np.arange(len(keep)) % 6 == 0)
    candidates = candidates[keep]
    samples = thin(candidates, count, 31)
    _, mouth = _inside_head(figure, samples.points)

    def at(values: np.ndarray) -> np.ndarray:
        return samples.interpolate(figure.faces, values)

    normals = at(figure.normals)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rgb = _paint(figure, samples.points, normals, at(head), at(hands))
    shadow = 1 - 0.40 * smoothstep(-0.018, 0.012, at(shirt.edges[:, :2].min(axis=1)))
    chin = figure.landmarks[152]
    under_chin = smoothstep(chin[1] + 0.012, chin[1] - 0.02, samples.points[:, 1]) * smoothstep(0.3, 0.8, at(head))
    light = (1 - (1 - at(figure.shade)) * (1 - 0.4 * at(hands))) * shadow * (1 - 0.10 * under_chin)
    rgb = mix(rgb, _SOCK, smoothstep(-0.5, -0.6, samples.points[:, 1] - figure.joint("pelvis")[1]))
    # light that has passed through skin is warm: so are its shadows
    rgb *= light[:, None] ** np.array(_WARM_SHADE)
    depth = smoothstep(0.0, 0.03, figure.landmarks[13, 2] - samples.points[:, 2])
    dark = np.where(at(figure.weight_of("jaw")) > 0.97, 0.3, 0.8) * depth + 0.15
    rgb = np.where(mouth[:, None], mix(np.tile(_TONGUE, (count, 1)), _MOUTH, dark), rgb)
    wide = replace(samples, spacing=samples.spacing * np.minimum(at(figure.stretch), 9.0) ** 0.5)
    patch = cover(wide, normals, rgb, thickness=0.001)
    lips = _signed_lips(figure, samples.points)
    step = 2e-4
    slope = np.stack([_signed_lips(figure, samples.points + step * axis) - lips for axis in np.eye(3)], axis=1)
    front = samples.points[:, 2] > figure.landmarks[LIPS_OUTER, 2].min() - 0.005
    return lay_along(patch, np.cross(normals, slope / step) + 1e-9, smoothstep(0.0035, 0.0015, np.abs(lips)) * front)


def _signed_lips(figure: Figure, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """Distance inside the outline of the lips, seen from the front."""
    return signed_distance(points[:, :2], figure.landmarks[LIPS_OUTER, :2])


def _face_detail(figure: Figure) -> Float64[np.ndarray, " v"]:
    """Extra density over the head: all of the face, more at mouth, nose and ears, most at the eyes."""
    p, marks = figure.vertices, figure.landmarks
    facing = smoothstep(marks[152, 2] - 0.10, marks[152, 2] - 0.05, p[:, 2])
    eyes = np.minimum.reduce(
        [np.linalg.norm(p - marks[EYE_UPPER[k] + EYE_LOWER[k]].mean(axis=0), axis=1) for k in (0, 1)]
    )
    lips = np.linalg.norm((p - marks[[13, 14]].mean(axis=0)) * [0.55, 1, 1], axis=1)
    nose = np.linalg.norm(p - marks[4], axis=1)
    features = 28 * smoothstep(0.028, 0.012, eyes) + 22 * smoothstep(0.030, 0.012, lips) + 4 * bump(nose, 0.02)
    detail: np.ndarray = 3 + 5 * facing + features
    return detail


def _inside_head(
    figure: Figure, points: Float[np.ndarray, "n 3"]
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Which points lie behind the face (eye sockets, mouth), and which of these line the mouth."""
    p, marks = points, figure.landmarks
    nose, chin = marks[2], marks[152]
    # the 468 surface landmarks are a height field over (x, y), read between the nearest four
    reach, near = (np.asarray(found) for found in cKDTree(marks[:468, :2]).query(p[:, :2], k=4))
    nearness = 1 / (reach**2 + 1e-8)
    front = (nearness * marks[near, 2]).sum(axis=1) / nearness.sum(axis=1)
    behind = np.where((reach[:, 0] < 0.010) & (p[:, 2] > chin[2] - 0.14), front - p[:, 2], -np.inf)
    # above the lip the nose overhangs, but the palate lies deeper than any nostril
    mouth = behind > np.where(p[:, 1] < nose[1], 0.006, 0.020)
    mouth &= (p[:, 1] > chin[1] + 0.008) & (p[:, 1] < nose[1] + 0.04) & (p[:, 2] > chin[2] - 0.11)
    mouth &= (np.abs(p[:, 0]) < 0.048) & (signed_distance(p[:, :2], marks[FACE_OVAL, :2]) > 0.012)
    inner = mouth.copy()
    for side in ("left", "right"):
        centre = figure.joint(f"{side}_eye_smplhf")
        socket = (np.linalg.norm((p - centre)[:, :2], axis=1) < 0.022) & (p[:, 2] < centre[2] + 0.004)
        inner |= socket
    return inner, mouth


def _paint(
    figure: Figure,
    p: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    head: Float[np.ndarray, " n"],
    hands: Float[np.ndarray, " n"],
) -> Float64[np.ndarray, "n 3"]:
    """Skin colour without light."""
    marks = figure.landmarks

    def near(index: int, width: float) -> np.ndarray:
        return bump(np.linalg.norm(p - marks[index], axis=1), width)

    rgb = np.tile(SKIN, (len(p), 1)) * (1 + 0.014 * noise(p * 30, 32) + 0.010 * noise(p * 110, 33))[:, None]
    flush = 0.24 * (near(50, 0.019) + near(280, 0.019)) + 0.24 * near(4, 0.011) + 0.08 * near(152, 0.014)
    ear = smoothstep(abs(marks[454, 0]) + 0.000, abs(marks[454, 0]) + 0.010, np.abs(p[:, 0])) * head
    flush = flush + 0.22 * ear
    knuckles = np.full(len(p), np.inf)
    for name, joint in zip(JOINT_NAMES, figure.joints, strict=True):
        if name.endswith(("1", "2", "3")) and "spine" not in name:
            knuckles = np.minimum(knuckles, np.linalg.norm((p - joint) * [1, 0.6, 1], axis=1))
    flush = flush + hands * (0.20 * bump(knuckles, 0.006) + 0.10 * smoothstep(0.2, -0.6, normals[:, 1]))
    rgb = mix(rgb, _FLUSH, flush)
    facing = smoothstep(marks[152, 2] - 0.06, marks[152, 2] - 0.03, p[:, 2]) * head
    for k in (0, 1):
        rim = np.concatenate([marks[EYE_UPPER[k]], marks[EYE_LOWER[k]][::-1]])
        around = distance_to_path(p, rim)
        rgb = mix(rgb, (0.66, 0.43, 0.37), 0.30 * bump(around, 0.0045))
        rgb = mix(rgb, (0.80, 0.47, 0.43), 0.3 * bump(around, 0.0012))
    lips = _signed_lips(figure, p)
    rgb = mix(rgb, _LIPS, 0.80 * smoothstep(-0.0014, 0.0020, lips) * facing)
    rgb = mix(
        rgb,
        (0.90, 0.60, 0.57),
        0.22 * bump(np.linalg.norm((p - marks[[17, 14]].mean(axis=0)) * [0.4, 1, 1], axis=1), 0.0026),
    )
    parting = distance_to_path(p, marks[LIPS_INNER])
    rgb = mix(rgb, (0.33, 0.12, 0.12), 0.65 * bump(parting, 0.0011) * facing)
    rgb = rgb * np.array(figure.look.skin_tint)
    return mix(rgb, figure.look.hair, smoothstep(-0.004, 0.006, scalp(figure, p)) * smoothstep(0.5, 0.9, head))
