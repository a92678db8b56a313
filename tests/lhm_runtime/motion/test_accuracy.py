import numpy as np

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.motion.accuracy import DEFINED_JOINTS, _compare, measure_noise, random_poses
from lhm_runtime.motion.ideal_landmarks import TrackerNoise
from lhm_runtime.motion.joint_limits import LOWER_LIMITS, UPPER_LIMITS
from lhm_runtime.motion.procedural import breathing
from lhm_runtime.types import SmplxPose

REST = BodyModel.default().rest_joints()


def world(pose: SmplxPose) -> np.ndarray:
    return forward_kinematics(pose.rotvec, REST, pose.transl)


def test_errors_are_the_ones_put_in() -> None:
    poses = random_poses(6)
    truth = np.stack([world(pose) for pose in poses])
    off = truth.copy()
    wrist = JOINT_INDEX["left_wrist"]
    off[:, wrist, :3, 3] += [0, 0.03, 0]
    accuracy = _compare(truth, off, REST, 1.0)
    np.testing.assert_allclose(accuracy.position_mm["left_wrist"], 30, atol=1e-3)
    assert accuracy.direction_deg["left_elbow"] > 1
    assert accuracy.direction_deg["right_elbow"] < 1e-5
    np.testing.assert_allclose(accuracy.mean_position_mm, 30 / len(DEFINED_JOINTS), atol=1e-3)


def test_a_twist_is_told_from_a_direction() -> None:
    straight = np.zeros((55, 3), np.float32)
    straight[JOINT_INDEX["left_elbow"], 1] = -1.0  # bent
    pose = SmplxPose(straight, np.zeros(3, np.float32), np.zeros(0, np.float32), 0.0)
    truth = world(pose)[None]
    turned = truth.copy()
    bone = REST[JOINT_INDEX["left_elbow"]] - REST[JOINT_INDEX["left_shoulder"]]
    shoulder = JOINT_INDEX["left_shoulder"]
    turned[0, shoulder, :3, :3] = truth[0, shoulder, :3, :3] @ rotvec_to_matrix(0.4 * bone / np.linalg.norm(bone))
    accuracy = _compare(truth, turned, REST, 1.0)
    np.testing.assert_allclose(accuracy.twist_deg["left_shoulder"], np.degrees(0.4), atol=1e-3)
    assert np.isnan(accuracy.twist_deg["right_shoulder"])  # a straight arm has no plane
    assert accuracy.mean_direction_deg < 1e-4


def test_random_poses_are_within_the_limits_and_repeat() -> None:
    poses, again = random_poses(200, seed=5), random_poses(200, seed=5)
    rotvec = np.stack([pose.rotvec for pose in poses])
    np.testing.assert_array_equal(rotvec, np.stack([pose.rotvec for pose in again]))
    assert (np.abs(rotvec[:, [10, 11, 22, 23, 24]]) == 0).all()
    beyond = np.maximum(rotvec - UPPER_LIMITS, LOWER_LIMITS - rotvec).max(axis=(0, 2))
    assert np.degrees(beyond[1:].max()) < 5  # the corner of a box of combined turns
    assert rotvec[:, 0, 1].std() > 1  # facing anywhere


def test_more_noise_is_more_error() -> None:
    motion = breathing(2.0, 30.0)
    poses = [motion.pose(i) for i in range(len(motion))]
    calm, rough = (measure_noise(poses, REST, TrackerNoise().scaled(factor)) for factor in (0.1, 1.0))
    assert calm.rotation_deg < rough.rotation_deg
    assert calm.jitter_deg < rough.jitter_deg
    smoothed = measure_noise(poses, REST, TrackerNoise(), smooth=lambda _: poses[0])
    assert smoothed.largest_turn_deg == 0
