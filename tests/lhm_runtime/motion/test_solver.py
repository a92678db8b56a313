from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.accuracy import measure_geometry, measure_noise, random_poses
from lhm_runtime.motion.expression import map_face
from lhm_runtime.motion.ideal_landmarks import IdealTracker, TrackerNoise
from lhm_runtime.motion.landmark_points import ANKLES, EARS, HIPS, KNEES, NOSE, SHOULDERS, mirror
from lhm_runtime.motion.procedural import relaxed_pose, wave
from lhm_runtime.motion.sequences import load_motion
from lhm_runtime.motion.solver import EASE_S, Solver
from lhm_runtime.rasterizer.cameras import look_at
from lhm_runtime.types import Camera, Landmarks, SmplxPose

AMASS = Path(__file__).resolve().parents[4] / "shared" / "data" / "motion" / "amass_sample.npz"
LEGS = [*KNEES, *ANKLES, 29, 30, 31, 32]
LEG_JOINTS = [JOINT_INDEX[f"{side}_{part}"] for side in ("left", "right") for part in ("hip", "knee", "ankle", "foot")]
RELAXED = relaxed_pose().rotvec


@pytest.fixture(scope="module")
def rest_joints() -> np.ndarray:
    return BodyModel.default().rest_joints()


@pytest.fixture(scope="module")
def poses() -> list[SmplxPose]:
    return random_poses(150, seed=3)


def nothing(timestamp_s: float = 0.0) -> Landmarks:
    return Landmarks(timestamp_s=timestamp_s, image_size=(640, 480))


def hide(landmarks: Landmarks, points: list[int], visibility: float = 0.1) -> Landmarks:
    """Points out of sight, and put where a tracker might imagine them."""
    assert landmarks.body_world is not None
    seen, world = np.ones(33, np.float32), landmarks.body_world.copy()
    seen[points] = visibility
    world[points] += np.random.default_rng(int(landmarks.timestamp_s * 1000)).normal(0, 0.3, (len(points), 3))
    return replace(landmarks, body_visibility=seen, body_world=world.astype(np.float32))


def at(pose: SmplxPose, timestamp_s: float) -> SmplxPose:
    return replace(pose, timestamp_s=timestamp_s)


