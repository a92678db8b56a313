"""Each thing that makes an avatar unsure is named, and nothing else is."""

from dataclasses import replace

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.motion.landmark_points import ANKLES, ELBOWS, HIPS, KNEES, SHOULDERS, WRISTS, body_points_at_rest
from lhm_runtime.reconstruction.photo_doubts import list_doubts, shot_of, turn_of
from lhm_runtime.types import Landmarks

SIZE = 600
PIXELS_PER_M = 250.0


def landmarks(world: np.ndarray | None = None, hidden: tuple[int, ...] = ()) -> Landmarks:
    """Someone in the middle of a picture, in T-pose with hanging arms where not given."""
    if world is None:
        world = standing()
    image = np.array([SIZE / 2, SIZE / 2]) + PIXELS_PER_M * world[:, :2] * [1, -1]
    visibility = np.ones(33, np.float32)
    visibility[list(hidden)] = 0
    face = image[0] + 30 * np.stack([np.cos(np.arange(478.0)), np.sin(np.arange(478.0))], axis=1)
    return Landmarks(
        timestamp_s=0.0,
        image_size=(SIZE, SIZE),
        body_world=world.astype(np.float32),
        body_image=image.astype(np.float32),
        body_visibility=visibility,
        face_image=face.astype(np.float32),
    )


def standing() -> np.ndarray:
    points = body_points_at_rest(BodyModel.default().rest_joints())
    points -= points[HIPS].mean(0)
    for side, sign in ((0, 1), (1, -1)):  # arms down
        shoulder = points[SHOULDERS[side]]
        points[ELBOWS[side]] = shoulder + [sign * 0.10, -0.26, 0]
        points[WRISTS[side]] = shoulder + [sign * 0.18, -0.50, 0]
    return points


def doubts(marks: Landmarks, rgb: np.ndarray | None = None, people: int = 1) -> str:
    if rgb is None:
        rgb = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    alpha = np.zeros((SIZE, SIZE), np.float32)
    alpha[100:500, 200:400] = 1
    return "; ".join(list_doubts(rgb, alpha, marks, people=people, scale=1.0))


def test_a_good_photo_leaves_no_doubt() -> None:
    assert doubts(landmarks()) == ""


@pytest.mark.parametrize("turn_deg", [-170.0, -90.0, -30.0, 0.0, 30.0, 90.0, 170.0])
def test_turn_is_the_way_the_shoulders_face(turn_deg: float) -> None:
    world = standing() @ rotvec_to_matrix(np.array([0, -np.radians(turn_deg), 0])).T
    assert turn_of(world) == pytest.approx(turn_deg, abs=1e-6)


@pytest.mark.parametrize(
    ("turn_deg", "said"), [(180.0, "from behind"), (-130.0, "from behind"), (75.0, "from the side"), (30.0, "")]
)
def test_who_does_not_face_the_camera(turn_deg: float, said: str) -> None:
    world = standing() @ rotvec_to_matrix(np.array([0, np.radians(turn_deg), 0])).T
    assert said in doubts(landmarks(world))
    assert bool(said) == bool(doubts(landmarks(world)))


def test_who_lies_or_sits() -> None:
    lying = standing() @ rotvec_to_matrix(np.array([0, 0, np.radians(85.0)])).T
    assert "lying" in doubts(landmarks(lying))
    sitting = standing()
    for side in (0, 1):
        sitting[KNEES[side]] = sitting[HIPS[side]] + [0, -0.1, 0.4]
        sitting[ANKLES[side]] = sitting[KNEES[side]] + [0, -0.4, 0]
    assert "sitting" in doubts(landmarks(sitting))


def test_arms_before_the_body() -> None:
    crossed = standing()
    crossed[WRISTS[0]], crossed[WRISTS[1]] = [-0.15, 0.25, 0.2], [0.15, 0.25, 0.2]
    assert "arms are crossed" in doubts(landmarks(crossed))
    one = standing()
    one[WRISTS[0]] = [0.02, 0.2, 0.2]
    assert "an arm is before the body" in doubts(landmarks(one))


def test_a_hand_before_the_face() -> None:
    marks = landmarks()
    assert marks.face_image is not None
    hand = np.tile(marks.face_image.mean(0), (21, 1)).astype(np.float32)
    assert "hand is before the face" in doubts(replace(marks, left_hand_image=hand))
    assert "hand" not in doubts(replace(marks, left_hand_image=hand + 300))


def test_what_is_not_in_view() -> None:
    assert "no face was found" in doubts(replace(landmarks(), face_image=None))
    assert "feet" in doubts(landmarks(hidden=tuple(ANKLES)))
    assert "legs" in doubts(landmarks(hidden=(*ANKLES, *KNEES)))
    assert "arms" in doubts(landmarks(hidden=(WRISTS[1],)))


def test_the_picture_itself() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 1), np.uint8).repeat(3, axis=2)
    sepia = np.clip(grey * [1.0, 0.93, 0.8], 0, 255).astype(np.uint8)
    assert "black and white" in doubts(landmarks(), grey)
    assert "black and white" in doubts(landmarks(), sepia)
    assert "dark silhouette" in doubts(landmarks(), np.full((SIZE, SIZE, 3), [12, 9, 2], np.uint8))
    assert "3 people" in doubts(landmarks(), people=3)


def test_small_people_will_be_blurred() -> None:
    alpha = np.zeros((SIZE, SIZE), np.float32)
    alpha[100:200, 200:240] = 1
    rgb = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    assert any("100 pixels high" in doubt for doubt in list_doubts(rgb, alpha, landmarks(), people=1, scale=1.0))


def test_the_shot_follows_what_is_seen() -> None:
    assert shot_of(landmarks()) == "full"
    assert shot_of(landmarks(hidden=(ANKLES[0], ANKLES[1]))) == "full"
    assert shot_of(landmarks(hidden=(*ANKLES, *KNEES))) == "half"
    assert shot_of(landmarks(hidden=(*ANKLES, *KNEES, *HIPS))) == "half"
    assert shot_of(landmarks(hidden=(*ANKLES, *KNEES, *HIPS, ELBOWS[0]))) == "head"
