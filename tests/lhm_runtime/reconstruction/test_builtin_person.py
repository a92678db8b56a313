"""The built-in person: a valid, deterministic avatar whose parts are where they belong and move as they should."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.builtin_person.figure import build_figure
from lhm_runtime.reconstruction.builtin_person.look import Look
from lhm_runtime.reconstruction.builtin_person.sampling import scatter, thin

LEFT_EYE, RIGHT_EYE = JOINT_INDEX["left_eye_smplhf"], JOINT_INDEX["right_eye_smplhf"]


@pytest.fixture(scope="module")
def person() -> Avatar:
    return build_person()


def heaviest_on(avatar: Avatar, *names: str) -> np.ndarray:
    """Mask of the Gaussians that one of the named joints moves most."""
    return np.isin(avatar.skin_joints[:, 0], [JOINT_INDEX[name] for name in names])


def displacement(avatar: Avatar, **expression: float) -> np.ndarray:
    """[n, 3] how an expression moves every Gaussian."""
    moved = np.zeros((len(avatar), 3))
    for name, amount in expression.items():
        column = avatar.expression_names.index(name)
        moved[avatar.expression_gaussians] += amount * avatar.expression_directions[:, column]
    return moved


@pytest.mark.parametrize("count", [2_000, 10_000, 40_001])
def test_count_is_exact_and_every_value_valid(count: int) -> None:
    avatar = build_person(count)
    gaussians = avatar.gaussians
    assert len(gaussians) == len(avatar.skin_joints) == len(avatar.constrained) == count
    for values in (gaussians.means, gaussians.quat_wxyz, gaussians.scales, gaussians.opacity, gaussians.rgb):
        assert np.isfinite(values).all()
    np.testing.assert_allclose(np.linalg.norm(gaussians.quat_wxyz, axis=1), 1, atol=1e-5)
    assert gaussians.scales.min() > 0
    assert 0 <= gaussians.opacity.min() <= gaussians.opacity.max() <= 1
    assert 0 <= gaussians.rgb.min() <= gaussians.rgb.max() <= 1
    assert avatar.skin_weights.min() >= 0
    np.testing.assert_allclose(avatar.skin_weights.sum(axis=1), 1, atol=1e-5)
    assert (np.diff(avatar.skin_weights, axis=1) <= 0).all()
    assert avatar.skin_joints.max() < 55
    assert (np.diff(avatar.expression_gaussians) > 0).all()
    assert np.isfinite(avatar.expression_directions).all()


def test_two_builds_are_equal(person: Avatar) -> None:
    again = build_person()
    for name in ("means", "quat_wxyz", "scales", "opacity", "rgb"):
        np.testing.assert_array_equal(getattr(again.gaussians, name), getattr(person.gaussians, name))
    for name in ("skin_joints", "skin_weights", "expression_gaussians", "expression_directions", "rest_joints"):
        np.testing.assert_array_equal(getattr(again, name), getattr(person, name))


def test_metadata_name_the_body(person: Avatar) -> None:
    body = BodyModel.default()
    assert person.metadata.reconstructor == "builtin-person 1"
    assert (person.metadata.body_model, person.metadata.body_model_sha256) == (body.name, body.sha256)
    assert "Apache-2.0" in person.metadata.licence
    assert person.expression_names == body.expression_names


def test_is_an_adult_who_stands_upright(person: Avatar) -> None:
    low, high = person.gaussians.means.min(axis=0), person.gaussians.means.max(axis=0)
    assert 1.6 < high[1] - low[1] < 1.8
    shoes = person.gaussians.means[heaviest_on(person, "left_foot", "right_foot")]
    hair = person.gaussians.means[heaviest_on(person, "head")]
    assert shoes[:, 1].max() < hair[:, 1].min()


def test_budget_favours_head_and_hands(person: Avatar) -> None:
    head = heaviest_on(person, "head", "jaw", "left_eye_smplhf", "right_eye_smplhf").mean()
    fingers = [name for name in JOINT_INDEX if name.endswith(("1", "2", "3")) and "spine" not in name]
    hands = heaviest_on(person, "left_wrist", "right_wrist", *fingers).mean()
    assert 0.22 < head < 0.40
    assert 0.05 < hands < 0.15


@pytest.mark.parametrize("part", ["elbow", "knee", "ankle", "wrist", "eye_smplhf", "foot"])
def test_left_and_right_are_balanced(person: Avatar, part: str) -> None:
    left, right = heaviest_on(person, f"left_{part}"), heaviest_on(person, f"right_{part}")
    assert left.sum() == pytest.approx(right.sum(), rel=0.1)
    mirrored = person.gaussians.means[right].mean(axis=0) * [-1, 1, 1]
    np.testing.assert_allclose(person.gaussians.means[left].mean(axis=0), mirrored, atol=0.004)


@pytest.mark.parametrize(("joint", "side"), [(LEFT_EYE, 1), (RIGHT_EYE, -1)])
def test_eyes_turn_with_their_joints(person: Avatar, joint: int, side: int) -> None:
    eye = (person.skin_joints[:, 0] == joint) & (person.skin_weights[:, 0] > 0.9)
    assert eye.sum() == 480
    means = person.gaussians.means[eye]
    assert (side * means[:, 0] > 0).all()
    # on a ball round the joint, so that a turning eye stays in its socket
    assert np.ptp(np.linalg.norm(means - person.rest_joints[joint], axis=1)) < 0.002
    # dark pupil, light white, colour between them
    off_axis = np.linalg.norm((means - means[0])[:, :2], axis=1)
    brightness = person.gaussians.rgb[eye].mean(axis=1)
    assert brightness[off_axis < 0.001].mean() < 0.15
    assert brightness[(off_axis > 0.003) & (off_axis < 0.005)].mean() == pytest.approx(0.35, abs=0.15)
    assert brightness[off_axis > 0.008].mean() > 0.6


def test_blink_closes_the_lids_and_nothing_else(person: Avatar) -> None:
    moved = displacement(person, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    for joint in (LEFT_EYE, RIGHT_EYE):
        near = np.linalg.norm(person.gaussians.means - person.rest_joints[joint], axis=1) < 0.03
        lids = near & (person.skin_joints[:, 0] != joint)
        assert moved[lids, 1].min() < -0.005
    assert not moved[heaviest_on(person, "left_foot", "right_foot", "left_wrist", "right_wrist")].any()
    below_nose = person.gaussians.means[:, 1] < person.rest_joints[LEFT_EYE, 1] - 0.06
    assert np.abs(moved[below_nose]).max() < 0.001


def test_expressions_move_the_mouth_the_right_way(person: Avatar) -> None:
    figure = build_figure(BodyModel.default(), Look())
    tree = cKDTree(person.gaussians.means)
    corners, lower_lip = tree.query(figure.landmarks[[61, 291]])[1], tree.query(figure.landmarks[17])[1]
    smile = displacement(person, mouthSmileLeft=1.0, mouthSmileRight=1.0)
    assert (smile[corners, 1] > 0.004).all()
    assert smile[corners[0], 0] < -0.002 < 0.002 < smile[corners[1], 0]
    assert displacement(person, jawOpen=1.0)[lower_lip, 1] < -0.01


def test_hair_stays_with_the_head(person: Avatar) -> None:
    crown = person.gaussians.means[:, 1] > person.rest_joints[JOINT_INDEX["head"], 1] + 0.14
    assert crown.sum() > 500
    assert heaviest_on(person, "head")[crown].all()
    assert person.skin_weights[crown, 0].min() > 0.95


def test_everything_lies_near_the_body(person: Avatar) -> None:
    figure = build_figure(BodyModel.default(), Look())
    distance = cKDTree(figure.vertices).query(person.gaussians.means)[0]
    hair_or_shoe = heaviest_on(person, "head", "left_foot", "right_foot", "left_ankle", "right_ankle")
    assert distance[~hair_or_shoe].max() < 0.055
    assert distance.max() < 0.09


def test_discs_close_the_face(person: Avatar) -> None:
    """From the front, the face's discs overlap: no point of it is further than two sigmas from one."""
    figure = build_figure(BodyModel.default(), Look())
    front = person.gaussians.means[:, 2] > figure.landmarks[152, 2] - 0.03
    discs = person.gaussians.means[front]
    reach, near = cKDTree(discs[:, :2]).query(figure.landmarks[:468, :2])
    inner = np.linalg.norm((figure.landmarks[:468] - figure.landmarks[4]) * [1, 0.8, 0], axis=1) < 0.05
    assert (reach < 2 * person.gaussians.scales[front].max(axis=1)[near])[inner].all()