class TestGeometry:
    def test_random_poses_come_back(self, rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
        accuracy = measure_geometry(poses, rest_joints, separate=True)
        assert accuracy.mean_position_mm < 5
        assert accuracy.mean_direction_deg < 0.5
        for joint, error in accuracy.position_mm.items():
            assert error < (50 if joint == "head" else 5), joint
        for joint, error in accuracy.twist_deg.items():
            assert error < 10, joint

    def test_the_procedural_clip_comes_back(self, rest_joints: np.ndarray) -> None:
        motion = wave(4.0, 10.0)
        accuracy = measure_geometry([motion.pose(i) for i in range(len(motion))], rest_joints)
        assert accuracy.mean_position_mm < 1
        assert accuracy.mean_direction_deg < 0.1

    @pytest.mark.shared
    @pytest.mark.skipif(not AMASS.exists(), reason="needs ../shared/data/motion/amass_sample.npz")
    def test_motion_capture_comes_back(self, rest_joints: np.ndarray) -> None:
        motion = load_motion(AMASS)
        accuracy = measure_geometry([motion.pose(i) for i in range(0, len(motion), 12)], rest_joints)
        assert accuracy.mean_position_mm < 5
        assert accuracy.mean_direction_deg < 0.5

    @pytest.mark.parametrize("seed", [0, 1])
    def test_any_body_will_do(self, poses: list[SmplxPose], seed: int) -> None:
        betas = np.random.default_rng(seed).normal(0, 1.5, 10).astype(np.float32)
        accuracy = measure_geometry(poses[:40], BodyModel.default().rest_joints(betas), separate=True)
        assert accuracy.mean_position_mm < 5
        assert accuracy.mean_direction_deg < 0.5

    def test_only_directions_count(self, rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
        landmarks = IdealTracker(rest_joints).see(poses[0])
        assert landmarks.body_world is not None
        twice = replace(landmarks, body_world=1.3 * landmarks.body_world)
        plain, scaled = (Solver(rest_joints).solve(seen).pose for seen in (landmarks, twice))
        np.testing.assert_allclose(scaled.rotvec, plain.rotvec, atol=1e-4)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_noise_flips_nothing(self, rest_joints: np.ndarray, seed: int) -> None:
        motion = wave(4.0, 30.0)
        poses = [motion.pose(i) for i in range(len(motion))]
        assert measure_noise(poses, rest_joints, TrackerNoise(seed=seed)).flips == 0

    def test_a_turn_of_the_arm_past_what_is_possible_does_not_jump(self, rest_joints: np.ndarray) -> None:
        # the plane of a bent elbow once round the upper arm: no shoulder does that, but noise may
        upright = IdealTracker(rest_joints).see(
            SmplxPose(RELAXED, np.zeros(3, np.float32), np.zeros(0, np.float32), 0.0)
        )
        assert upright.body_world is not None
        shoulder = upright.body_world[SHOULDERS[0]].astype(np.float64)
        solver, last = Solver(rest_joints), None
        for step in range(361):
            angle = np.radians(step)
            world = upright.body_world.copy()
            world[13] = shoulder - np.array([0, 0.28, 0])
            world[15] = world[13] + 0.25 * np.array([np.sin(angle), -0.3, np.cos(angle)])
            pose = solver.solve(replace(upright, body_world=world, timestamp_s=step / 30)).pose
            turned = rotvec_to_matrix(pose.rotvec[JOINT_INDEX["left_shoulder"]])
            if last is not None:
                assert np.degrees(np.arccos(np.clip((np.trace(last.T @ turned) - 1) / 2, -1, 1))) < 8, step
            last = turned


class TestOutOfSight:
    def test_nothing_in_sight_is_a_relaxed_stance(self, rest_joints: np.ndarray) -> None:
        solved = Solver(rest_joints).solve(nothing())
        np.testing.assert_allclose(solved.pose.rotvec, RELAXED, atol=1e-6)
        assert not solved.confidence.any()

    def test_half_a_person_does_not_flail(self, rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
        tracker, solver, whole = IdealTracker(rest_joints), Solver(rest_joints), Solver(rest_joints)
        for i, pose in enumerate(poses[:20]):
            seen = tracker.see(at(pose, i / 30))
            solved, known = solver.solve(hide(seen, LEGS)), whole.solve(seen)
            np.testing.assert_allclose(solved.pose.rotvec[LEG_JOINTS], RELAXED[LEG_JOINTS], atol=1e-6)
            assert not solved.confidence[LEG_JOINTS].any()
            arm = [JOINT_INDEX["left_elbow"], JOINT_INDEX["right_wrist"], JOINT_INDEX["left_index2"]]
            np.testing.assert_allclose(solved.pose.rotvec[arm], known.pose.rotvec[arm], atol=0.05)

    def test_without_hips_the_trunk_is_upright(self, rest_joints: np.ndarray) -> None:
        pose = SmplxPose(RELAXED, np.zeros(3, np.float32), np.zeros(0, np.float32), 0.0)
        solver, tracker = Solver(rest_joints), IdealTracker(rest_joints)
        for i in range(10):
            solved = solver.solve(hide(tracker.see(at(pose, i / 30)), [*HIPS, *LEGS]))
            up = forward_kinematics(solved.pose.rotvec, rest_joints, solved.pose.transl)[0, :3, 1]
            assert up[1] > 0.999
            np.testing.assert_allclose(solved.pose.rotvec[3:18:3], RELAXED[3:18:3], atol=0.12)

    def test_points_outside_the_picture_are_out_of_sight(self, rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
        seen = IdealTracker(rest_joints).see(poses[0])
        image = np.full((33, 2), 50, np.float32)
        image[LEGS, 1] = 130
        solved = Solver(rest_joints).solve(replace(seen, image_size=(100, 100), body_image=image))
        assert not solved.confidence[LEG_JOINTS].any()
        assert solved.confidence[JOINT_INDEX["left_elbow"]] == 1

    @pytest.mark.parametrize("fps", [5.0, 30.0, 240.0])
    def test_limbs_ease_to_rest_and_back_by_the_clock(
        self, rest_joints: np.ndarray, poses: list[SmplxPose], fps: float
    ) -> None:
        tracker, solver = IdealTracker(rest_joints), Solver(rest_joints)
        elbow, shown = JOINT_INDEX["left_elbow"], solver.solve(tracker.see(at(poses[0], 0.0))).pose.rotvec
        travel = []
        for i in range(1, int(2 * fps) + 1):
            seen = tracker.see(at(poses[0], i / fps))
            solved = solver.solve(hide(seen, [13, 15]) if i / fps <= 1 else seen)
            travel.append(solved.pose.rotvec[elbow])
        times = np.arange(1, int(2 * fps) + 1) / fps
        away, back = np.array(travel), (times > EASE_S + 1e-6) & (times <= 1)
        np.testing.assert_allclose(away[back], np.broadcast_to(RELAXED[elbow], away[back].shape), atol=1e-5)
        np.testing.assert_allclose(away[-1], shown[elbow], atol=1e-5)
        # in between it is on its way, at a bounded speed
        full = np.linalg.norm(shown[elbow] - RELAXED[elbow])
        steps = np.linalg.norm(np.diff(away, axis=0), axis=1)
        assert steps.max() <= full * min(1.0, 1.5 / (EASE_S * fps)) + 1e-5

    def test_a_hand_that_is_lost_relaxes(self, rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
        tracker, solver = IdealTracker(rest_joints), Solver(rest_joints)
        solver.solve(tracker.see(at(poses[0], 0.0)))
        for i in range(1, 20):
            solved = solver.solve(replace(tracker.see(at(poses[0], i / 30)), left_hand_world=None))
        np.testing.assert_allclose(solved.pose.rotvec[25:40], RELAXED[25:40], atol=1e-6)
        assert np.abs(solved.pose.rotvec[40:] - RELAXED[40:]).max() > 0.2
        assert solved.confidence[JOINT_INDEX["left_wrist"]] == 1  # the body's own points show the palm


class TestBadInput:
    @pytest.mark.parametrize("point", [NOSE, EARS[0], SHOULDERS[0], 13, 15, 19, HIPS[1], KNEES[0], 29])
    def test_one_point_that_is_no_number(self, rest_joints: np.ndarray, poses: list[SmplxPose], point: int) -> None:
        seen = IdealTracker(rest_joints).see(poses[0])
        assert seen.body_world is not None
        world = seen.body_world.copy()
        world[point, 1] = np.nan
        solved = Solver(rest_joints).solve(replace(seen, body_world=world))
        assert np.isfinite(solved.pose.rotvec).all()
        assert solved.confidence.min() == 0
        assert solved.confidence[JOINT_INDEX["left_index2"]] == 1

    @pytest.mark.parametrize("factor", [0.0, 0.05, 20.0, np.nan, np.inf])
    def test_what_is_no_person_is_unseen(self, rest_joints: np.ndarray, poses: list[SmplxPose], factor: float) -> None:
        seen = IdealTracker(rest_joints).see(poses[0])
        assert seen.body_world is not None
        assert seen.left_hand_world is not None
        with np.errstate(invalid="ignore"):
            body, hand = seen.body_world * np.float32(factor), seen.left_hand_world * np.float32(factor)
        solved = Solver(rest_joints).solve(replace(seen, body_world=body, left_hand_world=hand, right_hand_world=None))
        np.testing.assert_allclose(solved.pose.rotvec, RELAXED, atol=1e-6)

    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 10_000), scale=st.floats(0.0, 3.0), flat=st.booleans(), nan=st.floats(0, 0.3))
    def test_any_points_give_a_pose(self, seed: int, scale: float, flat: bool, nan: float) -> None:
        rng = np.random.default_rng(seed)

        def cloud(n: int, d: int, size: float) -> np.ndarray:
            points = rng.normal(0, size, (n, d)).astype(np.float32)
            points[rng.random(n) < nan] = rng.choice([np.nan, np.inf, -np.inf])
            if flat:
                points[:, 0] = 0
            return points

        solver = Solver(BodyModel.default().rest_joints())
        for timestamp_s in rng.choice([0.0, 0.033, 0.1, 5.0, 5.0], 4):
            landmarks = Landmarks(
                timestamp_s=float(timestamp_s),
                image_size=(64, 48),
                body_world=cloud(33, 3, scale),
                body_image=cloud(33, 2, 40.0),
                body_visibility=rng.random(33).astype(np.float32),
                left_hand_world=cloud(21, 3, 0.1 * scale),
                right_hand_world=cloud(21, 3, 0.1 * scale),
                T_camera_face=cloud(4, 4, 1.0),
            )
            solved = solver.solve(landmarks)
            assert np.isfinite(solved.pose.rotvec).all()
            assert np.isfinite(solved.pose.transl).all()
            assert ((solved.confidence >= 0) & (solved.confidence <= 1)).all()

    def test_repeated_and_backward_times_do_not_ease(self, rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
        tracker, solver = IdealTracker(rest_joints), Solver(rest_joints)
        first = solver.solve(tracker.see(at(poses[0], 1.0))).pose
        for timestamp_s in (1.0, 1.0, 0.5):
            pose = solver.solve(nothing(timestamp_s)).pose
            np.testing.assert_allclose(pose.rotvec, first.rotvec, atol=1e-6)
            assert pose.timestamp_s == timestamp_s
        assert np.abs(solver.solve(nothing(0.6)).pose.rotvec - first.rotvec).max() > 0.01

    def test_a_time_that_is_no_number_is_refused(self, rest_joints: np.ndarray) -> None:
        with pytest.raises(InvalidInputError, match="timestamp_s is nan"):
            Solver(rest_joints).solve(nothing(float("nan")))

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"fov_y_deg": 0.0}, "fov_y_deg is 0.0"), ({"person_height_m": 17.5}, "person_height_m is 17.5")],
    )
    def test_impossible_options_are_refused(
        self, rest_joints: np.ndarray, options: dict[str, float], message: str
    ) -> None:
        with pytest.raises(InvalidInputError, match=message):
            Solver(rest_joints, **options)

    def test_joints_must_be_finite(self, rest_joints: np.ndarray) -> None:
        with pytest.raises(InvalidInputError, match=r"rest_joints\[3, 1\]"):
            Solver(np.where(np.arange(165).reshape(55, 3) == 10, np.float32(np.nan), rest_joints))


