"""Hands in pockets, before a camera that looks straight at someone whose hands lie on their hips."""

from dataclasses import replace

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.anatomy import ARMS, HANDS, Part, study
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.mesh_image import draw_mesh
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.pockets import hidden_hands, tuck_hidden_hands
from lhm_runtime.reconstruction.view import make_view
from lhm_runtime.types import Camera, Landmarks, SmplxPose

WIDTH, HEIGHT, FOCAL = 520, 480, 600.0
SKIN, JACKET = (220, 170, 145), (30, 40, 120)


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


@pytest.fixture(scope="module")
def fit(body):
    """Arms down, the hands a few centimetres before the belly."""
    rotvec = np.zeros((55, 3), np.float32)
    for side, sign in (("left", 1), ("right", -1)):
        rotvec[JOINT_INDEX[f"{side}_shoulder"]] = [0, 0, -1.25 * sign]
        rotvec[JOINT_INDEX[f"{side}_elbow"]] = [0, -0.8 * sign, -0.4 * sign]
    expression = np.zeros(len(body.expression_names), np.float32)
    pose = SmplxPose(rotvec, np.float32([0, 0.48, -2.9]), expression, 0.0)
    camera = Camera(np.diag([1.0, -1, -1, 1]), FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    return BodyFit(pose, np.zeros(len(body.beta_names), np.float32), camera, np.ones(55, np.float32), 0.0, ())


def photo_of(fit, body, hands, **found):
    """The posed body in plain colours: a jacket, a face, and hands of this colour."""
    anatomy = study(body)
    blank = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    landmarks = Landmarks(0.0, (WIDTH, HEIGHT), body_visibility=np.ones(33, np.float32))
    photo = Photo(blank, np.zeros((HEIGHT, WIDTH), np.float32), landmarks, "", "full", (), FOCAL)
    view = make_view(photo, fit, fit.betas, body)
    points = view.posed(body.v_template.astype(np.float64))
    image = view.project(points)
    mesh = draw_mesh(image, anatomy.faces, WIDTH, HEIGHT)
    part = anatomy.part[anatomy.faces[np.maximum(mesh.face, 0), 0]]
    rgb = np.where((part == Part.HEAD)[:, :, None], SKIN, JACKET)
    rgb = np.where(np.isin(part, HANDS)[:, :, None], hands, rgb).astype(np.uint8)
    face = (anatomy.landmarks @ image[:, :2]).astype(np.float32)
    return replace(
        photo, rgb=rgb, alpha=mesh.covered.astype(np.float32), landmarks=replace(landmarks, face_image=face, **found)
    )


def share_behind(photo, fit, body, part):
    anatomy = study(body)
    view = make_view(photo, fit, fit.betas, body)
    points = view.posed(body.v_template.astype(np.float64))
    image = view.project(points)
    cloth = draw_mesh(image, anatomy.faces[~np.isin(anatomy.part[anatomy.faces], HANDS + ARMS).any(axis=1)], *view.size)
    hand = anatomy.part == part
    column, row = image[hand, :2].astype(int).T
    return (points[hand, 2] > cloth.depth[row, column]).mean()


def test_hands_of_the_jackets_colour_go_behind_it(body, fit):
    photo = photo_of(fit, body, JACKET)
    tucked = tuck_hidden_hands(photo, fit, body)
    for part in HANDS:
        assert share_behind(photo, fit, body, part) < 0.3
        assert share_behind(photo, tucked, body, part) > 0.9
    turned = np.abs(tucked.pose.rotvec - fit.pose.rotvec).max(axis=1)
    moved = [JOINT_INDEX[f"{side}_{joint}"] for side in ("left", "right") for joint in ("elbow", "wrist")]
    assert turned[np.setdiff1d(np.arange(55), moved)].max() == 0
    rest = body.v_template.astype(np.float64)
    anatomy = study(body)
    before, after = (hidden_hands(make_view(photo, f, f.betas, body), rest, anatomy) for f in (fit, tucked))
    assert not before.any()
    np.testing.assert_array_equal(after, np.isin(anatomy.part, HANDS))


def test_hands_that_show_stay(body, fit):
    assert tuck_hidden_hands(photo_of(fit, body, SKIN), fit, body) is fit
    points = np.zeros((21, 2), np.float32)
    found = photo_of(fit, body, JACKET, left_hand_image=points, right_hand_image=points)
    assert tuck_hidden_hands(found, fit, body) is fit  # gloves
    view = make_view(found, fit, fit.betas, body)
    assert not hidden_hands(view, body.v_template.astype(np.float64), study(body)).any()


def test_without_a_face_nobody_knows_what_skin_looks_like(body, fit):
    photo = photo_of(fit, body, JACKET)
    faceless = replace(photo, landmarks=replace(photo.landmarks, face_image=None))
    assert tuck_hidden_hands(faceless, fit, body) is fit
