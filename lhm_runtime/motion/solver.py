"""Landmarks of one person -> SMPL-X pose, in closed form.

Each bone points where its two landmarks say; what points cannot tell is decided by anatomy: the twist of upper arms
and thighs follows the plane of the bent elbow or knee and fades to none as the limb straightens, the forearm's turn is
shared by elbow and wrist, the bend of the trunk by three spine joints. A bone's length is always the avatar's, only
directions are taken from the tracker. Parts that are out of sight ease to a relaxed stance.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS, PARENTS
from lhm_runtime.body.rotations import matrix_to_rotvec
from lhm_runtime.errors import InvalidInputError, require_finite
from lhm_runtime.motion.directions import (
    clamp,
    cross,
    dot,
    ease,
    frame,
    matrix_to_rotvec_below_pi,
    rotate,
    smoothstep,
    turn,
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
from lhm_runtime.motion.palms import Palms
from lhm_runtime.motion.placement import Placement
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.sight import PALM_POINTS, Sight, frame_vectors, look, palms_of
from lhm_runtime.motion.trunk import COLLARS, HEAD, NECK, PELVIS, TRUNK, Trunk
from lhm_runtime.types import Camera, Landmarks, SmplxPose

EASE_S = 0.4
"""Time in which a part that goes out of sight comes to rest, and comes back."""

_FEET = np.array([JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]])
_FACE = slice(22, 25)
_FINGERS = np.arange(25, 55).reshape(10, 3)

# left arm, right arm, left leg, right leg
_PARENT = np.array([*COLLARS, PELVIS, PELVIS])
_UPPER = np.array([JOINT_INDEX[name] for name in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")])
_LOWER = np.array([JOINT_INDEX[name] for name in ("left_elbow", "right_elbow", "left_knee", "right_knee")])
_END = np.array([JOINT_INDEX[name] for name in ("left_wrist", "right_wrist", "left_ankle", "right_ankle")])
_LIMB_POINTS = np.array([[11, 12, 23, 24], [13, 14, 25, 26], [15, 16, 27, 28]])


def _shown_by() -> np.ndarray:
    """[5, 55] what must be in sight for each joint: body points; 33 head, 34 hands, 36 palms, 38 nothing, 39 all."""
    shown = np.full((5, NUM_JOINTS), 39)
    shown[:2, TRUNK], shown[:2, COLLARS] = np.array(SHOULDERS)[:, None], np.array(SHOULDERS)[:, None]
    shown[0, [NECK, HEAD]] = 33
    shown[:2, _UPPER] = _LIMB_POINTS[:2]
    shown[:3, _LOWER] = shown[:3, _END] = _LIMB_POINTS
    shown[3, _END[:2]] = 36, 37
    shown[3, _END[2:]], shown[4, _END[2:]] = HEELS, TOES
    shown[:, _FEET] = shown[:, _END[2:]]
    shown[0, _FACE] = 38
    shown[0, _FINGERS[:5]], shown[0, _FINGERS[5:]] = 34, 35
    return shown


_SHOWN_BY = _shown_by()

# bend (sine) from where the plane of a limb starts to count, and to where it is all that counts
_PLANE_FROM, _PLANE_TO = 0.12, 0.42
_PLANE_SURE = 0.7
"""Bend (sine) from which the plane is believed at once; below, its noise is eased out."""
_PLANE_S = 0.2
_LOWER_TWICE = np.array([0, 1, 2, 3, 0, 1])
# twist about the upper bone: its middle, and how far to each side is possible (Boone and Azen 1979: shoulder 69
# inwards, 104 outwards; hip 47 both ways; about 15 more for their spread)
_TWIST_MIDDLE = np.radians([-17.0, 17.0, 0.0, 0.0])
_TWIST_REACH = np.radians([105.0, 105.0, 62.0, 62.0])
# the forearm's, from palm down in the T-pose: 80 is thumb up, and 82 either way from there is possible
_FOREARM_MIDDLE = np.radians([-80.0, 80.0])
_FOREARM_REACH = np.radians(100.0)
_PELVIC_RHYTHM = 0.3
"""Share of a thigh's flexion that is the pelvis tilting back (Bohannon et al. 1985)."""


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
        self._trunk = Trunk(rest_joints, same_proportions=same_proportions)
        self._palms = Palms(palms_of(self._rest.points))
        self._mirrored = mirrored
        self._face = face
        self._relaxed = relaxed_pose().rotvec.astype(np.float64)
        self.reset()

    def reset(self) -> None:
        """Forget everything about earlier frames, as for another clip or person."""
        self._timestamp_s: float | None = None
        self._weight = np.zeros(NUM_JOINTS)
        self._hips_weight = 0.0
        self._seen = np.zeros(33)
        self._turned = np.zeros(4)
        self._palms.reset()
        self._held = self._relaxed.copy()
        self._expression = np.zeros(0 if self._face is None else self._face.num_expressions)
        self._transl = np.zeros(3)
        self._trunk.reset()

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

        sight = look(landmarks, self._rest.points, self._placement, self._seen)
        self._seen = sight.seen
        self._hips_weight += clamp(float(sight.seen[HIPS].min()) - self._hips_weight, -step, step)
        R = np.empty((NUM_JOINTS, 3, 3))  # world rotations
        frames = self._frames(sight)
        self._trunk.turn(R, frames, sight, self._hips_weight, passed_s)
        forearms = self._turn_limbs(R, sight, passed_s)
        self._turn_hands(R, frames[5:], forearms, sight, passed_s)
        R[_END[2:]] = R[_FEET] = frames[3:5]
        R[_FACE] = R[HEAD]

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
        self._weight += np.minimum(np.maximum(joints_seen - self._weight, -step), step)
        weight = smoothstep(self._weight)[:, None]
        eased = self._relaxed + weight * (self._held - self._relaxed)
        transl = self._placement.place(eased, landmarks, sight.seen)
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
            thighs = unit(sight.points[25:27] - sight.points[23:25])
            side, up = unit(np.array([leading[0], second[0]]))
            forward = cross(side, up)
            forwards, upwards = (thighs[0] + thighs[1]) @ np.array([forward, up]).T
            tilt = legs * _PELVIC_RHYTHM * clamp(math.atan2(forwards, -upwards), 0.0, 2.0)
            second[0] = math.cos(tilt) * up - math.sin(tilt) * forward
        if sight.face is not None:
            leading[2], second[2] = sight.face[:2]
        seen_frames = frame(leading, second)
        frames: np.ndarray = seen_frames @ self._rest.frames_inverse
        if sight.face is not None:
            frames[2] = seen_frames[2]
        return frames

    def _turn_limbs(self, R: np.ndarray, sight: Sight, passed_s: float) -> Float64[np.ndarray, "2 3 3"]:
        """Upper arms, thighs, forearms and shins: where they point, with the twist of the plane they bend in.

        Returns the forearms with no twist at all, neither their own nor that of the upper arms.
        """
        rest, points = self._rest, sight.points
        places = points[_LIMB_POINTS]
        u, f = unit(places[1:] - places[:2])
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
        tilt = np.arctan2(along, np.sqrt(np.maximum(1 - along * along - cosine * cosine, 1e-6)))
        across = cross(u, hinge)
        turned = np.arctan2(dot(across, plane), dot(hinge, plane)) - tilt
        turned = _TWIST_MIDDLE + _within_reach(wrap(turned - _TWIST_MIDDLE), _TWIST_REACH)
        trust = smoothstep((sine - _PLANE_FROM) / (_PLANE_TO - _PLANE_FROM))
        turned *= trust * sight.seen[_LIMB_POINTS[1:]].min(0)
        unsure = 1 - smoothstep((sine - _PLANE_FROM) / (_PLANE_SURE - _PLANE_FROM))
        self._turned += ease(passed_s, _PLANE_S * unsure) * (turned - self._turned)
        turned = self._turned
        frames = np.empty((4, 3, 3))
        frames[..., 0] = u
        frames[..., 1] = np.cos(turned)[:, None] * hinge + np.sin(turned)[:, None] * across
        frames[..., 2] = np.cos(turned)[:, None] * across - np.sin(turned)[:, None] * hinge
        upper = frames @ rest.upper_frames_inverse
        R[_UPPER] = upper
        # forearms and shins, then the forearms again
        before = np.concatenate([upper, swing[:2]])
        lower: np.ndarray = unit_arc(rotate(before, rest.lower[_LOWER_TWICE]), f[_LOWER_TWICE]) @ before
        R[_LOWER] = lower[:4]
        return lower[4:]

    def _turn_hands(
        self, R: np.ndarray, palms: np.ndarray, forearms: np.ndarray, sight: Sight, passed_s: float
    ) -> None:
        """Wrists and the turn of the forearms by the palms, then the fingers."""
        axis = self._rest.lower[:2]
        elbow = R[_LOWER[:2]]
        seen = sight.seen[PALM_POINTS].min(0)
        calm = self._palms.follow(palms, forearms, sight.palms, seen, sight.hands, passed_s)
        turned = wrap(twist(elbow.swapaxes(1, 2) @ calm, axis) - _FOREARM_MIDDLE)
        turned = (seen + sight.hands > 0) * (_FOREARM_MIDDLE + _within_reach(turned, _FOREARM_REACH))
        R[_LOWER[:2]] = elbow @ turn(axis, 0.5 * turned)
        R[_END[:2]] = calm
        parent = calm.repeat(5, axis=0)
        if not sight.hands.any():
            R[_FINGERS] = parent[:, None]
            return
        bones = unit(sight.fingers @ (palms @ calm.swapaxes(1, 2)).repeat(5, axis=0))
        for k in range(3):
            straight, bone = rotate(parent, self._rest.fingers[:, k]), bones[:, k]
            # no finger bends further than 120 degrees: what points back is taken back, without a jump
            back = np.maximum(-dot(straight, bone) - 0.5, 0.0)
            parent = unit_arc(straight, unit(bone + 6 * back[:, None] * straight)) @ parent
            R[_FINGERS[:, k]] = parent


def _joints_seen(sight: Sight) -> Float64[np.ndarray, " 55"]:
    """How far the points that turn each joint are in sight."""
    seen = np.empty(40)
    seen[:33] = sight.seen
    seen[33] = 1.0 if sight.face is not None else min(seen[NOSE], seen[EARS].max())
    seen[34:36] = sight.hands
    seen[36:38] = np.maximum(sight.hands, seen[PALM_POINTS].min(0))
    seen[38:] = 0, 1
    joints: np.ndarray = seen[_SHOWN_BY].min(0)
    return joints


def _within_reach(turn: np.ndarray, reach: np.ndarray | float) -> np.ndarray:
    """The same up to ``reach``, from there back to 0 at half a turn: what cannot be is not believed, without a jump."""
    size = np.abs(turn)
    believed: np.ndarray = np.minimum(size, reach / (np.pi - reach) * (np.pi - size))
    signed: np.ndarray = np.copysign(believed, turn)
    return signed
