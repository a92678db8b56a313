"""From a soft silhouette to a matte that follows the picture's edges: GrabCut, then a guided filter.

GrabCut (Rother et al. 2004) decides by colour in a band around the silhouette's border; the guided filter (He et al.
2010) lets the result be as soft as the picture is there. What GrabCut takes for the person's though the silhouette is
unsure of it, as of what is seen between hair and shoulder, must look like the person close by.
"""

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy.spatial import cKDTree

_WORKING_SIDE = 640  # GrabCut's time grows faster than its precision
_BAND = 0.012  # half its width, in sides of the person's box
_SURE_INSIDE, _SURE_OUTSIDE = 0.97, 0.03
_OUTSIDE_ABOVE_BAND = 0.3
_SPECK = 0.01  # parts smaller than this share of the largest are dropped
_ROUNDS = 2
_EPSILON = 1e-4
_CLOSE, _SMALLEST_TILE = 3.0, 6
"""Colours close by are met within so many widths of the silhouette's unsure border; pixels that are asked together."""
_STRAYS, _FEWEST = 4, 20
"""Of the colours close by, fewer than this many may be the other's; fewer of them say nothing."""
_DOUBTED, _WIDER = (0.05, 0.95), 1.6
"""Between these the silhouette is unsure, as it is along every border; a doubt is wider than so many of them."""
_BESIDE, _ENCLOSED = 1.5, 0.4
"""Within so many borders of a doubt at least such a share is the person's, where it is a corner that they enclose."""
_ALIKE, _CLEARLY, _MOSTLY = 6.0, 2.0, 0.5
"""Colours so near, of 255, are alike; so many times nearer is clearly nearer; the share that must look like what is
behind for all to be that."""


def refine_matte(
    rgb: UInt8[np.ndarray, "h w 3"],
    silhouette: Float32[np.ndarray, "h w"],
    flesh: Bool[np.ndarray, "h w"] | None = None,
) -> Float32[np.ndarray, "h w"]:
    """Alpha of the person, 0 to 1; zero everywhere when the silhouette is empty.

    Args:
        rgb: the picture.
        silhouette: where the person is, 0 to 1, soft where that is unsure.
        flesh: where the person's own body surely is, as of ``draw_flesh``: it is not taken for background, and parts
            that hang together with none of it are another's. Without it every large part is the person's.
    """
    alpha = np.zeros_like(silhouette)
    box = _box_around(silhouette)
    if box is None:
        return alpha
    picture, soft = rgb[box], silhouette[box]
    height, width = soft.shape
    scale = min(1.0, _WORKING_SIDE / max(height, width))
    small = (max(int(width * scale), 8), max(int(height * scale), 8))
    cut = _grab_cut(
        np.asarray(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), np.uint8),
        np.asarray(cv2.resize(soft, small), np.float32),
        None if flesh is None else np.asarray(cv2.resize(flesh[box].astype(np.uint8), small)) > 0,
    )
    cut = np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    filtered = _guided_filter(picture.astype(np.float32) / 255, cut, max(2, round(2 / scale)))
    filtered = np.clip((filtered - 0.1) / 0.8, 0, 1)
    blurred = cv2.GaussianBlur(cut, (0, 0), max(1.0, 1.5 / scale))  # far from the edge nothing is soft
    alpha[box] = np.where(blurred > 0.98, 1, np.where(blurred < 0.02, 0, filtered))
    return alpha


def distance_to_border(mask: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Pixels from each of the mask's to its border, 0 outside."""
    return np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def keep_large_parts(mask: np.ndarray, share: float = _SPECK) -> np.ndarray:
    """The largest connected part of a boolean mask, and those of at least ``share`` of its size."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    areas[0] = 0
    kept: np.ndarray = (areas >= share * areas.max())[labels] & (labels > 0)
    return kept


def _keep_own_parts(inside: Bool[np.ndarray, "h w"], flesh: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The largest part, and those in which some of the person's flesh is."""
    _, label, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    own = [1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))] if len(stats) > 1 else []
    return inside & np.isin(label, [*own, *np.unique(label[flesh])])


def _box_around(silhouette: np.ndarray) -> tuple[slice, slice] | None:
    inside = silhouette > _OUTSIDE_ABOVE_BAND
    if not inside.any():
        return None
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    margin = int(0.06 * max(np.ptp(rows), np.ptp(columns))) + 4
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + margin + 1),
        slice(max(columns[0] - margin, 0), columns[-1] + margin + 1),
    )


