import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.motion.landmark_points import WRISTS, body_points_at_rest
from lhm_runtime.motion.person_choice import (
    Body,
    choose_person,
    hide_others,
    is_same_person,
    owns_face,
    shows_wrists,
    sort_hands,
    view_of,
)

POINTS = body_points_at_rest(BodyModel.default().rest_joints())
SIZE = (1280, 720)


def body_at(x: float, pixels_per_metre: float, head_y: float = 100.0) -> Body:
    """Someone in T-pose, the nose at (x, head_y)."""
    image = (POINTS - POINTS[0])[:, :2] * [pixels_per_metre, -pixels_per_metre] + [x, head_y]
    inside = ((image >= 0) & (image <= SIZE)).all(1)
    return Body(POINTS.astype(np.float32), image.astype(np.float32), inside.astype(np.float32))


def test_pixels_per_metre() -> None:
    assert body_at(600.0, 350.0).pixels_per_metre == pytest.approx(350, rel=1e-5)


def test_the_largest_is_chosen_then_the_nearest() -> None:
    small, large = body_at(200.0, 200.0), body_at(900.0, 300.0)
    assert choose_person([], None) is None
    assert choose_person([small, large], None) is large
    assert choose_person([large, small], body_at(250.0, 200.0)) is small
    assert choose_person([large], body_at(250.0, 200.0)) is large


def test_the_same_person_a_moment_later_and_another_one() -> None:
    assert is_same_person(body_at(600.0, 300.0), body_at(660.0, 310.0))
    assert not is_same_person(body_at(600.0, 300.0), body_at(900.0, 300.0))


def test_views() -> None:
    whole, close = body_at(600.0, 350.0), body_at(600.0, 1500.0, head_y=300.0)
    assert view_of(whole, SIZE, None) == "body"
    assert view_of(close, SIZE, None) == "webcam"
    between = body_at(600.0, 0.6 * 1280, head_y=300.0)
    assert view_of(between, SIZE, "body") == "body"
    assert view_of(between, SIZE, "webcam") == "webcam"
    assert view_of(body_at(600.0, 0.5 * 1280, head_y=300.0), SIZE, "webcam") == "body"


def test_legs_in_the_picture_are_a_body_however_large() -> None:
    body = body_at(600.0, 1500.0)
    seen = Body(body.world, body.image, np.ones(33, np.float32))
    assert view_of(seen, SIZE, "webcam") == "body"


def test_a_face_belongs_to_the_head_it_is_on() -> None:
    body = body_at(600.0, 300.0)
    face = np.tile(body.image[0], (478, 1))
    assert owns_face(body, face)
    assert not owns_face(body, face + np.float32(100))


def test_hands_go_by_the_wrists() -> None:
    body = body_at(600.0, 400.0, head_y=300.0)
    left, right = (np.tile(body.image[wrist], (21, 1)) for wrist in WRISTS)
    stranger = left + np.float32(400)
    assert sort_hands(body, []) == (None, None)
    assert sort_hands(body, [left, right]) == (0, 1)
    assert sort_hands(body, [right, left]) == (1, 0)
    assert sort_hands(body, [right]) == (None, 0)
    assert sort_hands(body, [stranger, left]) == (1, None)
    assert sort_hands(body, [stranger]) == (None, None)


def test_hands_close_together_are_two_hands() -> None:
    body = body_at(600.0, 400.0, head_y=300.0)
    folded = body.image.copy()
    folded[WRISTS] = [[605, 400], [595, 400]]
    body = Body(body.world, folded, body.visibility)
    hands = [np.tile(np.float32([x, 402]), (21, 1)) for x in (596, 604)]
    assert sort_hands(body, hands) == (1, 0)


def test_wrists_out_of_sight() -> None:
    body = body_at(600.0, 300.0)
    assert shows_wrists(body)
    hidden = body.visibility.copy()
    hidden[WRISTS] = 0.1
    assert not shows_wrists(Body(body.world, body.image, hidden))


def test_others_are_painted_over() -> None:
    picture = np.random.default_rng(0).integers(0, 100, (720, 1280, 3), np.uint8)
    person, other = body_at(200.0, 200.0), body_at(1000.0, 250.0)
    hidden = hide_others(picture, person)
    for point in person.image[person.visibility > 0].astype(int):
        assert (hidden[point[1], point[0]] == picture[point[1], point[0]]).all()
    for point in other.image[other.visibility > 0].astype(int):
        assert (hidden[point[1], point[0]] == 127).all()
    assert picture.max() < 100
