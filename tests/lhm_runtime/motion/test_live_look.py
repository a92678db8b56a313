import numpy as np
import pytest
from people import picture_of_person, waving

from lhm_runtime.motion.landmark_points import WRISTS
from lhm_runtime.motion.live_look import BUDGET_S, RAREST, LiveLook
from lhm_runtime.motion.mediapipe_models import Face, Hand, MediapipeModels, Sight
from lhm_runtime.motion.person_choice import Body
from lhm_runtime.motion.tracker import LIVE_SIDE, Tracker, long_side, shrink
from lhm_runtime.types import Landmarks

pytest.importorskip("mediapipe", reason="MediaPipe is not installed")


class TimedModels(MediapipeModels):
    """The real models on a clock that goes by what each look is said to cost."""

    def __init__(self, body_s: float, face_s: float, hands_s: float) -> None:
        super().__init__(body=False, webcam=True, lite=True)
        self.now_s = 0.0
        self._cost = {"body": body_s, "face": face_s, "hands": hands_s}
        self.looks: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def follow_body(self, picture: np.ndarray) -> Body | None:
        self._look("body")
        return super().follow_body(picture)

    def follow_face(self, picture: np.ndarray) -> Face | None:
        self._look("face")
        return super().follow_face(picture)

    def follow_hands(self, picture: np.ndarray) -> list[Hand]:
        self._look("hands")
        return super().follow_hands(picture)

    def _look(self, part: str) -> None:
        self.looks.append(part)
        self.now_s += self._cost[part]

    def seen(self, pictures: list[np.ndarray]) -> list[Sight]:
        live, sights = LiveLook(self, self.clock), []
        for picture in pictures:
            self.advance(33)
            sights.append(live.look(picture))
        return sights


def waves(count: int) -> list[np.ndarray]:
    return [picture_of_person(i % 60) for i in range(count)]


def looks(body_s: float, face_s: float, hands_s: float, frames: int = 24) -> tuple[list[Sight], dict[str, int], float]:
    models = TimedModels(body_s, face_s, hands_s)
    sights = models.seen(waves(frames))
    models.close()
    return sights, {part: models.looks.count(part) for part in ("body", "face", "hands")}, models.now_s


def test_a_quick_machine_sees_the_face_in_every_frame() -> None:
    sights, count, _ = looks(0.004, 0.003, 0.003)
    assert count["body"] == 24
    assert count["face"] >= 23
    assert all(sight.face is not None for sight in sights)


def test_a_slow_machine_keeps_to_the_budget_and_still_sees_everything() -> None:
    sights, count, spent_s = looks(0.016, 0.011, 0.010)
    assert count["body"] == 24
    assert 24 / RAREST <= count["face"] < 20
    assert spent_s / 24 < 1.2 * BUDGET_S
    assert all(sight.face is not None for sight in sights)  # carried along in between


def test_an_overloaded_machine_gives_each_part_its_turn() -> None:
    _, count, _ = looks(0.060, 0.040, 0.040)
    assert count["body"] == 24
    assert 24 // RAREST <= count["face"] <= 24 // RAREST + 1
    assert count["hands"] >= 1


def test_what_is_carried_along_moves_with_the_body() -> None:
    picture = picture_of_person(0)
    moved = np.roll(picture, 6, axis=1)
    models = TimedModels(1.0, 1.0, 1.0)  # after the first frame nothing but the body
    first, second = models.seen([picture, moved])
    models.close()
    assert models.looks.count("face") == 1
    shift = second.face.points[:, :2] - first.face.points[:, :2]
    np.testing.assert_allclose(shift.mean(0), second.body.image[:9].mean(0) - first.body.image[:9].mean(0), atol=1.5)
    np.testing.assert_array_equal(second.face.blendshapes, first.face.blendshapes)


def test_nobody_is_nobody_and_leaves_nothing_behind() -> None:
    blank = np.full((640, 360, 3), 205, np.uint8)
    models = TimedModels(0.001, 0.001, 0.001)
    *_, gone = models.seen([*waves(3), *[blank] * 12])
    models.close()
    assert gone.body is gone.face is gone.left_hand is gone.right_hand is None


def test_it_sees_what_the_other_models_see() -> None:
    """The live tracker against the one for recordings, on a person whose hands go up."""
    times = waving().timestamps_s
    frames = range(0, 60, 2)
    found: dict[str, list[Landmarks]] = {}
    for mode in ("body", "live"):
        with Tracker(mode) as tracker:
            found[mode] = [tracker.track(picture_of_person(i), times[i].item()) for i in frames]
    apart = [
        np.linalg.norm(one.body_image - two.body_image, axis=1).mean()
        for one, two in zip(found["body"], found["live"], strict=True)
    ]
    assert np.median(apart) < 8  # pixels of a picture 640 high
    faces = [
        np.linalg.norm(one.face_image - two.face_image, axis=1).mean()
        for one, two in zip(found["body"], found["live"], strict=True)
        if one.face_image is not None and two.face_image is not None
    ]
    assert len(faces) > 20
    assert np.median(faces) < 5
    for landmarks in found["live"]:
        for wrist, hand in zip(WRISTS, (landmarks.left_hand_image, landmarks.right_hand_image), strict=True):
            if hand is not None:
                assert np.linalg.norm(hand[0] - landmarks.body_image[wrist]) < 40
    assert sum(landmarks.right_hand_world is not None for landmarks in found["live"]) >= 5


def test_live_frames_are_made_small() -> None:
    assert long_side("live") == LIVE_SIDE < long_side("auto")
    frame = np.zeros((720, 1280, 3), np.uint8)
    assert shrink(frame, LIVE_SIDE).shape == (360, 640, 3)
    with Tracker("live") as tracker:
        assert tracker.track(frame, 0.0).image_size == (1280, 720)
