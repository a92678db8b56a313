"""One stance seen from several sides: what is depth in one picture is width in another.

A single picture tells nothing of lean and little of knees and elbows that bend towards the camera. Who is
photographed from all sides stands about the same in all pictures, so the fits are refined together: each keeps its
own place, turn and hands, and the joints of trunk and limbs are tied to one another. The tie gives way (Huber 1964)
where someone did move, as arms do between two photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float32, Float64

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.fit_evidence import gather_evidence
from lhm_runtime.reconstruction.fitting import (
    BodyFit,
    camera_rotvec,
    level,
    pitch_of,
    place_body,
    reprojection_of,
)
from lhm_runtime.reconstruction.landmark_anchors import PosedAnchors, find_anchors
from lhm_runtime.reconstruction.mesh_image import draw_mesh
from lhm_runtime.reconstruction.pose_refinement import BodyState, Evidence, Problem
from lhm_runtime.types import Landmarks

_TIED: Final = np.arange(1, 22)
"""Joints of trunk and limbs; what the root does is the picture's own, and so are face and hands."""
_TIE: Final = 0.1
"""How far a joint's rotvec is likely to be from the stance's, radians."""
_MOVED: Final = 2.0
"""Deviations beyond which a joint is taken to have moved between the pictures, and counts linearly."""
_LOOSE: Final = tuple(
    JOINT_INDEX[name] for name in ("neck", "head", "left_elbow", "right_elbow", "left_wrist", "right_wrist")
)
_LOOSER: Final = 3.0
"""Heads turn to the camera, and forearms about themselves, unnoticed: how much wider their tie is."""
_PITCH_DEVIATION: Final = 0.12
_BONE_TRUST: Final = 0.7
_ITERATIONS: Final = 25
_TRIES: Final = 5
_CONVERGED: Final = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """One picture's part of the problem."""

    evidence: Evidence
    problem: Problem
    tied: np.ndarray
    """Where the tied joints are among its unknowns."""


def share_stance(marks: Sequence[Landmarks], fits: Sequence[BodyFit], body: BodyModel) -> list[BodyFit]:
    """Fits of the same pictures that agree on how the person stands; the shape is that of the first.

    Args:
        marks: of each picture.
        fits: the body fitted to each alone; the first, from the front, is where the search starts.
    """
    anchors = find_anchors(body)
    betas = fits[0].betas.astype(np.float64)
    front = camera_rotvec(fits[0])
    pictures, states = [], []
    for landmarks, fit in zip(marks, fits, strict=True):
        pitch = pitch_of(fit.camera)
        evidence = gather_evidence(landmarks, anchors, fit.pose.expression, fit.camera.fx, (pitch, _PITCH_DEVIATION))
        rotvec = camera_rotvec(fit)
        rotvec[_TIED] = front[_TIED]
        state = place_body(evidence, BodyState(rotvec, np.zeros(3), betas, pitch))
        tied = np.concatenate([3 * np.flatnonzero(evidence.moving == joint) + c for joint in _TIED for c in range(3)])
        pictures.append(_Picture(evidence, Problem(evidence, state.transl[2], _BONE_TRUST, free_betas=False), tied))
        states.append(state)
    states = _refine_together(pictures, states)
    rest_joints, height_m = body.rest_joints(betas), float(np.ptp(body.rest_vertices(betas)[:, 1]))
    shared = []
    for picture, state, fit in zip(pictures, states, fits, strict=True):
        camera = fit.camera
        pose, levelled = level(state, rest_joints, (camera.width, camera.height), camera.fx)
        pose = replace(pose, expression=fit.pose.expression, timestamp_s=fit.pose.timestamp_s)
        shared.append(
            replace(
                fit,
                pose=pose,
                betas=fits[0].betas,
                camera=levelled,
                reprojection=reprojection_of(picture.evidence, state, height_m),
            )
        )
    return shared


