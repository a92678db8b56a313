"""Hair: where a photo shows it, and the strands that none shows; how it hangs is in ``curtain``."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import Anatomy, Part
from lhm_runtime.reconstruction.builtin_person.sampling import Patch
from lhm_runtime.reconstruction.builtin_person.shading import noise
from lhm_runtime.reconstruction.mesh_image import MeshImage
from lhm_runtime.reconstruction.view import View

_PALETTE, _LEAST_PALETTE, _STRAYS = 150, 60, 0.05
"""Colours that stand for hair, skin and clothes; how many pixels tell them; the share of them that may be another's."""
_OWN_M = 0.006
"""Nearer to the matte's border than this a pixel is partly the background's."""
_OUTER = 0.2
"""Share of the scalp in view, next to the outline, that is hair where there is any: short hair shows nowhere else."""
_SHADES, _BARE = (1.0, 0.8, 0.65, 0.5), 0.7
"""Skin may lie in shade, in times of its brightness; before face and neck, hair must be this much more like hair."""
_SCALP, _FACE, _TRUNK = 1, 2, 3
_MOST_MISTAKEN = 0.25
"""Where more of the face than this looks like hair, as in grey photos, colours do not tell hair."""
_APART = 0.08
"""Hair that differs less from the face cannot be told from it."""
_COARSE_PX_PER_M, _SURE = 300.0, 0.9
_LONGEST_M, _WIDEST_M = 0.65, 0.19
"""Hair is looked for so far below the top of the scalp, and so far beside it."""
_COVERS_M = 0.012
"""What is no further out than this beyond a stroke, nor further beside it, lies under hair."""
_LEVEL_M, _LEVEL_COUNT, _REARMOST = 0.01, 240, 3
"""Heights at which hair nobody saw is guessed; from how many colours, and that one in so many of these, the furthest
back, tell: what falls over a forehead lies in another light, and may be no hair under a hat."""
_FINE_M, _LOCK_M, _ALONG_M = 0.004, 0.014, 0.12
"""Sizes of strands and locks across, and of both along."""
_STREAKS = (0.03, 0.14)
"""Least and most contrast between strands, in times of their brightness."""
_NEAR, _MOST_GRAIN, _DARK = 9, 1.5, 0.02
"""Neighbours that a sample's brightness is compared with, how much brighter or darker it may be than they are, and the
least brightness to compare with."""


