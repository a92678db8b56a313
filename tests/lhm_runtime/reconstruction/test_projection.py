"""The whole recipe, on people whose every side is known: the built-in person photographed by our own rasterizer."""

from dataclasses import replace

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.rasterizer import Renderer, frame_person
from lhm_runtime.reconstruction.anatomy import study
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.projection import MIN_COUNT, project
from lhm_runtime.types import Landmarks, SmplxPose

COUNT = 8_000
WIDTH, HEIGHT = 224, 384


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


@pytest.fixture(scope="module")
def person():
    return build_person(20_000)


def standing(body, yaw=0.0):
    rotvec = np.zeros((55, 3), np.float32)
    rotvec[JOINT_INDEX["left_shoulder"], 2] = -0.8
    rotvec[JOINT_INDEX["right_shoulder"], 2] = 0.8
    rotvec[0, 1] = yaw
    return SmplxPose(rotvec, np.zeros(3, np.float32), np.zeros(len(body.expression_names), np.float32), 0.0)


def look(avatar, pose, camera):
    with Renderer(avatar) as renderer:
        return renderer.render(joint_matrices(pose, avatar.rest_joints), pose.expression, camera, pixel_format="float")


def camera_for(avatar, yaw=0.0):
    pose = standing(BodyModel.default())
    T_world_joint = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)
    return frame_person(T_world_joint[:, :3, 3].astype(np.float32), "full", WIDTH, HEIGHT, yaw=yaw)


def photograph(person, body, yaw=0.0, gain=1.0):
    """A photo of the built-in person, and the fit that a perfect fitter would find on the bare body."""
    pose, camera = standing(body), camera_for(person, yaw)
    drawn = look(person, pose, camera)
    alpha = drawn[:, :, 3]
    rgb = drawn[:, :, :3] / np.maximum(alpha, 1e-3)[:, :, None]
    betas = builtin_betas(body)
    vertices, _ = body.pose_vertices(pose, betas)
    marks = study(body).landmarks @ vertices.astype(np.float64)
    seen = marks @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]
    image = camera.fx * seen[:, :2] / seen[:, 2:] + [camera.cx, camera.cy]
    landmarks = Landmarks(
        0.0,
        (WIDTH, HEIGHT),
        body_visibility=np.ones(33, np.float32),
        face_image=image.astype(np.float32) if abs(yaw) < 1 else None,
    )
    photo = Photo(
        rgb=(np.clip(gain * rgb, 0, 1) * 255).astype(np.uint8),
        alpha=alpha.copy(),
        landmarks=landmarks,
        sha256="ab" * 32,
        shot="full",
        warnings=(),
        focal_px=camera.fx,
    )
    return photo, BodyFit(pose, betas, camera, np.ones(55, np.float32), 0.005, ())


def builtin_betas(body):
    shape = {"height": -0.75, "weight": -0.95, "gender": 0.9, "muscle": -0.1, "age": -0.8, "proportions": 0.9}
    return np.array([shape.get(name, 0.0) for name in body.beta_names], np.float32)


def psnr(avatar, person, body, yaw):
    """Of an avatar against the person it was made of, over white."""
    camera = camera_for(person, yaw)
    a, b = (look(who, standing(body), camera) for who in (avatar, person))
    return -10 * np.log10(np.square((a - b)[:, :, :3] - (a - b)[:, :, 3:]).mean())


@pytest.fixture(scope="module")
def front(person, body):
    return photograph(person, body)


@pytest.fixture(scope="module")
def avatar(front, body):
    photo, fit = front
    return project([photo], [fit], body, count=COUNT)


def test_the_avatar_is_valid_and_of_the_size_asked_for(avatar, body):
    avatar.validate()
    assert len(avatar) == COUNT
    assert avatar.metadata.reconstructor == "projection 1"
    assert avatar.metadata.body_model_sha256 == body.sha256
    assert avatar.metadata.photo_sha256 == "ab" * 32
    assert avatar.metadata.shown == "full"