def _grab_cut(picture: np.ndarray, soft: np.ndarray, flesh: np.ndarray | None) -> Float32[np.ndarray, "h w"]:
    """0 or 1 for each pixel of the reduced picture."""
    body = keep_large_parts(soft > 0.5, 2 * _SPECK)
    radius = max(3, int(_BAND * max(soft.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    mask = body.astype(np.uint8)
    sure = (cv2.erode(mask, disc) > 0) | ((soft > _SURE_INSIDE) & body)
    beyond = cv2.dilate(mask, disc) == 0
    far = cv2.dilate(mask, disc, iterations=2) == 0
    never = (beyond & (soft < _SURE_OUTSIDE)) | (far & (soft < _OUTSIDE_ABOVE_BAND))
    labels = np.where(body, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[sure] = cv2.GC_FGD
    labels[never] = cv2.GC_BGD
    if sure.any() and never.any():  # without both kinds of colour there is nothing to tell apart
        cv2.setRNGSeed(0)  # equal pictures give equal mattes
        cv2.grabCut(
            np.ascontiguousarray(picture[:, :, ::-1]),
            labels,
            (0, 0, 1, 1),  # not looked at: the mask says all
            np.zeros((1, 65)),
            np.zeros((1, 65)),
            _ROUNDS,
            cv2.GC_INIT_WITH_MASK,
        )
    inside = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    behind = _find_background(picture, soft, inside) | _find_enclosed(picture, soft, inside)
    inside = keep_large_parts(inside & ~(behind if flesh is None else behind & ~flesh))
    if flesh is not None:
        inside = _keep_own_parts(inside, flesh)
    opened = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return np.asarray(opened, np.float32)


def _find_background(
    picture: UInt8[np.ndarray, "h w 3"], soft: Float32[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Where the silhouette is unsure, what is coloured as what is behind the person close by, not as the person is.

    GrabCut has one set of colours for all of a person: it takes a bright window beside the head for the shirt.
    """
    height, width = soft.shape
    half = (max(width // 2, 1), max(height // 2, 1))
    share = _share_behind(
        np.asarray(cv2.resize(picture, half, interpolation=cv2.INTER_AREA), np.float32),
        np.asarray(cv2.resize(soft, half, interpolation=cv2.INTER_AREA), np.float32),
        np.asarray(cv2.resize(inside.astype(np.uint8), half, interpolation=cv2.INTER_NEAREST)) > 0,
    )
    behind = np.asarray(cv2.resize(share, (width, height))) > _MOSTLY
    return inside & (soft < _SURE_INSIDE) & behind


def _share_behind(
    colours: Float32[np.ndarray, "h w 3"], soft: Float32[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """Around each pixel, the share of what is unsure there that is nearer in colour to what is behind; 0 of nothing."""
    body = soft > 0.5
    border = _outline_length(body)
    if border == 0:
        return np.zeros_like(soft)
    width = np.count_nonzero((soft > _SURE_OUTSIDE) & (soft < _SURE_INSIDE)) / border
    side, reach = max(round(width), _SMALLEST_TILE), math.ceil(_CLOSE * width)
    doubt, ours = inside & (soft < _SURE_INSIDE), inside & (soft >= _SURE_INSIDE)
    theirs = cv2.dilate((inside | body).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0  # edges are of mixed colours
    told, behind = np.zeros_like(soft), np.zeros_like(soft)
    for top in range(0, soft.shape[0], side):
        for left in range(0, soft.shape[1], side):
            tile = np.s_[top : top + side, left : left + side]
            asked = doubt[tile]
            if not asked.any():
                continue
            around = np.s_[max(top - reach, 0) : top + side + reach, max(left - reach, 0) : left + side + reach]
            known = [colours[around][kind[around]] for kind in (ours, theirs)]
            if min(map(len, known)) < _FEWEST:
                continue
            to_ours, to_theirs = (np.ravel(cKDTree(kind).query(colours[tile][asked], k=[_STRAYS])[0]) for kind in known)
            told[tile][asked] = 1
            behind[tile][asked] = _CLEARLY * np.maximum(to_theirs, _ALIKE) < to_ours
    window = (side, side)
    return np.asarray(cv2.blur(behind, window) / np.maximum(cv2.blur(told, window), 1e-6), np.float32)


def _find_enclosed(
    picture: UInt8[np.ndarray, "h w 3"], soft: Float32[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Wide doubts of the silhouette that are coloured as what is behind the person close by, not as the person is."""
    low, high = _DOUBTED
    found = np.zeros_like(inside)
    doubted = (soft > low) & (soft < high)
    border = _outline_length(soft > 0.5)
    if border == 0 or not doubted.any():
        return found
    width = np.count_nonzero(doubted) / border
    radius = 0.5 * _WIDER * width
    wide = distance_to_border(distance_to_border(doubted) <= radius) <= radius
    _, label, stats, _ = cv2.connectedComponentsWithStats((wide & inside).astype(np.uint8))
    colours = cv2.blur(picture, (3, 3)).astype(np.float64)
    reach = int(np.ceil(_CLOSE * width))
    for k in 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] > width * width):
        left, top, across, down = stats[k, :4]
        around = np.s_[max(top - reach, 0) : top + down + reach, max(left - reach, 0) : left + across + reach]
        doubt, sure = label[around] == k, soft[around]
        away = distance_to_border(~doubt)
        near = ~doubt & (away < _CLOSE * width)
        if inside[around][near & (away < _BESIDE * width)].mean() < _ENCLOSED:
            continue  # what sticks out, as fingers do, is the person's
        ours, theirs = near & inside[around] & (sure >= high), near & ~inside[around] & (sure <= 0.5)
        if min(np.count_nonzero(ours), np.count_nonzero(theirs)) < _FEWEST:
            continue
        to_ours, to_theirs = (
            cKDTree(colours[around][known]).query(colours[around][doubt], k=[_STRAYS])[0] for known in (ours, theirs)
        )
        if np.mean(to_theirs < to_ours) > _MOSTLY:
            # what colour alone added to the silhouette next to it hangs on it
            _, part = cv2.connectedComponents((doubt | (near & inside[around] & (sure < 0.5))).astype(np.uint8))
            found[around] |= np.isin(part, np.unique(part[doubt]))
    return found


def _outline_length(body: Bool[np.ndarray, "h w"]) -> int:
    """How many pixels of the body are at its border."""
    return int(np.count_nonzero(body & (distance_to_border(body) < 1.5)))


def _guided_filter(picture: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    """The mask as a locally linear function of the picture's brightness."""
    window = (2 * radius + 1, 2 * radius + 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.blur(values, window))

    guide = picture.mean(axis=2)
    mean_guide, mean_mask = mean(guide), mean(mask)
    slope = (mean(guide * mask) - mean_guide * mean_mask) / (mean(guide * guide) - mean_guide**2 + _EPSILON)
    filtered: np.ndarray = mean(slope) * guide + mean(mean_mask - slope * mean_guide)
    return filtered
