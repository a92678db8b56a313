"""Landmarks become evidence of a pose: which points of the body were seen where, and how far each may be off."""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float32, Float64

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.landmark_points import (
    ANKLES,
    EARS,
    ELBOWS,
    EYES,
    HEELS,
    HIPS,
    INDICES,
    KNEES,
    NOSE,
    PINKIES,
    SHOULDERS,
    THUMBS,
    TOES,
    WRISTS,
)
from lhm_runtime.reconstruction.landmark_anchors import FACE_ANCHORS, HAND_ANCHORS, Anchors
from lhm_runtime.reconstruction.pose_prior import DEVIATION
from lhm_runtime.reconstruction.pose_refinement import Evidence
from lhm_runtime.types import Landmarks

# deviations of image points, metres at the person; the many points of hands and face are not independent
_JOINT_M = 0.013
_HIP_M = 0.021  # deep in the flesh
_END_M = 0.026
_HAND_M, _FINGERTIP_M = 0.020, 0.025
_FACE_M = 0.020
# deviations of differences between world points, metres
_BONE_M = (0.12, 0.12, 0.08)
_ARM_BONE_M = (0.12, 0.12, 0.06)
_HEAD_BONE_M = 0.06
_HAND_BONE_M = 0.03
_HANGING_M = 0.12  # of a shin out of sight, where the trunk is upright and the thigh level
# deviations, towards the camera or away, of who stands
_SHOULDERS_OVER_ANKLES_M = 0.07
_HIP_OVER_ANKLE_M = 0.10

_OUTSIDE = 0.02  # points count up to this share of the picture's size outside it
_SEEN, _END_SEEN = 0.3, 0.4
_LEAST_SITTING = 0.05  # of what there is of it: less would not be felt
_STANDING_BEND = np.radians(65.0)  # who bends a knee more sits or lunges
_LEAST_KNEE_BEND = 0.25

# How far MediaPipe turns the bones of who stands and faces the camera forwards about their left-right axis, radians:
# measured on rendered people whose pose is known; standing people in photos and clips show the same leans and bends.
_TRUNK_LEAN, _THIGH_LEAN, _SHIN_LEAN = np.radians([12.0, -6.0, 12.0])
_UPPER_ARM_LEAN, _FOREARM_LEAN = np.radians([7.0, 4.0])
_STRAIGHT_KNEE, _BENT_KNEE = np.radians([20.0, 35.0])  # a straight knee is told as the first; bent ones are told well
_TURNED_AWAY = np.cos(np.radians(45.0))  # who is turned by more is told well

_JOINT_POINTS = [*range(11, 17), *range(23, 29)]
_FACE_POINTS = [NOSE, *EYES, *EARS]
_BONES = [(11, 12), (11, 13), (13, 15), (12, 14), (14, 16), (11, 23), (12, 24)]
_BONES += [(23, 24), (23, 25), (25, 27), (24, 26), (26, 28)]
_HEAD_BONES = [(7, 8), (0, 7), (0, 8)]
_KNUCKLES = [5, 9, 13, 17]
_HAND_BONES = [(k, k + 1) for start in (1, *_KNUCKLES) for k in (start, start + 1)] + [(0, k) for k in _KNUCKLES]
_ARM_ENDS = [*ELBOWS, *WRISTS]
_FINGERTIPS = [4, 8, 12, 16, 20]
_BODY_JOINTS = np.arange(22)
_KNEE_JOINTS = (JOINT_INDEX["left_knee"], JOINT_INDEX["right_knee"])
_HAND_JOINTS = (np.arange(25, 40), np.arange(40, 55))


@dataclass(slots=True)
class _Collection:
    """Evidence as it comes together."""

    anchors: list[np.ndarray] = field(default_factory=list)
    moving: list[np.ndarray] = field(default_factory=list)
    points: list[tuple[int, np.ndarray, float]] = field(default_factory=list)
    bones: list[tuple[int, int, np.ndarray, tuple[float, float, float]]] = field(default_factory=list)
    count: int = 0

    def use(self, anchors: np.ndarray) -> int:
        """Take these anchors in; returns the place of the first."""
        self.anchors.append(anchors)
        self.count += len(anchors)
        return self.count - len(anchors)