def covered_share(fit: BodyFit, alpha: Float32[np.ndarray, "h w"], body: BodyModel) -> float:
    """Intersection over union of the bare fitted body and a matte."""
    vertices, _ = body.pose_vertices(fit.pose, fit.betas)
    camera = fit.camera
    seen = vertices.astype(np.float64) @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]
    depth = np.maximum(seen[:, 2:], 1e-3)
    image = seen[:, :2] / depth * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    drawn = draw_mesh(
        np.concatenate([image, depth], axis=1), body.faces.astype(np.int64), camera.width, camera.height, two_sided=True
    ).covered
    matte = alpha > 0.5
    return float((drawn & matte).sum() / max((drawn | matte).sum(), 1))


def _refine_together(pictures: Sequence[_Picture], states: list[BodyState]) -> list[BodyState]:
    """Levenberg-Marquardt on all pictures at once."""
    damping = 1e-2
    posed = [picture.problem.pose(state) for picture, state in zip(pictures, states, strict=True)]
    for _ in range(_ITERATIONS):
        robust = [p.problem.robust_weights(at) for p, at in zip(pictures, posed, strict=True)]
        weights = _tie_weights(states)
        before = cost = _cost(pictures, states, posed, robust, weights)
        H, gradient, starts = _linearise(pictures, states, posed, robust, weights)
        for _ in range(_TRIES):
            step = np.linalg.solve(H + np.diag(damping * (np.diag(H) + 1e-6)), -gradient)
            candidate = [
                p.problem.move(state, part)
                for p, state, part in zip(pictures, states, np.split(step, starts[1:]), strict=True)
            ]
            candidate_posed = [p.problem.pose(state) for p, state in zip(pictures, candidate, strict=True)]
            candidate_cost = _cost(pictures, candidate, candidate_posed, robust, weights)
            if candidate_cost < cost:
                states, posed, cost = candidate, candidate_posed, candidate_cost
                damping = max(0.3 * damping, 1e-6)
                break
            damping *= 5
        if before - cost < _CONVERGED * before:
            break
    return states


def _cost(
    pictures: Sequence[_Picture],
    states: Sequence[BodyState],
    posed: Sequence[PosedAnchors],
    robust: Sequence[np.ndarray],
    weights: np.ndarray,
) -> float:
    own = sum(p.problem.cost(s, at, how) for p, s, at, how in zip(pictures, states, posed, robust, strict=True))
    return own + float((weights * _apart(states) ** 2).sum())


def _apart(states: Sequence[BodyState]) -> Float64[np.ndarray, "k 63"]:
    """Each picture's tied rotvecs, less their mean."""
    tied = np.stack([state.rotvec[_TIED].ravel() for state in states])
    apart: np.ndarray = tied - tied.mean(axis=0)
    return apart


def _tie_weights(states: Sequence[BodyState]) -> Float64[np.ndarray, " 63"]:
    """Of each coordinate, less where someone moved."""
    deviation = _TIE * np.where(np.isin(_TIED, _LOOSE), _LOOSER, 1.0)
    furthest = np.linalg.norm(_apart(states).reshape(len(states), -1, 3), axis=2).max(axis=0) / deviation
    weights: np.ndarray = np.repeat(np.minimum(1.0, _MOVED / np.maximum(furthest, 1e-9)) / deviation**2, 3)
    return weights


def _linearise(
    pictures: Sequence[_Picture],
    states: Sequence[BodyState],
    posed: Sequence[PosedAnchors],
    robust: Sequence[np.ndarray],
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss-Newton matrix and half the gradient of the whole cost, and where each picture's unknowns begin."""
    parts = [
        p.problem.linearise(state, at, how) for p, state, at, how in zip(pictures, states, posed, robust, strict=True)
    ]
    sizes = [len(gradient) for _, gradient in parts]
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    H, gradient = np.zeros((sum(sizes), sum(sizes))), np.concatenate([part for _, part in parts])
    count, apart = len(pictures), _apart(states)
    for a, (picture, start) in enumerate(zip(pictures, starts, strict=True)):
        H[start : start + sizes[a], start : start + sizes[a]] += parts[a][0]
        at = start + picture.tied
        gradient[at] += weights * apart[a]
        for b, (other, other_start) in enumerate(zip(pictures, starts, strict=True)):
            H[at, other_start + other.tied] += weights * ((a == b) - 1 / count)
    return H, gradient, starts
