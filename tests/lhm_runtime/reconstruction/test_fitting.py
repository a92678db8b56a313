"""Fits: a known person is found again, an unseen limb rests, a camera that looks down makes nobody lean."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sightings import HEIGHT, WIDTH, camera_looking_down, see, standing_rotvec

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.motion.ideal_landmarks import IdealTracker
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.reconstruction.body_proportions import with_proportions
from lhm_runtime.reconstruction.fitting import FOCAL, BodyFit, fit_body
from lhm_runtime.reconstruction.photo import read_photo
from lhm_runtime.types import Camera, Landmarks, SmplxPose

PHOTOS = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "photos"
SIZE = (WIDTH, HEIGHT)
TRANSL = np.array([0.05, 0.45, -2.7])
LIMBS = [JOINT_INDEX[f"{side}_{joint}"] for side in ("left", "right") for joint in ("shoulder", "elbow", "hip", "knee")]
TORSO = [JOINT_INDEX[name] for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")]


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return with_proportions(BodyModel.default())


def sighting(
    body: BodyModel, seed: int, *, pitch: float = 0.1, **what: bool
) -> tuple[Landmarks, np.ndarray, np.ndarray, Camera]:
    """Landmarks, rotvec, betas and camera of a random stance."""
    rng = np.random.default_rng(seed)
    rotvec = standing_rotvec(rng, yaw=float(rng.normal() * 0.3))
    betas = rng.normal(size=14) * 0.5
    camera = camera_looking_down(pitch)
    return see(body, rotvec, TRANSL, betas, camera, **what), rotvec, betas, camera


def turned_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[55] angles between the rotations of two poses."""
    between = rotvec_to_matrix(a.astype(np.float64)).swapaxes(1, 2) @ rotvec_to_matrix(b.astype(np.float64))
    return np.degrees(np.linalg.norm(matrix_to_rotvec(between), axis=1))


def joints_of(fit: BodyFit, body: BodyModel) -> np.ndarray:
    return forward_kinematics(fit.pose.rotvec, body.rest_joints(fit.betas), fit.pose.transl)[:, :3, 3]


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    seen = points @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]
    return camera.fx * seen[:, :2] / seen[:, 2:] + [camera.cx, camera.cy]


def lean_deg(fit: BodyFit, body: BodyModel) -> float:
    """Angle between the vertical and the line from between the ankles to the neck, seen from the side."""
    joints = joints_of(fit, body)
    up = joints[JOINT_INDEX["neck"]] - joints[[JOINT_INDEX["left_ankle"], JOINT_INDEX["right_ankle"]]].mean(0)
    return float(np.degrees(np.arctan2(up[2], up[1])))


@pytest.mark.parametrize("seed", range(6))
def test_finds_a_known_person_again(body: BodyModel, seed: int) -> None:
    landmarks, rotvec, betas, camera = sighting(body, seed)
    fit = fit_body(landmarks, SIZE, body)
    assert fit.reprojection < 0.003
    assert fit.warnings == ()
    error = turned_deg(fit.pose.rotvec, rotvec)
    assert error[LIMBS].mean() < 8
    assert error[TORSO].mean() < 8
    assert error[25:].mean() < 12
    joints = joints_of(fit, body)
    true = forward_kinematics(rotvec, body.rest_joints(betas.astype(np.float32)), TRANSL)[:, :3, 3]
    px = np.linalg.norm(project(joints[:22], fit.camera) - project(true[:22], camera), axis=1)
    assert px.mean() < 2.5
    assert (fit.camera.fx, fit.camera.width, fit.camera.height) == (FOCAL * HEIGHT, WIDTH, HEIGHT)


