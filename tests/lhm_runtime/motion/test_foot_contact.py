import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.motion.smoothing import Smoother, SmoothingConfig
from lhm_runtime.types import SmplxPose

BALLS = [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]]
REST = BodyModel.default().rest_joints()


def balls_of(rotvec: np.ndarray, transl: np.ndarray) -> np.ndarray:
    return forward_kinematics(rotvec, REST, transl)[BALLS, :3, 3]


def follow(rotvec: np.ndarray, transl: np.ndarray, *, lock: bool) -> tuple[np.ndarray, np.ndarray]:
    """Translation and balls of the feet [t, 2, 3] after smoothing at 30 fps."""
    smoother = Smoother(SmoothingConfig(lock_feet=lock), REST)
    poses = [
        smoother.smooth(SmplxPose(r.astype(np.float32), p.astype(np.float32), np.zeros(0, np.float32), k / 30))
        for k, (r, p) in enumerate(zip(rotvec, transl, strict=True))
    ]
    return np.stack([p.transl for p in poses]), np.stack([balls_of(p.rotvec, p.transl) for p in poses])


def test_standing_feet_do_not_skate() -> None:
    times = np.arange(0, 6, 1 / 30)
    skating = np.zeros((len(times), 3))
    skating[:, 2] = 0.03 * np.sin(2 * np.pi * 0.5 * times)  # slow, as errors in depth are
    rotvec = np.zeros((len(times), 55, 3))
    for lock, most in ((False, np.inf), (True, 0.001)):
        _, balls = follow(rotvec, skating, lock=lock)
        slide = np.ptp(balls[10:], axis=0).max()
        assert slide < most
        assert lock or slide > 0.04


def test_the_body_moves_over_planted_feet() -> None:
    times = np.arange(0, 4, 1 / 30)
    bend = 0.25 * (1 - np.cos(2 * np.pi * 0.5 * times))
    rotvec = np.zeros((len(times), 55, 3))
    for side in ("left", "right"):
        rotvec[:, JOINT_INDEX[f"{side}_hip"], 0] = -bend
        rotvec[:, JOINT_INDEX[f"{side}_knee"], 0] = 2 * bend
        rotvec[:, JOINT_INDEX[f"{side}_ankle"], 0] = -bend
    transl = np.zeros((len(times), 3))
    transl[:, 1] = [REST[BALLS[0], 1] - balls_of(r, np.zeros(3))[0, 1] for r in rotvec]
    free, slid = follow(rotvec, transl, lock=False)
    moved, balls = follow(rotvec, transl, lock=True)
    assert np.ptp(slid[10:, :, 2], axis=0).max() > 0.01  # thighs and shins differ in length: feet slide on their own
    assert np.ptp(balls[10:, :, [0, 2]], axis=0).max() < 0.001
    np.testing.assert_array_equal(moved[:, 1], free[:, 1])
    assert np.ptp(moved[:, 1]) > 0.05


def lifted_left_foot(times: np.ndarray) -> np.ndarray:
    lift = 0.6 * np.clip(np.sin(2 * np.pi * 0.4 * times), 0, None)
    rotvec = np.zeros((len(times), 55, 3))
    rotvec[:, JOINT_INDEX["left_hip"], 0] = -lift
    rotvec[:, JOINT_INDEX["left_knee"], 0] = 2 * lift
    return rotvec


def test_a_lifted_foot_is_free_and_the_other_stays() -> None:
    times = np.arange(0, 6, 1 / 30)
    skating = np.zeros((len(times), 3))
    skating[:, 0] = 0.02 * np.sin(2 * np.pi * 0.3 * times)
    rotvec = lifted_left_foot(times)
    moved, balls = follow(rotvec, skating, lock=True)
    plain, _ = follow(rotvec, skating, lock=False)
    assert np.ptp(balls[10:, 0, 1]) > 0.08
    free_slide = np.ptp(plain[:, 0])
    assert free_slide > 0.025
    assert np.ptp(balls[10:, 1, 0]) < 0.25 * free_slide
    # the correction itself never jumps
    assert np.abs(np.diff(moved - plain, axis=0)).max() < 0.01


@pytest.mark.parametrize("speed_m_s", [0.3, 1.3])
def test_a_body_carried_along_is_let_go(speed_m_s: float) -> None:
    times = np.arange(0, 3, 1 / 30)
    carried = np.zeros((len(times), 3))
    carried[:, 0] = speed_m_s * np.maximum(times - 1, 0)
    moved, _ = follow(np.zeros((len(times), 55, 3)), carried, lock=True)
    plain, _ = follow(np.zeros((len(times), 55, 3)), carried, lock=False)
    assert np.abs(moved - plain).max() < 0.13
    assert np.abs(np.diff(moved - plain, axis=0)).max() < 0.05


def test_the_correction_fades_in_the_air() -> None:
    times = np.arange(0, 4, 1 / 30)
    path = np.zeros((len(times), 3))
    path[:, 2] = np.where(times < 2, 0.05 * np.clip(times - 0.5, 0, 1), 0.05)
    path[:, 1] = np.where(times > 2, 0.4, 0)  # a jump that never lands
    moved, _ = follow(np.zeros((len(times), 55, 3)), path, lock=True)
    plain, _ = follow(np.zeros((len(times), 55, 3)), path, lock=False)
    assert np.abs(moved - plain)[int(1.9 * 30)].max() > 0.03
    assert np.abs(moved - plain)[-1].max() < 0.001
