import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.types import SmplxPose
from streaming.sources.idle import IdleMotion, blend_poses

NAMES = ("eyeBlinkLeft", "jawOpen")


@pytest.fixture(scope="module")
def idle() -> IdleMotion:
    return IdleMotion(NAMES)


def test_it_breathes_sways_and_blinks_but_stays(idle: IdleMotion) -> None:
    poses = [idle.pose(0.05 * i) for i in range(430)]
    rest = relaxed_pose(NAMES)
    turns = np.array([pose.rotvec for pose in poses])
    assert 0.01 < np.ptp(turns, axis=0).max() < 0.2
    assert np.abs(turns - rest.rotvec).max() < 0.2
    assert 0.003 < np.ptp([pose.transl for pose in poses], axis=0).max() < 0.05
    blinks = np.array([pose.expression[0] for pose in poses])
    assert blinks.max() > 0.9
    assert blinks.min() < 0.1


def test_it_never_jumps(idle: IdleMotion) -> None:
    poses = [idle.pose(i / 60) for i in range(3000)]
    steps = np.abs(np.diff([pose.rotvec for pose in poses], axis=0))
    assert steps.max() < 0.01


def random_pose(seed: int) -> SmplxPose:
    rng = np.random.default_rng(seed)
    rotvec = rng.normal(size=(55, 3))
    rotvec *= rng.uniform(0, 3, (55, 1)) / np.linalg.norm(rotvec, axis=1, keepdims=True)
    return SmplxPose(rotvec.astype(np.float32), rng.normal(size=3).astype(np.float32), np.float32([seed % 7, 1]), 0.0)


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 1))
def test_blending_goes_along_the_shortest_arc(first: int, second: int, share: float) -> None:
    start, end = random_pose(first), random_pose(second)
    between = blend_poses(start, end, share)

    def angle(a: SmplxPose, b: SmplxPose) -> np.ndarray:
        R = rotvec_to_matrix(a.rotvec.astype(float)).swapaxes(1, 2) @ rotvec_to_matrix(b.rotvec.astype(float))
        return np.arccos(np.clip((np.trace(R, axis1=1, axis2=2) - 1) / 2, -1, 1))

    np.testing.assert_allclose(angle(start, between), share * angle(start, end), atol=5e-3)
    np.testing.assert_allclose(angle(between, end), (1 - share) * angle(start, end), atol=5e-3)
    np.testing.assert_allclose(between.transl, (1 - share) * start.transl + share * end.transl, atol=1e-5)
    np.testing.assert_allclose(between.expression, (1 - share) * start.expression + share * end.expression, atol=1e-5)


def test_the_ends_are_exact() -> None:
    start, end = random_pose(1), random_pose(2)
    assert blend_poses(start, end, 0.0) is start
    assert blend_poses(start, end, 1.0) is end
