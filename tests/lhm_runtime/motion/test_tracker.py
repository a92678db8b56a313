from pathlib import Path

import numpy as np
import pytest
from people import picture_of_person, waving
from PIL import Image

from lhm_runtime import models
from lhm_runtime.body.rotations import matrix_to_rotvec
from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.motion.landmark_points import BLENDSHAPE_NAMES, WRISTS
from lhm_runtime.motion.tracker import LONG_SIDE, Tracker, check_frame, resize_landmarks, shrink
from lhm_runtime.types import Landmarks
from streaming.video_input import VideoInput

pytest.importorskip("mediapipe", reason="MediaPipe is not installed")

VIDEOS = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "video"


@pytest.fixture(scope="module")
def wave_seen() -> list[Landmarks]:
    with Tracker() as tracker:
        return [tracker.track(picture_of_person(i), waving().timestamps_s[i].item()) for i in range(0, 60, 5)]


def side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.concatenate([left, right], axis=1))


def test_a_person_is_seen_whole_in_every_frame(wave_seen: list[Landmarks]) -> None:
    for landmarks in wave_seen:
        assert landmarks.image_size == (360, 640)
        for name in ("body_world", "body_image", "face_image", "face_blendshapes", "T_camera_face"):
            assert getattr(landmarks, name) is not None, name
        assert landmarks.body_visibility.min() > 0.5
    assert [landmarks.timestamp_s for landmarks in wave_seen] == waving().timestamps_s[:60:5].tolist()
    assert sum(landmarks.right_hand_world is not None for landmarks in wave_seen) >= 6


def test_axes_are_ours(wave_seen: list[Landmarks]) -> None:
    seen = wave_seen[0]  # facing the camera, arms down
    nose, left_shoulder, right_shoulder, left_hip, left_ankle = seen.body_world[[0, 11, 12, 23, 27]]
    assert left_shoulder[0] > 0.1  # the person's left is +x
    assert right_shoulder[0] < -0.1
    assert nose[1] > left_shoulder[1] > left_hip[1] > left_ankle[1]  # y up
    assert nose[2] > left_shoulder[2] + 0.05  # z towards the camera
    assert 1.2 < nose[1] - left_ankle[1] < 1.8  # metres
    x, y = seen.body_image[11]
    assert 180 < x < 360  # pixels, y down
    assert seen.body_image[0, 1] < y < seen.body_image[27, 1] < 640
    face = seen.T_camera_face
    assert face[2, 3] < -30  # centimetres, in front of the camera
    assert np.degrees(np.linalg.norm(matrix_to_rotvec(face[:3, :3].astype(np.float64)))) < 20


def test_hands_are_the_persons_own(wave_seen: list[Landmarks]) -> None:
    for seen in wave_seen:
        for wrist, hand in zip(WRISTS, (seen.left_hand_image, seen.right_hand_image), strict=True):
            if hand is not None:
                assert np.linalg.norm(hand[0] - seen.body_image[wrist]) < 25


def test_a_mirrored_camera_tells_the_same() -> None:
    frame = picture_of_person(20)
    with Tracker("body") as tracker, Tracker("body", mirror=True) as mirrored:
        straight = tracker.track(frame, 0.0)
        flipped = mirrored.track(frame[:, ::-1], 0.0)
    for name in ("body_world", "body_image", "face_image", "T_camera_face"):
        np.testing.assert_array_equal(getattr(flipped, name), getattr(straight, name), name)


def test_close_to_the_camera_each_set_of_models_sees_the_face_alike() -> None:
    frame = picture_of_person(0, "head", 640, 480)
    found = []
    for mode in ("body", "webcam", "auto"):
        with Tracker(mode) as tracker:
            found.append([tracker.track(frame, 0.1 * i) for i in range(3)][-1])
    body, webcam, auto = found
    np.testing.assert_array_equal(auto.face_image, webcam.face_image)  # auto takes the webcam's
    assert np.linalg.norm(body.face_image - webcam.face_image, axis=1).mean() < 6
    turn = matrix_to_rotvec((body.T_camera_face[:3, :3].T @ webcam.T_camera_face[:3, :3]).astype(np.float64))
    assert np.degrees(np.linalg.norm(turn)) < 5
    assert webcam.face_blendshapes.shape == (52,)
    assert webcam.body_visibility[25:].max() < 0.5  # no legs in view


def test_a_real_face_smiles() -> None:
    portrait = np.asarray(Image.open(Path(models.__file__).parent / "assets" / "demo_portrait.png").convert("RGB"))
    with Tracker() as tracker:
        seen = [tracker.track(portrait, 0.1 * i) for i in range(2)][-1]
    assert seen.body_world is not None
    scores = dict(zip(BLENDSHAPE_NAMES, seen.face_blendshapes.tolist(), strict=True))
    assert min(scores["mouthSmileLeft"], scores["mouthSmileRight"]) > 0.5
    assert scores["jawOpen"] < 0.3


