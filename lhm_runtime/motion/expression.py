"""MediaPipe's 52 blendshape scores -> expression coefficients, jaw and eyes of a body.

A face whose expressions carry ARKit's names (the free body) takes the scores one to one. There ``jawOpen`` is a shape,
which moves lips and cheeks along with the chin, so the jaw joint stays at zero: both together would open the mouth
twice. A face with other expressions (a user's SMPL-X file) gets a linear map fitted by ``fit_face_map``. Gaze always
goes to the eye joints and never to the ``eyeLook`` shapes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError, require_finite
from lhm_runtime.motion.landmark_points import BLENDSHAPE_NAMES
from lhm_runtime.types import Landmarks

_INDEX = {name: i for i, name in enumerate(BLENDSHAPE_NAMES)}
_LOOKS = [i for name, i in _INDEX.items() if name.startswith("eyeLook")]
_JAWS = [_INDEX[name] for name in ("jawOpen", "jawLeft", "jawRight")]
_BLINKS = [_INDEX["eyeBlinkLeft"], _INDEX["eyeBlinkRight"]]

_BLINK_RANGE = (0.12, 0.70)
"""Scores of an eye that is squinted or looks down, and of one that is closed: MediaPipe seldom reaches 1."""
_GAZE_YAW, _GAZE_PITCH = np.radians(32.0), np.radians(24.0)
"""Turn of the eyes at a score of 1."""
_JAW_OPEN = np.radians(24.0)
"""Turn of the jaw joint at a ``jawOpen`` of 1, where no shape and no map says more."""
_STIFFNESS_M = 0.0005
"""Misfit worth one unit of a coefficient when a map is fitted: keeps what landmarks do not show near zero."""
_HIGHEST_NEUTRAL = 0.6
"""No face at rest scores more; a calibration beyond it would leave the shape no room."""

_STILL_S = 1.0
_STILL_SCORE = 0.12
"""Largest change of a score in a face that holds still."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceMotion:
    """A face at one moment."""

    expression: Float32[np.ndarray, " e"]
    """Coefficients in the order of the body's or avatar's expressions."""
    rotvec: Float32[np.ndarray, "3 3"]
    """Jaw, left eye, right eye."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceMap:
    """How scores move one avatar's face; e expressions."""

    expression_matrix: Float64[np.ndarray, "e 52"]
    """Coefficients per unit of each score."""
    jaw_matrix: Float64[np.ndarray, "3 52"]
    """Rotvec of the jaw per unit of each score, radians."""
    neutral: Float64[np.ndarray, " 52"]
    """Scores of this person's face at rest."""

    @property
    def num_expressions(self) -> int:
        """Length of the expression vectors."""
        return len(self.expression_matrix)

    def with_neutral(self, neutral: Float[np.ndarray, " 52"]) -> "FaceMap":
        """The same for a person whose face at rest has these scores (``Calibration``).

        Raises:
            InvalidInputError: a score that is not finite.
        """
        require_finite("neutral", neutral)
        return replace(self, neutral=np.clip(neutral.astype(np.float64), 0, _HIGHEST_NEUTRAL))

    def with_gains(self, gains: Mapping[str, float]) -> "FaceMap":
        """The same with some blendshapes made stronger or weaker.

        Raises:
            InvalidInputError: a name MediaPipe does not score, or a gain that is negative or not finite.
        """
        factors = np.ones(len(_INDEX))
        for name, gain in gains.items():
            if name not in _INDEX:
                raise InvalidInputError(f"gains names {name!r}, which is none of {', '.join(BLENDSHAPE_NAMES[1:])}")
            if not 0 <= gain < np.inf:
                raise InvalidInputError(f"gains[{name!r}] is {gain}, expected a number from 0 on")
            factors[_INDEX[name]] = gain
        return replace(self, expression_matrix=self.expression_matrix * factors, jaw_matrix=self.jaw_matrix * factors)

    def move(self, blendshapes: Float[np.ndarray, " 52"]) -> FaceMotion:
        """The face of these scores.

        Raises:
            InvalidInputError: a score that is not finite.
        """
        require_finite("blendshapes", blendshapes)
        scores = np.minimum(np.maximum((blendshapes - self.neutral) / (1 - self.neutral), 0), 1)
        low, high = _BLINK_RANGE
        for blink in _BLINKS:
            scores[blink] = min(max((scores[blink] - low) / (high - low), 0), 1)
        rotvec = np.zeros((3, 3), np.float32)
        rotvec[0] = self.jaw_matrix @ scores
        rotvec[1:] = _gaze(scores)
        return FaceMotion((self.expression_matrix @ scores).astype(np.float32), rotvec)


def map_face(expression_names: Sequence[str]) -> FaceMap:
    """Scores to the expressions of the same name; without ``jawOpen`` among them, the jaw joint opens the mouth."""
    matrix = np.zeros((len(expression_names), len(_INDEX)))
    for row, name in enumerate(expression_names):
        if name in _INDEX and _INDEX[name] not in _LOOKS and name != "_neutral":
            matrix[row, _INDEX[name]] = 1
    jaw = np.zeros((3, len(_INDEX)))
    if "jawOpen" not in expression_names:
        jaw[0, _INDEX["jawOpen"]] = _JAW_OPEN
    return FaceMap(matrix, jaw, np.zeros(len(_INDEX)))