def gather_evidence(
    landmarks: Landmarks,
    anchors: Anchors,
    expression: Float32[np.ndarray, " e"],
    focal_px: float,
    likely_pitch: tuple[float, float],
) -> Evidence:
    """What ``landmarks`` tell about the pose of the body that ``anchors`` belong to.

    Raises:
        InvalidInputError: no point of a body is in the picture.
    """
    found = _Collection()
    image, world, visible = body_points(landmarks)
    world = unbend(np.where(np.isfinite(world), world, 0).astype(np.float64), visible)
    hands = (
        (_finite(landmarks.left_hand_image), _finite(landmarks.left_hand_world)),
        (_finite(landmarks.right_hand_image), _finite(landmarks.right_hand_world)),
    )
    face = _finite(landmarks.face_image) if len(anchors.face_points) else None
    ends = [*HEELS, *TOES, *([] if face is not None else _FACE_POINTS)]
    for side, (hand, _) in enumerate(hands):
        ends += [INDICES[side], PINKIES[side]] if hand is None else []
    _add_body(found, image, world, visible, ends, _BONES + (_HEAD_BONES if face is None else []))
    _hang_shins(found, world, visible, likely_pitch[0])
    body_count = len(found.points)
    for side, (hand, hand_world) in enumerate(hands):
        if hand is not None:
            _add_hand(found, side, hand, hand_world)
    if face is not None:
        first = found.use(np.arange(FACE_ANCHORS.start, len(anchors.points)))
        found.points += [(first + k, face[point], _FACE_M) for k, point in enumerate(anchors.face_points)]
    if not found.points:
        raise InvalidInputError("no landmark is in the picture: there is nothing to fit a body to")

    points, pixels, point_m = zip(*found.points, strict=True)
    bones, moving = found.bones, np.concatenate(found.moving)
    return Evidence(
        anchors=anchors.select(np.concatenate(found.anchors), expression.astype(np.float64)),
        focal_px=focal_px,
        moving=moving,
        deviation=_deviation(world, visible)[moving],
        points=np.array(points),
        pixels=(np.array(pixels, np.float64) - 0.5 * np.array(landmarks.image_size)) * [1, -1],
        point_m=np.array(point_m),
        body_count=body_count,
        bones=np.array([(a, b) for a, b, _, _ in bones], np.int64).reshape(-1, 2),
        bone_vectors=np.array([vector for _, _, vector, _ in bones], np.float64).reshape(-1, 3),
        bone_m=np.array([deviation for _, _, _, deviation in bones]).reshape(-1, 3),
        plumb=_plumb(world, visible, found.count),
        likely_pitch=likely_pitch,
    )


def add_points(
    evidence: Evidence,
    anchors: Anchors,
    pixels: Float64[np.ndarray, "q 2"],
    point_m: Float64[np.ndarray, " q"],
) -> Evidence:
    """The same evidence, and where further points were seen.

    Args:
        evidence: what is known already.
        anchors: q points that follow the same skeleton, their expression in place.
        pixels: where they were seen, from the picture's centre, x right and y up.
        point_m: their deviations, metres at the person.
    """
    known, count = evidence.anchors, len(anchors.points)
    together = replace(
        known,
        points=np.concatenate([known.points, anchors.points]),
        point_shapes=np.concatenate([known.point_shapes, anchors.point_shapes]),
        weights=np.concatenate([known.weights, anchors.weights]),
        point_expressions=np.concatenate([known.point_expressions, anchors.point_expressions]),
    )
    return replace(
        evidence,
        anchors=together,
        points=np.concatenate([evidence.points, len(known.points) + np.arange(count)]),
        pixels=np.concatenate([evidence.pixels, pixels]),
        point_m=np.concatenate([evidence.point_m, point_m]),
        plumb=np.pad(evidence.plumb, ((0, 0), (0, count))),
    )


