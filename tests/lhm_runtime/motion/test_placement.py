import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.motion.ideal_landmarks import IdealTracker
from lhm_runtime.motion.placement import Placement
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.types import Camera, Landmarks

REST = BodyModel.default().rest_joints()
PLACE = np.array([0.4, 0.2, -2.7])
SEEN = np.ones(33)


def camera(size: tuple[int, int], fov_y_deg: float | None) -> Camera:
    return Placement(REST, fov_y_deg=fov_y_deg, person_height_m=None).camera(size)


def see(size: tuple[int, int], fov_y_deg: float | None) -> tuple[np.ndarray, Landmarks]:
    """A pose without its translation, and what a camera sees of it at PLACE."""
    pose = relaxed_pose()
    placed = type(pose)(pose.rotvec, PLACE.astype(np.float32), pose.expression, 0.0)
    return pose.rotvec.astype(np.float64), IdealTracker(REST, camera(size, fov_y_deg)).see(placed)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1920, 1080)])
@pytest.mark.parametrize("fov_y_deg", [None, 30.0, 70.0])
def test_a_place_is_found_exactly(size: tuple[int, int], fov_y_deg: float | None) -> None:
    rotvec, landmarks = see(size, fov_y_deg)
    placement = Placement(REST, fov_y_deg=fov_y_deg, person_height_m=None)
    np.testing.assert_allclose(placement.place(rotvec, landmarks, SEEN), PLACE, atol=1e-3)


def test_a_wild_point_has_little_say() -> None:
    rotvec, landmarks = see((640, 480), 50.0)
    assert landmarks.body_image is not None
    landmarks.body_image[15] = [5, 470]
    placement = Placement(REST, fov_y_deg=50.0, person_height_m=None)
    np.testing.assert_allclose(placement.place(rotvec, landmarks, SEEN), PLACE, atol=0.12)


@pytest.mark.parametrize("points", [[], [11], [11, 12]])
def test_too_few_points_fix_no_place(points: list[int]) -> None:
    rotvec, landmarks = see((640, 480), 50.0)
    seen = np.zeros(33)
    seen[points] = 1
    placement = Placement(REST, fov_y_deg=50.0, person_height_m=None)
    assert placement.place(rotvec, landmarks, seen) is None


def test_points_that_coincide_fix_no_place() -> None:
    rotvec, landmarks = see((640, 480), 50.0)
    assert landmarks.body_image is not None
    landmarks.body_image[:] = 100
    assert Placement(REST, fov_y_deg=50.0, person_height_m=None).place(rotvec, landmarks, SEEN) is None


def test_lifting_corrects_what_the_picture_contradicts() -> None:
    _, landmarks = see((640, 480), 50.0)
    assert landmarks.body_world is not None
    assert landmarks.body_image is not None
    truth = landmarks.body_world.astype(np.float64)
    wrong = truth.copy()
    wrong[16] += [0.06, -0.05, 0]
    lifted = Placement(REST, fov_y_deg=50.0, person_height_m=None).lift(wrong, landmarks.body_image, SEEN, (640, 480))
    np.testing.assert_allclose(lifted[16] - lifted[14], truth[16] - truth[14], atol=0.01)
    unseen = SEEN.copy()
    unseen[16] = 0
    kept = Placement(REST, fov_y_deg=50.0, person_height_m=None).lift(wrong, landmarks.body_image, unseen, (640, 480))
    np.testing.assert_allclose(kept[16] - kept[14], wrong[16] - wrong[14], atol=0.01)
