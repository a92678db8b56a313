"""MediaPipe's landmark models as functions of a picture: the only module that imports MediaPipe, and only when used.

Everything comes out in the conventions of types.Landmarks. Model files: see lhm_runtime.models.
"""

import io
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from lhm_runtime.errors import BackendError
from lhm_runtime.models import find_model
from lhm_runtime.motion.person_choice import Body

MOST_PEOPLE = 4
"""How many people ``find_people`` tells apart."""

_AXES = np.array([1, -1, -1], np.float32)  # MediaPipe's world points have y down and z away from the camera
_HOLISTIC_PARTS = {
    "pose_landmarker_full.task": ("pose_detector", "pose_landmarks_detector"),
    "face_landmarker.task": ("face_detector", "face_landmarks_detector", "face_blendshapes"),
    "hand_landmarker.task": ("hand_landmarks_detector",),
}
"""A .task file is a zip of networks, and Holistic's are those of the other three and a small one."""


@dataclass(frozen=True, slots=True, eq=False)
class Hand:
    """The 21 points of one hand."""

    world: Float32[np.ndarray, "21 3"]
    """As ``Landmarks.left_hand_world``."""
    image: Float32[np.ndarray, "21 2"]
    """Pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """The 478 points of one face."""

    points: Float32[np.ndarray, "478 3"]
    """Pixels, and a depth in the same scale, smaller nearer to the camera."""
    blendshapes: Float32[np.ndarray, " 52"] | None
    """As ``Landmarks.face_blendshapes``."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What models saw of one person; None where they saw nothing."""

    body: Body | None = None
    face: Face | None = None
    left_hand: Hand | None = None
    right_hand: Hand | None = None


class MediapipeModels:
    """The landmarkers, following what they saw before; ``close`` after use.

    Raises BackendError on construction when MediaPipe or a model file is missing or does not load, and when a closed
    one is used. MediaPipe's own failures come through as RuntimeError or ValueError: ``reopen`` after one.
    """

    def __init__(self, *, body: bool, webcam: bool, lite: bool = False) -> None:
        """Load them.

        Args:
            body: ``follow_all`` will be used.
            webcam: ``follow_body``, ``follow_face`` and ``follow_hands`` will be used.
            lite: of the pose models take the one that is cheaper by a quarter and a little less steady.
        """
        self._tasks = import_mediapipe()
        self._pose_model = "pose_landmarker_lite.task" if lite else "pose_landmarker_full.task"
        self._wants_body = body
        self._wants_webcam = webcam
        self._stack = ExitStack()
        self._landmarkers: dict[str, Any] = {}
        self._clock_ms = 0
        self.reopen()

    def reopen(self) -> None:
        """Forget everything seen: start with fresh graphs."""
        self.close()
        try:
            self._open()
        except (RuntimeError, ValueError, OSError) as error:
            self.close()
            if isinstance(error, BackendError):
                raise
            raise BackendError(f"MediaPipe does not load its models: {error}") from error

    def close(self) -> None:
        """Free the landmarkers; safe to call again."""
        self._landmarkers = {}
        self._stack.close()

    def advance(self, elapsed_ms: int) -> None:
        """Let time pass; MediaPipe's filters go by it."""
        self._clock_ms += elapsed_ms

    def find_people(self, picture: UInt8[np.ndarray, "h w 3"]) -> list[Body]:
        """Everyone in a picture, without regard to what was seen before."""
        found = self._landmarker("people").detect(self._image(picture))
        return [
            to_body(image, world, picture)
            for image, world in zip(found.pose_landmarks, found.pose_world_landmarks, strict=True)
        ]

    def follow_all(self, picture: UInt8[np.ndarray, "h w 3"]) -> Sight:
        """Body, face and hands of one person by Holistic."""
        found = self._run("holistic", picture)
        return Sight(
            body=to_body(found.pose_landmarks, found.pose_world_landmarks, picture) if found.pose_landmarks else None,
            face=to_face(found.face_landmarks, found.face_blendshapes, picture) if found.face_landmarks else None,
            left_hand=to_hand(found.left_hand_landmarks, found.left_hand_world_landmarks, picture),
            right_hand=to_hand(found.right_hand_landmarks, found.right_hand_world_landmarks, picture),
        )

    def follow_body(self, picture: UInt8[np.ndarray, "h w 3"]) -> Body | None:
        """The body of one person."""
        found = self._run("pose", picture)
        if not found.pose_landmarks:
            return None
        return to_body(found.pose_landmarks[0], found.pose_world_landmarks[0], picture)

    def follow_face(self, picture: UInt8[np.ndarray, "h w 3"]) -> Face | None:
        """One face that is not small."""
        found = self._run("face", picture)
        if not found.face_landmarks:
            return None
        return to_face(found.face_landmarks[0], found.face_blendshapes[0] if found.face_blendshapes else None, picture)

    def follow_hands(self, picture: UInt8[np.ndarray, "h w 3"]) -> list[Hand]:
        """Up to two hands, whosoever they are."""
        found = self._run("hands", picture)
        hands = (
            to_hand(image, world, picture)
            for image, world in zip(found.hand_landmarks, found.hand_world_landmarks, strict=True)
        )
        return [hand for hand in hands if hand is not None]

    def _landmarker(self, name: str) -> Any:
        if not self._landmarkers:
            raise BackendError("the tracker is closed; make a new one")
        return self._landmarkers[name]

    def _run(self, name: str, picture: np.ndarray) -> Any:
        self._clock_ms += 1  # each call must be later than the one before, also within one frame
        return self._landmarker(name).detect_for_video(self._image(picture), self._clock_ms)

    def _image(self, picture: np.ndarray) -> Any:
        return self._tasks.image(picture)

    def _open(self) -> None:
        vision, options = self._tasks.vision, self._tasks.base_options
        pose = options(find_model(self._pose_model).read_bytes())
        still, video = vision.RunningMode.IMAGE, vision.RunningMode.VIDEO
        opened: dict[str, Any] = {
            "people": (
                vision.PoseLandmarker,
                vision.PoseLandmarkerOptions(base_options=pose, running_mode=still, num_poses=MOST_PEOPLE),
            )
        }
        if self._wants_body:
            opened["holistic"] = (
                vision.HolisticLandmarker,
                vision.HolisticLandmarkerOptions(
                    base_options=options(_holistic_bundle()), running_mode=video, output_face_blendshapes=True
                ),
            )
        if self._wants_webcam:
            opened["pose"] = (
                vision.PoseLandmarker,
                vision.PoseLandmarkerOptions(base_options=pose, running_mode=video),
            )
            opened["face"] = (
                vision.FaceLandmarker,
                vision.FaceLandmarkerOptions(
                    base_options=options(find_model("face_landmarker.task").read_bytes()),
                    running_mode=video,
                    output_face_blendshapes=True,
                ),
            )
            opened["hands"] = (
                vision.HandLandmarker,
                vision.HandLandmarkerOptions(
                    base_options=options(find_model("hand_landmarker.task").read_bytes()),
                    running_mode=video,
                    num_hands=2,
                ),
            )
        for name, (kind, settings) in opened.items():
            # never left to garbage collection, which at exit fails inside MediaPipe
            self._landmarkers[name] = self._stack.enter_context(closing(kind.create_from_options(settings)))


