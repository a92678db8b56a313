"""MediaPipe's point numbers, where those points sit on a body at rest, and undoing a mirrored picture."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.types import Landmarks

BLENDSHAPE_NAMES: Final[tuple[str, ...]] = (
    "_neutral",
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight"),
    *("eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight"),
    *("eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
    *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight"),
    *("jawForward", "jawLeft", "jawOpen", "jawRight"),
    *("mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker"),
    *("mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
)
"""The 52 scores of ``Landmarks.face_blendshapes``, in order."""

NOSE = 0
EYES, EARS = [2, 5], [7, 8]
SHOULDERS, ELBOWS, WRISTS = [11, 12], [13, 14], [15, 16]
PINKIES, INDICES, THUMBS = [17, 18], [19, 20], [21, 22]
HIPS, KNEES, ANKLES, HEELS, TOES = [23, 24], [25, 26], [27, 28], [29, 30], [31, 32]
"""Body points, left before right."""

FINGER_STARTS: Final = [5, 9, 17, 13, 1]
"""Hand point at the first joint of each finger in the order of SMPL-X: index, middle, pinky, ring, thumb."""

_FACE_OFFSETS: Final = np.array(
    [
        [0.0, -0.65, 0.71],  # nose
        [0.28, -0.08, 0.24],  # left eye: inner corner, middle, outer corner
        [0.50, 0.00, 0.20],
        [0.71, -0.03, 0.16],
        [-0.28, -0.08, 0.24],  # right eye
        [-0.50, 0.00, 0.20],
        [-0.71, -0.03, 0.16],
        [1.15, -0.30, -1.20],  # ears
        [-1.15, -0.30, -1.20],
        [0.39, -1.18, 0.35],  # corners of the mouth
        [-0.39, -1.18, 0.35],
    ]
)
"""Points 0 to 10 from between the eyeballs, in distances between the eyeballs, as measured on the free body."""

_FINGERTIP = 0.9
"""Length of the last bone of a finger in lengths of the one before."""

MIRRORED_BODY: Final = np.array([0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(i + 1 if i % 2 else i - 1 for i in range(11, 33))])
"""Body point that each becomes in the mirror."""


def _mirrored_blendshapes(names: Sequence[str]) -> np.ndarray:
    def twin(name: str) -> str:
        return name.replace("Left", "?").replace("Right", "Left").replace("?", "Right")

    return np.array([names.index(twin(name)) for name in names])


_MIRRORED_BLENDSHAPES = _mirrored_blendshapes(BLENDSHAPE_NAMES)


def body_points_at_rest(rest_joints: Float[np.ndarray, "55 3"]) -> Float64[np.ndarray, "33 3"]:
    """The 33 body points of a body in its zero pose, metres; face, heels and toes from its joints by proportion."""
    J = rest_joints.astype(np.float64)
    points = np.empty((33, 3))
    eyes = J[[JOINT_INDEX["left_eye_smplhf"], JOINT_INDEX["right_eye_smplhf"]]]
    points[:11] = eyes.mean(0) + _FACE_OFFSETS * np.linalg.norm(eyes[0] - eyes[1])
    for pair, joint in (
        *((SHOULDERS, "shoulder"), (ELBOWS, "elbow"), (WRISTS, "wrist"), (PINKIES, "pinky1"), (INDICES, "index1")),
        *((THUMBS, "thumb2"), (HIPS, "hip"), (KNEES, "knee"), (ANKLES, "ankle")),
    ):
        points[pair] = J[[JOINT_INDEX[f"left_{joint}"], JOINT_INDEX[f"right_{joint}"]]]
    for left_or_right, side in enumerate(("left", "right")):
        ankle, ball = J[JOINT_INDEX[f"{side}_ankle"]], J[JOINT_INDEX[f"{side}_foot"]]
        along = (ball - ankle) * [1, 0, 1]
        sole = [0, ball[1] - ankle[1], 0]
        points[HEELS[left_or_right]] = ankle + sole - 0.35 * along
        points[TOES[left_or_right]] = ankle + sole + 1.3 * along
    return points


def finger_bones_at_rest(rest_joints: Float[np.ndarray, "55 3"]) -> Float64[np.ndarray, "2 5 3 3"]:
    """Bones of each hand (left, right), finger and joint, from that joint to the next point; metres."""
    fingers = rest_joints[25:].astype(np.float64).reshape(2, 5, 3, 3)
    bones = np.diff(fingers, axis=2)
    return np.concatenate([bones, _FINGERTIP * bones[:, :, 1:]], axis=2)


def mirror(landmarks: Landmarks) -> Landmarks:
    """The same moment seen without a mirror: for cameras that flip their picture, left and right as the person has."""
    width = landmarks.image_size[0]
    world = np.array([-1, 1, 1], np.float32)

    def flip_image(points: np.ndarray | None) -> np.ndarray | None:
        return None if points is None else np.stack([width - points[:, 0], points[:, 1]], axis=1)

    def flip_world(points: np.ndarray | None) -> np.ndarray | None:
        return None if points is None else points * world

    def swap(array: np.ndarray | None, order: np.ndarray) -> np.ndarray | None:
        return None if array is None else array[order]

    pose = landmarks.T_camera_face
    across = np.diag([-1, 1, 1, 1]).astype(np.float32)
    return replace(
        landmarks,
        body_world=swap(flip_world(landmarks.body_world), MIRRORED_BODY),
        body_image=swap(flip_image(landmarks.body_image), MIRRORED_BODY),
        body_visibility=swap(landmarks.body_visibility, MIRRORED_BODY),
        left_hand_world=flip_world(landmarks.right_hand_world),
        left_hand_image=flip_image(landmarks.right_hand_image),
        right_hand_world=flip_world(landmarks.left_hand_world),
        right_hand_image=flip_image(landmarks.left_hand_image),
        face_image=flip_image(landmarks.face_image),
        face_blendshapes=swap(landmarks.face_blendshapes, _MIRRORED_BLENDSHAPES),
        T_camera_face=None if pose is None else across @ pose @ across,
    )
