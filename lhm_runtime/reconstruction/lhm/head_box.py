"""Where the whole head is in a photo, hair and all: LHM's head picture is cut around it.

LHM asks a head detector; here MediaPipe's landmarks and the matte answer. Any function from pixels to a box can do so
instead: ``crop_head`` takes the box.
"""

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.motion.landmark_points import NOSE
from lhm_runtime.motion.person_choice import Body
from lhm_runtime.reconstruction.photo import Photo

_CHIN, _FOREHEAD = 152, 10  # of MediaPipe's face
_HAIR = 0.4  # how far beyond the face's points a head may go, in heights of the face
_SKULL = 0.2  # how far above them it goes at least
_INSIDE = 0.5  # alpha
_FACE_POINTS = slice(0, 11)  # of MediaPipe's body: nose, eyes, ears, mouth
_HEAD_M = np.array([0.19, 0.25])
_VISIBLE = 0.5


def find_head(photo: Photo) -> Float64[np.ndarray, " 4"] | None:
    """Left, top, right, bottom of the head, pixels of the photo; None when the photo does not show it.

    From the face's points and the matte around them; from the body's points where no face was found, as from behind.
    """
    face = photo.landmarks.face_image
    if face is not None:
        return _around_face(face.astype(np.float64), photo.alpha)
    body = _body(photo)
    return None if body is None else _around_ears(body)


def _around_face(face: Float64[np.ndarray, "478 2"], alpha: Float[np.ndarray, "h w"]) -> Float64[np.ndarray, " 4"]:
    """The face's box, widened to where the matte ends, and no further than hair may reach."""
    (left, top), (right, bottom) = face.min(0), face.max(0)
    height = float(np.linalg.norm(face[_CHIN] - face[_FOREHEAD]))
    reach = np.array([left, top, right, bottom]) + _HAIR * height * np.array([-1, -1, 1, 0])
    # below the nose, what is beside the face may be a shoulder
    x0, y0, x1, y1 = (int(v) for v in (reach[0], reach[1], reach[2] + 1, 0.5 * (top + bottom)))
    shift = np.maximum([x0, y0], 0)
    rows, columns = np.nonzero(alpha[shift[1] : max(y1, 0), shift[0] : max(x1, 0)] > _INSIDE)
    if len(rows):
        left, right = min(left, columns.min() + shift[0]), max(right, columns.max() + 1 + shift[0])
        top = min(top, rows.min() + shift[1])
    return np.array([left, min(top, face[_FOREHEAD, 1] - _SKULL * height), right, bottom])


def _body(photo: Photo) -> Body | None:
    world, image, visibility = (
        photo.landmarks.body_world,
        photo.landmarks.body_image,
        photo.landmarks.body_visibility,
    )
    if world is None or image is None or visibility is None or visibility[_FACE_POINTS].max() < _VISIBLE:
        return None
    return Body(world, image, visibility)


def _around_ears(body: Body) -> Float64[np.ndarray, " 4"]:
    """A head of usual size about the middle of eyes and ears, which are half way up."""
    scale = body.pixels_per_metre
    middle = body.image[_FACE_POINTS][NOSE + 1 : 9].astype(np.float64).mean(0)
    half = 0.5 * _HEAD_M * scale
    return np.concatenate([middle - half, middle + half])
