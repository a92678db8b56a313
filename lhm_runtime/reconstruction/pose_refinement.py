"""Pose, place and shape by Levenberg-Marquardt on what was seen of a body, with analytic derivatives."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64

from lhm_runtime.motion.joint_limits import LOWER_LIMITS, UPPER_LIMITS
from lhm_runtime.reconstruction.landmark_anchors import (
    Anchors,
    PosedAnchors,
    differentiate_anchors,
    pose_anchors,
    right_jacobian,
)
from lhm_runtime.reconstruction.pose_prior import MEAN
from lhm_runtime.reconstruction.silhouette import Outline

NEAREST_M: Final = 0.1
"""What is seen is at least this far from the camera."""

_OUTLIER = 2.0  # deviations beyond which a body point counts linearly (Huber 1964)
# deviations of what one camera does not see
_TILT = 0.10  # the pelvis' up direction, from the vertical towards the camera or away
_DEPTH_M = 1.5
_LIMIT = 0.1  # beyond a joint's limit, radians
_BETA = 1.0
_CONVERGED = 1e-3
_TRIES = 5
_LEAST_DAMPING = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class BodyState:
    """What is sought."""

    rotvec: Float64[np.ndarray, "55 3"]
    transl: Float64[np.ndarray, " 3"]
    betas: Float64[np.ndarray, " b"]
    pitch: float
    """How far the camera looks down, radians."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What was seen of p anchors; the camera at the origin looks along -z with y up."""

    anchors: Anchors
    focal_px: float
    moving: Int64[np.ndarray, " j"]
    """Joints to turn; the root is the first."""
    deviation: Float64[np.ndarray, "j 3"]
    """How far their rotvecs are likely to be from pose_prior.MEAN."""
    points: Int64[np.ndarray, " k"]
    """Anchors seen in the picture, body points first."""
    pixels: Float64[np.ndarray, "k 2"]
    """Where, from the picture's centre, x right and y up."""
    point_m: Float64[np.ndarray, " k"]
    """Deviations, metres at the person."""
    body_count: int
    """How many of the points are body points."""
    bones: Int64[np.ndarray, "i 2"]
    """Pairs of anchors."""
    bone_vectors: Float64[np.ndarray, "i 3"]
    """From the first to the second, metres."""
    bone_m: Float64[np.ndarray, "i 3"]
    """Deviations."""
    plumb: Float64[np.ndarray, "l p"]
    """Sums of how near the anchors are that are zero for who stands upright, in deviations."""
    likely_pitch: tuple[float, float]
    """Mean and deviation of the camera's pitch."""
    outline: Outline | None = None
    """What the person's outline tells of the betas."""

    def offsets(self, points: Float64[np.ndarray, "p 3"]) -> Float64[np.ndarray, "k 2"]:
        """From where the points were seen to where these project, pixels."""
        seen = points[self.points]
        offsets: np.ndarray = self.focal_px * seen[:, :2] / -seen[:, 2:] - self.pixels
        return offsets


def refine(evidence: Evidence, state: BodyState, effort: tuple[float, int], *, free_betas: bool) -> BodyState:
    """The most likely state near ``state``.

    ``effort``: the weight of the bone vectors, which lead into the right basin but are less exact than the image, and
    how many iterations at most.
    """
    bone_trust, iterations = effort
    problem = Problem(evidence, state.transl[2], bone_trust, free_betas)
    damping = 1e-2
    posed = problem.pose(state)
    for _ in range(iterations):
        robust = problem.robust_weights(posed)
        before = cost = problem.cost(state, posed, robust)
        H, gradient = problem.linearise(state, posed, robust)
        for _ in range(_TRIES):
            step = np.linalg.solve(H + np.diag(damping * (np.diag(H) + 1e-6)), -gradient)
            candidate = problem.move(state, step)
            candidate_posed = problem.pose(candidate)
            candidate_cost = problem.cost(candidate, candidate_posed, robust)
            if candidate_cost < cost:
                state, posed, cost = candidate, candidate_posed, candidate_cost
                damping = max(0.3 * damping, _LEAST_DAMPING)
                break
            damping *= 5
        if before - cost < _CONVERGED * before:
            break
    return state


