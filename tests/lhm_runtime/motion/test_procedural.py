import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import breathing, relaxed_pose, wave
from lhm_runtime.motion.sequences import MotionSequence
from lhm_runtime.types import SmplxPose

FACE = ("jawOpen", "mouthSmileLeft", "eyeBlinkLeft", "eyeBlinkRight", "somethingElse")


@pytest.fixture(scope="module")
def rest_joints() -> np.ndarray:
    return BodyModel.default().rest_joints()


def joints_of(pose: SmplxPose, rest_joints: np.ndarray) -> np.ndarray:
    return forward_kinematics(pose.rotvec, rest_joints, pose.transl)[:, :3, 3]


def path_of(motion: MotionSequence, joint: str, rest_joints: np.ndarray) -> np.ndarray:
    return np.array([joints_of(motion.pose(i), rest_joints)[JOINT_INDEX[joint]] for i in range(len(motion))])


def test_relaxed_arms_hang_beside_the_thighs(rest_joints: np.ndarray) -> None:
    joints = joints_of(relaxed_pose(), rest_joints)
    for side, sign in (("left", 1), ("right", -1)):
        shoulder, elbow, wrist = (joints[JOINT_INDEX[f"{side}_{name}"]] for name in ("shoulder", "elbow", "wrist"))
        assert elbow[1] < shoulder[1] - 0.25
        assert wrist[1] < elbow[1] - 0.2
        assert 0.2 < sign * wrist[0] < 0.4  # clear of the hip, not spread
        upper, lower = elbow - shoulder, wrist - elbow
        bend = np.degrees(np.arccos(upper @ lower / np.linalg.norm(upper) / np.linalg.norm(lower)))
        assert 5 < bend < 35
        assert lower[2] > upper[2]  # elbows bend forwards


def test_relaxed_is_its_own_mirror_image(rest_joints: np.ndarray) -> None:
    rotvec = relaxed_pose().rotvec
    swapped = [
        JOINT_INDEX[name.replace("left", "?").replace("right", "left").replace("?", "right")] for name in JOINT_INDEX
    ]
    np.testing.assert_allclose(rotvec[swapped] * [1, -1, -1], rotvec, atol=1e-6)


def test_relaxed_fingers_curl_into_the_palm(rest_joints: np.ndarray) -> None:
    rotvec = np.zeros((55, 3), np.float32)
    rotvec[25:] = relaxed_pose().rotvec[25:]
    joints = forward_kinematics(rotvec, rest_joints, np.zeros(3, np.float32))[:, :3, 3]
    for side in ("left", "right"):
        for finger in ("index", "middle", "ring", "pinky"):
            knuckle, tip = (JOINT_INDEX[f"{side}_{finger}{k}"] for k in (1, 3))
            assert joints[tip, 1] < joints[knuckle, 1] - 0.01  # palms face down at rest


def test_wave_raises_the_right_hand_and_brings_it_back(rest_joints: np.ndarray) -> None:
    motion = wave(4.0, 30.0, FACE)
    right, left = (path_of(motion, f"{side}_wrist", rest_joints) for side in ("right", "left"))
    shoulder = rest_joints[JOINT_INDEX["right_shoulder"]]
    middle = slice(45, 80)
    assert (right[middle, 1] > shoulder[1] + 0.05).all()
    assert (right[middle, 0] < shoulder[0]).all()
    assert (right[middle, 2] > 0).all()  # before the body, not behind it
    sideways = np.diff(np.sign(np.diff(right[middle, 0])))
    assert np.count_nonzero(sideways) >= 3  # at least two swings to and fro
    assert np.ptp(left, axis=0).max() < 0.1
    np.testing.assert_allclose(motion.rotvec[0], breathing(4.0, 30.0).rotvec[0], atol=1e-6)


@pytest.mark.parametrize("make", [wave, breathing])
def test_motions_are_smooth_and_loop(make: object, rest_joints: np.ndarray) -> None:
    motion = make(4.0, 60.0, FACE)  # type: ignore[operator]
    joints = np.array([joints_of(motion.pose(i), rest_joints) for i in range(len(motion))])
    looped = np.concatenate([joints, joints[:2]])
    speed = np.linalg.norm(np.diff(looped, axis=0), axis=-1) * 60
    jerkiness = np.linalg.norm(np.diff(looped, n=2, axis=0), axis=-1) * 60**2
    assert speed.max() < 3.0  # m/s, a lively hand
    assert jerkiness.max() < 40.0  # m/s^2; one frame out of place would be in the hundreds


@pytest.mark.parametrize("make", [wave, breathing])
def test_feet_stay_planted(make: object, rest_joints: np.ndarray) -> None:
    motion = make(4.0, 30.0)  # type: ignore[operator]
    for side in ("left", "right"):
        assert np.ptp(path_of(motion, f"{side}_ankle", rest_joints), axis=0).max() < 0.006


def test_faces_are_matched_by_name() -> None:
    motion = wave(4.0, 30.0, FACE)
    jaw, smile, left_eye, right_eye, other = motion.expression.T
    assert motion.expression_names == FACE
    assert smile.max() > 0.5
    assert 0 < jaw.max() < 0.2
    np.testing.assert_array_equal(left_eye, right_eye)
    assert left_eye.max() > 0.7
    assert np.median(left_eye) < 0.05  # open most of the time
    assert not other.any()
    assert wave(4.0, 30.0).expression.shape == (120, 0)


@pytest.mark.parametrize(
    ("duration_s", "fps"),
    [(0.0, 30.0), (-1.0, 30.0), (np.nan, 30.0), (1.0, 0.0), (1.0, np.inf), (0.01, 30.0)],
)
def test_a_motion_without_frames_is_refused(duration_s: float, fps: float) -> None:
    with pytest.raises(InvalidInputError, match="no motion"):
        wave(duration_s, fps)