def body_points(
    landmarks: Landmarks,
) -> tuple[Float32[np.ndarray, "33 2"], Float32[np.ndarray, "33 3"], Float64[np.ndarray, " 33"]]:
    """Image points, world points, and how sure each is: 0 for those outside the picture.

    Raises:
        InvalidInputError: there are none.
    """
    image, world = landmarks.body_image, landmarks.body_world
    if image is None or world is None:
        raise InvalidInputError("the landmarks have no body: body_image and body_world are needed to fit one")
    size = np.array(landmarks.image_size)
    inside = ((image > -_OUTSIDE * size) & (image < (1 + _OUTSIDE) * size)).all(1) & np.isfinite(world).all(1)
    visible = np.ones(33) if landmarks.body_visibility is None else np.nan_to_num(landmarks.body_visibility)
    return image, world, np.where(inside, visible, 0).astype(np.float64)


def unbend(world: Float64[np.ndarray, "33 3"], visible: Float64[np.ndarray, " 33"]) -> Float64[np.ndarray, "33 3"]:
    """World points without what MediaPipe adds to a stance: it has people lean to the camera and bend their knees.

    One picture from the front hardly shows either, so the network tells what is usual. Points of arms, trunk and legs
    that are turned carry on what hangs on them; the head is not turned, its bones and the face tell its own direction.
    """
    lateral = world[HIPS[0]] - world[HIPS[1]] + world[SHOULDERS[0]] - world[SHOULDERS[1]]
    lateral = lateral / max(float(np.linalg.norm(lateral)), 1e-9)
    forwards_z = float(np.cross(lateral, [0.0, 1.0, 0.0])[2])
    facing = float(np.clip((forwards_z - _TURNED_AWAY) / (1 - _TURNED_AWAY), 0, 1))
    bends = np.where(np.minimum(visible[KNEES], visible[ANKLES]) > _SEEN, _knee_bends(world), 0.0)
    straight = facing * np.clip((_BENT_KNEE - bends) / (_BENT_KNEE - _STRAIGHT_KNEE), 0, 1)
    turned = world.copy()

    def turn(start: int, end: int, lean: float, carried: list[int]) -> None:
        bone = world[end] - world[start]
        shift = turned[start] + rotvec_to_matrix(-lean * lateral) @ bone - world[end]
        turned[[end, *carried]] = world[[end, *carried]] + shift

    trunk = straight.max()
    for side, knee in enumerate(straight):
        shoulder, elbow, wrist, hip = (pair[side] for pair in (SHOULDERS, ELBOWS, WRISTS, HIPS))
        turn(hip, shoulder, trunk * _TRUNK_LEAN, [])
        upper, fore = world[elbow] - world[shoulder], world[wrist] - world[elbow]
        turn(shoulder, elbow, trunk * _hangs(upper) * _UPPER_ARM_LEAN, [])
        turn(elbow, wrist, trunk * _hangs(fore) * _FOREARM_LEAN, [INDICES[side], PINKIES[side], THUMBS[side]])
        turn(hip, KNEES[side], knee * _THIGH_LEAN, [])
        turn(KNEES[side], ANKLES[side], knee * _SHIN_LEAN, [HEELS[side], TOES[side]])
    head = np.arange(SHOULDERS[0])
    turned[head] += (turned[SHOULDERS] - world[SHOULDERS]).mean(0)
    return turned


def _hangs(bone: np.ndarray) -> float:
    """1 for a bone that points down, 0 from the level on."""
    return max(0.0, -float(bone[1]) / max(float(np.linalg.norm(bone)), 1e-9)) ** 2


