"""Skirts found in mattes and hung on both legs, before a camera that looks straight at someone with legs apart."""

import cv2
import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.anatomy import LEGS, Part, study
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.mesh_image import draw_mesh
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.skirts import hang_skirt, hem_height
from lhm_runtime.reconstruction.view import make_view
from lhm_runtime.types import Camera, Landmarks, SmplxPose

WIDTH, HEIGHT, FOCAL = 520, 480, 600.0
SPLIT = 0.12


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


@pytest.fixture(scope="module")
def rest(body):
    return body.v_template.astype(np.float64)


def view_of(alpha, body):
    rotvec = np.zeros((55, 3), np.float32)
    rotvec[JOINT_INDEX["left_hip"], 2], rotvec[JOINT_INDEX["right_hip"], 2] = SPLIT, -SPLIT
    pose = SmplxPose(rotvec, np.float32([0, 0.48, -2.9]), np.zeros(len(body.expression_names), np.float32), 0.0)
    photo = Photo(
        np.full((HEIGHT, WIDTH, 3), 128, np.uint8),
        alpha.astype(np.float32),
        Landmarks(0.0, (WIDTH, HEIGHT), body_visibility=np.ones(33, np.float32)),
        "",
        "full",
        (),
        FOCAL,
    )
    betas = np.zeros(len(body.beta_names), np.float32)
    camera = Camera(np.diag([1.0, -1, -1, 1]), FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    return make_view(photo, BodyFit(pose, betas, camera, np.ones(55, np.float32), 0.0, ()), betas, body)


@pytest.fixture(scope="module")
def bare(body, rest):
    """Mask of the body itself, and its image points."""
    view = view_of(np.zeros((HEIGHT, WIDTH)), body)
    image = view.project(view.posed(rest))
    return draw_mesh(image, study(body).faces, *view.size).covered, image


def skirt(bare, rest, anatomy, below_m):
    """The body in a skirt that ends so far below the crotch, and the hem's height at zero pose."""
    mask, image = bare
    hem = rest[anatomy.part == Part.TORSO, 1].min() - below_m
    leg = np.isin(anatomy.part, LEGS)
    at_hem = image[leg & (np.abs(rest[:, 1] - hem) < 0.02)]
    top = image[leg][:, 1].min()
    corners = [[at_hem[:, 0].min(), top], [at_hem[:, 0].max(), top]]
    corners += [[at_hem[:, 0].max() + 8, at_hem[:, 1].mean()], [at_hem[:, 0].min() - 8, at_hem[:, 1].mean()]]
    cloth = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillConvexPoly(cloth, np.rint(corners).astype(np.int32), 1)
    return mask | (cloth > 0), hem


@pytest.mark.parametrize("below_m", [0.15, 0.25, 0.45])
def test_the_hem_is_found(body, rest, bare, below_m):
    anatomy = study(body)
    mask, hem = skirt(bare, rest, anatomy, below_m)
    assert hem_height(view_of(mask, body), rest, anatomy) == pytest.approx(hem, abs=0.035)


def test_trousers_have_none(body, rest, bare):
    anatomy = study(body)
    mask, _ = bare
    assert hem_height(view_of(mask, body), rest, anatomy) is None
    for loose in (5, 9):  # cloth a centimetre or two off the skin, which closes the fork a little
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((loose, loose), np.uint8))
        assert hem_height(view_of(wide, body), rest, anatomy) is None


def test_nothing_is_said_of_legs_out_of_the_picture(body, rest, bare):
    mask, _ = bare
    view = view_of(mask, body)
    lower = view.__class__(
        **{name: getattr(view, name) for name in view.__dataclass_fields__} | {"centre": view.centre + [0, 900]}
    )
    assert hem_height(lower, rest, study(body)) is None


def test_a_skirt_moves_as_one_and_legs_below_it_apart(body, rest):
    anatomy = study(body)
    crotch = rest[anatomy.part == Part.TORSO, 1].min()
    hem = crotch - 0.25
    weights = body.skin_weights.astype(np.float64)
    hung = hang_skirt(weights, rest, hem, anatomy)
    np.testing.assert_allclose(hung.sum(axis=1), weights.sum(axis=1), atol=1e-12)
    assert hung.min() > -1e-12
    below = rest[:, 1] < hem - 0.05
    np.testing.assert_allclose(hung[below], weights[below], atol=1e-12)
    others = ~np.isin(anatomy.part, (*LEGS, Part.TORSO))
    np.testing.assert_allclose(hung[others & ~below], weights[others & ~below], atol=1e-12)

    # in a stride, vertices that face each other across the gap stay together
    joints = [JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]]
    inner = [
        np.flatnonzero(
            (anatomy.part == part) & (np.abs(rest[:, 1] - crotch + 0.1) < 0.03) & (np.abs(rest[:, 0]) < 0.03)
        )
        for part in LEGS
    ]
    assert min(len(side) for side in inner) > 0

    def apart(of):
        left, right = (of[side][:, joints].mean(axis=0) for side in inner)
        return np.abs(left - right).max()

    assert apart(hung) < 0.35 * apart(weights)