def test_it_looks_like_the_photo(avatar, person, body):
    assert psnr(avatar, person, body, 0.0) > 25
    assert psnr(avatar, person, body, 0.5) > 20


def test_it_fills_the_matte_and_nothing_else(avatar, person, body):
    camera = camera_for(person)
    ours, theirs = (look(who, standing(body), camera)[:, :, 3] > 0.5 for who in (avatar, person))
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95


def test_equal_photos_make_equal_avatars(front, body, avatar):
    photo, fit = front
    again = project([photo], [fit], body, count=COUNT)
    for name in ("means", "quat_wxyz", "scales", "opacity", "rgb"):
        np.testing.assert_array_equal(getattr(again.gaussians, name), getattr(avatar.gaussians, name))
    np.testing.assert_array_equal(again.skin_weights, avatar.skin_weights)
    np.testing.assert_array_equal(again.expression_directions, avatar.expression_directions)


def test_a_photo_of_the_back_improves_the_back_whatever_its_exposure(front, person, body, avatar):
    (photo, fit), (back, back_fit) = front, photograph(person, body, np.pi, gain=0.8)
    both = project([photo, back], [fit, back_fit], body, count=COUNT)
    assert psnr(both, person, body, np.pi) > max(28.0, psnr(avatar, person, body, np.pi) + 0.8)
    assert psnr(both, person, body, 0.0) > psnr(avatar, person, body, 0.0) - 1.5


def test_photos_of_all_sides_improve_them_all(front, person, body, avatar):
    shots = [front, *(photograph(person, body, yaw) for yaw in (np.pi, np.pi / 2, -np.pi / 2))]
    made = project([photo for photo, _ in shots], [fit for _, fit in shots], body, count=COUNT)
    gains = {yaw: psnr(made, person, body, yaw) - psnr(avatar, person, body, yaw) for yaw in (0.0, 1.57, -1.57, 3.14)}
    assert gains[0.0] > -2.5  # as many Gaussians as before lie on four sides
    added = [gains[yaw] for yaw in (1.57, -1.57, 3.14)]
    assert min(added) > 0.25  # where the samples fall moves one side by 0.1
    assert np.mean(added) > 0.5
    # each pixel of the whole: no holes, nothing torn off
    for yaw, least in ((0.0, 0.95), (1.57, 0.87), (3.14, 0.93)):
        ours, theirs = (look(who, standing(body), camera_for(person, yaw))[:, :, 3] > 0.5 for who in (made, person))
        assert (ours & theirs).sum() / (ours | theirs).sum() > least


def face_picture(avatar, expression, body, eyes=0.0):
    values = np.zeros(len(body.expression_names), np.float32)
    for name, value in expression.items():
        values[body.expression_names.index(name)] = value
    rotvec = np.zeros((55, 3), np.float32)
    rotvec[[JOINT_INDEX["left_eye_smplhf"], JOINT_INDEX["right_eye_smplhf"]], 1] = eyes
    camera = frame_person(avatar.rest_joints, "head", 256, 256)
    picture = look(avatar, SmplxPose(rotvec, np.zeros(3, np.float32), values, 0.0), camera)
    return picture, camera


def at_landmarks(avatar, body, marks, picture, camera):
    """Mean colour around face landmarks of the bare body in a picture of the head."""
    points = study(body).landmarks[marks] @ body.rest_vertices(builtin_betas(body)).astype(np.float64)
    seen = points @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]
    x, y = (camera.fx * seen[:, :2] / seen[:, 2:] + [camera.cx, camera.cy]).mean(axis=0).astype(int)
    return picture[y - 2 : y + 3, x - 2 : x + 3, :3].mean(axis=(0, 1))


