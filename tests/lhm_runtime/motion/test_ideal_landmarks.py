import numpy as np

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.motion.ideal_landmarks import IdealTracker, TrackerNoise
from lhm_runtime.motion.landmark_points import ELBOWS, HIPS, KNEES, WRISTS
from lhm_runtime.motion.procedural import relaxed_pose, wave
from lhm_runtime.rasterizer.cameras import look_at, orbit

REST = BodyModel.default().rest_joints()
MOTION = wave(4.0, 30.0)


def test_points_are_the_joints_from_the_middle_of_the_hips() -> None:
    pose = MOTION.pose(40)
    seen = IdealTracker(REST).see(pose)
    joints = forward_kinematics(pose.rotvec, REST, pose.transl)[:, :3, 3]
    middle = joints[[JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]]].mean(0)
    assert seen.body_world is not None
    assert seen.right_hand_world is not None
    np.testing.assert_allclose(seen.body_world[WRISTS[1]], joints[JOINT_INDEX["right_wrist"]] - middle, atol=1e-6)
    np.testing.assert_allclose(seen.body_world[HIPS].mean(0), 0, atol=1e-6)
    index = joints[[JOINT_INDEX[f"right_index{k}"] for k in (1, 2, 3)]]
    np.testing.assert_allclose(np.diff(seen.right_hand_world[5:8], axis=0), np.diff(index, axis=0), atol=1e-6)
    assert seen.body_image is None


def test_a_camera_turns_the_world_and_gives_image_points() -> None:
    target = np.array([0.0, -0.4, 0.0])
    behind = orbit(target, 4.0, 300, 200, yaw=np.pi)
    front = look_at(np.array([0.0, -0.4, 4.0]), target, 300, 200)
    from_behind, from_front = (IdealTracker(REST, camera).see(relaxed_pose()) for camera in (behind, front))
    assert from_behind.body_world is not None
    assert from_front.body_world is not None
    assert from_front.body_image is not None
    assert from_behind.body_image is not None
    np.testing.assert_allclose(from_behind.body_world, from_front.body_world * [-1, 1, -1], atol=1e-5)
    assert from_front.body_image[WRISTS[0], 0] > 150 > from_behind.body_image[WRISTS[0], 0]
    assert from_front.body_image[KNEES[0], 1] > from_front.body_image[HIPS[0], 1]
    assert from_front.image_size == (300, 200)


def test_noise_has_the_measured_size_and_repeats() -> None:
    noise = TrackerNoise(seed=4)
    clear, noisy, again = (IdealTracker(REST, noise=n) for n in (None, noise, TrackerNoise(seed=4)))
    off, lengths = [], []
    for i in range(len(MOTION)):
        true, seen = clear.see(MOTION.pose(i)).body_world, noisy.see(MOTION.pose(i)).body_world
        assert true is not None
        assert seen is not None
        np.testing.assert_array_equal(again.see(MOTION.pose(i)).body_world, seen)
        off.append(seen - true)
        upper = seen[ELBOWS] - seen[[11, 12]], true[ELBOWS] - true[[11, 12]]
        lengths.append(np.linalg.norm(upper[0], axis=1) / np.linalg.norm(upper[1], axis=1))
    errors = np.array(off)
    assert 0.03 < errors[:, 11:, 2].std() < 0.1
    steps = np.linalg.norm(np.diff(errors, axis=0), axis=-1)
    assert 0.001 < np.median(steps) < 0.006
    assert np.ptp(lengths) > 0.03
    scaled = IdealTracker(REST, noise=noise.scaled(0.0)).see(MOTION.pose(3)).body_world
    np.testing.assert_allclose(scaled, clear.see(MOTION.pose(3)).body_world, atol=1e-6)
