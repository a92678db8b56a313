"""Landmarks of one person -> SMPL-X pose, in closed form.

Each bone points where its two landmarks say; what points cannot tell is decided by anatomy: the twist of upper arms
and thighs follows the plane of the bent elbow or knee and fades to none as the limb straightens, the forearm's turn is
shared by elbow and wrist, the bend of the trunk by three spine joints. A bone's length is always the avatar's, only
directions are taken from the tracker. Parts that are out of sight ease to a relaxed stance.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS, PARENTS
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError, require_finite
from lhm_runtime.motion.directions import (
    cross,
    dot,
    frame,
    matrix_to_rotvec_below_pi,
    rotate,
    twist,
    unit,
    unit_arc,
    wrap,
)
from lhm_runtime.motion.expression import FaceMap
from lhm_runtime.motion.joint_limits import soften_limits
from lhm_runtime.motion.landmark_points import (
    EARS,
    HEELS,
    HIPS,
    KNEES,
    NOSE,
    SHOULDERS,
    TOES,
    body_points_at_rest,
    finger_bones_at_rest,
    mirror,
)
from lhm_runtime.motion.placement import Placement
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.sight import PALM_POINTS, Sight, frame_vectors, look, palms_of, smoothstep
from lhm_runtime.types import Camera, Landmarks, SmplxPose

EASE_S = 0.4
"""Time in which a part that goes out of sight comes to rest, and comes back."""

_LEARN_S = 5.0
"""Time constant with which a person's proportions are learnt."""

_TRUNK = np.array([JOINT_INDEX[name] for name in ("pelvis", "spine1", "spine2", "spine3")])
_PELVIS, _SPINE1, _SPINE2, _CHEST = _TRUNK
_NECK, _HEAD = JOINT_INDEX["neck"], JOINT_INDEX["head"]
_COLLARS = np.array([JOINT_INDEX["left_collar"], JOINT_INDEX["right_collar"]])
_FEET = np.array([JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]])
_FACE = slice(22, 25)
_FINGERS = np.arange(25, 55).reshape(10, 3)

