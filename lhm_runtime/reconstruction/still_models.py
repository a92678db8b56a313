"""Who is in a still picture, and where: MediaPipe with no memory of other pictures, each part at its best size.

Body and silhouette come from the whole picture, the face from a crop around the head and each hand from a crop around
its wrist: on the whole of a full-body photo both are too small to be found.
"""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from lhm_runtime.errors import BackendError
from lhm_runtime.models import find_model
from lhm_runtime.motion.face_geometry import fit_face
from lhm_runtime.motion.landmark_points import ELBOWS, MIRRORED_BODY, SHOULDERS, WRISTS
from lhm_runtime.motion.mediapipe_models import Face, Hand, import_mediapipe, to_body, to_face, to_hand
from lhm_runtime.motion.person_choice import Body, choose_person, is_same_person, owns_face
from lhm_runtime.types import Landmarks

MOST_PEOPLE = 8
"""How many people are told apart."""

_CONFIDENCE = 0.3  # MediaPipe's default of 0.5 is for video, where the next frame has another chance
_MASK_STEP = 16  # MediaPipe 0.10 fails on masks whose width is no multiple of it
_GREY = 127
_WIDE = 1.2  # widths in heights of pictures that may well show several people
_PARTS = (0.5, 0.25)  # of the short side: squares in which small people are looked for
_HEAD_SIDE = 96  # smallest of these squares, pixels
_VISIBLE = 0.5
_HELD = 0.5  # share of the points in sight
_CUT = 0.02  # share of a square's edge
_HEAD = slice(0, 11)
_FACE_SIDE = 384
_MOST, _AGREE_M = 80, 0.06
_HAND_SIDE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One of the people in a picture."""

    body: Body
    silhouette: Float32[np.ndarray, "h w"]
    """Where the person is, 0 to 1, soft at the edges."""


class StillModels:
    """The landmarkers for stills; ``close`` them, or use a ``with`` block. For one thread.

    Raises BackendError on construction when MediaPipe or a model file is missing or does not load.
    """

    def __init__(self) -> None:
        self._tasks = import_mediapipe()
        self._stack = ExitStack()
        vision, options = self._tasks.vision, self._tasks.base_options
        try:
            self._pose = self._open(
                vision.PoseLandmarker,
                vision.PoseLandmarkerOptions(
                    base_options=options(find_model("pose_landmarker_full.task").read_bytes()),
                    num_poses=MOST_PEOPLE,
                    min_pose_detection_confidence=_CONFIDENCE,
                    output_segmentation_masks=True,
                ),
            )
            self._face = self._open(
                vision.FaceLandmarker,
                vision.FaceLandmarkerOptions(
                    base_options=options(find_model("face_landmarker.task").read_bytes()),
                    min_face_detection_confidence=_CONFIDENCE,
                    output_face_blendshapes=True,
                ),
            )
            self._hand = self._open(
                vision.HandLandmarker,
                vision.HandLandmarkerOptions(
                    base_options=options(find_model("hand_landmarker.task").read_bytes()),
                    min_hand_detection_confidence=_CONFIDENCE,
                ),
            )
        except (RuntimeError, ValueError, OSError) as error:
            self.close()
            if isinstance(error, BackendError):
                raise
            raise BackendError(f"MediaPipe does not load its models: {error}") from error

    def close(self) -> None:
        """Free the landmarkers; safe to call again."""
        self._stack.close()

    def __enter__(self) -> "StillModels":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def find_people(self, picture: UInt8[np.ndarray, "h w 3"]) -> list[Person]:
        """Everyone in the picture, the largest first.

        MediaPipe's detector sees a picture at 224 pixels and prefers one person; so what is wide is also looked at in
        squares, and if nobody is found, then with air around and in smaller and smaller squares.
        """
        height, width = picture.shape[:2]
        people = self._look(picture, _whole(picture))
        if width > _WIDE * height:
            self._add(people, self._look_in_squares(picture, height))
        if not people:  # someone who fills the picture is found with air around
            people = self._look(picture, _whole(picture), border=max(height, width) // 4)
        for part in _PARTS:
            if not people:
                self._add(people, self._look_in_squares(picture, max(round(part * min(height, width)), _HEAD_SIDE)))
        return sorted(people, key=lambda person: -person.body.pixels_per_metre)

    def settle(self, picture: UInt8[np.ndarray, "h w 3"], person: Person) -> Person:
        """The mean of a person and of the same one found in the mirrored picture, where both nearly agree.

        They do not where left and right are mistaken, as happens in profile.
        MediaPipe sees most points some millimetres to one side: on rendered people whose joints are known, the
        shoulders by 9 mm and the trunk by 5 to 8 of a picture in which nothing else tells left from right. What the
        mirrored silhouette does not take in is doubted; what it alone takes in is often what is behind.
        """
        width, body = picture.shape[1], person.body
        mirrored = np.ascontiguousarray(picture[:, ::-1])
        found = [
            Person(_mirror(other.body, width), np.ascontiguousarray(other.silhouette[:, ::-1]))
            for other in self._look(mirrored, _whole(mirrored))
        ]
        nearest = choose_person([other.body for other in found], body)
        if nearest is None or not _agree(nearest, body):
            return person
        same = next(other for other in found if other.body is nearest)
        settled = Body(
            (body.world + nearest.world) / 2,
            (body.image + nearest.image) / 2,
            (body.visibility + nearest.visibility) / 2,
        )
        return Person(settled, np.minimum(person.silhouette, (person.silhouette + same.silhouette) / 2))

    def find_landmarks(self, picture: UInt8[np.ndarray, "h w 3"], body: Body) -> Landmarks:
        """Everything that is seen of one person, in pixels of this picture."""
        height, width = picture.shape[:2]
        face = self._find_face(picture, body)
        left, right = (self._find_hand(picture, body, side) for side in (0, 1))
        return Landmarks(
            timestamp_s=0.0,
            image_size=(width, height),
            body_world=body.world,
            body_image=body.image,
            body_visibility=body.visibility,
            left_hand_world=left.world if left else None,
            left_hand_image=left.image if left else None,
            right_hand_world=right.world if right else None,
            right_hand_image=right.image if right else None,
            face_image=face.points[:, :2] if face else None,
            face_blendshapes=face.blendshapes if face else None,
            T_camera_face=fit_face(face.points, width, height) if face else None,
        )

    def _open(self, kind: Any, options: Any) -> Any:
        # never left to garbage collection, which at exit fails inside MediaPipe
        return self._stack.enter_context(closing(kind.create_from_options(options)))

    def _look(self, picture: np.ndarray, box: tuple[slice, slice], border: int = 0) -> list[Person]:
        """Everyone whom the detector sees in a part of the picture, in coordinates of the picture."""
        height, width = picture.shape[:2]
        rows, columns = box
        part = picture[box]
        step = -(part.shape[1] + 2 * border) % _MASK_STEP
        padded = cv2.copyMakeBorder(
            part, border, border, border, border + step, cv2.BORDER_CONSTANT, value=(_GREY, _GREY, _GREY)
        )
        found = self._run(self._pose, padded)
        people: list[Person] = []
        for image, world, mask in zip(
            found.pose_landmarks, found.pose_world_landmarks, found.segmentation_masks or [], strict=True
        ):
            corner = (border - columns.start, border - rows.start)
            body = _move(to_body(image, world, padded), corner, width, height)
            seen = mask.numpy_view().reshape(padded.shape[:2])[border:, border:][: part.shape[0], : part.shape[1]]
            silhouette = np.zeros((height, width), np.float32)
            silhouette[box] = seen
            if _holds(silhouette, body):
                self._add(people, [Person(body, silhouette)])
        return people

    def _look_in_squares(self, picture: np.ndarray, side: int) -> list[Person]:
        """Everyone who lies wholly in one of the squares that cover the picture, each half over the next."""
        height, width = picture.shape[:2]
        people: list[Person] = []
        for top in _starts(height, side):
            for left in _starts(width, side):
                box = (slice(top, min(top + side, height)), slice(left, min(left + side, width)))
                self._add(people, [one for one in self._look(picture, box) if not _is_cut(one.silhouette, box)])
        return people

    @staticmethod
    def _add(people: list[Person], found: list[Person]) -> None:
        """Add those who are not among them yet: of one person there may be two boxes."""
        for one in found:
            if not any(is_same_person(one.body, other.body) for other in people):
                people.append(one)

    def _find_face(self, picture: np.ndarray, body: Body) -> Face | None:
        head = body.image[_HEAD]
        shoulders = np.linalg.norm(body.image[SHOULDERS[0]] - body.image[SHOULDERS[1]])
        side = max(4.0 * float(np.ptp(head, axis=0).max()), 1.2 * float(shoulders), 48.0)
        for factor in (1.0, 1.6, 0.7):
            crop, scale, corner = _cut_out(picture, head.mean(0), side * factor, _FACE_SIDE)
            found = self._run(self._face, crop)
            if not found.face_landmarks:
                continue
            face = to_face(found.face_landmarks[0], found.face_blendshapes[0], crop)
            points = face.points / scale
            points[:, :2] += corner
            if owns_face(body, points[:, :2]):
                return Face(points, face.blendshapes)
        return None

    def _find_hand(self, picture: np.ndarray, body: Body, side: int) -> Hand | None:
        wrist, elbow = WRISTS[side], ELBOWS[side]
        if body.visibility[wrist] < _CONFIDENCE:
            return None
        forearm = body.image[wrist] - body.image[elbow]
        length = float(np.linalg.norm(forearm))
        shoulders = float(np.linalg.norm(body.image[SHOULDERS[0]] - body.image[SHOULDERS[1]]))
        middle = body.image[wrist] + 0.25 * forearm
        crop, scale, corner = _cut_out(picture, middle, max(1.5 * length, 0.6 * shoulders, 40.0), _HAND_SIDE)
        found = self._run(self._hand, crop)
        if not found.hand_landmarks:
            return None
        hand = to_hand(found.hand_landmarks[0], found.hand_world_landmarks[0], crop)
        if hand is None:
            return None
        points = hand.image / scale + corner
        if np.linalg.norm(points[0] - body.image[wrist]) > 0.5 * length + 10:
            return None  # the other hand, or another's
        return Hand(hand.world, points.astype(np.float32))

    def _run(self, landmarker: Any, picture: np.ndarray) -> Any:
        try:
            return landmarker.detect(self._tasks.image(np.ascontiguousarray(picture)))
        except (RuntimeError, ValueError) as error:
            raise BackendError(
                f"MediaPipe failed on a picture of {picture.shape[1]}x{picture.shape[0]}: {error}"
            ) from error


def _whole(picture: np.ndarray) -> tuple[slice, slice]:
    return slice(0, picture.shape[0]), slice(0, picture.shape[1])


def _starts(length: int, side: int) -> list[int]:
    """Where squares begin that cover ``length``, each overlapping the next by half or more."""
    if side >= length:
        return [0]
    steps = -(-2 * (length - side) // side)
    return [round(k * (length - side) / steps) for k in range(steps + 1)]


def _holds(silhouette: Float32[np.ndarray, "h w"], body: Body) -> bool:
    """Whether a body's points lie on its silhouette: what is taken for a person by mistake mostly has none."""
    seen = body.image[body.visibility > _VISIBLE]
    if len(seen) == 0:
        return False
    column, row = np.clip(seen.astype(int), 0, np.array(silhouette.shape[::-1]) - 1).T
    return bool((silhouette[row, column] > 0.5).mean() > _HELD)