def test_an_open_mouth_is_dark_inside(avatar, body):
    shut, camera = face_picture(avatar, {}, body)
    wide, _ = face_picture(avatar, {"jawOpen": 1.0}, body)
    points = study(body).landmarks[[13, 14]] @ body.rest_vertices(builtin_betas(body)).astype(np.float64)
    seen = points @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]
    x, y = (camera.fx * seen[:, :2] / seen[:, 2:] + [camera.cx, camera.cy]).mean(axis=0).astype(int)
    teeth, below = slice(y + 1, y + 6), slice(y + 6, y + 16)
    assert wide[below, x - 3 : x + 4, :3].mean() < 0.7 * shut[below, x - 3 : x + 4, :3].mean()
    assert wide[y + 2 : y + 16, x - 3 : x + 4, 3].min() > 0.9  # no hole through the head
    red, _, blue, _ = np.moveaxis(wide[teeth, x - 3 : x + 4], 2, 0).mean(axis=2)
    assert (blue / red).max() > 0.75  # teeth are whiter than lips and tongue


def test_lids_close_over_the_eyes_and_eyes_turn(avatar, body):
    irises = {"right": [468], "left": [473]}
    rest, camera = face_picture(avatar, {}, body)
    blink, _ = face_picture(avatar, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, body)
    aside, _ = face_picture(avatar, {}, body, eyes=0.5)
    for marks in irises.values():
        open_, closed = (at_landmarks(avatar, body, marks, picture, camera) for picture in (rest, blink))
        skin = at_landmarks(avatar, body, [151], rest, camera)
        assert np.linalg.norm(closed - skin) < np.linalg.norm(open_ - skin)
    assert np.abs(aside - rest).max() > 0.1


def test_progress_is_told_in_order(front, body):
    photo, fit = front
    told = []
    project([photo], [fit], body, count=MIN_COUNT, progress=lambda stage, done: told.append((stage, done)))
    shares = [done for _, done in told]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert all(0 <= share <= 1 for share in shares)
    assert max(np.diff(shares)) < 0.4
    stages = [stage for stage, _ in told]
    assert sorted(stages, key=list(dict.fromkeys(stages)).index) == stages  # none begins again


def test_unusable_input_is_refused_with_the_reason(front, body):
    photo, fit = front
    with pytest.raises(InvalidInputError, match="0 photos and 1 fits"):
        project([], [fit], body)
    with pytest.raises(InvalidInputError, match="count is 100"):
        project([photo], [fit], body, count=100)
    with pytest.raises(InvalidInputError, match="matte of photo 0 is empty"):
        project([replace(photo, alpha=np.zeros_like(photo.alpha))], [fit], body)
    with pytest.raises(InvalidInputError, match="478 MediaPipe face landmarks"):
        project([photo], [fit], replace(body, mediapipe_faces_idx=None, mediapipe_bary_coords=None))


def test_a_face_that_was_not_found_still_makes_an_avatar(front, body):
    photo, fit = front
    blind = replace(photo, landmarks=replace(photo.landmarks, face_image=None))
    project([blind], [fit], body, count=MIN_COUNT).validate()


def test_a_cropped_photo_still_makes_a_whole_person(person, body):
    photo, fit = photograph(person, body)
    height = HEIGHT // 2
    visibility = np.ones(33, np.float32)
    visibility[25:] = 0.1
    half = replace(
        photo,
        rgb=photo.rgb[:height].copy(),
        alpha=photo.alpha[:height].copy(),
        landmarks=replace(photo.landmarks, image_size=(WIDTH, height), body_visibility=visibility),
        shot="half",
    )
    avatar = project([half], [replace(fit, camera=replace(fit.camera, height=height))], body, count=COUNT)
    avatar.validate()
    assert avatar.metadata.shown == "half"
    drawn = look(avatar, standing(body), camera_for(person))[:, :, 3]
    feet = np.flatnonzero((look(person, standing(body), camera_for(person))[:, :, 3] > 0.5).any(axis=1)).max()
    assert (drawn[height : feet - 6].max(axis=1) > 0.9).all()  # legs without a gap, down to the feet
