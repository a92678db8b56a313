"""Draping, drawing in and attaching, before a camera that looks straight at the zero pose."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import scipy.sparse as sp

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.anatomy import HANDS, Part, study
from lhm_runtime.reconstruction.attachments import attach_rest
from lhm_runtime.reconstruction.builtin_person.figure import vertex_normals
from lhm_runtime.reconstruction.builtin_person.sampling import cover
from lhm_runtime.reconstruction.carrying import carried_weights, image_covariance, pose_patch
from lhm_runtime.reconstruction.discs import sample_normals, spread
from lhm_runtime.reconstruction.draping import fill_matte, sink_back, solve_sparse, unseen_vertices
from lhm_runtime.reconstruction.edges import draw_in
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.mesh_image import draw_mesh
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.view import make_view
from lhm_runtime.types import Camera, Landmarks, SmplxPose

WIDTH, HEIGHT, FOCAL = 520, 480, 600.0
T_CAMERA_WORLD = np.diag([1.0, -1, -1, 1])


@pytest.fixture(scope="module")
def body():
    return BodyModel.default()


@pytest.fixture(scope="module")
def rest(body):
    return body.v_template.astype(np.float64)


def view_of(alpha, body, expression=None, rotvec=None):
    """The zero pose, arms out, 2.9 m before the camera, with its hips a little below the middle."""
    coefficients = np.zeros(len(body.expression_names), np.float32) if expression is None else expression
    rotvec = np.zeros((55, 3), np.float32) if rotvec is None else rotvec
    pose = SmplxPose(rotvec, np.float32([0, 0.48, -2.9]), coefficients, 0.0)
    landmarks = Landmarks(0.0, (WIDTH, HEIGHT), body_visibility=np.ones(33, np.float32))
    rgb = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    photo = Photo(rgb, alpha.astype(np.float32), landmarks, "", "full", (), FOCAL)
    betas = np.zeros(len(body.beta_names), np.float32)
    camera = Camera(T_CAMERA_WORLD, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    return make_view(photo, BodyFit(pose, betas, camera, np.ones(55, np.float32), 0.0, ()), betas, body)


def outline_of(view, vertices, faces):
    return draw_mesh(view.project(view.posed(vertices)), faces, *view.size).covered


@pytest.fixture(scope="module")
def bare(body, rest):
    """Mask of the body itself."""
    return outline_of(view_of(np.zeros((HEIGHT, WIDTH)), body), rest, study(body).faces)


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_posing_can_be_undone(body, rest):
    smile = np.zeros(len(body.expression_names), np.float32)
    smile[:3] = 0.5
    view = view_of(np.zeros((HEIGHT, WIDTH)), body, smile)
    np.testing.assert_allclose(view.unposed(view.posed(rest)), rest, atol=1e-9)
    half = view.resized(0.5)
    np.testing.assert_allclose(half.project(view.posed(rest))[:, :2], 0.5 * view.project(view.posed(rest))[:, :2])


def test_colours_continue_beyond_the_matte(body, bare):
    view = view_of(bare, body)
    rgb = np.where(bare[:, :, None], np.float32([0.8, 0.2, 0.1]), np.float32([0, 0, 1]))
    extended = replace(view, rgb=rgb.astype(np.float32)).extended
    np.testing.assert_allclose(extended.reshape(-1, 3), np.tile([0.8, 0.2, 0.1], (WIDTH * HEIGHT, 1)), atol=1e-4)


def test_a_wider_matte_is_filled(body, rest, bare):
    wide = cv2.dilate(bare.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    view, anatomy = view_of(wide, body), study(body)
    draped = fill_matte(view, rest, anatomy)
    assert overlap(bare, wide) < 0.8
    assert overlap(outline_of(view, draped, anatomy.faces), wide) > 0.9
    torso = anatomy.part == Part.TORSO
    depth = [np.ptp(vertices[torso, 2]) for vertices in (rest, draped)]
    assert depth[1] > depth[0] + 0.01  # what grows in width grows in depth
    flat = fill_matte(view, rest, anatomy, thicken=False)
    assert np.ptp(flat[torso, 2]) == pytest.approx(depth[0], abs=1e-6)
    hands = np.isin(anatomy.part, HANDS)
    assert np.median(np.linalg.norm(draped - rest, axis=1)[hands]) < 0.03


def test_long_hair_beside_the_face_is_not_the_faces(body, rest, bare):
    """It hangs in the matte from the crown to the shoulders, six centimetres beside either ear."""
    anatomy = study(body)
    head = rest[anatomy.part == Part.HEAD]
    low, high = head.min(axis=0), head.max(axis=0)
    corners = np.array([[low[0] - 0.06, high[1], 0.0], [high[0] + 0.06, low[1] - 0.05, 0.0]])
    view = view_of(bare, body)
    (left, top), (right, bottom) = np.rint(view.project(corners * [1, -1, 1] + [0, -0.48, 2.9])[:, :2]).astype(int)
    haired = bare.copy()
    haired[top:bottom, left:right] = True
    moved = fill_matte(view_of(haired, body), rest, anatomy) - rest
    eyes = rest[np.concatenate([anatomy.left_eye, anatomy.right_eye])].mean(axis=0)
    on_head = anatomy.part == Part.HEAD
    below = on_head & (rest[:, 1] < eyes[1] - 0.02)
    cheeks, scalp = below & (rest[:, 2] > eyes[2] - 0.08), on_head & (rest[:, 1] > eyes[1] + 0.05)
    assert np.abs(moved[below & anatomy.face, 0]).max() < 0.015
    assert np.quantile(np.abs(moved[cheeks, 0]), 0.95) < 0.01
    assert np.abs(moved[scalp, 0]).max() > 0.035


def test_a_narrower_matte_draws_the_body_in(body, rest, bare):
    narrow = cv2.erode(bare.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    view, anatomy = view_of(narrow, body), study(body)
    trunk = np.s_[140:310, 210:310]
    before, after = (outline_of(view, v, anatomy.faces) for v in (rest, fill_matte(view, rest, anatomy)))
    assert (after & ~narrow)[trunk].sum() < 0.3 * (before & ~narrow)[trunk].sum()


def test_the_back_is_drawn_in_but_neither_the_outline_nor_the_inside_of_the_mouth(body, rest, bare):
    view, anatomy = view_of(bare, body), study(body)
    points = view.posed(rest)
    moved = sink_back(points, anatomy) - points
    away = (vertex_normals(points, anatomy.faces) * points).sum(axis=1) / np.linalg.norm(points, axis=1)
    np.testing.assert_array_equal(moved[away < 0.1], 0)
    back = (anatomy.part == Part.TORSO) & (away > 0.95)
    assert back.sum() > 100
    assert ((moved[back, 2] < -0.004) & (moved[back, 2] > -0.008)).all()  # towards the camera
    np.testing.assert_array_equal(moved[np.unique(anatomy.faces[~anatomy.outer])], 0)


def test_limbs_that_the_tracker_missed_are_unseen(body, rest):
    view = view_of(np.ones((HEIGHT, WIDTH)), body)
    visibility = np.ones(33, np.float32)
    visibility[[15, 19]] = 0.1  # the left wrist and hand
    view = replace(view, landmarks=replace(view.landmarks, body_visibility=visibility))
    unseen = unseen_vertices(view, view.posed(rest), study(body))
    assert set(study(body).part[unseen]) == {Part.LEFT_HAND}


def test_a_limb_behind_something_is_unseen_and_gets_no_hole(body, rest, bare):
    """The matte ends before the left elbow, of which the tracker is unsure."""
    anatomy, view = study(body), view_of(bare, body)
    arm = anatomy.part == Part.LEFT_ARM
    x = view.project(view.posed(rest))[:, 0]
    elbow = x[arm].mean()
    cut = bare.copy()
    cut[:, int(elbow) :] = False
    view = view_of(cut, body)
    visibility = np.ones(33, np.float32)
    visibility[[13, 15, 19]] = 0.1
    view = replace(view, landmarks=replace(view.landmarks, body_visibility=visibility))
    far = arm & (x > elbow + 20)
    unseen = unseen_vertices(view, view.posed(rest), anatomy)
    assert far.sum() > 50
    assert unseen[far].all()
    assert not unseen[arm & (x < elbow - 20)].any()
    samples = spread(rest, np.zeros(len(rest)), 3_000, np.ones(len(rest)), body, anatomy)
    patch = cover(samples, sample_normals(rest, samples, anatomy), np.zeros((3_000, 3)), thickness=0.002)
    weights = carried_weights(patch, body.skin_weights.astype(np.float64), anatomy)
    drawn = draw_in(view, patch, weights, np.zeros(len(patch.means), bool), anatomy)
    of_arm = far[anatomy.faces[patch.triangles, 0]]
    np.testing.assert_array_equal(drawn.opacity[of_arm], patch.opacity[of_arm])


def test_a_coat_is_as_wide_behind_arms(body, rest):
    anatomy = study(body)
    crossed = np.zeros((55, 3), np.float32)
    for side, sign in (("left", 1), ("right", -1)):
        crossed[JOINT_INDEX[f"{side}_shoulder"]] = [0, 0, -1.2 * sign]
        crossed[JOINT_INDEX[f"{side}_elbow"]] = [0, -1.75 * sign, 0]
    waist = (anatomy.part == Part.TORSO) & (rest[:, 1] > -0.12) & (rest[:, 1] < -0.04)
    grown = []
    for rotvec in (np.zeros((55, 3), np.float32), crossed):
        own = outline_of(view_of(np.zeros((HEIGHT, WIDTH)), body, rotvec=rotvec), rest, anatomy.faces)
        coat = cv2.dilate(own.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (19, 19)))
        worn = fill_matte(view_of(coat, body, rotvec=rotvec), rest, anatomy)
        grown.append(np.ptp(worn[waist, 0]) - np.ptp(rest[waist, 0]))
    assert grown[0] > 0.05
    assert grown[1] > 0.55 * grown[0]


def test_what_the_body_cannot_reach_hangs_on_it(body, rest, bare):
    matte = bare.copy()
    rows, columns = np.nonzero(bare)
    top = rows.min()
    middle = int(columns[rows == top].mean())
    matte[top - 30 : top + 6, middle - 25 : middle + 25] = True  # a hat
    matte[10:25, 10:25] = True  # far from anything
    view, anatomy = view_of(matte, body), study(body)
    weights = body.skin_weights.astype(np.float64)
    mesh = draw_mesh(view.project(view.posed(rest)), anatomy.faces, *view.size)
    hat = attach_rest(view, mesh, 500, weights, anatomy)
    assert 50 < len(hat.means) <= 550
    assert (anatomy.part[anatomy.faces[hat.triangles]] == Part.HEAD).all()
    points, _ = pose_patch(view, hat, carried_weights(hat, weights, anatomy), anatomy)
    x, y, _ = view.project(points).T
    assert (np.abs(x - middle) < 26).all()
    assert ((y > top - 31) & (y < top + 7)).all()
    assert len(attach_rest(view_of(bare, body), mesh, 500, weights, anatomy).means) == 0


def test_no_scrap_of_a_piece_hangs_on_another_limb_than_the_rest(body, rest, bare):
    """A cloth under an arm, up to where the trunk is as near."""
    view, anatomy = view_of(bare, body), study(body)
    weights = body.skin_weights.astype(np.float64)
    mesh = draw_mesh(view.project(view.posed(rest)), anatomy.faces, *view.size)
    of_arm = mesh.covered & (anatomy.part[anatomy.faces[mesh.face, 0]] == Part.LEFT_ARM)
    of_trunk = mesh.covered & (anatomy.part[anatomy.faces[mesh.face, 0]] == Part.TORSO)
    to_arm, to_trunk = (cv2.distanceTransform((~of).astype(np.uint8), cv2.DIST_L2, 5) for of in (of_arm, of_trunk))
    right = np.arange(WIDTH) > np.nonzero(of_arm)[1].min()
    below = np.cumsum(of_arm, axis=0) > 0
    cloth = below & right & ~mesh.covered & (to_arm < 40) & (to_arm < to_trunk)
    hung = attach_rest(view_of(bare | cloth, body), mesh, 2_000, weights, anatomy)
    assert len(hung.means) > 50
    assert Part.TORSO not in anatomy.part[anatomy.faces[hung.triangles, 0]]


def test_nothing_hangs_out_of_the_matte_but_what_is_held(body, rest, bare):
    anatomy = study(body)
    narrow = cv2.erode(bare.astype(np.uint8), np.ones((5, 5), np.uint8))
    view = view_of(narrow, body)
    samples = spread(rest, np.zeros(len(rest)), 3_000, np.ones(len(rest)), body, anatomy)
    patch = cover(samples, sample_normals(rest, samples, anatomy), np.zeros((3_000, 3)), thickness=0.002)
    weights = carried_weights(patch, body.skin_weights.astype(np.float64), anatomy)
    held = anatomy.part[anatomy.faces[patch.triangles, 0]] == Part.LEFT_ARM
    drawn = draw_in(view, patch, weights, held, anatomy)
    np.testing.assert_array_equal(drawn.means[held], patch.means[held])
    np.testing.assert_array_equal(drawn.scales[held], patch.scales[held])

    def outside(p):
        points, linear = pose_patch(view, p, weights, anatomy)
        x, y, _ = view.project(points).T
        spread_px = np.sqrt(np.trace(image_covariance(view, points, linear, p), axis1=1, axis2=2))
        inside = cv2.distanceTransform(narrow, cv2.DIST_L2, 5)[y.astype(int), x.astype(int)]
        return ((inside < 0.5 * spread_px) & ~held & (p.opacity > 0)).mean()

    assert outside(drawn) < 0.3 * outside(patch)
    assert np.linalg.norm(drawn.means - patch.means, axis=1).max() < 0.2


def test_sparse_systems_are_solved():
    rng = np.random.default_rng(0)
    a = sp.random_array((50, 50), density=0.1, rng=rng)
    system = sp.csr_array(a @ a.T + sp.eye_array(50))
    for right in (rng.random((50, 2)), rng.random(50)):
        solution = solve_sparse(system, right, rng.permutation(50))
        np.testing.assert_allclose(system @ solution, right, atol=1e-9)