def fit_face_map(body: BodyModel, reference: BodyModel | None = None) -> FaceMap:
    """Scores to a body whose expressions have no names, so that its 51 face landmarks move as the reference's do.

    ``reference`` (default: the free body) has expressions of ARKit's names. Ridge least squares per blendshape over
    the body's expressions and, for the jaw's shapes, its jaw joint; faces are matched in size by their landmarks.

    Raises:
        InvalidInputError: one of the bodies has no face landmarks, or not the same ones.
    """
    reference = BodyModel.default() if reference is None else reference
    theirs, ours = _FaceLandmarks.of(reference), _FaceLandmarks.of(body)
    if theirs.points.shape != ours.points.shape:
        raise InvalidInputError(
            f"{body.name} has {len(ours.points)} face landmarks, {reference.name} has {len(theirs.points)}; "
            "a map needs the same ones"
        )
    size = np.std(ours.points, axis=0).sum() / np.std(theirs.points, axis=0).sum()
    e = ours.expressions.shape[-1]
    basis = np.concatenate([ours.expressions.reshape(-1, e), ours.jaw.reshape(-1, 3)], axis=1)
    columns = np.zeros((e + 3, len(_INDEX)))
    for name, index in _INDEX.items():
        if name in reference.expression_names and index not in _LOOKS:
            wanted = size * theirs.expressions[:, :, reference.expression_names.index(name)].reshape(-1)
            used = e + 3 if index in _JAWS else e
            A = basis[:, :used]
            columns[:used, index] = np.linalg.solve(A.T @ A + _STIFFNESS_M**2 * np.eye(used), A.T @ wanted)
    return FaceMap(columns[:e], columns[e:], np.zeros(len(_INDEX)))


class Calibration:
    """Waits until a face has held still for a second and keeps what it looked like."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._scores: list[np.ndarray] = []

    def add(self, landmarks: Landmarks) -> Float64[np.ndarray, " 52"] | None:
        """Take in one frame; the scores at rest once a second of stillness is complete, None until then.

        A frame without a face, a moving face or time that runs backwards starts the second anew.
        """
        scores = landmarks.face_blendshapes
        if scores is None or not np.isfinite(scores).all():
            self._times, self._scores = [], []
            return None
        if self._times and landmarks.timestamp_s <= self._times[-1]:
            if landmarks.timestamp_s == self._times[-1]:
                return None
            self._times, self._scores = [], []
        self._times.append(landmarks.timestamp_s)
        self._scores.append(scores.astype(np.float64))
        # blinks are part of a still face, and the median is blind to them
        spread = np.delete(np.ptp(self._scores, axis=0), _BLINKS + _LOOKS)
        if spread.max() > _STILL_SCORE:
            self._times, self._scores = self._times[-1:], self._scores[-1:]
        if self._times[-1] - self._times[0] < _STILL_S:
            return None
        neutral: np.ndarray = np.median(self._scores, axis=0)
        return neutral


@dataclass(frozen=True, slots=True, eq=False)
class _FaceLandmarks:
    points: Float64[np.ndarray, "l 3"]
    expressions: Float64[np.ndarray, "l 3 e"]
    jaw: Float64[np.ndarray, "l 3 3"]
    """Displacement per radian of the jaw's rotvec at rest."""

    @staticmethod
    def of(body: BodyModel) -> "_FaceLandmarks":
        if body.lmk_faces_idx is None or body.lmk_bary_coords is None:
            raise InvalidInputError(
                f"{body.name} has no face landmarks (lmk_faces_idx), so no expressions can be fitted"
            )
        corners, bary = body.faces[body.lmk_faces_idx], body.lmk_bary_coords.astype(np.float64)
        points = np.einsum("lk,lkx->lx", bary, body.v_template[corners])
        expressions = np.einsum("lk,lkxe->lxe", bary, body.expression_directions[corners])
        jaw = JOINT_INDEX["jaw"]
        follows = (bary * body.skin_weights[corners, jaw]).sum(-1)
        arms = points - body.rest_joints()[jaw]
        turns = np.cross(np.eye(3)[None], arms[:, None]).swapaxes(1, 2)  # column k: e_k x arm
        return _FaceLandmarks(points, expressions, turns * follows[:, None, None])


def _gaze(scores: np.ndarray) -> list[float]:
    """[3] rotvec of both eyes: they look the same way, and a closing lid does not pull the eye down."""
    down_left, down_right, in_left, in_right, out_left, out_right, up_left, up_right = scores[_LOOKS].tolist()
    to_left = out_left - in_left + in_right - out_right
    down = down_left + down_right - up_left - up_right
    opened = 1 - 0.5 * float(scores[_BLINKS[0]] + scores[_BLINKS[1]])
    return [_GAZE_PITCH * 0.5 * down * opened, _GAZE_YAW * 0.5 * to_left, 0.0]
