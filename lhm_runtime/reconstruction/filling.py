"""Colours for what no photo shows: the other side of the body, the same garment nearby, hair from hair."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Float64, Int64
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.anatomy import ARMS, FEET, HANDS, LEGS, OTHER_SIDE, Anatomy, Part
from lhm_runtime.reconstruction.builtin_person.sampling import Samples
from lhm_runtime.reconstruction.colouring import colour_change, smooth_over
from lhm_runtime.reconstruction.draping import solve_sparse
from lhm_runtime.reconstruction.hair import Head, draw_grain, fill_hair

_SURE = 0.6
_MIRROR_REACH_M = 0.02
_MIRROR_SHARE = 0.8
_LIGHT_ROUNDS, _DARK, _MOST_RELIT = 40, 0.02, 4.0
"""Rings of the surface over which mean colours are taken for light, about 5 cm, the least light, and most that two
sides differ by."""
_SHADOW_DOUBT = 3.0
"""How much more another light tells against the other side of a body than of a head."""
_ENOUGH = 50
"""Seen samples that a part needs to be filled from itself."""
_METRIC: dict[Part, tuple[float, float, float]] = {
    Part.TORSO: (0.12, 1, 0.08),
    Part.HEAD: (1, 1, 1),
    Part.NECK: (0.5, 1, 0.3),
}
_METRIC |= dict.fromkeys(ARMS, (1, 0.3, 0.3)) | dict.fromkeys(LEGS, (0.3, 1, 0.2))
_METRIC |= dict.fromkeys(HANDS, (1, 1, 1)) | dict.fromkeys(FEET, (0.3, 1, 0.15))
"""Weights of x, y and z when nearness is measured at zero pose: round a limb is nearer than along it, and soles and
uppers of shoes go all round."""
_NECKLINE = 0.5
"""How steeply necklines rise towards the back."""
_MEDIAN_OF, _BROAD_REACH, _LIMB_REACH = 40, 500, 120
"""How many colours a guess is the median of, and among how many of the nearest they are spread."""
_FAR_M = (0.04, 0.12)
"""Further than this from all that is seen of it, a limb has the colour of the end that is seen, not of its border."""
_END = 0.4
"""Share of what is seen of a limb that is its end."""
_REAR = 0.3
"""Share of the scalp in view, furthest back, that is hair where there is any."""
_STRIDE = 5
"""One in so many unseen samples is filled from its surroundings; the others follow these."""
_CLAD = (Part.TORSO, *ARMS, *LEGS)
_CLAD_METRIC = np.array([1, 0.7, 0.3])
_EVEN_M, _EVENED_AT, _EVEN_ROUNDS, _ONE_DYE, _SHADE_COUNTS, _DIM = 0.08, 400, 2, 0.1, 0.8, 0.2
"""Parts whose guesses are evened out, weights of x, y and z there, over what distance and at how many places at least,
how often, what colours of one dye differ by, the share for which brightness counts in that, and the brightness from
which on dyes are told well."""
_SHOE = 0.5
"""Brightness of shoes that nobody saw, in times of the legs'."""
_FEATHER_M, _FACE_FEATHER_M = 0.03, 0.06
"""How far into the unseen the colours at its border are carried; light and shade of a face further."""
_SAME_MATERIAL, _SHADED = 0.15, 0.15
"""Colour difference up to which two sides of such a border are taken for the same material; on the head differences
in brightness alone count for so much of it: half a face lies in shade."""


@dataclass(frozen=True, eq=False)
class Surface:
    """The samples of the skin, and where on the body they are."""

    samples: Samples
    rest: Float64[np.ndarray, "v 3"]
    """Vertices they were taken on."""
    template: Float64[np.ndarray, "n 3"]
    """The samples on the bare template, which is symmetric."""
    part: Int64[np.ndarray, " n"]
    """``Part`` of each."""
    face: Bool[np.ndarray, " n"]
    """Samples on the face."""

    @staticmethod
    def of(samples: Samples, rest: Float[np.ndarray, "v 3"], body: BodyModel, anatomy: Anatomy) -> "Surface":
        """Look up where samples of ``rest`` are."""
        corners = anatomy.faces[samples.triangles]
        nearest = corners[np.arange(len(corners)), samples.barycentric.argmax(axis=1)]
        return Surface(
            samples=samples,
            rest=rest,
            template=samples.interpolate(anatomy.faces, body.v_template.astype(np.float64)),
            part=anatomy.part[nearest],
            face=anatomy.face[corners].all(axis=1),
        )


