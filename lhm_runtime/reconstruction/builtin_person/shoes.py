"""The built-in person's shoes: low, of suede, with a light sole."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from lhm_runtime.reconstruction.builtin_person.figure import Figure, ambient, ring_average, vertex_normals
from lhm_runtime.reconstruction.builtin_person.sampling import OVERSAMPLING, Patch, cover, lay_along, scatter, thin
from lhm_runtime.reconstruction.builtin_person.shading import Rgb, bump, mix, noise, smoothstep

_WELT: Rgb = (0.42, 0.36, 0.30)
_SOLE: Rgb = (0.93, 0.92, 0.89)
_LACE: Rgb = (0.95, 0.93, 0.88)

_SOLE_HEIGHT = 0.0245
_RINGS, _AROUND = 61, 48

# a shoe of 27 cm, from heel (0) to toe (1)
_HALF_WIDTH = PchipInterpolator(
    [0, 0.03, 0.09, 0.2, 0.45, 0.68, 0.84, 0.94, 0.985, 1],
    [0, 0.021, 0.031, 0.036, 0.038, 0.048, 0.044, 0.031, 0.017, 0],
)
_HEIGHT = PchipInterpolator(
    [0, 0.02, 0.08, 0.3, 0.45, 0.6, 0.8, 0.93, 0.98, 1],
    [0.05, 0.078, 0.088, 0.088, 0.080, 0.066, 0.052, 0.043, 0.034, 0.024],
)


@dataclass(frozen=True, eq=False)
class _Last:
    """The shape of one shoe: v vertices in rings from heel to toe."""

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    u: Float64[np.ndarray, " v"]
    """From heel (0) to toe (1)."""
    across: Float64[np.ndarray, " v"]
    """Metres from the middle line."""
    height: Float64[np.ndarray, " v"]
    """Metres over the floor."""
    covered: Float64[np.ndarray, " v"]
    """1 where the leg goes in."""


def make_shoes(figure: Figure, count: int) -> list[Patch]:
    """``count`` Gaussians of two shoes, one patch each."""
    return [_shoe(figure, "left", count - count // 2), _shoe(figure, "right", count // 2)]


def _shoe(figure: Figure, side: str, count: int) -> Patch:
    """One shoe; each Gaussian rides on the nearest triangle of foot or shin."""
    last = _build_last(figure, side)
    normals = vertex_normals(last.vertices, last.faces)
    light = ambient(last.vertices, normals, ring_average(last.faces, len(last.vertices)))
    density = (1 + 4 * bump(last.height - _SOLE_HEIGHT, 0.006)) * (1 - 0.9 * last.covered)
    density *= np.where(last.height < 0.002, 0.35, 1)
    samples = thin(scatter(last.vertices, last.faces, density, OVERSAMPLING * count, 21), count, 21)

    def at(values: np.ndarray) -> np.ndarray:
        return samples.interpolate(last.faces, values)

    u, height = at(last.u), at(last.height)
    rgb = np.tile(figure.look.shoes, (count, 1)) * (1 + 0.05 * noise(samples.points * 70, 9))[:, None]
    tongue = smoothstep(0.018, 0.014, np.abs(at(last.across)))
    tongue *= smoothstep(0.40, 0.43, u) * smoothstep(0.66, 0.63, u)
    rgb = mix(rgb, figure.look.shoe_seam, 0.5 * tongue)
    rgb = mix(rgb, _LACE, 0.95 * tongue * (np.sin(u * 2 * np.pi / 0.042) > 0.1) * (height > 0.045))
    rgb = mix(rgb, figure.look.shoe_seam, 0.6 * bump(u - 0.80, 0.008) * (height > 0.03))
    rgb = mix(rgb, _SOLE, smoothstep(_SOLE_HEIGHT + 0.001, _SOLE_HEIGHT - 0.001, height))
    rgb = mix(rgb, _WELT, 0.55 * bump(height - _SOLE_HEIGHT, 0.0014))
    rgb *= (at(light) * (0.80 + 0.20 * smoothstep(0.0, 0.03, height)))[:, None]

    smooth = at(normals)
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True)
    level = np.cross(smooth, [0.0, 1.0, 0.0])
    upright = np.linalg.norm(level, axis=1) > 0.2
    band = smoothstep(0.012, 0.004, np.abs(height - _SOLE_HEIGHT)) * upright
    patch = lay_along(cover(samples, smooth, rgb, thickness=0.0015), level, band)

    legs = figure.weight_of(f"{side}_knee", f"{side}_ankle", f"{side}_foot")
    carriers = np.flatnonzero((legs[figure.faces] > 0.9).all(axis=1))
    nearest = cKDTree(figure.vertices[figure.faces[carriers]].mean(axis=1)).query(samples.points)[1]
    return patch.riding(carriers[nearest])


def _build_last(figure: Figure, side: str) -> _Last:
    """Loft rings round the bare foot, a little longer than it and 14 mm under it."""
    ankle = figure.joint(f"{side}_ankle")
    forward = (figure.joint(f"{side}_foot") - ankle) * [1, 0, 1]
    forward /= np.linalg.norm(forward)
    axes = np.stack([[forward[2], 0, -forward[0]], [0, 1.0, 0], forward])  # to the person's left, up, forward
    foot = figure.weight_of(f"{side}_ankle", f"{side}_foot") > 0.5
    local = (figure.vertices[foot] - ankle) @ axes.T
    low = local[local[:, 1] < -0.03]
    heel, toe = low[:, 2].min() - 0.008, low[:, 2].max() + 0.012
    size = (toe - heel) / 0.27

    u, angle = np.meshgrid(np.linspace(0, 1, _RINGS), np.linspace(0, 2 * np.pi, _AROUND, endpoint=False), indexing="ij")
    u = 0.5 - 0.5 * np.cos(np.pi * u.ravel())  # closer rings where heel and toe round off
    cosine, sine = np.cos(angle.ravel()), np.sin(angle.ravel())
    rise = 0.5 + 0.5 * np.sign(sine) * np.abs(sine) ** 0.75
    height = size * _HEIGHT(u) * rise
    welt = size * 0.0035 * smoothstep(0.026, 0.021, height)
    ratio = np.sign(cosine) * np.abs(cosine) ** 0.75 * (1 - 0.30 * rise**2)
    inwards = -0.006 if side == "left" else 0.006
    x = local[:, 0].mean() * 0.5 + inwards * smoothstep(0.4, 1.0, u) + ratio * (size * _HALF_WIDTH(u) + welt)
    z = heel + (toe - heel) * u + welt * np.sign(u - 0.5) * smoothstep(0.4, 0.5, np.abs(u - 0.5))
    return _Last(
        vertices=ankle + np.stack([x, low[:, 1].min() - 0.014 + height, z], axis=1) @ axes,
        faces=_tube_faces(_RINGS, _AROUND),
        u=u,
        across=ratio * size * _HALF_WIDTH(u),
        height=height,
        covered=smoothstep(0.08, 0.14, u) * smoothstep(0.36, 0.30, u) * (rise > 0.97),
    )


def _tube_faces(rings: int, around: int) -> Int64[np.ndarray, "f 3"]:
    """Triangles of a tube of ``rings`` closed loops, outward when the loops run from +x to +y seen along the tube."""
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(around), indexing="ij")
    a, b = i * around + j, i * around + (j + 1) % around
    c, d = a + around, b + around
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
