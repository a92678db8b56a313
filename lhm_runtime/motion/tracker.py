"""A video frame becomes Landmarks of one person.

Two sets of models see the same points, each its own way. Holistic cuts face and hands out of the picture where the
body's pose says they are: for bodies from afar. Pose, face and hand landmarker look at the whole picture: for heads
and shoulders close to the camera, where they find more profiles and leave out the hands that are not shown. Neither
keeps up with a live camera on a small machine; for that there is a third way, LiveLook.
"""

from dataclasses import replace
from types import TracebackType
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lhm_runtime.errors import BackendError, InvalidInputError, LhmLiveError
from lhm_runtime.motion.face_geometry import fit_face
from lhm_runtime.motion.live_look import LiveLook
from lhm_runtime.motion.mediapipe_models import MediapipeModels, Sight
from lhm_runtime.motion.person_choice import (
    Body,
    View,
    choose_person,
    hide_others,
    is_same_person,
    owns_face,
    shows_wrists,
    sort_hands,
    view_of,
)
from lhm_runtime.types import MAX_IMAGE_SIDE, Landmarks

Mode = Literal["auto", "body", "webcam", "live"]
"""``auto`` goes by what is in view, ``body`` and ``webcam`` are for callers who know; ``live`` is for keeping up with a
camera: half the cost, face and hands seen less often."""

MIN_FRAME_SIDE = 16
"""Smallest width or height of a frame, pixels."""
LONG_SIDE = 1280
"""Larger frames are shrunk to this; the models look at crops of 192 to 256 pixels anyway."""
LIVE_SIDE = 640
"""The same for ``live``."""

_FORGET_AFTER_S = 2.0  # then the largest person is taken, no longer the nearest to the one who was lost
_SETTLE_AFTER_S = 0.5  # how long a view must last before the models change
_LONGEST_STEP_S = 1.0  # what a gap counts for: clocks may jump, and MediaPipe's are finite
_LOOKS = 2  # a model that has lost its person finds them again at the second look


class Tracker:
    """Follows one person from frame to frame; ``close`` it, or use it in a ``with`` block. For one thread.

    Of several people the largest is taken, and afterwards whoever is nearest to where the person was last.
    """

    def __init__(self, mode: Mode = "auto", *, mirror: bool = False) -> None:
        """Load the models (about a second), so that the first frame takes little longer than the others.

        Args:
            mode: which models to use.
            mirror: frames come from a mirrored camera, as of a self-view: flip them first. Without it frames must
                show people as others see them, or left and right are exchanged.

        Raises:
            InvalidInputError: an unknown mode.
            BackendError: MediaPipe or a model file is missing or does not load.
        """
        if mode not in get_args(Mode):
            raise InvalidInputError(f"mode is {mode!r}, expected {', '.join(get_args(Mode))}")
        self._mode = mode
        self._mirror = mirror
        self._models = MediapipeModels(body=mode in {"auto", "body"}, webcam=mode != "body", lite=mode == "live")
        self._live = LiveLook(self._models) if mode == "live" else None
        self._shape: tuple[int, ...] | None = None
        self._person: Body | None = None
        self._view: View | None = mode if mode in {"body", "webcam"} else None
        self._last_s: float | None = None
        self._now_s = 0.0  # sum of the steps: never runs backwards
        self._person_s = 0.0
        self._view_s = 0.0

    def track(self, frame: UInt8[np.ndarray, "h w 3"], timestamp_s: float) -> Landmarks:
        """See one frame.

        Args:
            frame: RGB, each side from MIN_FRAME_SIDE to types.MAX_IMAGE_SIDE; it is not changed.
            timestamp_s: capture time, which the result carries; those that repeat or run backwards count as 1 ms more.

        Returns:
            what was seen, all None when nobody was. Image points are pixels of ``frame`` at its full size, flipped
            where ``mirror`` was asked for. T_camera_face is fitted to the face points, whichever models found them.

        Raises:
            InvalidInputError: another shape, dtype or size, or a time that is not finite.
            BackendError: MediaPipe failed on this frame (later ones may work), or the tracker is closed.
        """
        check_frame(frame, timestamp_s)
        picture = shrink(frame, long_side(self._mode))
        if self._mirror:
            picture = np.ascontiguousarray(picture[:, ::-1])
        self._advance(timestamp_s)
        try:
            if self._shape not in {None, picture.shape}:
                self._reopen()  # Holistic fails when the size changes
            self._shape = picture.shape
            landmarks = self._follow(picture, timestamp_s)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, LhmLiveError):
                raise
            self._reopen()  # a graph that has failed once fails for ever
            raise BackendError(f"MediaPipe failed on a frame of {frame.shape[1]}x{frame.shape[0]}: {error}") from error
        return resize_landmarks(landmarks, (frame.shape[1], frame.shape[0]))

    def close(self) -> None:
        """Free the models; safe to call again."""
        self._models.close()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reopen(self) -> None:
        self._models.reopen()
        if self._live is not None:
            self._live = LiveLook(self._models)

    def _advance(self, timestamp_s: float) -> None:
        step_s = 0.0 if self._last_s is None else min(max(timestamp_s - self._last_s, 0.0), _LONGEST_STEP_S)
        self._last_s = timestamp_s
        self._now_s += step_s
        self._models.advance(round(1000 * step_s))

    def _follow(self, picture: np.ndarray, timestamp_s: float) -> Landmarks:
        sight = self._look(picture) if self._person is not None else Sight()
        if sight.body is None or (self._person is not None and not is_same_person(sight.body, self._person)):
            sight = self._find(picture, sight)
        if sight.body is not None:
            self._person, self._person_s = sight.body, self._now_s
            self._settle_view(sight.body, picture)
        elif self._now_s - self._person_s > _FORGET_AFTER_S:
            self._person = None
        return _landmarks(sight, picture, timestamp_s)

    def _find(self, picture: np.ndarray, sight: Sight) -> Sight:
        """Look for the person after they, or the models, have moved away from where they were."""
        people = self._models.find_people(picture)
        chosen = choose_person(people, self._person)
        if chosen is None:
            if sight.body is not None or self._mode == "body":
                return sight
            return Sight(face=self._models.follow_face(picture))  # may fill the picture
        if sight.body is not None and is_same_person(sight.body, chosen):
            return sight
        if self._mode == "auto" and self._person is None:
            self._view = view_of(chosen, _size(picture), self._view)
        attention = picture if len(people) == 1 else hide_others(picture, chosen)
        for _ in range(_LOOKS):
            sight = self._look(attention)
            if sight.body is not None and is_same_person(sight.body, chosen):
                return sight
        return Sight(body=chosen)

    def _look(self, picture: np.ndarray) -> Sight:
        if self._live is not None:
            return self._live.look(picture)
        if self._view == "body":
            return self._models.follow_all(picture)
        body = self._models.follow_body(picture)
        if body is None:
            return Sight()
        face = self._models.follow_face(picture)
        if face is not None and not owns_face(body, face.points[:, :2]):
            face = self._models.follow_face(hide_others(picture, body))
            if face is not None and not owns_face(body, face.points[:, :2]):
                face = None
        hands = self._models.follow_hands(picture) if shows_wrists(body) else []
        left, right = sort_hands(body, [hand.image for hand in hands])
        return Sight(
            body=body,
            face=face,
            left_hand=None if left is None else hands[left],
            right_hand=None if right is None else hands[right],
        )

    def _settle_view(self, body: Body, picture: np.ndarray) -> None:
        """Change the models once another view has lasted for a while."""
        if self._mode != "auto" or view_of(body, _size(picture), self._view) == self._view:
            self._view_s = self._now_s
        elif self._now_s - self._view_s > _SETTLE_AFTER_S:
            self._view, self._view_s = view_of(body, _size(picture), self._view), self._now_s