def test_of_two_people_the_larger_one_is_kept() -> None:
    large = picture_of_person(0)
    canvas = np.full_like(large, 205)
    small = np.asarray(Image.fromarray(large).resize((252, 448)))
    canvas[150:598, 54:306] = small
    with Tracker() as tracker:
        for i, pair in enumerate([(canvas, large)] * 3 + [(canvas, canvas)] * 2):
            seen = tracker.track(side_by_side(*pair), i / 15)
            assert seen.body_image[0, 0] > 360, i  # also after the larger one has shrunk
    with Tracker() as tracker:
        for i in range(3):
            assert tracker.track(side_by_side(large, canvas), i / 15).body_image[0, 0] < 360


def test_one_who_leaves_is_followed_by_the_other() -> None:
    person = picture_of_person(0)
    empty = np.full_like(person, 205)
    with Tracker() as tracker:
        assert tracker.track(side_by_side(person, empty), 0.0).body_image[0, 0] < 360
        assert tracker.track(side_by_side(empty, person), 0.1).body_image[0, 0] > 360
        assert tracker.track(side_by_side(empty, empty), 0.2).body_world is None
        assert tracker.track(side_by_side(person, empty), 5.0).body_image[0, 0] < 360


def test_times_may_repeat_run_backwards_and_jump() -> None:
    frame = picture_of_person(0)
    with Tracker("body") as tracker:
        for timestamp_s in (5.0, 5.0, 4.0, -1e9, 1e12, 1e12, 0.0):
            seen = tracker.track(frame, timestamp_s)
            assert seen.timestamp_s == timestamp_s
            assert seen.body_world is not None


@pytest.mark.parametrize("mode", ["body", "webcam", "live"])
def test_any_size_in_any_order(mode: str) -> None:
    person = Image.fromarray(picture_of_person(0))
    sizes = [(16, 16), (360, 640), (17, 300), (300, 16), (2160, 3840), (360, 640), (101, 33)]
    with Tracker(mode) as tracker:
        for i, size in enumerate(sizes):
            seen = tracker.track(np.asarray(person.resize(size)), i / 15)
            assert seen.image_size == size
            if min(size) >= 360:
                assert 0.4 < seen.body_image[0, 0] / size[0] < 0.6
                assert 0.05 < seen.body_image[0, 1] / size[1] < 0.3


def test_noise_is_nobody() -> None:
    random = np.random.default_rng(0)
    with Tracker() as tracker:
        for i in range(3):
            seen = tracker.track(random.integers(0, 256, (240, 320, 3), np.uint8), i / 15)
            assert seen.body_world is None
            assert seen.face_image is None


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((48, 64, 3), np.float32), r"frame is float32 \(48, 64, 3\)"),
        (np.zeros((48, 64), np.uint8), "expected an RGB picture"),
        (np.zeros((48, 64, 4), np.uint8), r"\(48, 64, 4\)"),
        (np.zeros((15, 64, 3), np.uint8), "64x15, expected sides of 16 to 8192"),
        (np.zeros((16, 8193, 3), np.uint8), "8193x16"),
        (np.zeros((0, 0, 3), np.uint8), "0x0"),
    ],
)
def test_what_is_no_frame_is_refused(frame: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_frame(frame, 0.0)


def test_bad_times_modes_and_closed_trackers() -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises((InvalidInputError, TypeError), match="mode"):  # the latter from the type checker of the tests
        Tracker("face")
    with Tracker("webcam") as tracker:
        with pytest.raises(InvalidInputError, match="timestamp_s is nan"):
            tracker.track(frame, float("nan"))
        tracker.track(frame, 0.0)
    with pytest.raises(BackendError, match="closed"):
        tracker.track(frame, 1.0)
    tracker.close()


def test_a_missing_model_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lhm_runtime.models._ASSETS", tmp_path)
    with pytest.raises(BackendError, match=r"pose_landmarker_full\.task is not on this machine"):
        Tracker()


def test_shrink_keeps_small_frames_and_shapes() -> None:
    small = np.zeros((720, 1280, 3), np.uint8)
    assert shrink(small) is small
    assert shrink(np.zeros((3840, 2160, 3), np.uint8)).shape == (LONG_SIDE, 720, 3)
    assert shrink(np.zeros((16, 8192, 3), np.uint8)).shape == (2, LONG_SIDE, 3)


def test_resized_landmarks_scale_in_the_picture_only(wave_seen: list[Landmarks]) -> None:
    seen = wave_seen[0]
    double = resize_landmarks(seen, (720, 640))
    np.testing.assert_allclose(double.body_image, seen.body_image * [2, 1])
    np.testing.assert_allclose(double.face_image, seen.face_image * [2, 1])
    assert double.body_world is seen.body_world
    assert resize_landmarks(seen, seen.image_size) is seen


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "first", "least_faces"), [("fullbody_30fps.mp4", 150, 0.6), ("webcam_30fps.mp4", 60, 0.6)]
)
def test_real_video_loses_no_frame(name: str, first: int, least_faces: float) -> None:
    if not VIDEOS.is_dir():
        pytest.skip("the real videos are not here: ../shared/data/video")
    with Tracker() as tracker, VideoInput(str(VIDEOS / name)) as video:
        seen = [tracker.track(frame.rgb, frame.timestamp_s) for frame in video if first <= frame.index < first + 40]
    assert all(landmarks.body_world is not None for landmarks in seen)
    assert np.mean([landmarks.face_image is not None for landmarks in seen]) > least_faces