@dataclass(frozen=True, eq=False)
class Head:
    """A head as hair sees it: an upright axis, with y up from the eyes and z ahead, metres at zero pose."""

    axis: Float64[np.ndarray, " 3"]
    """The point of the axis between the ears, at the height of the eyes."""
    back: float
    """From the axis to the furthest point of the back."""
    front: float
    """From the axis to the temples."""

    @staticmethod
    def of(rest: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> "Head":
        """Measure it on draped vertices."""
        eyes = rest[np.concatenate([anatomy.left_eye, anatomy.right_eye])].mean(axis=0)
        skull = rest[(anatomy.part == Part.HEAD) & (rest[:, 1] > eyes[1] - 0.02)]
        ahead, behind = eyes[2], skull[:, 2].min()
        middle = behind + 0.47 * (ahead - behind)
        return Head(np.array([eyes[0], eyes[1], middle]), middle - behind, 0.8 * (ahead - middle))

    def polar(self, points: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Azimuth from the back, rising to the person's left, radius and height."""
        x, y, z = (points - self.axis).T
        return np.arctan2(x, -z), np.hypot(x, z), y

    def point(
        self, azimuth: Float[np.ndarray, " n"], radius: Float[np.ndarray, " n"], height: Float[np.ndarray, " n"]
    ) -> Float64[np.ndarray, "n 3"]:
        """Undo ``polar``."""
        ring = np.stack([radius * np.sin(azimuth), height, -radius * np.cos(azimuth)], axis=1)
        points: np.ndarray = self.axis + ring
        return points


def on_scalp(
    template: Float[np.ndarray, "n 3"], head: Bool[np.ndarray, " n"], body: BodyModel, anatomy: Anatomy
) -> Bool[np.ndarray, " n"]:
    """Points of the bare template where hair or a hat may be: above the brows, and behind the ears.

    Args:
        head: points of the head that are not of the face.
    """
    eyes = body.v_template[np.concatenate([anatomy.left_eye, anatomy.right_eye])].mean(axis=0)
    _, above, ahead = (template - eyes).T
    hairy: np.ndarray = head & ((above > 0.035) | ((ahead < -0.09) & (above > -0.065)))
    return hairy


def streaks(head: Head, points: Float[np.ndarray, "n 3"], contrast: float) -> Float64[np.ndarray, " n"]:
    """Brightness of hair at points, about 1: strands and locks that fall from the crown, the same every time."""
    azimuth, radius, height = head.polar(points)
    # strands are as wide at the nape as they are at the sides, whatever the radius
    around = np.stack([np.sin(azimuth), np.cos(azimuth)], axis=1) * head.back
    down = (height - 0.6 * radius)[:, None] / _ALONG_M
    fine, lock = (
        noise(np.concatenate([around / size, down], axis=1), 60 + k) for k, size in enumerate((_FINE_M, _LOCK_M))
    )
    waves: np.ndarray = 1 + contrast * (fine + lock)
    return waves


def contrast_of(rgb: Float[np.ndarray, "k 3"]) -> float:
    """How much the brightness of seen hair varies, of its mean."""
    light = rgb.mean(axis=1)
    low, high = np.quantile(light, [0.2, 0.8])
    return float(np.clip(0.5 * (high - low) / max(float(np.median(light)), 0.02), *_STREAKS))


@dataclass(frozen=True, eq=False)
class HairImage:
    """Where a photo shows hair."""

    mask: Bool[np.ndarray, "h w"]
    """One in so many pixels of the view, each way."""
    step: int
    rgb: Float32[np.ndarray, "h w 3"]
    """The photo's colours there."""

    def at(self, xy: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
        """Whether pixels of the view are hair; False outside."""
        column, row = (xy / self.step).astype(int).T
        height, width = self.mask.shape
        within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found: np.ndarray = within & self.mask[row.clip(0, height - 1), column.clip(0, width - 1)]
        return found


def find_hair(view: View, mesh: MeshImage, body: BodyModel, anatomy: Anatomy) -> HairImage | None:
    """Pixels whose colour is met on the scalp rather than on face and trunk, connected with the scalp.

    None where no hair stands apart.
    """
    if not mesh.covered.any():
        return None
    scale = view.focal[0] / float(np.median(mesh.depth[mesh.covered]))
    step = max(1, round(scale / _COARSE_PX_PER_M))
    every = np.s_[step // 2 :: step, step // 2 :: step]
    drawn, colours = mesh.face[every], view.extended[every]
    deep = cv2.distanceTransform((view.alpha[every] > _SURE).astype(np.uint8), cv2.DIST_L2, 3) * step
    own = deep > _OWN_M * scale
    scalp = on_scalp(body.v_template.astype(np.float64), ~anatomy.face & (anatomy.part == Part.HEAD), body, anatomy)
    kinds = np.select([scalp, anatomy.face, anatomy.part == Part.TORSO], [_SCALP, _FACE, _TRUNK], 0)
    corner = anatomy.faces[np.maximum(drawn, 0), 0]
    kind, part = (np.where(drawn >= 0, of[corner], -1) for of in (kinds, anatomy.part))
    on_head = kind == _SCALP
    skin, clothes = (_thin(colours[(kind == k) & own]) for k in (_FACE, _TRUNK))
    seen, deep = colours[on_head & own], deep[on_head & own]
    if min(len(seen), len(skin)) < _LEAST_PALETTE:
        return None
    tone = np.median(skin, axis=0)
    typical = np.median(seen[deep <= np.quantile(deep, _OUTER)], axis=0)  # round foreheads, bare or not
    hair = _thin(seen[_nearer(seen, typical, tone)])
    skin = skin[_nearer(skin, tone, typical)]  # hair falls over faces
    if len(hair) < _LEAST_PALETTE or np.linalg.norm(typical - tone) < _APART:
        return None
    rows, columns = np.flatnonzero(on_head.any(axis=1)), np.flatnonzero(on_head.any(axis=0))
    margin = round(_WIDEST_M * scale / step)
    window = np.s_[
        max(rows[0] - margin // 2, 0) : rows[0] + round(_LONGEST_M * scale / step),
        max(columns[0] - margin, 0) : columns[-1] + margin,
    ]
    inside = view.alpha[every][window] > 0.5
    rgb = colours[window][inside]
    skin = np.concatenate([shade * skin for shade in _SHADES])
    to_skin, to_clothes = _unlike(rgb, skin), _unlike(rgb, clothes) if len(clothes) >= _LEAST_PALETTE else np.inf
    bare = np.isin(part[window][inside], (Part.HEAD, Part.NECK)) & ~on_head[window][inside]
    like = np.zeros(inside.shape, np.uint8)
    like[inside] = _unlike(rgb, hair) < np.minimum(np.where(bare, _BARE, 1) * to_skin, to_clothes)
    like = cv2.morphologyEx(like, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    if like[kind[window] == _FACE].mean() > _MOST_MISTAKEN:
        return None
    _, label = cv2.connectedComponents(like)
    grown = np.unique(label[on_head[window] & (like > 0)])
    mask = np.zeros(drawn.shape, bool)
    mask[window] = np.isin(label, grown[grown > 0])
    return HairImage(mask, step, colours)


def _nearer(
    rgb: Float[np.ndarray, "n 3"], one: Float[np.ndarray, " 3"], other: Float[np.ndarray, " 3"]
) -> Bool[np.ndarray, " n"]:
    """Which colours are more like one than like another."""
    nearer: np.ndarray = np.linalg.norm(rgb - one, axis=1) < np.linalg.norm(rgb - other, axis=1)
    return nearer


def _thin(rgb: np.ndarray) -> np.ndarray:
    return rgb[:: max(1, len(rgb) // _PALETTE)]


def _unlike(rgb: Float[np.ndarray, "n 3"], palette: np.ndarray) -> Float64[np.ndarray, " n"]:
    k = max(1, round(_STRAYS * len(palette)))
    return np.asarray(cKDTree(palette).query(rgb, k=[k])[0])[:, 0]


def under_hair(points: Float[np.ndarray, "n 3"], hung: Patch, head: Head) -> Bool[np.ndarray, " n"]:
    """Which points at zero pose hair hangs over."""
    under = np.zeros(len(points), bool)
    if len(hung.means) == 0:
        return under
    azimuth, radius, height = head.polar(points)
    over_azimuth, over_radius, over_height = head.polar(hung.means)
    tree = cKDTree(np.stack([over_azimuth * head.back, over_height], axis=1))
    places = np.stack([azimuth * head.back, height], axis=1)
    reach, near = (np.asarray(found) for found in tree.query(places, distance_upper_bound=_COVERS_M))
    found = np.isfinite(reach)
    under[found] = radius[found] < over_radius[near[found]] + _COVERS_M
    return under


def fill_hair(
    rgb: Float[np.ndarray, "k 3"],
    seen: Float[np.ndarray, "k 3"],
    wanted: Float[np.ndarray, "n 3"],
    head: Head,
) -> Float64[np.ndarray, "n 3"]:
    """Colours of hair nobody saw: what each side shows furthest back at the same height, mixed behind, in strands.

    Args:
        rgb: colours of seen hair.
        seen: where on the draped head they are.
        wanted: where on it colours are wanted.
    """
    azimuth, _, height = head.polar(seen)
    at_azimuth, _, at_height = head.polar(wanted)
    left = (0.5 + 0.5 * np.sin(at_azimuth.clip(-np.pi / 2, np.pi / 2)))[:, None]
    sides = [_at_heights(rgb[own], np.abs(azimuth[own]), height[own], at_height) for own in _sides(azimuth)]
    mixed = left * sides[0] + (1 - left) * sides[1]
    filled: np.ndarray = mixed * streaks(head, wanted, contrast_of(rgb))[:, None]
    return filled


def draw_grain(rgb: Float[np.ndarray, "k 3"], seen: Float[np.ndarray, "k 3"], count: int) -> Float64[np.ndarray, " n"]:
    """Brightness, about 1, of as many samples: it varies from one to the next as that of seen hair does.

    Args:
        rgb: colours of seen hair.
        seen: where on the draped head they are.
        count: how many are wanted.
    """
    light = rgb.mean(axis=1)
    near = np.asarray(cKDTree(seen).query(seen, k=range(1, min(_NEAR, len(seen)) + 1))[1])
    usual = np.median(light[near], axis=1)
    grain = np.clip(light / np.maximum(usual, _DARK), 1 / _MOST_GRAIN, _MOST_GRAIN)
    drawn: np.ndarray = np.random.default_rng(0).choice(grain / grain.mean(), count)
    return drawn


def _sides(azimuth: Float[np.ndarray, " k"]) -> tuple[Int64[np.ndarray, " i"], Int64[np.ndarray, " j"]]:
    """Indices of what is on the left and on the right; of all, where one side shows too little."""
    left, right = np.flatnonzero(azimuth > 0), np.flatnonzero(azimuth <= 0)
    if len(left) < _LEAST_PALETTE:
        return right, right
    return (left, right) if len(right) >= _LEAST_PALETTE else (left, left)


def _at_heights(
    rgb: Float[np.ndarray, "k 3"],
    away: Float[np.ndarray, " k"],
    height: Float[np.ndarray, " k"],
    wanted: Float[np.ndarray, " n"],
) -> Float64[np.ndarray, "n 3"]:
    """Medians of the colours at each height, of those furthest back (least ``away`` from it)."""
    levels = np.arange(height.min(), height.max() + _LEVEL_M, _LEVEL_M)
    colours = np.empty((len(levels), 3))
    k = min(_LEVEL_COUNT, len(rgb))
    for row, level in enumerate(levels):
        near = np.argpartition(np.abs(height - level), k - 1)[:k]
        rear = near[np.argpartition(away[near], k // _REARMOST)[: k // _REARMOST + 1]]
        colours[row] = np.median(rgb[rear], axis=0)
    colours = gaussian_filter1d(colours, 1.5, axis=0, mode="nearest")
    read: np.ndarray = np.stack([np.interp(wanted, levels, colours[:, c]) for c in range(3)], axis=1)
    return read
