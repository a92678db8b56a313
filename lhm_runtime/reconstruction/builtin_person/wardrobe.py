"""The built-in person's clothes: a T-shirt and trousers draped over the figure."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.reconstruction.builtin_person.figure import Figure, ambient, vertex_normals
from lhm_runtime.reconstruction.builtin_person.sampling import (
    OVERSAMPLING,
    Patch,
    Samples,
    cover,
    lay_along,
    scatter,
    thin,
)
from lhm_runtime.reconstruction.builtin_person.shading import bump, mix, noise, smoothstep


@dataclass(frozen=True, eq=False)
class Cut:
    """How far inside each edge of a garment points of it or of the body lie, metres, negative outside."""

    edges: Float64[np.ndarray, "v k"]

    @property
    def inside(self) -> Float64[np.ndarray, " v"]:
        """Distance to the nearest edge."""
        nearest: np.ndarray = self.edges.min(axis=1)
        return nearest


def cut_shirt(figure: Figure, points: Float[np.ndarray, "v 3"]) -> Cut:
    """Crew neck, sleeves as long as the look says, hem over the hips. Edges: collar, sleeves, hem."""
    x, y, _ = points.T
    shoulder, elbow, neck = figure.joint("left_shoulder"), figure.joint("left_elbow"), figure.joint("neck")
    away = (points - neck) * np.where(points[:, 2:] < neck[2], [0.95, 1.0, 1.5], [0.95, 1.0, 1.0])
    under_chin = neck[1] + 0.03 - 0.6 * np.maximum(away[:, 2], 0) - y
    collar = np.minimum(np.linalg.norm(away, axis=1) - 0.086, under_chin)
    sleeve = shoulder[0] + figure.look.sleeve * (elbow[0] - shoulder[0]) - np.abs(x)
    hem = y - (figure.joint("left_hip")[1] - 0.005)
    return Cut(np.stack([collar, sleeve, hem], axis=1))


def cut_trousers(figure: Figure, points: Float[np.ndarray, "v 3"]) -> Cut:
    """Straight legs from above the hips to the ankles. Edges: waist, ankles."""
    y = points[:, 1]
    waist = figure.joint("left_hip")[1] + 0.03 - y
    ankle = y - (figure.joint("left_ankle")[1] - 0.022)
    return Cut(np.stack([waist, ankle], axis=1))


def make_shirt(figure: Figure, count: int) -> Patch:
    """``count`` Gaussians of jersey."""
    cut = cut_shirt(figure, figure.vertices)
    collar, sleeve, hem = cut.edges.T
    loose = 0.007 + 0.010 * smoothstep(0.25, 0.0, hem) + 0.008 * smoothstep(0.10, 0.0, sleeve)
    loose += 0.003 * bump(collar - 0.022, 0.018)  # collar bones move under the cloth when the arms do
    draped = _drape(figure, figure.look.looseness * loose, rounds=30)
    along = draped * np.array([7.0, 4.0, 7.0]) + draped[:, 1:2] * np.array([2.0, 0, 0])
    folds = 0.005 * noise(along, 1) + 0.0025 * noise(draped * np.array([13.0, 8.0, 13.0]), 2)
    folds += 0.005 * smoothstep(0.16, 0.02, hem) * noise(draped * np.array([9.0, 2.0, 9.0]), 3)
    draped = draped + figure.normals * (folds * smoothstep(0.0, 0.05, collar))[:, None]
    cut = cut_shirt(figure, draped)
    samples, normals, shade = _cloth(figure, draped, cut, np.ones(len(draped)), count, seed=11)

    def at(values: np.ndarray) -> np.ndarray:
        return samples.interpolate(figure.faces, values)

    collar, sleeve, hem = at(cut.edges).T
    look = figure.look
    rgb = np.tile(look.shirt, (count, 1))
    if look.stripe_m:
        across = samples.points[:, 1] if look.stripe_m > 0 else samples.points[:, 0]
        rgb = mix(rgb, look.stripe, smoothstep(-0.2, 0.2, np.sin(2 * np.pi * across / look.stripe_m)))
    rgb = rgb * (1 + 0.02 * noise(samples.points * 90, 4))[:, None]
    rgb = mix(rgb, look.shirt_seam, 0.40 * smoothstep(0.021, 0.017, collar))
    for edge, width in ((sleeve, 0.022), (hem, 0.024)):
        rgb = mix(rgb, look.shirt_seam, 0.6 * bump(edge - width, 0.003))
    return _hemmed(figure, draped, cut, samples, cover(samples, normals, rgb * shade[:, None], thickness=0.0015))


def make_trousers(figure: Figure, count: int) -> Patch:
    """``count`` Gaussians of denim."""
    ankle = cut_trousers(figure, figure.vertices).edges[:, 1]
    hip, knee = figure.joint("left_hip"), figure.joint("left_knee")
    y = figure.vertices[:, 1]
    hem = figure.joint("left_ankle")
    spine = np.stack(
        [np.interp(-y, -np.array([hip[1], knee[1], hem[1]]), [hip[k], knee[k], hem[k]]) for k in (0, 2)],
        axis=1,
    )
    radius = np.hypot(np.abs(figure.vertices[:, 0]) - spine[:, 0], figure.vertices[:, 2] - spine[:, 1])
    tube = np.interp(-y, -np.array([hip[1] - 0.2, knee[1], hem[1]]), [0.0, 0.076, 0.072])
    loose = np.clip(tube - radius, 0.008, 0.045) * smoothstep(hip[1] - 0.1, hip[1] - 0.3, y)
    loose = np.maximum(loose, 0.004 + 0.005 * smoothstep(hip[1], hip[1] - 0.12, y))
    draped = _drape(figure, loose, rounds=30)
    folds = 0.002 * noise(draped * np.array([9.0, 7.0, 9.0]), 5)
    stacked = draped * np.array([7.0, 26.0, 7.0]) + draped[:, [0]] * np.array([0, 9.0, 0])
    folds += noise(stacked, 6) * (0.0045 * bump(ankle - 0.06, 0.06) + 0.003 * bump(y - knee[1], 0.07))
    folds += 0.003 * bump(y - hip[1], 0.05) * noise(draped * np.array([5.0, 22.0, 5.0]), 7)
    draped = draped + figure.normals * folds[:, None]
    cut = cut_trousers(figure, draped)
    samples, normals, shade = _cloth(figure, draped, cut, 1 + 2.5 * bump(y - knee[1], 0.06), count, seed=12)

    def at(values: np.ndarray) -> np.ndarray:
        return samples.interpolate(figure.faces, values)

    look = figure.look
    ankle = at(cut.edges[:, 1])
    x, y, _ = samples.points.T
    between = 1 - 0.22 * smoothstep(0.06, 0.0, np.abs(x)) * smoothstep(hip[1], hip[1] - 0.08, y)
    under_hem = 1 - 0.35 * smoothstep(-0.035, 0.0, cut_shirt(figure, samples.points).edges[:, 2])
    rgb = (
        np.tile(look.trousers, (count, 1)) * (1 + 0.035 * noise(samples.points * np.array([60, 25, 60.0]), 8))[:, None]
    )
    faded = bump(np.abs(x) - knee[0], 0.05) * smoothstep(0.2, 0.9, normals[:, 2])
    rgb = mix(rgb, look.faded, 0.30 * faded * smoothstep(hip[1], hip[1] - 0.1, y))
    rgb = mix(rgb, look.trousers_seam, 0.6 * bump(ankle - 0.022, 0.003))
    patch = cover(samples, normals, rgb * (shade * between * under_hem)[:, None], thickness=0.0015)
    return _hemmed(figure, draped, cut, samples, patch)


def _drape(figure: Figure, clearance: Float[np.ndarray, " v"], rounds: int) -> Float64[np.ndarray, "v 3"]:
    """The body's vertices as cloth: relaxed so that it spans hollows, yet never nearer than 0.8 of ``clearance``."""
    cloth: np.ndarray = figure.vertices + figure.normals * clearance[:, None]
    for _ in range(rounds):
        cloth = figure.neighbours @ cloth
        gap = ((cloth - figure.vertices) * figure.normals).sum(axis=1)
        cloth += figure.normals * np.maximum(0.8 * clearance - gap, 0)[:, None]
    return cloth


