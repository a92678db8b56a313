"""Landmarks of one person -> SMPL-X pose, in closed form.

Each bone points where its two landmarks say; what points cannot tell is decided by anatomy: the twist of upper arms
and thighs follows the plane of the bent elbow or knee and fades to none as the limb straightens, the forearm's turn is
shared by elbow and wrist, the bend of the trunk by three spine joints. A bone's length is always the avatar's, only
directions are taken from the tracker. Parts that are out of sight ease to a relaxed stance.
"""


import numpy as np

from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS
from lhm_runtime.motion.landmark_points import (
    FINGER_STARTS,
)

EASE_S = 0.4
"""Time in which a part that goes out of sight comes to rest, and comes back."""

_LEARN_S = 5.0
"""Time constant with which the length of a person's trunk, in terms of the limbs, is learnt."""
_VISIBILITY = (0.35, 0.65)
"""Below the first a point counts as unseen, above the second as seen; measured on MediaPipe's clips."""
_SIZES_M = {"body": (0.15, 1.5), "hand": (0.02, 0.3)}
"""Hips to shoulders, and wrist to middle knuckle: what is smaller or larger is no person."""

# left arm, right arm, left leg, right leg
_PARENT = np.array([JOINT_INDEX[name] for name in ("left_collar", "right_collar", "pelvis", "pelvis")])
_UPPER = np.array([JOINT_INDEX[name] for name in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")])
_LOWER = np.array([JOINT_INDEX[name] for name in ("left_elbow", "right_elbow", "left_knee", "right_knee")])
_END = np.array([JOINT_INDEX[name] for name in ("left_wrist", "right_wrist", "left_ankle", "right_ankle")])
_LIMB_POINTS = np.array([[11, 12, 23, 24], [13, 14, 25, 26], [15, 16, 27, 28]])

_TRUNK = np.array([JOINT_INDEX[name] for name in ("pelvis", "spine1", "spine2", "spine3")])
_NECK, _HEAD, _JAW = (JOINT_INDEX[name] for name in ("neck", "head", "jaw"))
_FACE = [22, 23, 24]
_COLLARS = [JOINT_INDEX["left_collar"], JOINT_INDEX["right_collar"]]
_WRIST_JOINTS, _ANKLE_JOINTS = _END[:2], _END[2:]
_FINGERS = np.arange(25, 55).reshape(2, 5, 3)
_FINGER_POINTS = np.array(FINGER_STARTS)[:, None] + np.arange(4)

# bend (sine) from where the plane of a limb starts to count, to where it is all that counts
_PLANE_FROM, _PLANE_TO = np.array([0.15, 0.15, 0.2, 0.2])[:, None], np.array([0.5, 0.5, 0.55, 0.55])[:, None]
# twist about the upper bone, outwards from none: its middle and how far to each side is possible (Boone and Azen 1979:
# shoulder 69 inwards, 104 outwards; hip 47 both ways; about 15 more for their spread)
_TWIST_MIDDLE = np.radians([[-17.0], [-17.0], [0.0], [0.0]]) * np.array([[1.0], [-1.0], [1.0], [-1.0]])
_TWIST_REACH = np.radians([[105.0], [105.0], [62.0], [62.0]])
# the forearm's, from palm down in the T-pose: 80 is thumb up, and 82 either way from there is possible
_FOREARM_MIDDLE = np.radians([[-80.0], [80.0]])
_FOREARM_REACH = np.radians(100.0)
_SHIFT = np.tan(np.radians(18.0))
"""Most the middle of the spine leans out of the line from hips to chest."""


@dataclass(frozen=True, slots=True, eq=False)
class SolvedPose:
    """A pose, and how far each joint of it was seen."""

    pose: SmplxPose
    """In the camera's world: the camera at the origin looks along -z, y is up in the picture."""
    confidence: Float32[np.ndarray, " 55"]
    """0: at rest because it is out of sight; 1: as the landmarks say."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rest:
    """What the solver needs of a body at rest, each with its points: directions, frames and offsets."""

    joints: Float64[np.ndarray, "55 3"]
    points: Float64[np.ndarray, "33 3"]
    upper: Float64[np.ndarray, "4 3"]
    lower: Float64[np.ndarray, "4 3"]
    hinge: Float64[np.ndarray, "4 3"]
    """Axis about which an elbow or knee flexes, across the upper bone."""
    fingers: Float64[np.ndarray, "10 3 3"]

    @staticmethod
    def of(rest_joints: Float[np.ndarray, "55 3"]) -> "_Rest":
        J = rest_joints.astype(np.float64)
        upper, lower = unit(J[_LOWER] - J[_UPPER]), unit(J[_END] - J[_LOWER])
        bends_towards = np.array([[0.0, 0, 1], [0, 0, 1], [0, 0, -1], [0, 0, -1]])  # elbows forwards, knees backwards
        fingers = finger_bones_at_rest(rest_joints).reshape(10, 3, 3)
        return _Rest(J, body_points_at_rest(rest_joints), upper, lower, unit(cross(upper, bends_towards)), fingers)


class Solver:
    """Turns landmarks into poses of one avatar, one frame after the other."""

    def __init__(
        self,
        rest_joints: Float[np.ndarray, "55 3"],
        *,
        fov_y_deg: float | None = None,
        person_height_m: float | None = None,
        mirrored: bool = False,
        face: FaceMap | None = None,
    ) -> None:
        """``rest_joints`` are the avatar's at zero pose, metres.

        ``fov_y_deg`` is the camera's vertical field of view (default: that of common webcams and phones) and
        ``person_height_m`` the person's (default: the avatar's); both set how far away the person is. ``mirrored``
        says that the picture is flipped left to right. Without ``face`` the face stays neutral.

        Raises:
            InvalidInputError: joints that are not finite, or an angle or height that is none.
        """
        require_finite("rest_joints", rest_joints)
        self._rest = _Rest.of(rest_joints)
        self._placement = Placement(rest_joints, fov_y_deg=fov_y_deg, person_height_m=person_height_m)
        self._mirrored = mirrored
        self._face = face
        self._relaxed = relaxed_pose().rotvec.astype(np.float64)
        self.reset()

    def reset(self) -> None:
        """Forget everything about earlier frames, as for another clip or person."""
        self._timestamp_s: float | None = None
        self._weight = np.zeros(NUM_JOINTS)
        self._hips_weight = 0.0
        self._held = self._relaxed.copy()
        self._expression = np.zeros(0 if self._face is None else self._face.num_expressions)
        self._transl = np.zeros(3)
        self._T_world_joint = forward_kinematics(self._relaxed, self._rest.joints, self._transl)
        self._trunk_ratio = 1.0

    def camera(self, image_size: tuple[int, int]) -> Camera:
        """The camera whose pictures of ``image_size`` (width, height) show the solved poses as they were filmed."""
        return self._placement.camera(image_size)

    def solve(self, landmarks: Landmarks) -> SolvedPose:
        """Pose of this frame. What is missing, not finite or of an impossible size counts as unseen.

        Frames are ordered by their time stamps; one that repeats or goes back is solved like any other, but parts
        ease no further.

        Raises:
            InvalidInputError: a time stamp that is not finite.
        """
        if not np.isfinite(landmarks.timestamp_s):
            raise InvalidInputError(f"timestamp_s is {landmarks.timestamp_s}, expected seconds")
        if self._mirrored:
            landmarks = mirror(landmarks)
        step = self._step(landmarks.timestamp_s)

        R = self._T_world_joint[:, :3, :3].copy()  # world rotations: the last frame's where nothing new is seen
        sight = np.zeros(NUM_JOINTS)
        points, seen = _usable_body(landmarks)
        if points is not None:
            self._hips_weight += np.clip(seen[HIPS].min() - self._hips_weight, -step, step)
            chest = self._turn_trunk(R, sight, points, seen, step)
            self._turn_head(R, sight, points, seen, landmarks.T_camera_face, chest)
            self._turn_limbs(R, sight, points, seen)
            self._turn_feet(R, sight, points, seen)
        elif landmarks.T_camera_face is not None:
            self._turn_head(R, sight, None, seen, landmarks.T_camera_face, None)
        self._turn_hands(R, sight, points, seen, landmarks)

        local = R.copy()
        local[1:] = R[PARENTS[1:]].swapaxes(1, 2) @ R[1:]
        rotvec = soften_limits(matrix_to_rotvec(local))
        self._move_face(rotvec, sight, landmarks)
        return self._ease(rotvec, sight, step, landmarks, seen)

    def _step(self, timestamp_s: float) -> float:
        """How far a part may ease in this frame: all the way in the first."""
        last, self._timestamp_s = self._timestamp_s, timestamp_s
        return 1.0 if last is None else float(np.clip((timestamp_s - last) / EASE_S, 0.0, 1.0))

    def _turn_trunk(
        self, R: np.ndarray, sight: np.ndarray, points: np.ndarray, seen: np.ndarray, step: float
    ) -> np.ndarray:
        """Pelvis, spine and collars; returns [2, 3] the middle of the shoulders, as solved and as seen (both from
        the middle of the hips, in the avatar's size)."""
        J, rest = self._rest.joints, self._rest.points
        hips, shoulders = points[HIPS], points[SHOULDERS]
        scale = self._scale(points, seen)
        trunk = shoulders.mean(0) - hips.mean(0)
        hip_line, shoulder_line = hips[0] - hips[1], shoulders[0] - shoulders[1]
        up = trunk
        if self._hips_weight < 1:  # without hips: upright, and facing as the shoulders do
            up = self._hips_weight * unit(trunk) + (1 - self._hips_weight) * np.array([0.0, 1, 0])
            level = unit(shoulder_line * [1, 0, 1])
            hip_line = self._hips_weight * unit(hip_line) + (1 - self._hips_weight) * level

        rest_hips, rest_shoulders = rest[HIPS], rest[SHOULDERS]
        rest_trunk = rest_shoulders.mean(0) - rest_hips.mean(0)
        seen_frames = frame(np.stack([hip_line, shoulder_line]), np.stack([up, up]))
        rest_lines = np.stack([rest_hips[0] - rest_hips[1], rest_shoulders[0] - rest_shoulders[1]])
        pelvis, chest = seen_frames @ frame(rest_lines, np.stack([rest_trunk, rest_trunk])).swapaxes(1, 2)
        bend = small_rotvec(pelvis.T @ chest)
        lower, middle = pelvis @ rotvec_to_matrix(np.stack([bend / 3, bend * (2 / 3)]))

        # where the shoulders come to stand, then where they should
        first = pelvis @ (J[_TRUNK[1]] - rest_hips.mean(0))
        spine = lower @ (J[_TRUNK[2]] - J[_TRUNK[1]]) + middle @ (J[_TRUNK[3]] - J[_TRUNK[2]])
        collars = (J[_COLLARS] - J[_TRUNK[3]]) @ chest.T
        bones = (rest_shoulders - J[_COLLARS]) @ chest.T
        solved = first + spine + collars + bones
        self._learn_trunk(np.linalg.norm(trunk) / scale, np.linalg.norm(rest_trunk), seen, step)
        centre = solved.mean(0)
        centre = centre + self._hips_weight * (trunk / (scale * self._trunk_ratio) - centre)
        target = centre + (shoulders - shoulders.mean(0)) / scale

        turn = np.eye(3)
        for _ in range(3):
            # the spine leans aside without turning the chest, the collars do the rest
            shift = (target - solved).mean(0)
            reach = _SHIFT * np.linalg.norm(spine)
            lean = arc(spine, spine + shift * min(1.0, reach / max(float(np.linalg.norm(shift)), 1e-9)))
            spine = lean @ spine
            turn = lean @ turn
            base = first + spine + collars
            aim = arc(bones, target - base)
            solved = base + (aim @ bones[:, :, None])[:, :, 0]
        R[_TRUNK] = pelvis, turn @ lower, turn @ middle, chest
        R[_COLLARS] = aim @ chest
        sight[_TRUNK] = sight[_COLLARS] = seen[SHOULDERS].min()
        return np.stack([first + spine + (J[_NECK] - J[_TRUNK[3]]) @ chest.T, target.mean(0)])