def test_rejects_what_it_cannot_build() -> None:
    with pytest.raises(InvalidInputError, match="count is 100"):
        build_person(100)
    faceless = replace(BodyModel.default(), mediapipe_faces_idx=None, mediapipe_bary_coords=None)
    with pytest.raises(InvalidInputError, match="no 478 MediaPipe face landmarks"):
        build_person(10_000, faceless)
    body = BodyModel.default()
    unblinking = replace(body, expression_names=tuple(f"expression{k}" for k in range(len(body.expression_names))))
    with pytest.raises(InvalidInputError, match="no expression eyeBlinkLeft"):
        build_person(10_000, unblinking)


def test_thin_spaces_samples_evenly() -> None:
    """On a flat square, no two samples are close and no place is far from one: unlike independent random points."""
    side = 1.0
    vertices = np.array([[0, 0, 0], [side, 0, 0], [side, side, 0], [0, side, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    samples = thin(scatter(vertices, faces, np.ones(4), 2_000, seed=3), 500, seed=3)
    spacing = np.sqrt(side**2 / 500)
    np.testing.assert_allclose(samples.spacing, spacing, rtol=1e-6)
    nearest = cKDTree(samples.points).query(samples.points, k=2)[0][:, 1]
    assert nearest.min() > 0.5 * spacing
    probes = np.random.default_rng(0).uniform(0.05, 0.95, (2_000, 2)) * side
    assert cKDTree(samples.points[:, :2]).query(probes)[0].max() < 1.1 * spacing


def test_thin_needs_enough_candidates() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    candidates = scatter(vertices, np.array([[0, 1, 2]]), np.ones(3), 10, seed=0)
    with pytest.raises(InvalidInputError, match="10 candidates cannot give 11"):
        thin(candidates, 11, seed=0)