def fill_unseen(
    rgb: Float[np.ndarray, "n 3"],
    confidence: Float[np.ndarray, " n"],
    surface: Surface,
    hairy: Bool[np.ndarray, " n"],
    hat: Bool[np.ndarray, " n"],
    strands: Bool[np.ndarray, " n"] | None,
    anatomy: Anatomy,
) -> Float64[np.ndarray, "n 3"]:
    """Colours for all samples: the photos' where they are sure, else inferred; grey when nothing was seen.

    Args:
        rgb: the photos' colours.
        confidence: how sure they are, 0 to 1.
        surface: the samples.
        hairy: samples of hair or a hat.
        hat: samples in a hat: what of the hairy ones is in it and what is not tell nothing of each other.
        strands: samples where photos show nothing but hair, if they show them; None where they do not tell.
        anatomy: of the body that the samples lie on.
    """
    known = np.flatnonzero(confidence > _SURE)
    if len(known) == 0:
        return np.full_like(rgb, 0.5)
    unknown = np.flatnonzero(confidence < 1)
    guess = rgb.copy()
    guess[unknown] = _from_same_garment(rgb, known, unknown, hairy, surface)
    clad = unknown[np.isin(surface.part[unknown], _CLAD)]
    guess[clad] += _towards_even(guess[clad], surface.template[clad])
    reach, near = cKDTree(surface.template[known]).query(surface.template[unknown] * [-1, 1, 1])
    mirrored = (reach < _MIRROR_REACH_M) & ~hairy[unknown]
    target, source = unknown[mirrored], known[np.asarray(near)[mirrored]]
    light = _light(rgb, np.where(hairy, 0.0, confidence), surface, anatomy)
    head = np.isin(surface.part[target], (Part.HEAD, Part.NECK))
    lighter = light[target] / light[source]
    # what is in another light tells less than what is near, most of all in the shadow of an arm
    doubt = np.where(head, 1.0, _SHADOW_DOUBT)[:, None] * np.square(np.log2(lighter.mean(axis=1, keepdims=True)))
    share = _MIRROR_SHARE * np.exp(-doubt)
    relit = np.where(head[:, None], np.clip(lighter, 1 / _MOST_RELIT, _MOST_RELIT), 1.0)
    guess[target] = share * rgb[source] * relit + (1 - share) * guess[target]
    for kind, shown in ((hairy & ~hat, strands), (hairy & hat, None)):
        alike = unknown[kind[unknown]]
        if len(alike):
            guess[alike] = _hair(rgb, known, alike, kind, shown, surface, anatomy)
    # a bare forehead may differ from hair by brightness alone, and is no hair in another light
    told = confidence if strands is None else np.where(hairy & ~hat & ~strands, 0.0, confidence)
    guess += _step_at_border(rgb, guess, told, surface, anatomy)
    share = np.clip((confidence - 0.15) / 0.35, 0, 1)[:, None]
    filled: np.ndarray = np.clip(share * rgb + (1 - share) * guess, 0, 1)
    return filled


def _light(
    rgb: Float[np.ndarray, "n 3"], confidence: Float[np.ndarray, " n"], surface: Surface, anatomy: Anatomy
) -> Float64[np.ndarray, "n 3"]:
    """Mean colour of what is seen around each sample: the two sides of a head are alike but for the light."""
    weight = (confidence > _SURE).astype(np.float64)
    around = smooth_over(surface.samples, rgb, weight, _LIGHT_ROUNDS, anatomy)
    light: np.ndarray = np.maximum(around, _DARK)
    return light


