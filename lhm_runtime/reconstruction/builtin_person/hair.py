"""A chin-length bob with a side parting: strands that fan out from the parting and fall around the head."""

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial import cKDTree

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.builtin_person.figure import Figure
from lhm_runtime.reconstruction.builtin_person.look import Look
from lhm_runtime.reconstruction.builtin_person.sampling import Patch, strokes
from lhm_runtime.reconstruction.builtin_person.shading import mix, noise, smoothstep

_PARTING = 0.20
"""Azimuth of the parting from straight ahead, radians, towards the person's left."""

_PER_STRAND = 14
_STEPS = 121


def scalp(figure: Figure, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """How far points on the head lie inside the hairline, metres."""
    marks = figure.landmarks
    eye = marks[[468, 473]].mean(axis=0)
    top, centre = marks[10], _centre(figure)
    azimuth = np.abs(np.arctan2(points[:, 0] - centre[0], points[:, 2] - centre[2]))
    line = np.interp(
        azimuth,
        [0.0, 0.45, 0.80, 1.15, 1.45, 1.9, np.pi],
        np.array(
            [
                top[1] + 0.024,
                top[1] + 0.021,
                top[1] + 0.004,
                eye[1] + 0.016,
                eye[1] - 0.01,
                eye[1] - 0.03,
                eye[1] - 0.075,
            ]
        ),
    )
    inside: np.ndarray = points[:, 1] - line
    return inside


def _centre(figure: Figure) -> Float64[np.ndarray, " 3"]:
    """Middle of the skull at the height where hair leaves it."""
    marks = figure.landmarks
    skull = figure.vertices[figure.weight_of("head") > 0.9]
    eye_height = marks[[468, 473], 1].mean()
    above = skull[skull[:, 1] > eye_height + 0.015]
    return np.array([0.0, eye_height + 0.012, (above[:, 2].min() + above[:, 2].max()) / 2])


def make_hair(figure: Figure, count: int) -> Patch:
    """``count`` Gaussians in strands of 14, all on the head joint."""
    strands = -(-count // _PER_STRAND)
    layer = (np.arange(strands) * 0.7548776662466927 + 0.3) % 1.0
    path, direction, length = _grow(figure, layer)
    path = _push_out(figure, path, 0.0045 + 0.008 * layer)

    def along_strand(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, _PER_STRAND)[:count]

    at = (np.arange(_PER_STRAND) + 0.5) / _PER_STRAND
    index = np.clip(np.round(at * (_STEPS - 1)).astype(int), 2, _STEPS - 3)
    means = path[:, index].reshape(-1, 3)[:count]
    tangents = (path[:, index + 2] - path[:, index - 2]).reshape(-1, 3)[:count]
    normals = direction[:, index].reshape(-1, 3)[:count]
    rgb = _colour(figure.look, along_strand(layer), along_strand(np.arange(strands)), means, tangents, normals)
    width = 0.0034 * np.sqrt(343 / strands)
    tip = np.tile(at, strands)[:count]
    scales = np.stack(
        [
            0.62 / _PER_STRAND * along_strand(length),
            width * (1 - 0.45 * smoothstep(0.8, 1.0, tip)),
            np.full(count, 0.0016),
        ],
        axis=1,
    )
    head = np.flatnonzero((figure.weight_of("head") > 0.95)[figure.faces].all(axis=1))
    nearest = cKDTree(figure.vertices[figure.faces[head]].mean(axis=1)).query(means)[1]
    patch = strokes(means, tangents, normals, scales, rgb, opacity=0.93)
    return patch.riding(head[nearest], JOINT_INDEX["head"], expressive=False)


def _grow(
    figure: Figure, layer: Float[np.ndarray, " s"]
) -> tuple[Float64[np.ndarray, "s k 3"], Float64[np.ndarray, "s k 3"], Float64[np.ndarray, " s"]]:
    """Paths of strands, outward directions along them, and their lengths, metres.

    Each follows a great circle of the skull, taken as an ellipsoid, from the parting to the height where hair leaves
    the head, and then falls. ``layer`` is how far out in the volume it lies: 0 next to the scalp, 1 outside.
    """
    marks, centre = figure.landmarks, _centre(figure)
    skull = figure.vertices[(figure.weight_of("head") > 0.9) & (figure.vertices[:, 1] > centre[1])] - centre
    temples = skull[np.abs(skull[:, 1]) < 0.04]
    radii = np.array([0.94 * np.abs(temples[:, 0]).max(), skull[:, 1].max(), skull[:, 2].max()])
    strands = len(layer)
    fan = (np.arange(strands) + 0.5) / strands * 2
    side = np.where(fan < 1, 1.0, -1.0)
    fan = fan % 1.0
    jitter = np.random.default_rng(51).normal(0, 1, (strands, 4))

    # where a strand leaves the parting, from the forehead to the crown, and the azimuth at which it falls
    pitch = 0.66 + 1.40 * np.minimum(fan / 0.55, 1) + 0.04 * jitter[:, 0]
    root = np.stack([np.sin(_PARTING) * np.cos(pitch), np.sin(pitch), np.cos(_PARTING) * np.cos(pitch)], axis=1)
    azimuth = side * (1.12 + (np.pi - 1.08) * fan**1.15 + 0.03 * jitter[:, 1])
    fall = np.stack([np.sin(azimuth), np.full(strands, -0.02), np.cos(azimuth)], axis=1)
    fall /= np.linalg.norm(fall, axis=1, keepdims=True)

    drop = (
        centre[1]
        - marks[152, 1]
        - 0.024
        + figure.look.hair_growth_m
        + 0.02 * layer
        + 0.012 * np.cos(azimuth)
        + 0.006 * jitter[:, 2]
    )
    turn = np.arccos((root * fall).sum(axis=1))[:, None]
    arc = turn * radii.mean()
    length = arc[:, 0] + drop
    t = np.linspace(0, 1, _STEPS) * length[:, None]
    turned = np.minimum(t / arc, 1)
    a, b = np.sin((1 - turned) * turn), np.sin(turned * turn)
    direction = (a[..., None] * root[:, None] + b[..., None] * fall[:, None]) / np.sin(turn)[..., None]
    below = np.maximum(t - arc, 0)
    lift = (0.004 + 0.013 * layer[:, None]) * smoothstep(-0.03, 0.10, t) + 0.006 * np.sin(np.pi * t / length[:, None])
    curl = 1 + 0.05 * np.sin(np.pi * below / 0.12) - 0.16 * smoothstep(0.04, 0.13, below)
    path = centre + direction * (radii * curl[..., None] + lift[..., None])
    path[..., 1] -= below
    wave = 0.0022 * np.sin(55 * t + 2 * np.pi * jitter[:, 3:])
    return path + wave[..., None] * np.cross(direction, [0, 1.0, 0]), direction, length


def _push_out(
    figure: Figure, path: Float[np.ndarray, "s k 3"], clearance: Float[np.ndarray, " s"]
) -> Float64[np.ndarray, "s k 3"]:
    """The paths moved off the head and neck where they come nearer than ``clearance``."""
    solid = figure.weight_of("head", "neck", "jaw", "spine3") > 0.5
    surface, normals = figure.vertices[solid], figure.normals[solid]
    nearest = cKDTree(surface).query(path.reshape(-1, 3))[1].reshape(path.shape[:2])
    height = ((path - surface[nearest]) * normals[nearest]).sum(axis=-1)
    lack = np.maximum(clearance[:, None] - height, 0)
    # smoothed along the strand, so that an ear bends it rather than kinks it
    kernel = np.hanning(23)
    kernel /= kernel.sum()
    padded = np.pad(lack[..., None] * normals[nearest], ((0, 0), (11, 11), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 23, axis=1)
    return path + windows @ kernel


def _colour(
    look: Look,
    layer: Float[np.ndarray, " n"],
    strand: np.ndarray,
    means: Float[np.ndarray, "n 3"],
    tangents: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
) -> Float64[np.ndarray, "n 3"]:
    """Brown, lighter outside than between, with the soft band of light that smooth hair has (Kajiya and Kay 1989)."""
    tone = 0.70 + 0.36 * layer + 0.28 * noise(strand[:, None] * np.array([0.37, 0.11, 0.23]), 52)
    tone += 0.10 * noise(means * 25, 53)
    rgb = np.array(look.hair) * tone[:, None] * (0.88 + 0.16 * normals[:, 1:2])
    unit = tangents / np.linalg.norm(tangents, axis=1, keepdims=True)
    light = np.array([0.1, 0.92, 0.38])
    aligned = unit @ (light / np.linalg.norm(light))
    band = np.sqrt(np.maximum(1 - aligned**2, 0)) ** 14 * smoothstep(-0.1, 0.5, normals[:, 1]) * (0.4 + 0.6 * layer)
    return mix(rgb, look.hair_sheen, 0.62 * band)
