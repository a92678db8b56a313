"""What the stages hand to each other: frozen dataclasses of arrays.

Conventions (docs/pipeline.md): metres, seconds, radians; world right-handed, y up, the person faces +z and
their left is +x; cameras are OpenCV (x right, y down, z forward); quaternions wxyz; pixel centres at +0.5.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from lhm_runtime.errors import InvalidInputError, require_finite, require_shape

MAX_IMAGE_SIDE = 8192
"""Largest width or height a camera may ask for, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Gaussians:
    """Anisotropic 3D Gaussians in one world frame, activated (no logits, no logarithms)."""

    means: Float32[np.ndarray, "n 3"]
    """Centres, metres."""
    quat_wxyz: Float32[np.ndarray, "n 4"]
    """Orientation of the principal axes, unit quaternions."""
    scales: Float32[np.ndarray, "n 3"]
    """Standard deviations along the principal axes, metres, >= 0."""
    opacity: Float32[np.ndarray, " n"]
    """Peak alpha, in [0, 1]."""
    rgb: Float32[np.ndarray, "n 3"]
    """Straight colour as displayed (sRGB values, no gamma step), in [0, 1]."""

    def __len__(self) -> int:
        return len(self.means)


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera; raises InvalidInputError on construction when any value is unusable."""

    T_camera_world: Float64[np.ndarray, "4 4"]
    """World to camera, rigid."""
    fx: float
    """Focal length in pixels, horizontally."""
    fy: float
    """Focal length in pixels, vertically."""
    cx: float
    """Principal point in pixels; the centre of the left-most pixel column is at 0.5."""
    cy: float
    """Principal point in pixels; the centre of the top pixel row is at 0.5."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""

    def __post_init__(self) -> None:
        require_shape("Camera.T_camera_world", self.T_camera_world, (4, 4))
        require_finite("Camera.T_camera_world", self.T_camera_world)
        for name in ("fx", "fy"):
            if not 0 < getattr(self, name) < np.inf:
                raise InvalidInputError(f"Camera.{name} is {getattr(self, name)}, expected a positive number of pixels")
        for name in ("cx", "cy"):
            if not np.isfinite(getattr(self, name)):
                raise InvalidInputError(f"Camera.{name} is {getattr(self, name)}, expected a finite number of pixels")
        for name in ("width", "height"):
            if not 1 <= getattr(self, name) <= MAX_IMAGE_SIDE:
                raise InvalidInputError(
                    f"Camera.{name} is {getattr(self, name)}, expected 1 to {MAX_IMAGE_SIDE} pixels"
                )


@dataclass(frozen=True, slots=True, eq=False)
class SmplxPose:
    """One moment of a body in the SMPL-X parameterisation (Pavlakos et al. 2019)."""

    rotvec: Float32[np.ndarray, "55 3"]
    """Axis-angle of each joint relative to its parent: root, 21 body, jaw, two eyes, 15 left hand, 15 right hand."""
    transl: Float32[np.ndarray, " 3"]
    """Translation added after posing, metres."""
    expression: Float32[np.ndarray, " e"]
    """Face coefficients in the order of the avatar's or body's expression directions."""
    timestamp_s: float
    """When this was so, on the source's clock."""


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """What a tracker saw of one person in one frame (MediaPipe's point sets); None where it saw nothing.

    World points are in metres in axes like ours: x to the right of the image (the left of a person who faces the
    camera), y up, z towards the camera. Image points are in pixels, x right and y down, the first pixel centre at 0.5.
    """

    timestamp_s: float
    """Capture time on the source's clock."""
    image_size: tuple[int, int]
    """Width and height of the frame, pixels."""
    body_world: Float32[np.ndarray, "33 3"] | None = None
    """BlazePose points, origin midway between the hips."""
    body_image: Float32[np.ndarray, "33 2"] | None = None
    body_visibility: Float32[np.ndarray, " 33"] | None = None
    """How sure the tracker is that each body point is in the picture and not hidden, 0 to 1."""
    left_hand_world: Float32[np.ndarray, "21 3"] | None = None
    """The person's left hand, origin near the hand's centre."""
    left_hand_image: Float32[np.ndarray, "21 2"] | None = None
    right_hand_world: Float32[np.ndarray, "21 3"] | None = None
    right_hand_image: Float32[np.ndarray, "21 2"] | None = None
    face_image: Float32[np.ndarray, "478 2"] | None = None
    face_blendshapes: Float32[np.ndarray, " 52"] | None = None
    """Scores in MediaPipe's order, 0 to 1; the first is ``_neutral``."""
    T_camera_face: Float32[np.ndarray, "4 4"] | None = None
    """Pose of the canonical face, centimetres in MediaPipe's face frame (x right, y up, z towards the camera)."""