def _from_same_garment(
    rgb: Float[np.ndarray, "n 3"],
    known: Int64[np.ndarray, " k"],
    unknown: Int64[np.ndarray, " u"],
    hairy: Bool[np.ndarray, " n"],
    surface: Surface,
) -> Float64[np.ndarray, "u 3"]:
    """Medians of seen samples of the same part, around the limb rather than along it."""
    filled = np.empty((len(unknown), 3))
    part = surface.part
    for p in Part:
        members = np.flatnonzero(part[unknown] == p)
        if len(members) == 0:
            continue
        # coat and shirt reach down the legs: their hem is at the same height all around
        same = (Part.TORSO, *LEGS) if p == Part.TORSO else (Part.TORSO, p) if p in (*LEGS, Part.NECK) else (p,)
        own, flip = known[np.isin(part[known], same) & ~hairy[known]], 1
        if (part[own] == p).sum() < _ENOUGH:
            own = own[part[own] == p]
        if len(own) < _ENOUGH and p in OTHER_SIDE:
            own, flip = known[part[known] == OTHER_SIDE[p]], -1
        if p == Part.TORSO and len(own):  # an open collar is not the back's
            bare = _skin_like(rgb[own], rgb[known[surface.face[known]]])
            own = own[~bare] if bare.mean() < 0.5 else own
        if len(own) < _ENOUGH:
            filled[members] = _from_neighbours(rgb, known, p, surface)
            continue
        metric = np.array(_METRIC[p], dtype=float)
        few = members[:: _STRIDE if len(members) > 40 * _STRIDE else 1]
        rising = p == Part.NECK and surface.face[known].sum() >= _ENOUGH  # from behind, hair on the nape would sink
        template = surface.template + surface.template[:, 2:] * [0, _NECKLINE * rising, 0]
        wanted = template[unknown[few]] * metric
        most = _BROAD_REACH if p in (Part.TORSO, Part.HEAD) else _LIMB_REACH
        k = min(most, max((part[own] == p).sum() // 4, _MEDIAN_OF), len(own))
        tree = cKDTree(template[own] * metric * [flip, 1, 1])
        reach, near = (np.asarray(found).reshape(len(few), k) for found in tree.query(wanted, k=k))
        typical = np.median(rgb[own][near[:, :: max(1, k // _MEDIAN_OF)]], axis=1)
        far = np.clip((reach[:, :1] - _FAR_M[0]) / (_FAR_M[1] - _FAR_M[0]), 0, 1)
        typical += far * (_far_colour(rgb, known, p, surface) - typical)
        filled[members] = _read(wanted, typical, template[unknown[members]] * metric)
    return filled


def _towards_even(guess: Float[np.ndarray, "c 3"], places: Float[np.ndarray, "c 3"]) -> Float64[np.ndarray, "c 3"]:
    """What to add to guesses so that light and shade change slowly over each garment.

    Folds and shadows of the front are bands on the back otherwise. A bilateral filter (Tomasi and Manduchi 1998):
    guesses are averaged as far as they may be one dye in a little other light, so that garments end where they did.
    """
    if len(guess) == 0:
        return np.zeros_like(guess)
    few = np.arange(0, len(guess), max(1, len(guess) // _EVENED_AT))
    at = places * _CLAD_METRIC / _EVEN_M
    apart, even = cdist(at[few], at[few], "sqeuclidean"), guess[few]
    for _ in range(_EVEN_ROUNDS):
        # dark cloth and skin in the shade differ little but for their hue
        dye = even / (np.linalg.norm(even, axis=1, keepdims=True) + _DIM)
        unlike = np.hypot(colour_change(even[:, None], even, _SHADE_COUNTS), colour_change(dye[:, None], dye, 0.0))
        unlike /= _ONE_DYE
        weight = np.exp(-(apart + unlike**2) / 2)
        even = weight @ even / weight.sum(axis=1, keepdims=True)
    # what lies between cloth and a hand's print moves as that which it resembles
    alike = np.hstack([at, guess / _ONE_DYE])
    return _read(alike[few], even - guess[few], alike)


def _far_colour(
    rgb: Float[np.ndarray, "n 3"], known: Int64[np.ndarray, " k"], part: Part, surface: Surface
) -> Float64[np.ndarray, " 3"]:
    """Typical colour of the seen end of a limb and of its fellow: below a coat's hem the trousers', not the coat's."""
    own = known[np.isin(surface.part[known], (part, OTHER_SIDE.get(part, part)))]
    if len(own) == 0:
        own = known
    along = np.abs(surface.template[own, 0]) if part in ARMS else -surface.template[own, 1]
    end = own[along >= np.quantile(along, 1 - _END)] if part in (*ARMS, *LEGS) else own
    colour: np.ndarray = np.median(rgb[end], axis=0)
    return colour


def _skin_like(rgb: Float[np.ndarray, "n 3"], skin: Float[np.ndarray, "k 3"]) -> Bool[np.ndarray, " n"]:
    """Colours near that of the face."""
    if len(skin) < _ENOUGH:
        return np.zeros(len(rgb), bool)
    near: np.ndarray = np.linalg.norm(rgb - np.median(skin, axis=0), axis=1) < _SAME_MATERIAL
    return near


def _read(
    places: Float[np.ndarray, "k d"], values: Float[np.ndarray, "k 3"], wanted: Float[np.ndarray, "n d"]
) -> Float64[np.ndarray, "n 3"]:
    """Values known at scattered places, smoothly between them."""
    k = min(6, len(places))
    reach, near = (np.asarray(found).reshape(len(wanted), k) for found in cKDTree(places).query(wanted, k=k))
    share = 1 / (reach**2 + 1e-6)
    mixed: np.ndarray = (share[:, :, None] * values[near]).sum(axis=1) / share.sum(axis=1, keepdims=True)
    return mixed


def _from_neighbours(
    rgb: Float[np.ndarray, "n 3"], known: Int64[np.ndarray, " k"], part: Part, surface: Surface
) -> Float64[np.ndarray, " 3"]:
    """One colour for a part of which nothing is seen, nor of its like on the other side."""
    own = surface.part[known]
    if part in (*HANDS, Part.NECK, Part.HEAD):
        source = known[surface.face[known]]
        if len(source) < _ENOUGH:  # seen from behind
            source = known[np.isin(own, HANDS)]
    elif part in FEET:
        source = known[np.isin(own, LEGS)]
    else:
        source = known[own == Part.TORSO]
    colour: np.ndarray = np.median(rgb[source if len(source) >= _ENOUGH else known], axis=0)
    return colour * _SHOE if part in FEET else colour


def _hair(
    rgb: Float[np.ndarray, "n 3"],
    known: Int64[np.ndarray, " k"],
    hair: Int64[np.ndarray, " h"],
    hairy: Bool[np.ndarray, " n"],
    strands: Bool[np.ndarray, " n"] | None,
    surface: Surface,
    anatomy: Anatomy,
) -> Float64[np.ndarray, "h 3"]:
    """Colours of hair from seen hair, or what is most likely to be that."""
    template = surface.template
    seen = known[hairy[known]]
    shown = seen[:0] if strands is None else seen[strands[seen]]
    told = len(shown) >= _ENOUGH
    seen = shown if told else seen
    if len(seen) < _ENOUGH:
        on_head = known[surface.part[known] == Part.HEAD]
        seen = known
        if len(on_head) > _ENOUGH:
            seen = on_head[template[on_head, 1] > np.quantile(template[on_head, 1], 0.85)]
    skin = known[surface.face[known]]
    if len(skin) > _ENOUGH and len(seen) > 2 * _ENOUGH:  # bare foreheads, temples and ears are no hair
        ahead = template[seen, 2]
        likely = seen if told else seen[ahead < np.quantile(ahead, _REAR)]
        tone, typical = np.median(rgb[skin], axis=0), np.median(rgb[likely], axis=0)
        if told or np.linalg.norm(typical - tone) > _SAME_MATERIAL:
            like = np.linalg.norm(rgb[seen] - typical, axis=1) - np.linalg.norm(rgb[seen] - tone, axis=1)
            seen = seen[np.argsort(like, kind="stable")[: max(_ENOUGH, np.count_nonzero(like < 0))]]
    points = surface.samples.points
    filled = fill_hair(rgb[seen], points[seen], points[hair], Head.of(surface.rest, anatomy))
    return filled * draw_grain(rgb[seen], points[seen], len(hair))[:, None] if told else filled


def _step_at_border(
    rgb: Float[np.ndarray, "n 3"],
    guess: Float[np.ndarray, "n 3"],
    confidence: Float[np.ndarray, " n"],
    surface: Surface,
    anatomy: Anatomy,
) -> Float64[np.ndarray, "n 3"]:
    """What to add to the guesses so that they meet what is seen without a seam, fading with distance.

    A screened membrane on the surface, as in seamless cloning (Perez et al. 2003), that ignores steps between
    materials.
    """
    samples, faces, count = surface.samples, anatomy.faces, len(surface.rest)
    corners = faces[samples.triangles].ravel()
    weight = (samples.barycentric * np.clip((confidence - 0.3) / 0.3, 0, 1)[:, None]).ravel()
    total = np.bincount(corners, weight, count)
    seen_rgb, guessed_rgb = (
        np.stack([np.bincount(corners, weight * np.repeat(c, 3), count) for c in colours.T], axis=1)
        / np.maximum(total, 1e-9)[:, None]
        for colours in (rgb, guess)
    )
    head = np.isin(anatomy.part, (Part.HEAD, Part.NECK))
    change = colour_change(seen_rgb, guessed_rgb, np.where(head, _SHADED, 1.0))
    mean_step = (seen_rgb - guessed_rgb) * np.exp(-((change / _SAME_MATERIAL) ** 4))[:, None]
    # for a ring of six at distance h, mean - centre is h^2 / 4 of the Laplacian
    around = anatomy.average @ surface.rest
    edge_squared = (anatomy.average @ surface.rest**2 - 2 * surface.rest * around + surface.rest**2).sum(axis=1)
    degree = np.diff(anatomy.average.indptr)
    laplacian = sp.diags_array(degree.astype(float)) @ (sp.eye_array(count) - anatomy.average)
    seen = degree * np.minimum(total, 3.0)
    screen = degree * edge_squared / (4 * np.where(head, _FACE_FEATHER_M, _FEATHER_M) ** 2)
    bent = solve_sparse(
        laplacian + sp.diags_array(screen + seen + 1e-6), seen[:, None] * mean_step, anatomy.vertex_order
    )
    carried: np.ndarray = samples.interpolate(faces, bent)
    return carried