def _is_cut(silhouette: np.ndarray, box: tuple[slice, slice]) -> bool:
    """Whether someone goes on beyond an edge of the box that is none of the picture."""
    height, width = silhouette.shape
    rows, columns = box
    inside = silhouette[box] > 0.5
    edges = (
        (rows.start > 0, inside[0]),
        (rows.stop < height, inside[-1]),
        (columns.start > 0, inside[:, 0]),
        (columns.stop < width, inside[:, -1]),
    )
    return any(inner and bool(edge.mean() > _CUT) for inner, edge in edges)


def _agree(body: Body, other: Body) -> bool:
    """Whether most of the joints in sight are about where the other has them."""
    joints = slice(SHOULDERS[0], None)
    seen = np.minimum(body.visibility, other.visibility)[joints] > _VISIBLE
    if not seen.any():
        return False
    apart = np.linalg.norm(body.image - other.image, axis=1)[joints][seen]
    return float(np.percentile(apart, _MOST)) < _AGREE_M * body.pixels_per_metre


def _mirror(body: Body, width: int) -> Body:
    """What is seen in a picture of this width, found in its mirror image."""
    world, image = body.world[MIRRORED_BODY], body.image[MIRRORED_BODY]
    image = np.array([width, 0], np.float32) + image * np.array([-1, 1], np.float32)
    return Body(world * np.array([-1, 1, 1], np.float32), image, body.visibility[MIRRORED_BODY])