@pytest.mark.parametrize("seed", range(3))
def test_follows_landmarks_of_another_definition(body: BodyModel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rotvec, camera = standing_rotvec(rng), camera_looking_down(0.1)
    pose = SmplxPose(rotvec.astype(np.float32), TRANSL.astype(np.float32), np.zeros(0, np.float32), 0.0)
    landmarks = IdealTracker(body.rest_joints(), camera).see(pose)
    fit = fit_body(landmarks, SIZE, body)
    assert fit.reprojection < 0.008
    assert turned_deg(fit.pose.rotvec, rotvec)[LIMBS].mean() < 12


def test_is_the_same_every_time(body: BodyModel) -> None:
    landmarks, *_ = sighting(body, 0)
    first, second = (fit_body(landmarks, SIZE, body) for _ in range(2))
    np.testing.assert_array_equal(first.pose.rotvec, second.pose.rotvec)
    np.testing.assert_array_equal(first.pose.transl, second.pose.transl)
    np.testing.assert_array_equal(first.betas, second.betas)


def test_scales_with_the_picture(body: BodyModel) -> None:
    landmarks, *_ = sighting(body, 1)
    double = replace(
        landmarks,
        image_size=(2 * WIDTH, 2 * HEIGHT),
        **{
            name: 2 * getattr(landmarks, name)
            for name in ("body_image", "left_hand_image", "right_hand_image", "face_image")
        },
    )
    small, large = fit_body(landmarks, SIZE, body), fit_body(double, (2 * WIDTH, 2 * HEIGHT), body)
    np.testing.assert_allclose(large.pose.rotvec, small.pose.rotvec, atol=1e-4)
    assert large.reprojection == pytest.approx(small.reprojection, rel=1e-3)


@pytest.mark.parametrize("pitch", [0.0, 0.15, 0.3])
def test_a_camera_from_above_makes_nobody_lean(body: BodyModel, pitch: float) -> None:
    rotvec = relaxed_pose().rotvec.astype(np.float64)
    landmarks = see(body, rotvec, TRANSL, np.zeros(14), camera_looking_down(pitch))
    fit = fit_body(landmarks, SIZE, body)
    assert abs(lean_deg(fit, body) - 1.3) < 3.5  # the neck of the body at rest is a little before its ankles
    assert turned_deg(fit.pose.rotvec, rotvec)[[JOINT_INDEX["left_knee"], JOINT_INDEX["right_knee"]]].max() < 12


def test_wrong_depths_make_nobody_lean(body: BodyModel) -> None:
    rotvec = relaxed_pose().rotvec.astype(np.float64)
    landmarks = see(body, rotvec, TRANSL, np.zeros(14), camera_looking_down(0.05))
    world = landmarks.body_world.copy()
    world[:, 2] += np.tan(np.radians(20)) * world[:, 1]
    fit = fit_body(replace(landmarks, body_world=world), SIZE, body)
    assert abs(lean_deg(fit, body)) < 6


def test_given_betas_stay(body: BodyModel) -> None:
    landmarks, _, betas, _ = sighting(body, 2)
    alpha = np.ones((HEIGHT, WIDTH), np.float32)
    fit = fit_body(landmarks, SIZE, body, betas=betas.astype(np.float32), alpha=alpha)
    np.testing.assert_array_equal(fit.betas, betas.astype(np.float32))
    short = fit_body(landmarks, SIZE, body, betas=betas[:3].astype(np.float32))
    np.testing.assert_array_equal(short.betas[:3], betas[:3].astype(np.float32))
    assert not short.betas[3:].any()


def test_goes_on_from_the_frame_before(body: BodyModel) -> None:
    rng = np.random.default_rng(4)
    rotvec, betas, camera = standing_rotvec(rng), rng.normal(size=14) * 0.4, camera_looking_down(0.12)
    known = betas.astype(np.float32)
    fit = fit_body(see(body, rotvec, TRANSL, betas, camera), SIZE, body, betas=known)
    first_pitch = fit.camera.T_camera_world[2, 1]
    for frame in range(1, 6):
        moved = rotvec.copy()
        moved[JOINT_INDEX["left_elbow"], 1] -= 0.06 * frame
        moved[0, 1] += 0.04 * frame
        fit = fit_body(see(body, moved, TRANSL, betas, camera), SIZE, body, betas=known, start=fit)
        assert fit.reprojection < 0.003
        assert turned_deg(fit.pose.rotvec, moved)[LIMBS].mean() < 8
    assert fit.camera.T_camera_world[2, 1] == pytest.approx(first_pitch, abs=0.03)


def test_leaves_a_start_that_explains_less(body: BodyModel) -> None:
    landmarks, *_ = sighting(body, 5)
    cold = fit_body(landmarks, SIZE, body, betas=np.zeros(14, np.float32))
    backwards = cold.pose.rotvec.copy()
    backwards[0] = [0, np.pi, 0]
    backwards[LIMBS] = 1.0
    start = replace(cold, pose=replace(cold.pose, rotvec=backwards))
    fit = fit_body(landmarks, SIZE, body, betas=np.zeros(14, np.float32), start=start)
    assert turned_deg(fit.pose.rotvec, cold.pose.rotvec)[LIMBS + TORSO].max() < 6


def test_a_person_seen_from_behind(body: BodyModel) -> None:
    rotvec = standing_rotvec(np.random.default_rng(3), yaw=np.pi - 0.2)
    landmarks = see(body, rotvec, TRANSL, np.zeros(14), camera_looking_down(0.05), hands=False, face=False)
    fit = fit_body(landmarks, SIZE, body)
    assert fit.reprojection < 0.004
    assert turned_deg(fit.pose.rotvec, rotvec)[TORSO].mean() < 10


def test_limbs_out_of_the_picture_rest(body: BodyModel) -> None:
    rng = np.random.default_rng(6)
    rotvec = standing_rotvec(rng)
    camera = camera_looking_down(0.0)
    near = TRANSL + [0, -0.75, 1.6]
    landmarks = see(body, rotvec, near, np.zeros(14), camera, hands=False)
    inside = ((landmarks.body_image >= 0) & (landmarks.body_image <= SIZE)).all(1)
    assert not inside[[25, 26, 27, 28]].any()
    assert inside[[0, 11, 12]].all()
    fit = fit_body(landmarks, SIZE, body)
    rest = relaxed_pose().rotvec
    legs = [JOINT_INDEX[f"{side}_{joint}"] for side in ("left", "right") for joint in ("knee", "ankle", "foot")]
    assert turned_deg(fit.pose.rotvec, rest)[legs].max() < 3
    assert fit.confidence[legs].max() == 0
    assert fit.confidence[JOINT_INDEX["head"]] > 0.5


def test_shins_of_who_sits_hang_where_they_are_out_of_sight(body: BodyModel) -> None:
    rotvec = relaxed_pose().rotvec.astype(np.float64)
    for side in ("left", "right"):
        rotvec[JOINT_INDEX[f"{side}_hip"], 0], rotvec[JOINT_INDEX[f"{side}_knee"], 0] = -1.45, 1.45
    landmarks = see(body, rotvec, TRANSL, np.zeros(14), camera_looking_down(0.1))
    visible = np.ones(33, np.float32)
    visible[27:] = 0
    fit = fit_body(replace(landmarks, body_visibility=visible), SIZE, body)
    joints = joints_of(fit, body)
    for side in ("left", "right"):
        shin = joints[JOINT_INDEX[f"{side}_ankle"]] - joints[JOINT_INDEX[f"{side}_knee"]]
        assert -shin[1] > np.cos(np.radians(30.0)) * np.linalg.norm(shin)


def test_a_foot_that_the_matte_has_lower_than_its_points_is_nearer(body: BodyModel) -> None:
    rotvec = relaxed_pose().rotvec.astype(np.float64)
    for side, hip, knee in (("left", 0.15, 0.2), ("right", -0.35, 0.05)):
        rotvec[JOINT_INDEX[f"{side}_hip"], 0], rotvec[JOINT_INDEX[f"{side}_knee"], 0] = hip, knee
    camera = camera_looking_down(0.05)
    landmarks = see(body, rotvec, TRANSL, np.zeros(14), camera)
    alpha = draw(body, rotvec, TRANSL, np.zeros(14), camera)
    # as MediaPipe has it: the foremost foot too high, and no nearer than the other
    image, world = landmarks.body_image.copy(), landmarks.body_world.copy()
    image[[28, 30, 32], 1] -= np.float32(0.12 * camera.fx / 2.5)
    world[[26, 28, 30, 32], 2] = world[[25, 27, 29, 31], 2]
    told = fit_body(replace(landmarks, body_image=image, body_world=world), SIZE, body, alpha=alpha)
    joints, ankles = joints_of(told, body), [JOINT_INDEX[f"{side}_ankle"] for side in ("left", "right")]
    true = project(forward_kinematics(rotvec, body.rest_joints(), TRANSL)[:, :3, 3], camera)
    off = np.linalg.norm(project(joints, told.camera) - true, axis=1)[ankles] / camera.fx * 2.7
    assert off.max() < 0.05
    assert joints[ankles[1], 2] - joints[ankles[0], 2] > 0.15


def test_the_matte_tells_the_girth(body: BodyModel) -> None:
    betas = np.zeros(14)
    betas[body.beta_names.index("weight")] = 1.6
    camera = camera_looking_down(0.05)
    rotvec = relaxed_pose().rotvec.astype(np.float64)
    landmarks = see(body, rotvec, TRANSL, betas, camera)
    alpha = draw(body, rotvec, TRANSL, betas, camera, margin_px=round(0.008 * camera.fx / 2.7))
    blind, told = fit_body(landmarks, SIZE, body), fit_body(landmarks, SIZE, body, alpha=alpha)
    truth = draw(body, rotvec, TRANSL, betas, camera) > 0.5

    def overlap(fit: BodyFit) -> float:
        drawn = draw(body, fit.pose.rotvec, fit.pose.transl, fit.betas, fit.camera) > 0.5
        return float((drawn & truth).sum() / (drawn | truth).sum())

    assert overlap(told) > 0.95
    assert overlap(told) > overlap(blind) + 0.01


def draw(
    body: BodyModel, rotvec: np.ndarray, transl: np.ndarray, betas: np.ndarray, camera: Camera, *, margin_px: int = 0
) -> np.ndarray:
    pose = SmplxPose(rotvec.astype(np.float32), transl.astype(np.float32), np.zeros(0, np.float32), 0.0)
    vertices, _ = body.pose_vertices(pose, betas.astype(np.float32))
    pixels = np.round(16 * project(vertices, camera)).astype(np.int32)
    matte = np.zeros((camera.height, camera.width), np.uint8)
    for triangle in pixels[body.faces]:
        cv2.fillConvexPoly(matte, triangle, 1, cv2.LINE_8, 4)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin_px + 1, 2 * margin_px + 1))
    return cv2.dilate(matte, disc).astype(np.float32)


