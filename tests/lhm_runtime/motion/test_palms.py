import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.motion.landmark_points import body_points_at_rest
from lhm_runtime.motion.palms import Palms
from lhm_runtime.motion.sight import palms_of

REST = palms_of(body_points_at_rest(BodyModel.default().rest_joints()))
FOREARMS = np.tile(np.eye(3), (2, 1, 1))
ALL, NONE = np.ones(2), np.zeros(2)


def turned(degrees: float) -> np.ndarray:
    return np.tile(rotvec_to_matrix(np.radians([degrees, 0.0, 0.0])), (2, 1, 1))


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.linalg.norm(matrix_to_rotvec(a.swapaxes(1, 2) @ b), axis=1)).max())


def started(hands: np.ndarray) -> Palms:
    palms = Palms(REST)
    palms.follow(turned(0.0), FOREARMS, REST, ALL, hands, np.inf)
    return palms


@pytest.mark.parametrize("hands", [ALL, NONE])
def test_the_first_palm_is_believed(hands: np.ndarray) -> None:
    first = Palms(REST).follow(turned(70.0), FOREARMS, REST, ALL, hands, np.inf)
    np.testing.assert_allclose(first, turned(70.0), atol=1e-9)


@pytest.mark.parametrize("passed_s", [0.0, 0.01, 0.2])
def test_hands_in_sight_are_followed_at_once(passed_s: float) -> None:
    palms = started(ALL)
    for degrees in (40.0, -60.0, 120.0):
        followed = palms.follow(turned(degrees), FOREARMS, REST, ALL, ALL, passed_s)
        np.testing.assert_allclose(followed, turned(degrees), atol=1e-9)


def test_the_bodys_points_turn_a_palm_by_the_clock_and_not_at_once() -> None:
    ends = []
    for steps in (10, 40):
        palms = started(NONE)
        for _ in range(steps):
            followed = palms.follow(turned(30.0), FOREARMS, REST, ALL, NONE, 0.2 / steps)
        ends.append(angle_deg(followed, turned(0.0)))
    assert 12 < ends[0] < 21
    assert ends[1] == pytest.approx(ends[0], abs=0.7)


def test_a_flip_of_the_bodys_points_hardly_turns_a_palm() -> None:
    palms = started(NONE)
    followed = palms.follow(turned(170.0), FOREARMS, REST, ALL, NONE, 1 / 30)
    assert 0 < angle_deg(followed, turned(0.0)) < 5


def test_knuckles_in_line_with_the_wrist_show_nothing() -> None:
    line = REST.copy()
    line[2] = line[0] + 0.9 * (line[1] - line[0])
    palms = started(NONE)
    for _ in range(30):
        followed = palms.follow(turned(60.0), FOREARMS, line, ALL, NONE, 1 / 30)
    assert angle_deg(followed, turned(0.0)) < 1


def test_a_hand_that_flashes_up_does_not_turn_a_palm_at_once() -> None:
    palms, largest, last = started(NONE), 0.0, turned(0.0)
    for frame in range(60):
        flash = frame % 6 == 0
        followed = palms.follow(turned(90.0 if flash else 0.0), FOREARMS, REST, ALL, ALL if flash else NONE, 1 / 30)
        largest, last = max(largest, angle_deg(last, followed)), followed
    assert largest < 25
    for _ in range(7):
        followed = palms.follow(turned(90.0), FOREARMS, REST, ALL, ALL, 1 / 30)
    np.testing.assert_allclose(followed, turned(90.0), atol=1e-9)


def test_a_palm_out_of_sight_goes_with_its_forearm_and_comes_back_as_it_is() -> None:
    palms = started(NONE)
    for _ in range(30):
        followed = palms.follow(turned(100.0), turned(20.0), REST, NONE, NONE, 1 / 30)
    np.testing.assert_allclose(followed, turned(20.0), atol=1e-9)
    back = palms.follow(turned(100.0), turned(20.0), REST, ALL, NONE, 1 / 30)
    np.testing.assert_allclose(back, turned(100.0), atol=1e-9)
