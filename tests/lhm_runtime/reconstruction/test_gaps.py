"""Background between limbs: a person drawn from the body model before a wall, in a matte without gaps."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.gaps import clear_gaps
from lhm_runtime.reconstruction.mesh_image import draw_mesh
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.view import make_view
from lhm_runtime.types import Camera, Landmarks, SmplxPose

WIDTH, HEIGHT, FOCAL = 400, 640, 900.0
GREY, BLUE, WHITE = (150, 150, 145), (40, 60, 140), (238, 238, 236)


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


@pytest.fixture(scope="module")
def fit(body):
    """Arms akimbo: between each of them and the trunk there is a gap."""
    rotvec = np.zeros((55, 3), np.float32)
    for side, sign in (("left", 1), ("right", -1)):
        rotvec[JOINT_INDEX[f"{side}_shoulder"]] = [0, 0, -0.95 * sign]
        rotvec[JOINT_INDEX[f"{side}_elbow"]] = [0, 0, -1.0 * sign]
    expression = np.zeros(len(body.expression_names), np.float32)
    pose = SmplxPose(rotvec, np.float32([0, 0.3, -2.9]), expression, 0.0)
    camera = Camera(np.diag([1.0, -1, -1, 1]), FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    return BodyFit(pose, np.zeros(len(body.beta_names), np.float32), camera, np.ones(55, np.float32), 0.0, ())


@pytest.fixture(scope="module")
def worn(fit, body):
    """What the person covers."""
    blank = photo_of(np.zeros((HEIGHT, WIDTH), bool), WHITE, WHITE)
    view = make_view(blank, fit, fit.betas, body)
    points = view.project(view.posed(body.rest_vertices(fit.betas).astype(np.float64)))
    return draw_mesh(points, body.faces.astype(np.int64), WIDTH, HEIGHT).covered


@pytest.fixture(scope="module")
def filled(worn):
    """The same without the gaps that limbs enclose, as a matte that missed them."""
    outline, _ = cv2.findContours(worn.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(worn.astype(np.uint8), outline, -1, 1, cv2.FILLED) > 0
    assert (filled & ~worn).sum() > 500
    return filled


def photo_of(worn, clothes, wall, alpha=None):
    noise = np.random.default_rng(3).normal(0, 2, (HEIGHT, WIDTH, 3))
    rgb = np.where(worn[:, :, None], clothes, wall) + noise
    return Photo(
        rgb=rgb.clip(0, 255).astype(np.uint8),
        alpha=(worn if alpha is None else alpha).astype(np.float32),
        landmarks=Landmarks(0.0, (WIDTH, HEIGHT), body_visibility=np.ones(33, np.float32)),
        sha256="",
        shot="full",
        warnings=(),
        focal_px=FOCAL,
    )


def test_gaps_between_limbs_leave_the_matte(worn, filled, fit, body):
    cleared = clear_gaps(photo_of(worn, BLUE, GREY, filled), fit, body).alpha
    deep = cv2.erode((filled & ~worn).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert deep.any()
    assert (cleared[deep] < 0.5).mean() > 0.95
    inner = cv2.erode(worn.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert (cleared[inner] == 1).all()


def test_what_looks_like_the_clothes_stays(filled, fit, body):
    loose = photo_of(filled, BLUE, GREY)
    assert clear_gaps(loose, fit, body) is loose


def test_white_clothes_before_a_white_wall_stay(filled, fit, body):
    for wall in (WHITE, tuple(value - 12 for value in WHITE)):
        photo = photo_of(filled, WHITE, wall)
        assert clear_gaps(photo, fit, body) is photo


def test_creases_are_dark_and_stay(worn, filled, fit, body):
    photo = photo_of(worn, BLUE, (20, 20, 20), filled)
    assert clear_gaps(photo, fit, body) is photo


def test_what_holds_the_persons_own_is_no_gap(worn, fit, body):
    """Fair hair before a fair wall, with darker ends: without its middle they would float."""
    legs = worn[420:480].all(axis=0).nonzero()[0]
    side = slice(legs.max() - 3, legs.max() + 20)
    ends = slice(side.stop, side.stop + 15)
    own, alpha = worn.copy(), worn.copy()
    own[420:480, side], own[420:480, ends] = False, True
    alpha[420:480, side] = alpha[420:480, ends] = True
    photo = photo_of(own, BLUE, GREY, alpha)
    assert clear_gaps(photo, fit, body) is photo
    closed = alpha.copy()
    closed[415:420, side.start : ends.stop] = own[415:420, side.start : ends.stop] = True  # now it is a handle
    cleared = clear_gaps(photo_of(own, BLUE, GREY, closed), fit, body).alpha
    assert (cleared[425:475, side.start + 8 : side.stop - 5] < 0.5).all()


def test_a_given_matte_is_not_questioned(worn, filled, fit, body):
    photo = replace(photo_of(worn, BLUE, GREY, filled), matte_given=True)
    assert clear_gaps(photo, fit, body) is photo
