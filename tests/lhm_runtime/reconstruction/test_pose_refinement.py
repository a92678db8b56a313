"""The gradient of the cost is that of finite differences, and refining never makes a state worse."""

import numpy as np
import pytest
from sightings import camera_looking_down, see, standing_rotvec

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.body_proportions import with_proportions
from lhm_runtime.reconstruction.fit_evidence import gather_evidence
from lhm_runtime.reconstruction.landmark_anchors import find_anchors
from lhm_runtime.reconstruction.pose_refinement import BodyState, Evidence, Problem, misfit, refine

TRANSL = np.array([0.0, 0.45, -2.6])
STEP = 1e-5


def evidence_of(seed: int) -> tuple[Evidence, BodyState]:
    """What is seen of a random stance, and a state some way off it."""
    body = with_proportions(BodyModel.default())
    rng = np.random.default_rng(seed)
    rotvec, betas = standing_rotvec(rng), rng.normal(size=14) * 0.5
    camera = camera_looking_down(0.1)
    landmarks = see(body, rotvec, TRANSL, betas, camera)
    expression = np.zeros(len(body.expression_names), np.float32)
    evidence = gather_evidence(landmarks, find_anchors(body), expression, camera.fx, (0.05, 0.12))
    off = BodyState(rotvec + 0.15 * rng.normal(size=(55, 3)), TRANSL + [0.1, 0, 0.2], np.zeros(14), 0.0)
    return evidence, off


@pytest.mark.parametrize("free_betas", [True, False])
def test_gradient_is_that_of_finite_differences(free_betas: bool) -> None:
    evidence, state = evidence_of(0)
    problem = Problem(evidence, float(state.transl[2]), 1.0, free_betas)
    posed = problem.pose(state)
    robust = problem.robust_weights(posed)
    H, gradient = problem.linearise(state, posed, robust)
    assert np.linalg.eigvalsh(H).min() > 0
    for k in np.random.default_rng(1).choice(len(gradient), 60, replace=False):
        step = STEP * np.eye(len(gradient))[k]
        costs = [
            problem.cost(moved, problem.pose(moved), robust)
            for moved in (problem.move(state, step), problem.move(state, -step))
        ]
        assert gradient[k] == pytest.approx((costs[0] - costs[1]) / (4 * STEP), rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_refining_explains_more(seed: int) -> None:
    evidence, state = evidence_of(seed)
    refined = refine(evidence, state, (1.0, 20), free_betas=True)
    assert misfit(evidence, refined, 1.0) < 0.05 * misfit(evidence, state, 1.0)
    np.testing.assert_array_equal(refined.rotvec[22:25], state.rotvec[22:25])  # face joints are not sought
