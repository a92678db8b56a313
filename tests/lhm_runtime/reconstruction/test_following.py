"""Following: a body that was fitted beside the person is moved onto them, and one that is right stays."""

from dataclasses import replace

import numpy as np
import pytest
from sightings import camera_looking_down

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.following import AvatarFollower
from lhm_runtime.reconstruction.landmark_anchors import limb_anchors, pose_anchors
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.types import Landmarks, SmplxPose

CAMERA = camera_looking_down(0.08, width=360, height=480)
TRANSL = np.array([0.05, 0.45, -2.7])
SEEN = [JOINT_INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("elbow", "wrist", "knee", "ankle")]


@pytest.fixture(scope="module")
def person() -> Avatar:
    return build_person(10_000)


@pytest.fixture(scope="module")
def follower(person: Avatar) -> AvatarFollower:
    return AvatarFollower(person)


def stance(*, arm: float = 0.0, leg: float = 0.0) -> np.ndarray:
    """At ease, the arms a little away; the right arm and the left leg lifted sideways by these angles."""
    rotvec = relaxed_pose().rotvec.astype(np.float64)
    rotvec[JOINT_INDEX["left_shoulder"], 2] += 0.3
    rotvec[JOINT_INDEX["right_shoulder"], 2] -= 0.3 + arm
    rotvec[JOINT_INDEX["left_hip"], 2] += leg
    return rotvec


def fit_of(rotvec: np.ndarray, transl: np.ndarray = TRANSL) -> BodyFit:
    pose = SmplxPose(rotvec.astype(np.float32), transl.astype(np.float32), np.zeros(0, np.float32), 1.5)
    return BodyFit(pose, np.zeros(10, np.float32), CAMERA, np.ones(55, np.float32), 0.0, ("unsure",))


def photograph(person: Avatar, true: BodyFit, tracked: BodyFit) -> Photo:
    """What the camera sees of the true pose, with the landmarks of another."""
    with_pose = joint_matrices(true.pose, person.rest_joints)
    seen = Renderer(person).render(with_pose, true.pose.expression, CAMERA, pixel_format="float")
    rgb = np.rint(255 * seen[:, :, :3] / np.maximum(seen[:, :, 3:], 1e-6)).clip(0, 255).astype(np.uint8)
    anchors = limb_anchors(person.rest_joints)
    rotvec, transl = tracked.pose.rotvec.astype(np.float64), tracked.pose.transl.astype(np.float64)
    world = pose_anchors(anchors, rotvec, transl, np.zeros(0)).points[:33]
    axes = world @ CAMERA.T_camera_world[:3, :3].T
    pixels = CAMERA.fx * axes[:, :2] / axes[:, 2:] + [CAMERA.cx, CAMERA.cy]
    landmarks = Landmarks(
        timestamp_s=0.0,
        image_size=(CAMERA.width, CAMERA.height),
        body_world=(axes - axes[23:25].mean(0)).astype(np.float32),
        body_image=pixels.astype(np.float32),
        body_visibility=np.ones(33, np.float32),
    )
    return Photo(rgb, np.ascontiguousarray(seen[:, :, 3]), landmarks, "", "full", (), CAMERA.fx)


def pixels_of(fit: BodyFit, person: Avatar) -> np.ndarray:
    """Where elbows, wrists, knees and ankles are seen."""
    joints = forward_kinematics(fit.pose.rotvec, person.rest_joints, fit.pose.transl)[SEEN, :3, 3]
    axes = joints @ fit.camera.T_camera_world[:3, :3].T + fit.camera.T_camera_world[:3, 3]
    pixels: np.ndarray = fit.camera.fx * axes[:, :2] / axes[:, 2:] + [fit.camera.cx, fit.camera.cy]
    return pixels


@pytest.mark.parametrize(
    ("rotvec", "shift"),
    [
        (stance(arm=0.25), np.zeros(3)),
        (stance(leg=0.12), np.zeros(3)),
        (stance(), np.array([0.04, -0.02, 0.0])),
        (stance(arm=0.2, leg=-0.08), np.array([-0.03, 0.0, 0.0])),
    ],
    ids=["arm", "leg", "place", "all"],
)
def test_a_body_beside_the_person_is_moved_onto_them(
    person: Avatar, follower: AvatarFollower, rotvec: np.ndarray, shift: np.ndarray
) -> None:
    wrong, true = fit_of(stance()), fit_of(rotvec, TRANSL + shift)
    followed = follower.follow(wrong, photograph(person, true, wrong))
    before = np.linalg.norm(pixels_of(wrong, person) - pixels_of(true, person), axis=1)
    after = np.linalg.norm(pixels_of(followed, person) - pixels_of(true, person), axis=1)
    assert before.max() > 5
    assert after.max() < 0.5 * before.max()
    assert after.mean() < 0.5 * before.mean()


def test_who_stands_right_stays(person: Avatar, follower: AvatarFollower) -> None:
    fit = fit_of(stance(arm=0.1))
    followed = follower.follow(fit, photograph(person, fit, fit))
    assert np.linalg.norm(pixels_of(followed, person) - pixels_of(fit, person), axis=1).max() < 1.5
    assert followed.reprojection < 0.005


def test_what_no_outline_tells_is_kept(person: Avatar, follower: AvatarFollower) -> None:
    wrong, true = fit_of(stance()), fit_of(stance(arm=0.2))
    followed = follower.follow(wrong, photograph(person, true, wrong))
    np.testing.assert_allclose(followed.pose.rotvec[22:], wrong.pose.rotvec[22:], atol=1e-6)
    np.testing.assert_array_equal(followed.betas, wrong.betas)
    np.testing.assert_array_equal(followed.pose.expression, wrong.pose.expression)
    assert followed.pose.timestamp_s == 1.5
    assert followed.warnings == ("unsure",)
    assert (followed.camera.fx, followed.camera.width) == (CAMERA.fx, CAMERA.width)


def test_nobody_to_follow_changes_nothing(person: Avatar, follower: AvatarFollower) -> None:
    fit = fit_of(stance())
    photo = photograph(person, fit, fit)
    empty = replace(photo, rgb=np.zeros_like(photo.rgb), alpha=np.zeros_like(photo.alpha))
    followed = follower.follow(fit, empty)
    assert np.isfinite(followed.pose.rotvec).all()
    assert np.linalg.norm(pixels_of(followed, person) - pixels_of(fit, person), axis=1).max() < 5


def test_is_the_same_every_time(person: Avatar, follower: AvatarFollower) -> None:
    wrong, true = fit_of(stance()), fit_of(stance(arm=0.2))
    photo = photograph(person, true, wrong)
    once, twice = follower.follow(wrong, photo), AvatarFollower(person).follow(wrong, photo)
    np.testing.assert_array_equal(once.pose.rotvec, twice.pose.rotvec)
    np.testing.assert_array_equal(once.pose.transl, twice.pose.transl)


def test_the_fit_of_another_picture_is_refused(person: Avatar, follower: AvatarFollower) -> None:
    fit = fit_of(stance())
    photo = photograph(person, fit, fit)
    small = replace(photo, rgb=photo.rgb[::2, ::2], alpha=np.ascontiguousarray(photo.alpha[::2, ::2]))
    with pytest.raises(InvalidInputError, match="360x480, the photo is 180x240"):
        follower.follow(fit, small)
