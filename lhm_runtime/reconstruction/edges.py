"""Little of the person may hang out of the matte: what does is drawn in, or shrunk, but a limb never gets a hole."""

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float

from lhm_runtime.rasterizer.contract import EPS2D_PX2
from lhm_runtime.reconstruction.anatomy import Anatomy, Part
from lhm_runtime.reconstruction.builtin_person.sampling import Patch
from lhm_runtime.reconstruction.carrying import image_covariance, pose_patch
from lhm_runtime.reconstruction.colouring import read_colours
from lhm_runtime.reconstruction.view import View, signed_distance

_ROUNDS = 3
_CLEARANCE = 2.65
"""Standard deviations that a Gaussian keeps from the matte's border, where many lie over one another."""
_FURTHEST_M = 0.025
_PAD = 24
_SHOWN_PX = 512
"""Height of the person, pixels, at which an avatar is taken to be shown: there the rasterizer's blur counts."""


def draw_in(
    view: View, patch: Patch, weights: Float[np.ndarray, "n 55"], held: Bool[np.ndarray, " n"], anatomy: Anatomy
) -> Patch:
    """Move Gaussians into the matte along its steepest way in; shrink those that still reach out.

    What lies far outside stays, but for hair: something is before it in the photo, or the fit is wrong there.

    Args:
        held: Gaussians that stay as they are: hands, and what the photo does not show.
    """
    # the picture's edge is no border of the person: continue the matte beyond it
    matte = cv2.copyMakeBorder((view.alpha > 0.5).astype(np.uint8), _PAD, _PAD, _PAD, _PAD, cv2.BORDER_REPLICATE)
    inside = cv2.GaussianBlur(signed_distance(matte > 0), (0, 0), 1.5)
    slope = [cv2.Sobel(inside, cv2.CV_32F, dx, dy, ksize=3) / 8 for dx, dy in ((1, 0), (0, 1))]
    field = np.dstack([inside, *slope])
    tall = np.ptp(np.flatnonzero((view.alpha > 0.5).any(axis=1))) + 1
    blur = EPS2D_PX2 * (tall / _SHOWN_PX) ** 2
    means = patch.means.copy()
    for last in [False] * _ROUNDS + [True]:
        moved = replace(patch, means=means)
        points, linear = pose_patch(view, moved, weights, anatomy)
        image = view.project(points)
        value = read_colours(field, image[:, :2] + _PAD)
        steepness = np.linalg.norm(value[:, 1:], axis=1)
        way_in = value[:, 1:] / np.maximum(steepness, 1e-3)[:, None]
        spread = blur + np.einsum("ni,nij,nj->n", way_in, image_covariance(view, points, linear, moved), way_in)
        # what is far outside belongs elsewhere: the nearest way in may lead into another limb
        near = ~held & (value[:, 0] > -_FURTHEST_M * view.focal[0] / image[:, 2])
        reach = np.sqrt(spread)
        short = _CLEARANCE * reach - value[:, 0]
        lacking = np.where(near, short, 0.0)
        if last:
            break
        at = np.flatnonzero(lacking > 0)
        metres = image[at, 2:] / view.focal
        pixels = lacking[at]
        shift = np.concatenate([pixels[:, None] * way_in[at] * metres, np.zeros((len(at), 1))], axis=1)
        means[at] += np.linalg.solve(linear[at], shift[:, :, None])[:, :, 0]
    shrink = np.clip(1 - 0.5 * np.clip(lacking / np.maximum(reach, 1e-6), 0, 1), 0.5, 1)
    # loose hair is no limb: strands far outside are none
    hair = anatomy.part[anatomy.faces[patch.triangles, 0]] == Part.HEAD
    lost = hair & ~held & (short > 2.2 * reach)
    opacity = np.where(lost, 0.0, patch.opacity)
    return replace(patch, means=means, scales=patch.scales * shrink[:, None], opacity=opacity)