def check_frame(frame: np.ndarray, timestamp_s: float) -> None:
    """Raise InvalidInputError unless a Tracker takes this frame and time."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InvalidInputError(f"frame is {found}, expected an RGB picture: uint8 (height, width, 3)")
    if not MIN_FRAME_SIDE <= min(frame.shape[:2]) <= max(frame.shape[:2]) <= MAX_IMAGE_SIDE:
        raise InvalidInputError(
            f"frame is {frame.shape[1]}x{frame.shape[0]}, expected sides of {MIN_FRAME_SIDE} to {MAX_IMAGE_SIDE} pixels"
        )
    if not np.isfinite(timestamp_s):
        raise InvalidInputError(f"timestamp_s is {timestamp_s}, expected a finite number of seconds")


def long_side(mode: Mode) -> int:
    """What a Tracker in ``mode`` shrinks its frames to, pixels."""
    return LIVE_SIDE if mode == "live" else LONG_SIDE


def shrink(frame: UInt8[np.ndarray, "h w 3"], side: int = LONG_SIDE) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The frame, C-contiguous, with a long side of at most ``side`` pixels."""
    height, width = frame.shape[:2]
    if max(height, width) <= side:
        return np.ascontiguousarray(frame)
    scale = side / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def resize_landmarks(landmarks: Landmarks, size: tuple[int, int]) -> Landmarks:
    """The same landmarks on the same picture at another size (width, height)."""
    if landmarks.image_size == size:
        return landmarks
    scale = np.array([size[0] / landmarks.image_size[0], size[1] / landmarks.image_size[1]], np.float32)

    def scaled(points: np.ndarray | None) -> np.ndarray | None:
        return None if points is None else points * scale

    return replace(
        landmarks,
        image_size=size,
        body_image=scaled(landmarks.body_image),
        left_hand_image=scaled(landmarks.left_hand_image),
        right_hand_image=scaled(landmarks.right_hand_image),
        face_image=scaled(landmarks.face_image),
    )


def _landmarks(sight: Sight, picture: np.ndarray, timestamp_s: float) -> Landmarks:
    body, face, left, right = sight.body, sight.face, sight.left_hand, sight.right_hand
    size = _size(picture)
    return Landmarks(
        timestamp_s=timestamp_s,
        image_size=size,
        body_world=body.world if body else None,
        body_image=body.image if body else None,
        body_visibility=body.visibility if body else None,
        left_hand_world=left.world if left else None,
        left_hand_image=left.image if left else None,
        right_hand_world=right.world if right else None,
        right_hand_image=right.image if right else None,
        face_image=np.ascontiguousarray(face.points[:, :2]) if face else None,
        face_blendshapes=face.blendshapes if face else None,
        T_camera_face=fit_face(face.points, *size) if face else None,
    )


def _size(picture: np.ndarray) -> tuple[int, int]:
    return picture.shape[1], picture.shape[0]