def test_expression_comes_from_the_scores(body: BodyModel) -> None:
    landmarks, *_ = sighting(body, 0)
    scores = np.zeros(52, np.float32)
    scores[25] = 0.7  # jawOpen
    fit = fit_body(replace(landmarks, face_blendshapes=scores), SIZE, body)
    assert fit.pose.expression[body.expression_names.index("jawOpen")] == pytest.approx(0.7)


def test_points_that_are_not_finite_count_as_unseen(body: BodyModel) -> None:
    landmarks, *_ = sighting(body, 0)
    whole = fit_body(landmarks, SIZE, body)
    image, world = landmarks.body_image.copy(), landmarks.body_world.copy()
    image[15], world[27] = np.nan, np.nan
    hand = landmarks.left_hand_image.copy()
    hand[3] = np.inf
    broken = replace(landmarks, body_image=image, body_world=world, left_hand_image=hand)
    fit = fit_body(broken, SIZE, body)
    assert np.isfinite(fit.pose.rotvec).all()
    right = [JOINT_INDEX["right_shoulder"], JOINT_INDEX["right_elbow"]]
    assert turned_deg(fit.pose.rotvec, whole.pose.rotvec)[right].max() < 6


def test_a_body_that_cannot_be_brought_to_its_landmarks_is_reported(body: BodyModel) -> None:
    landmarks, *_ = sighting(body, 0, hands=False, face=False)
    image = landmarks.body_image.copy()
    image[[13, 14, 25, 26]] = image[[26, 25, 14, 13]]
    fit = fit_body(replace(landmarks, body_image=image), SIZE, body)
    assert fit.reprojection > 0.02
    assert len(fit.warnings) == 1
    assert f"{fit.reprojection:.1%}" in fit.warnings[0]


