"""What MediaPipe adds to a stance is taken off world points, and only where it adds it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sightings import camera_looking_down, see

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.motion.landmark_points import ANKLES, ELBOWS, HIPS, KNEES, SHOULDERS, WRISTS
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.reconstruction.body_proportions import with_proportions
from lhm_runtime.reconstruction.fit_evidence import add_points, gather_evidence, unbend
from lhm_runtime.reconstruction.landmark_anchors import find_anchors, pose_anchors
from lhm_runtime.reconstruction.pose_refinement import BodyState, misfit

SEEN = np.ones(33)
JOINTS = {"shoulder": SHOULDERS, "elbow": ELBOWS, "wrist": WRISTS, "hip": HIPS, "knee": KNEES, "ankle": ANKLES}
BONES = [
    pair
    for chain in ((HIPS, SHOULDERS, ELBOWS, WRISTS), (HIPS, KNEES, ANKLES))
    for first, second in pairwise(chain)
    for pair in zip(first, second, strict=True)
]


def world_points(*, knee: float = 0.0, yaw: float = 0.0, lean: float = 0.0) -> np.ndarray:
    """Of who stands at ease with knees bent, then turned, then with the trunk leant forwards; radians."""
    rotvec = relaxed_pose().rotvec.astype(np.float64)
    rotvec[0, 1] = yaw
    rotvec[JOINT_INDEX["spine1"], 0] += lean
    for side in ("left", "right"):
        rotvec[JOINT_INDEX[f"{side}_hip"], 0] -= 0.5 * knee
        rotvec[JOINT_INDEX[f"{side}_knee"], 0] += knee
    joints = forward_kinematics(rotvec, BodyModel.default().rest_joints(), np.zeros(3))[:, :3, 3]
    points = np.zeros((33, 3))
    points[:11] = joints[JOINT_INDEX["head"]]
    for name, pair in JOINTS.items():
        points[pair] = joints[[JOINT_INDEX[f"left_{name}"], JOINT_INDEX[f"right_{name}"]]]
    points[29:] = points[[*ANKLES, *ANKLES]] + [0, -0.05, 0.1]
    return points


def lean_deg(points: np.ndarray, low: list[int], high: list[int]) -> float:
    """How far a bone, both sides' mean, leans towards the camera."""
    bone = points[high].mean(0) - points[low].mean(0)
    return float(np.degrees(np.arctan2(bone[2], bone[1])))


def knee_bend_deg(points: np.ndarray) -> float:
    return lean_deg(points, ANKLES, KNEES) - lean_deg(points, KNEES, HIPS)


def test_who_stands_is_set_upright() -> None:
    told = world_points(knee=float(np.radians(16)), lean=float(np.radians(12)))
    upright = unbend(told, SEEN)
    assert lean_deg(upright, HIPS, SHOULDERS) == pytest.approx(lean_deg(told, HIPS, SHOULDERS) - 12, abs=0.5)
    assert knee_bend_deg(upright) == pytest.approx(knee_bend_deg(told) - 18, abs=0.5)
    np.testing.assert_allclose(upright[HIPS], told[HIPS])
    # head, feet and hands go along with what they hang on
    np.testing.assert_allclose(
        upright[:11] - upright[SHOULDERS].mean(0), told[:11] - told[SHOULDERS].mean(0), atol=1e-12
    )
    np.testing.assert_allclose(upright[29:31] - upright[ANKLES], told[29:31] - told[ANKLES], atol=1e-12)
    np.testing.assert_allclose(upright[19:21] - upright[WRISTS], told[19:21] - told[WRISTS], atol=1e-12)


def test_bent_knees_stay_bent() -> None:
    told = world_points(knee=float(np.radians(70)))
    np.testing.assert_allclose(unbend(told, SEEN), told, atol=1e-12)


@pytest.mark.parametrize("yaw_deg", [50, 90, 180, -60])
def test_who_does_not_face_the_camera_stays(yaw_deg: int) -> None:
    told = world_points(yaw=float(np.radians(yaw_deg)))
    np.testing.assert_allclose(unbend(told, SEEN), told, atol=1e-12)


def test_knees_out_of_sight_say_nothing_about_the_trunk() -> None:
    told, seen = world_points(knee=float(np.radians(70))), SEEN.copy()
    seen[KNEES] = 0
    assert lean_deg(unbend(told, seen), HIPS, SHOULDERS) == pytest.approx(lean_deg(told, HIPS, SHOULDERS) - 12, abs=0.5)


def test_raised_arms_turn_with_the_trunk_only() -> None:
    told = world_points()
    told[ELBOWS] = told[SHOULDERS] + [[0.1, 0.25, 0.0], [-0.1, 0.25, 0.0]]
    told[WRISTS] = told[ELBOWS] + [[0.0, 0.25, 0.0], [0.0, 0.25, 0.0]]
    told[17:23] = told[[*WRISTS, *WRISTS, *WRISTS]]
    upright = unbend(told, SEEN)
    np.testing.assert_allclose(upright[WRISTS] - upright[SHOULDERS], told[WRISTS] - told[SHOULDERS], atol=1e-12)


@settings(deadline=None)
@given(arrays(np.float64, (33, 3), elements=st.floats(-1, 1)), st.floats(-np.pi, np.pi))
def test_no_bone_changes_its_length(noise: np.ndarray, yaw: float) -> None:
    told = (world_points() + 0.1 * noise) @ rotvec_to_matrix(np.array([0.0, yaw, 0.0])).T
    upright = unbend(told, SEEN)
    for first, second in BONES:
        before, after = told[second] - told[first], upright[second] - upright[first]
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), abs=1e-9)


def test_points_that_fall_together_stay_finite() -> None:
    assert np.isfinite(unbend(np.zeros((33, 3)), SEEN)).all()


def test_points_added_count_as_much_as_they_are_off() -> None:
    body = with_proportions(BodyModel.default())
    anchors, betas = find_anchors(body), np.zeros(14)
    rotvec, transl = relaxed_pose().rotvec.astype(np.float64), np.array([0.0, 0.4, -2.5])
    camera = camera_looking_down(0.0)
    landmarks = see(body, rotvec, transl, betas, camera, hands=False)
    evidence = gather_evidence(landmarks, anchors, np.zeros(52, np.float32), camera.fx, (0.0, 0.1))
    state = BodyState(rotvec, transl, betas, 0.0)
    further = anchors.select(np.array([70, 71]), np.zeros(52))
    points = pose_anchors(further, rotvec, transl, betas).points
    seen = camera.fx * points[:, :2] / -points[:, 2:]
    deviation_m, off_m = np.array([0.01, 0.02]), 0.03
    off_px = off_m * camera.fx / -transl[2]
    added = [misfit(add_points(evidence, further, seen + [shift, 0], deviation_m), state, 1.0) for shift in (0, off_px)]
    assert abs(added[0] - misfit(evidence, state, 1.0)) < 1e-6
    np.testing.assert_allclose(added[1] - added[0], ((off_m / deviation_m) ** 2).sum(), rtol=1e-6)