# left arm, right arm, left leg, right leg
_PARENT = np.array([*_COLLARS, _PELVIS, _PELVIS])
_UPPER = np.array([JOINT_INDEX[name] for name in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")])
_LOWER = np.array([JOINT_INDEX[name] for name in ("left_elbow", "right_elbow", "left_knee", "right_knee")])
_END = np.array([JOINT_INDEX[name] for name in ("left_wrist", "right_wrist", "left_ankle", "right_ankle")])
_LIMB_POINTS = np.array([[11, 12, 23, 24], [13, 14, 25, 26], [15, 16, 27, 28]])

# bend (sine) from where the plane of a limb starts to count, and to where it is all that counts
_PLANE_FROM, _PLANE_TO = 0.12, 0.42
# twist about the upper bone: its middle, and how far to each side is possible (Boone and Azen 1979: shoulder 69
# inwards, 104 outwards; hip 47 both ways; about 15 more for their spread)
_TWIST_MIDDLE = np.radians([-17.0, 17.0, 0.0, 0.0])
_TWIST_REACH = np.radians([105.0, 105.0, 62.0, 62.0])
# the forearm's, from palm down in the T-pose: 80 is thumb up, and 82 either way from there is possible
_FOREARM_MIDDLE = np.radians([-80.0, 80.0])
_FOREARM_REACH = np.radians(100.0)
_PELVIC_RHYTHM = 0.3
"""Share of a thigh's flexion that is the pelvis tilting back (Bohannon et al. 1985)."""
_LEAN = 0.4
"""Most the middle of the spine leans out of its line, in its lengths."""
_NECK_TRUST = 0.5
"""How far the neck follows the place of the head, of which trackers are not sure."""
_NARROW = 0.1
"""Damping where the width of the shoulders says little about the height of the chest."""


@dataclass(frozen=True, slots=True, eq=False)
class SolvedPose:
    """A pose, and how far each joint of it was seen."""

    pose: SmplxPose
    """In the camera's world: the camera at the origin looks along -z, y is up in the picture."""
    confidence: Float32[np.ndarray, " 55"]
    """0: at rest because it is out of sight; 1: as the landmarks say."""


class _Rest:
    """What the solver needs of a body at rest: directions, frames and offsets, each as its landmarks would show it."""

    def __init__(self, rest_joints: Float[np.ndarray, "55 3"]) -> None:
        J = self.joints = rest_joints.astype(np.float64)
        points = self.points = body_points_at_rest(rest_joints)
        hips, shoulders = points[HIPS], points[SHOULDERS]
        middle = hips.mean(0)
        self.trunk_length = float(np.linalg.norm(shoulders.mean(0) - middle))
        self.width = float(np.linalg.norm(shoulders[0] - shoulders[1]))
        self.to_spine1 = J[_SPINE1] - middle
        self.spine = np.array([J[_SPINE2] - J[_SPINE1], J[_CHEST] - J[_SPINE2]])
        self.to_collars = J[_COLLARS] - J[_CHEST]
        self.collar_bones = shoulders - J[_COLLARS]
        self.collar_lengths = np.linalg.norm(self.collar_bones, axis=1)
        self.to_neck = J[_NECK] - J[_CHEST]
        self.neck = unit(J[_HEAD] - J[_NECK])
        self.head_to_ears = points[EARS].mean(0) - J[_HEAD]

        self.frames_inverse = frame(*frame_vectors(points, palms_of(points))).swapaxes(1, 2)
        self.upper, self.lower = unit(J[_LOWER] - J[_UPPER]), unit(J[_END] - J[_LOWER])
        # the axis about which an elbow or knee flexes: elbows to the front, knees to the back
        self.hinge = unit(cross(self.upper, np.array([[0.0, 0, 1], [0, 0, 1], [0, 0, -1], [0, 0, -1]])))
        self.upper_frames_inverse = frame(self.upper, self.hinge).swapaxes(1, 2)
        self.lower_along_hinge = dot(self.lower, self.hinge)
        self.fingers = unit(finger_bones_at_rest(rest_joints).reshape(10, 3, 3))


class Solver:
    """Turns landmarks into poses of one avatar, one frame after the other."""

    def __init__(
        self,
        rest_joints: Float[np.ndarray, "55 3"],
        *,
        fov_y_deg: float | None = None,
        person_height_m: float | None = None,
        mirrored: bool = False,
        same_proportions: bool = False,
        face: FaceMap | None = None,
    ) -> None:
        """``rest_joints`` are the avatar's at zero pose, metres.

        ``fov_y_deg`` is the camera's vertical field of view (default: that of common webcams and phones) and
        ``person_height_m`` the person's (default: the avatar's); both set how far away the person is. ``mirrored``
        says that the picture is flipped left to right, ``same_proportions`` that the person is built like the avatar;
        otherwise trunk and shoulders are learnt. Without ``face`` the face stays neutral.

        Raises:
            InvalidInputError: joints that are not finite, or an angle or height that is none.
        """
        require_finite("rest_joints", rest_joints)
        self._rest = _Rest(rest_joints)
        self._placement = Placement(rest_joints, fov_y_deg=fov_y_deg, person_height_m=person_height_m)
        self._mirrored = mirrored
        self._same_proportions = same_proportions
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
        self._proportions: Float64[np.ndarray, " 2"] | None = None

    def camera(self, image_size: tuple[int, int]) -> Camera:
        """The camera whose pictures of ``image_size`` (width, height) show the solved poses as they were filmed."""
        return self._placement.camera(image_size)

    def solve(self, landmarks: Landmarks) -> SolvedPose:
        """Pose of this frame. What is missing, not finite or of an impossible size counts as unseen.

        Frames are ordered by their time stamps; one that repeats or goes back is solved like any other, but nothing
        eases any further.

        Raises:
            InvalidInputError: a time stamp that is not finite.
        """
        if not np.isfinite(landmarks.timestamp_s):
            raise InvalidInputError(f"timestamp_s is {landmarks.timestamp_s}, expected seconds")
        if self._mirrored:
            landmarks = mirror(landmarks)
        passed_s = np.inf if self._timestamp_s is None else max(0.0, landmarks.timestamp_s - self._timestamp_s)
        self._timestamp_s = landmarks.timestamp_s
        step = min(passed_s / EASE_S, 1.0)

        sight = look(landmarks, self._rest.points, self._placement)
        self._hips_weight += float(np.clip(sight.seen[HIPS].min() - self._hips_weight, -step, step))
        R = np.empty((NUM_JOINTS, 3, 3))  # world rotations
        frames = self._frames(sight)
        self._turn_trunk(R, sight, frames, passed_s)
        self._turn_limbs(R, sight)
        self._turn_hands(R, frames[5:], sight)
        R[_END[2:]] = R[_FEET] = frames[3:5]
        R[_FACE] = R[_HEAD]

        local = R.copy()
        local[1:] = R[PARENTS[1:]].swapaxes(1, 2) @ R[1:]
        rotvec = matrix_to_rotvec_below_pi(local)
        if R[0].trace() < -0.9:  # the one joint that may turn by half a turn
            rotvec[0] = matrix_to_rotvec(R[0])
        rotvec = soften_limits(rotvec)
        joints_seen = _joints_seen(sight)
        scores = landmarks.face_blendshapes
        if self._face is not None and scores is not None and np.isfinite(scores).all():
            motion = self._face.move(scores)
            rotvec[_FACE], self._expression = motion.rotvec, motion.expression.astype(np.float64)
            joints_seen[_FACE] = 1.0

        # go on towards what is in sight, and from what is not towards rest
        self._held = np.where(joints_seen[:, None] > 0, rotvec, self._held)
        self._weight += np.clip(joints_seen - self._weight, -step, step)
        weight = smoothstep(self._weight)[:, None]
        eased = self._relaxed + weight * (self._held - self._relaxed)
        T_world_joint = forward_kinematics(eased, self._rest.joints, np.zeros(3))
        transl = self._placement.place(T_world_joint, landmarks, sight.seen)
        self._transl = self._transl if transl is None else transl
        pose = SmplxPose(
            rotvec=eased.astype(np.float32),
            transl=self._transl.astype(np.float32),
            expression=(self._expression * weight[_FACE.start]).astype(np.float32),
            timestamp_s=landmarks.timestamp_s,
        )
        return SolvedPose(pose, np.minimum(self._weight, joints_seen).astype(np.float32))

    def _frames(self, sight: Sight) -> Float64[np.ndarray, "7 3 3"]:
        """World rotations of pelvis, chest, head, feet and palms, each from two directions of its own."""
        leading, second = frame_vectors(sight.points, sight.palms)
        weight = self._hips_weight
        if weight < 1:  # without hips: upright, and facing as the shoulders do
            second[:2] = weight * unit(second[:2]) + (1 - weight) * np.array([0.0, 1, 0])
            leading[0] = weight * unit(leading[0]) + (1 - weight) * unit(leading[1] * [1, 0, 1])
        legs = weight * sight.seen[KNEES].min()
        if legs > 0:  # a pelvis tilts back under raised thighs
            thighs = unit(sight.points[KNEES] - sight.points[HIPS])
            thigh = thighs[0] + thighs[1]
            side, up = unit(leading[0]), unit(second[0])
            forward = cross(side, up)
            flexion = np.arctan2(thigh @ forward, -(thigh @ up))
            tilt = legs * _PELVIC_RHYTHM * min(max(flexion, 0.0), 2.0)
            second[0] = np.cos(tilt) * up - np.sin(tilt) * forward
        frames: np.ndarray = frame(leading, second) @ self._rest.frames_inverse
        if sight.head is not None:
            frames[2] = sight.head
        return frames

    def _turn_trunk(self, R: np.ndarray, sight: Sight, frames: np.ndarray, passed_s: float) -> None:
        """Pelvis, spine, collars, neck and head."""
        rest, points = self._rest, sight.points
        pelvis, chest, head = frames[:3]
        bend, nod = matrix_to_rotvec_below_pi(np.array([pelvis.T @ chest, chest.T @ head]))
        thirds = rotvec_to_matrix(np.array([bend * (1 / 3), bend * (2 / 3), 0.5 * nod]))
        lower, middle, half = pelvis @ thirds[0], pelvis @ thirds[1], chest @ thirds[2]

        # where the shoulders come to stand and where they should, from the middle of the hips in the avatar's size
        start = pelvis @ rest.to_spine1
        spine = lower @ rest.spine[0] + middle @ rest.spine[1]
        collars = rest.to_collars @ chest.T
        bones = rest.collar_bones @ chest.T
        collar_lengths = rest.collar_lengths
        offset = start + spine + 0.5 * (collars[0] + collars[1] + bones[0] + bones[1])
        shoulders = points[SHOULDERS]
        shoulder_middle = 0.5 * (shoulders[0] + shoulders[1])
        trunk = shoulder_middle - 0.5 * (points[HIPS[0]] + points[HIPS[1]])
        scale = self._scale(sight)
        longer, wider = self._learn_proportions(sight, trunk / scale, (shoulders[0] - shoulders[1]) / scale, passed_s)
        target_middle = offset + self._hips_weight * (trunk * (1 / (scale * longer)) - offset)
        targets = target_middle + (shoulders - shoulder_middle) * (1 / (scale * wider))

        # the spine leans without turning the chest, first towards the shoulders, then until the collars reach them
        length = np.sqrt(spine @ spine) + 1e-9
        leaning = _lean(spine, target_middle - offset, length)
        for _ in range(2):
            reach = targets - (start + leaning + collars)
            distance = np.sqrt(dot(reach, reach))
            left, right = unit(reach)
            # damped least squares for the shift that brings both distances to the collar bones' lengths
            missing = distance - collar_lengths
            alike, damped = left @ right, 1 + _NARROW
            determinant = damped * damped - alike * alike
            shift = (damped * missing[0] - alike * missing[1]) * left + (
                damped * missing[1] - alike * missing[0]
            ) * right
            leaning = _lean(leaning, shift / determinant, length)
        lean = unit_arc(unit(spine), unit(leaning))
        reach = targets - (start + leaning + collars)
        R[_PELVIS], R[_SPINE1], R[_SPINE2], R[_CHEST] = pelvis, lean @ lower, lean @ middle, chest
        R[_COLLARS] = unit_arc(bones / collar_lengths[:, None], unit(reach)) @ chest

        # the neck turns half as far as the head, and points to where ears and face say the head is
        neck = shoulder_middle + scale * (start + leaning + chest @ rest.to_neck - target_middle)
        ears = 0.5 * (points[EARS[0]] + points[EARS[1]])
        to_head = ears - scale * (head @ rest.head_to_ears) - neck
        halfway = half @ rest.neck
        to_head = halfway + self._hips_weight * _NECK_TRUST * (unit(to_head) - halfway)
        R[_NECK] = unit_arc(halfway, unit(to_head)) @ half
        R[_HEAD] = head

    def _scale(self, sight: Sight) -> float:
        """Size of the person in sizes of the avatar, by the limbs in sight (else by the shoulders' width)."""
        begins, ends = _LIMB_POINTS[:2].ravel(), _LIMB_POINTS[1:].ravel()
        weight = np.minimum(sight.seen[begins], sight.seen[ends])
        if weight.sum() < 1:
            begins, ends, weight = np.array(SHOULDERS[:1]), np.array(SHOULDERS[1:]), np.ones(1)
        bones, rest_bones = (
            sight.points[ends] - sight.points[begins],
            self._rest.points[ends] - self._rest.points[begins],
        )
        ratio = (np.sqrt(dot(bones, bones)) @ weight) / (np.sqrt(dot(rest_bones, rest_bones)) @ weight)
        return max(float(ratio), 0.05)

    def _learn_proportions(
        self, sight: Sight, trunk: np.ndarray, width: np.ndarray, passed_s: float
    ) -> Float64[np.ndarray, " 2"]:
        """How much longer and wider than the avatar's this person's trunk is, given the same limbs.

        Else a person with a long trunk would always shrug.
        """
        if not self._same_proportions and sight.seen[[*HIPS, *SHOULDERS]].min() > 0.9:
            now = np.sqrt([trunk @ trunk, width @ width]) / [self._rest.trunk_length, self._rest.width]
            part = 1.0 if self._proportions is None else min(passed_s / _LEARN_S, 1.0)
            before = 1.0 if self._proportions is None else self._proportions
            self._proportions = before + part * (np.clip(now, 0.7, 1.4) - before)
        return np.ones(2) if self._proportions is None else self._proportions

    def _turn_limbs(self, R: np.ndarray, sight: Sight) -> None:
        """Upper arms, thighs, forearms and shins: where they point, with the twist of the plane they bend in."""
        rest, points = self._rest, sight.points
        start, middle, end = points[_LIMB_POINTS]
        u, f = unit(middle - start), unit(end - middle)
        plane, cosine = cross(u, f), dot(u, f)
        sine = np.sqrt(dot(plane, plane))

        # the hinge without twist; a straight leg's is known by the foot, too
        parent = R[_PARENT]
        swing = unit_arc(rotate(parent, rest.upper), u) @ parent
        hinge = rotate(swing, rest.hinge)
        foot = cross(unit(points[TOES] - points[HEELS]), u[2:])
        hinge[2:] = unit(hinge[2:] + foot * (dot(foot, hinge[2:]) > 0)[:, None])

        # a lower bone that is not quite across the hinge at rest tilts the plane it bends in
        along = rest.lower_along_hinge
        tilt = np.arctan2(along, np.sqrt(np.maximum(1 - along**2 - cosine**2, 1e-6)))
        across = cross(u, hinge)
        turn = np.arctan2(dot(across, plane), dot(hinge, plane)) - tilt
        turn = _TWIST_MIDDLE + _within_reach(wrap(turn - _TWIST_MIDDLE), _TWIST_REACH)
        trust = smoothstep((sine - _PLANE_FROM) / (_PLANE_TO - _PLANE_FROM))
        turn *= trust * np.minimum(sight.seen[_LIMB_POINTS[1]], sight.seen[_LIMB_POINTS[2]])
        hinge = np.cos(turn)[:, None] * hinge + np.sin(turn)[:, None] * across

        upper = frame(u, hinge) @ rest.upper_frames_inverse
        R[_UPPER] = upper
        R[_LOWER] = unit_arc(rotate(upper, rest.lower), f) @ upper

    def _turn_hands(self, R: np.ndarray, palms: np.ndarray, sight: Sight) -> None:
        """Wrists and the turn of the forearms by the palms, then the fingers."""
        forearm = self._rest.lower[:2]
        elbow = R[_LOWER[:2]]
        turn = wrap(twist(elbow.swapaxes(1, 2) @ palms, forearm) - _FOREARM_MIDDLE)
        known = sight.seen[PALM_POINTS].min(0) + sight.hands > 0
        turn = known * (_FOREARM_MIDDLE + _within_reach(turn, _FOREARM_REACH))
        R[_LOWER[:2]] = elbow @ rotvec_to_matrix(0.5 * turn[:, None] * forearm)
        R[_END[:2]] = palms
        parent = palms.repeat(5, axis=0)
        if not sight.hands.any():
            R[_FINGERS] = parent[:, None]
            return
        bones = unit(sight.fingers)
        for k in range(3):
            straight, bone = rotate(parent, self._rest.fingers[:, k]), bones[:, k]
            # no finger bends further than 120 degrees: what points back is taken back, without a jump
            back = np.maximum(-dot(straight, bone) - 0.5, 0.0)
            parent = unit_arc(straight, unit(bone + 6 * back[:, None] * straight)) @ parent
            R[_FINGERS[:, k]] = parent


def _joints_seen(sight: Sight) -> Float64[np.ndarray, " 55"]:
    """How far the points that turn each joint are in sight."""
    seen, joints = sight.seen, np.zeros(NUM_JOINTS)
    start, middle, end = seen[_LIMB_POINTS]
    joints[_TRUNK] = joints[_COLLARS] = start[:2].min()
    joints[[_NECK, _HEAD]] = 1.0 if sight.head is not None else min(seen[NOSE], seen[EARS].max())
    upper = np.minimum(start, middle)
    lower = np.minimum(upper, end)
    joints[_UPPER], joints[_LOWER] = upper, lower
    joints[_END[:2]] = np.minimum(lower[:2], np.maximum(sight.hands, seen[PALM_POINTS].min(0)))
    joints[_END[2:]] = np.minimum(lower[2:], np.minimum(seen[HEELS], seen[TOES]))
    joints[_FEET] = joints[_END[2:]]
    joints[_FINGERS] = sight.hands.repeat(5)[:, None]
    return joints


def _lean(spine: np.ndarray, shift: np.ndarray, length: float) -> np.ndarray:
    """The spine with its upper end moved by ``shift``, at the same length."""
    far = np.sqrt(shift @ shift) / (_LEAN * length)
    leaning = spine + (shift / far if far > 1 else shift)
    moved: np.ndarray = length * unit(leaning)
    return moved


def _within_reach(turn: np.ndarray, reach: np.ndarray | float) -> np.ndarray:
    """The same up to ``reach``, from there back to 0 at half a turn: what cannot be is not believed, without a jump."""
    size = np.abs(turn)
    believed: np.ndarray = np.minimum(size, reach / (np.pi - reach) * (np.pi - size))
    signed: np.ndarray = np.copysign(believed, turn)
    return signed