def test_bad_arguments_are_named(body: BodyModel) -> None:
    landmarks, *_ = sighting(body, 0)
    fit = fit_body(landmarks, SIZE, body)
    with pytest.raises(InvalidInputError, match="no body"):
        fit_body(Landmarks(timestamp_s=0.0, image_size=SIZE), SIZE, body)
    with pytest.raises(InvalidInputError, match="no landmark is in the picture"):
        fit_body(
            replace(
                landmarks,
                body_visibility=np.zeros(33, np.float32),
                left_hand_image=None,
                right_hand_image=None,
                face_image=None,
            ),
            SIZE,
            body,
        )
    with pytest.raises(InvalidInputError, match=r"image_size is \(640, 480\)"):
        fit_body(landmarks, (640, 480), body)
    with pytest.raises(InvalidInputError, match="alpha is 10x20"):
        fit_body(landmarks, SIZE, body, alpha=np.zeros((20, 10), np.float32))
    with pytest.raises(InvalidInputError, match="betas has 15 values; 14 of free_body"):
        fit_body(landmarks, SIZE, body, betas=np.zeros(15, np.float32))
    with pytest.raises(InvalidInputError, match=r"betas\[1\] is nan"):
        fit_body(landmarks, SIZE, body, betas=np.array([0, np.nan], np.float32))
    with pytest.raises(InvalidInputError, match=r"focal_px is -1.0"):
        fit_body(landmarks, SIZE, body, focal_px=-1.0)
    other = replace(fit, camera=camera_looking_down(0.0, width=640, height=480))
    with pytest.raises(InvalidInputError, match="start is the fit of a picture of 640x480"):
        fit_body(landmarks, SIZE, body, start=other)


@pytest.mark.shared
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs ../shared/data/photos")
def test_real_photos(body: BodyModel) -> None:
    reprojections = {}
    for path in sorted(PHOTOS.iterdir()):
        try:
            photo = read_photo(path)
        except BackendError as error:
            pytest.skip(str(error))
        fit = fit_body(photo.landmarks, photo.landmarks.image_size, body, alpha=photo.alpha)
        reprojections[path.name] = fit.reprojection
        assert fit.reprojection < 0.01, path.name
        assert abs(lean_deg(fit, body)) < 8, path.name
        drawn = draw(body, fit.pose.rotvec, fit.pose.transl, fit.betas, fit.camera) > 0.5
        person = photo.alpha > 0.5
        assert (drawn & person).sum() / (drawn | person).sum() > 0.7, path.name
    assert np.mean(list(reprojections.values())) < 0.007