@dataclass(frozen=True, slots=True, eq=False)
class _Tasks:
    """The parts of MediaPipe in use."""

    vision: Any
    image: Any
    base_options: Any


def import_mediapipe() -> _Tasks:
    """The parts of MediaPipe that are used; raises BackendError saying what to install where it cannot be loaded."""
    try:
        import mediapipe as mp  # noqa: PLC0415 - a second or two, and not everyone's need
        from mediapipe.tasks.python import BaseOptions, vision  # noqa: PLC0415
    except (ImportError, OSError) as error:
        raise BackendError(
            f"MediaPipe, which sees people in pictures, does not load: {error}. Install it with "
            "pip install mediapipe==0.10.33; on Debian and Ubuntu it also needs "
            "apt-get install libegl1 libgles2 libgl1 libglib2.0-0"
        ) from error
    return _Tasks(
        vision=vision,
        image=lambda picture: mp.Image(image_format=mp.ImageFormat.SRGB, data=picture),
        base_options=lambda data: BaseOptions(model_asset_buffer=data),
    )


def _holistic_bundle() -> bytes:
    bundle = io.BytesIO()
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED) as holistic:
        for name, parts in _HOLISTIC_PARTS.items():
            with zipfile.ZipFile(find_model(name)) as task:
                for part in parts:
                    holistic.writestr(f"{part}.tflite", task.read(f"{part}.tflite"))
        holistic.write(find_model("hand_roi_refinement.tflite"), "hand_roi_refinement.tflite")
    return bundle.getvalue()


def to_body(image: Sequence[Any], world: Sequence[Any], picture: np.ndarray) -> Body:
    """One person's pose landmarks as MediaPipe gives them, in our axes and pixels of ``picture``."""
    points = _image_points(image, picture)[:, :2]
    sure = np.array([min(point.visibility or 0.0, point.presence or 0.0) for point in image], np.float32)
    inside = ((points >= 0) & (points <= [picture.shape[1], picture.shape[0]])).all(1)
    return Body(_world_points(world), points, np.where(inside, sure, 0).astype(np.float32))


def to_hand(image: Sequence[Any], world: Sequence[Any], picture: np.ndarray) -> Hand | None:
    """One hand's landmarks as MediaPipe gives them; None for an empty list."""
    return Hand(_world_points(world), _image_points(image, picture)[:, :2]) if image else None


def to_face(points: Sequence[Any], blendshapes: Sequence[Any] | None, picture: np.ndarray) -> Face:
    """One face's landmarks and scores as MediaPipe gives them."""
    scores = np.array([category.score for category in blendshapes], np.float32) if blendshapes else None
    return Face(_image_points(points, picture), scores)


def _image_points(points: Sequence[Any], picture: np.ndarray) -> Float32[np.ndarray, "n 3"]:
    """Fractions of the picture to pixels; depth comes in the scale of x."""
    height, width = picture.shape[:2]
    return np.array([(point.x, point.y, point.z) for point in points], np.float32) * np.array(
        [width, height, width], np.float32
    )


def _world_points(points: Sequence[Any]) -> Float32[np.ndarray, "n 3"]:
    return np.array([(point.x, point.y, point.z) for point in points], np.float32) * _AXES