def _cloth(
    figure: Figure,
    draped: Float[np.ndarray, "v 3"],
    cut: Cut,
    density: Float[np.ndarray, " v"],
    count: int,
    seed: int,
) -> tuple[Samples, Float64[np.ndarray, "n 3"], Float64[np.ndarray, " n"]]:
    """Samples of the draped surface inside the cut, denser at its edges; their normals and baked light."""
    used = np.flatnonzero((cut.inside[figure.faces] > 0).any(axis=1))
    density = density * (1 + 4 * bump(cut.inside, 0.010))
    candidates = scatter(draped, figure.faces[used], density, OVERSAMPLING * count * 5 // 4, seed)
    inside = candidates.interpolate(figure.faces[used], cut.inside) > 0
    samples = thin(candidates[inside], count, seed)
    normals = vertex_normals(draped, figure.faces)
    shade = ambient(draped, normals, figure.neighbours)
    samples = samples.on(used)
    smooth = samples.interpolate(figure.faces, normals)
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True)
    return samples, smooth, samples.interpolate(figure.faces, shade)


def _hemmed(figure: Figure, draped: Float[np.ndarray, "v 3"], cut: Cut, samples: Samples, patch: Patch) -> Patch:
    """The patch with the discs at the garment's edges laid along them."""
    towards = samples.gradient(draped, figure.faces, cut.inside)
    near = smoothstep(0.010, 0.005, samples.interpolate(figure.faces, cut.inside))
    return lay_along(patch, np.cross(samples.normals, towards), near)