def _move(body: Body, corner: tuple[int, int], width: int, height: int) -> Body:
    """The body from another corner of the same scene; what lies outside of width and height counts as not visible."""
    image = body.image - np.array(corner, np.float32)
    inside = ((image >= 0) & (image <= [width, height])).all(axis=1)
    return Body(body.world, image, np.where(inside, body.visibility, 0).astype(np.float32))


def _cut_out(
    picture: UInt8[np.ndarray, "h w 3"], middle: np.ndarray, side: float, smallest: int
) -> tuple[UInt8[np.ndarray, "s s 3"], float, Float32[np.ndarray, " 2"]]:
    """A square, white beyond the picture, at least ``smallest`` wide; its scale, and its corner in the picture."""
    height, width = picture.shape[:2]
    size = int(side)
    x, y = (int(v) for v in np.asarray(middle) - size / 2)
    left, top, right, bottom = np.clip([x, y, x + size, y + size], 0, [width, height, width, height])
    crop = np.full((size, size, 3), 255, np.uint8)
    if right > left and bottom > top:
        crop[top - y : bottom - y, left - x : right - x] = picture[top:bottom, left:right]
    scale = max(1.0, smallest / size)
    if scale > 1:
        crop = cv2.resize(crop, (smallest, smallest), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    return crop, scale, np.array([x, y], np.float32)