def test_a_mirrored_camera_is_undone(rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
    seen = IdealTracker(rest_joints, CAMERA).see(poses[0])
    plain, mirrored = Solver(rest_joints).solve(seen), Solver(rest_joints, mirrored=True).solve(mirror(seen))
    np.testing.assert_allclose(mirrored.pose.rotvec, plain.pose.rotvec, atol=1e-5)
    np.testing.assert_allclose(mirrored.pose.transl, plain.pose.transl, atol=1e-4)


def test_reset_forgets(rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
    tracker, solver = IdealTracker(rest_joints, noise=TrackerNoise()), Solver(rest_joints)
    first = solver.solve(tracker.see(poses[0])).pose
    for pose in poses[1:5]:
        solver.solve(tracker.see(pose))
    solver.reset()
    np.testing.assert_array_equal(solver.solve(tracker.see(poses[0])).pose.rotvec, first.rotvec)


CAMERA = look_at(np.array([0.3, 0.2, 3.5]), np.array([0.0, -0.4, 0.0]), 640, 480, fov_y_deg=50.0)


def test_the_place_is_metric(rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
    solver = Solver(rest_joints, fov_y_deg=50.0, same_proportions=True)
    worst = []
    for pose in poses[:40]:
        solver.reset()
        solved = solver.solve(IdealTracker(rest_joints, CAMERA).see(pose)).pose
        true_joints, joints = (forward_kinematics(p.rotvec, rest_joints, p.transl)[:, :3, 3] for p in (pose, solved))
        hips = [JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]]
        seen_from = (CAMERA.T_camera_world[:3, :3] @ true_joints[hips].mean(0) + CAMERA.T_camera_world[:3, 3]) * [
            1,
            -1,
            -1,
        ]
        worst.append(np.linalg.norm(seen_from - joints[hips].mean(0)))
    assert np.mean(worst) < 0.04  # of 3.5 m, in wild poses
    assert np.max(worst) < 0.12


def test_solved_poses_project_onto_the_image_points(rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
    solver = Solver(rest_joints, fov_y_deg=50.0)
    camera = solver.camera((640, 480))
    assert isinstance(camera, Camera)
    for pose in poses[:20]:
        seen = IdealTracker(rest_joints, CAMERA).see(pose)
        solver.reset()
        solved = solver.solve(seen).pose
        joint = forward_kinematics(solved.rotvec, rest_joints, solved.transl)[JOINT_INDEX["left_knee"], :3, 3]
        x, y, z = camera.T_camera_world[:3, :3] @ joint + camera.T_camera_world[:3, 3]
        assert seen.body_image is not None
        off = np.hypot(
            camera.fx * x / z + camera.cx - seen.body_image[25, 0],
            camera.fy * y / z + camera.cy - seen.body_image[25, 1],
        )
        assert off < 8  # of 480; the trunk is not built alike once proportions are learnt


def test_a_smaller_person_is_nearer(rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
    seen = IdealTracker(rest_joints, CAMERA).see(poses[0])
    adult, child = (
        Solver(rest_joints, person_height_m=height).solve(seen).pose.transl + rest_joints[0] for height in (1.8, 0.9)
    )
    np.testing.assert_allclose(child, adult / 2, atol=1e-4)


class TestHeadAndFace:
    def test_the_face_turns_the_head(self, rest_joints: np.ndarray) -> None:
        seen = IdealTracker(rest_joints).see(SmplxPose(RELAXED, np.zeros(3, np.float32), np.zeros(0, np.float32), 0.0))
        T_camera_face = np.eye(4, dtype=np.float32)
        T_camera_face[:3, :3] = 2.0 * rotvec_to_matrix(np.array([0.1, 0.5, -0.2], np.float32))  # scale is taken out
        T_camera_face[:3, 3] = [3, -4, -60]
        solved = Solver(rest_joints).solve(replace(seen, T_camera_face=T_camera_face)).pose
        R = forward_kinematics(solved.rotvec, rest_joints, solved.transl)[JOINT_INDEX["head"], :3, :3]
        np.testing.assert_allclose(R, T_camera_face[:3, :3] / 2, atol=1e-5)

    def test_scores_reach_expression_jaw_and_eyes_and_fade_when_lost(self, rest_joints: np.ndarray) -> None:
        names = ("jawOpen", "mouthSmileLeft")
        solver = Solver(rest_joints, face=map_face(names))
        scores = np.zeros(52, np.float32)
        scores[[25, 44, 15]] = 0.5, 0.8, 0.6  # jawOpen, mouthSmileLeft, eyeLookOutLeft
        seen = solver.solve(replace(nothing(), face_blendshapes=scores))
        np.testing.assert_allclose(seen.pose.expression, [0.5, 0.8], atol=1e-6)
        assert seen.pose.rotvec[JOINT_INDEX["left_eye_smplhf"], 1] > 0.1
        assert seen.confidence[JOINT_INDEX["jaw"]] == 1
        halfway = solver.solve(nothing(EASE_S / 2)).pose
        assert 0.1 < halfway.expression[1] < 0.7
        gone = solver.solve(nothing(EASE_S)).pose
        assert not gone.expression.any()
        assert not gone.rotvec[22:25].any()
        bad = solver.solve(replace(nothing(2.0), face_blendshapes=np.full(52, np.nan, np.float32)))
        assert not bad.pose.expression.any()

    def test_every_joint_is_accounted_for(self, rest_joints: np.ndarray, poses: list[SmplxPose]) -> None:
        seen = IdealTracker(rest_joints).see(poses[0])
        landmarks = replace(seen, face_blendshapes=np.zeros(52, np.float32))
        confidence = Solver(rest_joints, face=map_face(())).solve(landmarks).confidence
        assert [name for name, c in zip(JOINT_NAMES, confidence, strict=True) if c < 1] == []
