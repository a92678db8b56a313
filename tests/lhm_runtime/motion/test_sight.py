import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.motion.ideal_landmarks import IdealTracker
from lhm_runtime.motion.landmark_points import body_points_at_rest
from lhm_runtime.motion.placement import Placement
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.sight import Sight, look
from lhm_runtime.types import Landmarks

REST = BodyModel.default().rest_joints()
POINTS = body_points_at_rest(REST)
PLACEMENT = Placement(REST, fov_y_deg=None, person_height_m=None)
WORLD = IdealTracker(REST).see(relaxed_pose()).body_world
SHOULDER = 11


def see(visibility: float, seen_before: np.ndarray, *, y: float = 0.5) -> Sight:
    """One shoulder of this visibility, at ``y`` picture heights from the top."""
    image, seen = np.full((33, 2), 50, np.float32), np.ones(33, np.float32)
    image[SHOULDER, 1], seen[SHOULDER] = 100 * y, visibility
    landmarks = Landmarks(0.0, (100, 100), body_world=WORLD, body_image=image, body_visibility=seen)
    return look(landmarks, POINTS, PLACEMENT, seen_before)


@pytest.mark.parametrize(("visibility", "seen"), [(0.9, 1), (0.65, 1), (0.35, 0), (0.0, 0), (np.nan, 0)])
def test_what_was_not_in_sight_must_be_quite_visible(visibility: float, seen: float) -> None:
    assert see(visibility, np.zeros(33)).seen[SHOULDER] == pytest.approx(seen, abs=1e-6)


@pytest.mark.parametrize(("visibility", "seen"), [(0.9, 1), (0.31, 1), (0.1, 0), (0.0, 0)])
def test_what_was_in_sight_stays_until_it_is_hardly_visible(visibility: float, seen: float) -> None:
    assert see(visibility, np.ones(33)).seen[SHOULDER] == pytest.approx(seen, abs=1e-6)


def test_visibility_that_wavers_changes_nothing() -> None:
    seen = np.zeros(33)
    history = []
    for visibility in (0.7, 0.4, 0.6, 0.35, 0.5, 0.32):
        seen = see(visibility, seen).seen
        history.append(seen[SHOULDER])
    np.testing.assert_array_equal(history, 1)


@pytest.mark.parametrize(("y", "seen"), [(1.0, 1), (1.05, 1), (1.15, 0), (1.3, 0), (-0.05, 1), (-0.2, 0)])
def test_points_a_little_outside_the_picture_count(y: float, seen: float) -> None:
    assert see(1.0, np.zeros(33), y=y).seen[SHOULDER] == pytest.approx(seen, abs=1e-6)


def test_points_fade_on_their_way_out() -> None:
    fading = [see(1.0, np.zeros(33), y=y).seen[SHOULDER] for y in np.arange(1.0, 1.2, 0.01).tolist()]
    assert (np.diff(fading) <= 0).all()
    assert np.abs(np.diff(fading)).max() < 0.4


def test_nothing_is_at_rest_and_unseen() -> None:
    sight = look(Landmarks(0.0, (100, 100)), POINTS, PLACEMENT, np.ones(33))
    np.testing.assert_array_equal(sight.points, POINTS)
    assert not sight.seen.any()
    assert not sight.hands.any()
    assert sight.face is None
