"""A video frame becomes Landmarks of one person, by MediaPipe's models (Apache-2.0, bundled).

Two sets of models see the same things at different costs and sizes. Holistic crops face and hands out of the picture
where the body's pose says they are: for bodies from afar. Pose, face and hand landmarker look at the whole picture:
for heads and shoulders close to the camera, where they find more profiles and skip the hands that are not shown.
"""

from contextlib import ExitStack
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.motion.person_choice import (
    Body,
    View,
)
from lhm_runtime.types import Landmarks

Mode = Literal["auto", "body", "webcam"]
"""``auto`` goes by what is in view; the others are for callers who know."""

MIN_FRAME_SIDE = 16
"""Smallest width or height of a frame, pixels."""
LONG_SIDE = 1280
"""Larger frames are shrunk to this: the models look at crops of 192 to 256 pixels, a face of a full body at less."""

_MOST_PEOPLE = 4
_FORGET_AFTER_S = 2.0  # then the largest person is taken, no longer the nearest to the one who was lost
_VIEW_AFTER_MS = 500  # how long a view must last before the models change
_MAX_STEP_MS = 1000
_AXES = np.array([1, -1, -1], np.float32)  # MediaPipe's world points have y down, z away from the camera
_HOLISTIC_PARTS = {
    "pose_landmarker_full.task": ("pose_detector", "pose_landmarks_detector"),
    "face_landmarker.task": ("face_detector", "face_landmarks_detector", "face_blendshapes"),
    "hand_landmarker.task": ("hand_landmarks_detector",),
}


class Tracker:
    """Follows one person from frame to frame; ``close`` it, or use it in a ``with`` block. For one thread.

    Of several people the largest is taken, and afterwards whoever is nearest to where the person was last.
    """

    def __init__(self, mode: Mode = "auto", *, mirror: bool = False) -> None:
        """Load the models (about a second), so that the first frame takes little longer than others.

        Args:
            mode: which models to use.
            mirror: frames come from a mirrored camera, as of a self-view: flip them first. All points are then those
                of the flipped picture. Frames must not be mirrored otherwise, or left and right are exchanged.

        Raises:
            BackendError: MediaPipe or a model file is missing or does not load.
        """
        if mode not in {"auto", "body", "webcam"}:
            raise InvalidInputError(f"mode is {mode!r}, expected auto, body or webcam")
        self._mode = mode
        self._mirror = mirror
        self._mediapipe = _import_mediapipe()
        self._stack = ExitStack()
        self._shape: tuple[int, ...] | None = None
        self._person: Body | None = None
        self._person_at_ms = 0
        self._view: View | None = None if mode == "auto" else mode
        self._view_at_ms = 0
        self._clock_ms = 0
        self._last_s: float | None = None
        self._open()

    def track(self, frame: UInt8[np.ndarray, "h w 3"], timestamp_s: float) -> Landmarks:
        """See one frame.

        Args:
            frame: RGB, each side from MIN_FRAME_SIDE to types.MAX_IMAGE_SIDE; kept as it is.
            timestamp_s: capture time; any finite number. Times that repeat or run backwards count as 1 ms later.

        Returns:
            what was seen, all None when nobody was. Image points are in the pixels of ``frame`` at its full size,
            flipped where ``mirror`` was asked for. T_camera_face is fitted to the face points in either view.

        Raises:
            InvalidInputError: another shape, dtype or size, or a time that is not finite.
            BackendError: MediaPipe failed on this frame, or the tracker is closed; later frames may work.
        """
        check_frame(frame, timestamp_s)
        picture = shrink(frame)
        if self._mirror:
            picture = np.ascontiguousarray(picture[:, ::-1])
        self._advance(timestamp_s)
        try:
            if self._shape not in {None, picture.shape}:
                self._reopen()
            self._shape = picture.shape
            landmarks = self._follow(picture, timestamp_s)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, BackendError):
                raise
            self._reopen()
            raise BackendError(f"MediaPipe failed on a frame of {frame.shape[1]}x{frame.shape[0]}: {error}") from error
        return resize_landmarks(landmarks, (frame.shape[1], frame.shape[0]))

    def close(self) -> None:
        """Free the models; safe to call again."""
        self._stack.close()
        self._shape = None