def _add_body(
    found: _Collection,
    image: np.ndarray,
    world: np.ndarray,
    visible: np.ndarray,
    ends: list[int],
    bones: list[tuple[int, int]],
) -> None:
    found.use(np.arange(HAND_ANCHORS[0].start))
    found.moving.append(_BODY_JOINTS)
    for point in _JOINT_POINTS:
        if visible[point] > _SEEN:
            found.points.append((point, image[point], (_HIP_M if point in HIPS else _JOINT_M) / visible[point]))
    found.points += [(point, image[point], _END_M / visible[point]) for point in ends if visible[point] > _END_SEEN]
    for a, b in bones:
        if min(visible[a], visible[b]) > _SEEN:
            deviation = _ARM_BONE_M if b in _ARM_ENDS else (_HEAD_BONE_M,) * 3 if (a, b) in _HEAD_BONES else _BONE_M
            found.bones.append((a, b, world[b] - world[a], deviation))


def _hang_shins(found: _Collection, world: np.ndarray, visible: np.ndarray, pitch: float) -> None:
    """Who sits has the shins hanging where they are out of sight; at rest they would go on where the thighs point."""
    down = np.array([0.0, -np.cos(pitch), -np.sin(pitch)])
    for shoulder, hip, knee, ankle in zip(SHOULDERS, HIPS, KNEES, ANKLES, strict=True):
        thigh = world[knee] - world[hip]
        sits = _hangs(world[hip] - world[shoulder]) * (1 - _hangs(thigh))
        if min(visible[shoulder], visible[hip], visible[knee]) > _SEEN >= visible[ankle] and sits > _LEAST_SITTING:
            shin = float(np.linalg.norm(thigh)) * down
            found.bones.append((knee, ankle, shin, (_HANGING_M / sits,) * 3))


def _add_hand(found: _Collection, side: int, image: np.ndarray, world: np.ndarray | None) -> None:
    first = found.use(np.arange(HAND_ANCHORS[side].start, HAND_ANCHORS[side].stop))
    found.moving.append(_HAND_JOINTS[side])
    for point in range(21):
        found.points.append((first + point, image[point], _FINGERTIP_M if point in _FINGERTIPS else _HAND_M))
    if world is not None:
        for a, b in _HAND_BONES:
            found.bones.append((first + a, first + b, world[b] - world[a], (_HAND_BONE_M,) * 3))


def _plumb(world: np.ndarray, visible: np.ndarray, count: int) -> np.ndarray:
    """Who stands has the shoulders over the feet and each hip over its ankle; no picture tells, bodies would lean."""
    rows = np.zeros((3, count))
    if visible[ANKLES].min() <= _SEEN:
        return rows[:0]
    if _knee_bends(world).max() > _STANDING_BEND:
        return rows[:0]
    rows[0, SHOULDERS], rows[0, ANKLES] = 0.5 / _SHOULDERS_OVER_ANKLES_M, -0.5 / _SHOULDERS_OVER_ANKLES_M
    for row, hip, ankle in zip(rows[1:], HIPS, ANKLES, strict=True):
        row[[hip, ankle]] = 1 / _HIP_OVER_ANKLE_M, -1 / _HIP_OVER_ANKLE_M
    return rows


def _deviation(world: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """[55, 3] the prior's; knees are bent about as much as the world points say, or a camera from above bends them."""
    deviation = DEVIATION.copy()
    for joint, knee, ankle, bend in zip(_KNEE_JOINTS, KNEES, ANKLES, _knee_bends(world), strict=True):
        if min(visible[knee], visible[ankle]) > _SEEN:
            deviation[joint, 0] = np.clip(bend, _LEAST_KNEE_BEND, deviation[joint, 0])
    return deviation


def _knee_bends(world: np.ndarray) -> np.ndarray:
    """[2] angles between thigh and shin, radians."""
    thighs, shins = world[KNEES] - world[HIPS], world[ANKLES] - world[KNEES]
    lengths = np.maximum(np.linalg.norm(thighs, axis=1) * np.linalg.norm(shins, axis=1), 1e-9)
    bends: np.ndarray = np.arccos(np.clip((thighs * shins).sum(1) / lengths, -1, 1))
    return bends


def _finite(points: np.ndarray | None) -> np.ndarray | None:
    return None if points is None or not np.isfinite(points).all() else points