def misfit(evidence: Evidence, state: BodyState, bone_trust: float) -> float:
    """Cost of a state as it is."""
    problem = Problem(evidence, state.transl[2], bone_trust, free_betas=False)
    posed = problem.pose(state)
    return problem.cost(state, posed, problem.robust_weights(posed))


class Problem:
    """Sum of squares of one picture; unknown are the moving joints' rotvecs, translation, pitch, and betas if free."""

    def __init__(self, evidence: Evidence, depth_m: float, bone_trust: float, free_betas: bool) -> None:
        """``depth_m``: the likely z of the translation; ``bone_trust``: the weight of the bone vectors."""
        self._seen = evidence
        self._depth_m = depth_m
        self._px_per_m = evidence.focal_px / abs(depth_m)
        self._bone_scale = bone_trust / evidence.bone_m
        self._free_betas = free_betas
        self._mean, self._deviation = MEAN[evidence.moving], evidence.deviation
        self._lower, self._upper = LOWER_LIMITS[evidence.moving], UPPER_LIMITS[evidence.moving]

    def pose(self, state: BodyState) -> PosedAnchors:
        """The anchors of a state."""
        return pose_anchors(self._seen.anchors, state.rotvec, state.transl, state.betas)

    def move(self, state: BodyState, step: Float64[np.ndarray, " n"]) -> BodyState:
        """The state with a change of the n unknowns added."""
        moving = self._seen.moving
        rotvec = state.rotvec.copy()
        rotvec[moving] += step[: 3 * len(moving)].reshape(-1, 3)
        rest = step[3 * len(moving) :]
        betas = state.betas + rest[4:] if self._free_betas else state.betas
        return BodyState(rotvec, state.transl + rest[:3], betas, state.pitch + float(rest[3]))

    def robust_weights(self, posed: PosedAnchors) -> Float64[np.ndarray, "k 1"]:
        """By how much each point counts."""
        seen = self._seen
        weights = 1 / (self._px_per_m * seen.point_m)
        deviations = np.linalg.norm(seen.offsets(posed.points), axis=1) * weights
        weights[: seen.body_count] *= np.sqrt(_OUTLIER / np.maximum(deviations[: seen.body_count], _OUTLIER))
        return weights[:, None]

    def cost(self, state: BodyState, posed: PosedAnchors, robust: Float64[np.ndarray, "k 1"]) -> float:
        """The sum, with these weights of the points; infinite where the body is too near the camera, or behind it."""
        if posed.points[:, 2].max() > -NEAREST_M:
            return np.inf
        rows = self._residuals(state, posed, robust)
        priors, _ = self._priors(state)
        return float(rows @ rows + priors @ priors)

    def linearise(
        self, state: BodyState, posed: PosedAnchors, robust: Float64[np.ndarray, "k 1"]
    ) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, " n"]]:
        """Gauss-Newton matrix and half the gradient of the cost."""
        rows, J = self._residuals(state, posed, robust), self._jacobian(state, posed, robust)
        priors, slopes = self._priors(state)
        H = J.T @ J
        H[np.diag_indices_from(H)] += slopes[0] ** 2 + slopes[1] ** 2
        return H, J.T @ rows + (slopes * priors.reshape(2, -1)).sum(0)

    def _residuals(self, state: BodyState, posed: PosedAnchors, robust: np.ndarray) -> np.ndarray:
        seen = self._seen
        offsets = seen.offsets(posed.points) * robust
        first, second = seen.bones.T
        bones = (posed.points[second] - posed.points[first] - seen.bone_vectors) * self._bone_scale
        near = _towards_camera(state.pitch)
        tilt = near @ posed.T_world_joint[0, :3, 1:2] / _TILT
        parts = [offsets.ravel(), bones.ravel(), seen.plumb @ (posed.points @ near), tilt]
        if seen.outline is not None:
            parts.append(seen.outline.rows @ state.betas - seen.outline.targets)
        return np.concatenate(parts)

    def _jacobian(self, state: BodyState, posed: PosedAnchors, robust: np.ndarray) -> np.ndarray:
        seen = self._seen
        turns, shapes = differentiate_anchors(seen.anchors, posed, state.rotvec, state.betas, seen.moving)
        p = len(posed.points)
        parts = [turns.reshape(p, 3, -1), np.broadcast_to(np.eye(3), (p, 3, 3)), np.zeros((p, 3, 1))]
        if self._free_betas:
            parts.append(shapes)
        moves = np.concatenate(parts, axis=2)  # [p, 3, unknowns]
        n = moves.shape[2]

        points, depth = posed.points[seen.points], -posed.points[seen.points, 2:]
        scale = (seen.focal_px * robust / depth)[:, :, None]
        offsets = scale * (moves[seen.points, :2] + (points[:, :2] / depth)[:, :, None] * moves[seen.points, 2:])
        first, second = seen.bones.T
        bones = (moves[second] - moves[first]) * self._bone_scale[:, :, None]
        near, lower = _towards_camera(state.pitch), _towards_camera(state.pitch + np.pi / 2)  # and its derivative
        at_pitch = 3 * len(seen.moving) + 3
        plumb = seen.plumb @ (near @ moves)
        plumb[:, at_pitch] = seen.plumb @ (posed.points @ lower)
        tilt = np.zeros((1, n))
        # d (R e_y) = w x (R e_y) for a world turn w = R J_r d
        R, up = posed.T_world_joint[0, :3, :3], posed.T_world_joint[0, :3, 1]
        tilt[0, :3] = np.cross(up, near) @ R @ right_jacobian(state.rotvec[:1])[0] / _TILT
        tilt[0, at_pitch] = lower @ up / _TILT
        rows = [offsets.reshape(-1, n), bones.reshape(-1, n), plumb, tilt]
        if seen.outline is not None:
            outline = np.zeros((len(seen.outline.rows), n))
            if self._free_betas:
                outline[:, at_pitch + 1 :] = seen.outline.rows
            rows.append(outline)
        return np.concatenate(rows)

    def _priors(self, state: BodyState) -> tuple[np.ndarray, np.ndarray]:
        """Residuals that depend on one unknown each, and their slopes [2, n]: likely values, and limits of joints."""
        rotvec = state.rotvec[self._seen.moving]
        b = len(state.betas) if self._free_betas else 0
        pitch, pitch_deviation = self._seen.likely_pitch
        likely = np.concatenate(
            [
                ((rotvec - self._mean) / self._deviation).ravel(),
                [0.0, 0.0, (state.transl[2] - self._depth_m) / _DEPTH_M, (state.pitch - pitch) / pitch_deviation],
                state.betas[:b] / _BETA,
            ]
        )
        likely_slope = np.concatenate(
            [(1 / self._deviation).ravel(), [0.0, 0.0, 1 / _DEPTH_M, 1 / pitch_deviation], np.full(b, 1 / _BETA)]
        )
        beyond = rotvec - np.clip(rotvec, self._lower, self._upper)
        limit = np.concatenate([beyond.ravel() / _LIMIT, np.zeros(4 + b)])
        limit_slope = np.concatenate([(beyond != 0).ravel() / _LIMIT, np.zeros(4 + b)])
        return np.concatenate([likely, limit]), np.stack([likely_slope, limit_slope])


def _towards_camera(pitch: float) -> np.ndarray:
    """[3] the horizontal direction towards a camera that looks down by ``pitch``, in its axes."""
    return np.array([0.0, -np.sin(pitch), np.cos(pitch)])
