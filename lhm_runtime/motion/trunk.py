"""How pelvis, spine, collars and neck stand, from where hips, shoulders and head are.

Pelvis, chest and head are turned as their points say. In between, the spine bends by thirds and the neck by half; the
spine leans without turning the chest until the collars can reach the shoulders.
"""

import math

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.motion.directions import axis_and_angle, clamp, dot, turn, unit, unit_arc
from lhm_runtime.motion.landmark_points import ANKLES, EARS, ELBOWS, HIPS, KNEES, SHOULDERS, WRISTS, body_points_at_rest
from lhm_runtime.motion.sight import Sight

TRUNK = np.array([JOINT_INDEX[name] for name in ("pelvis", "spine1", "spine2", "spine3")])
PELVIS, _SPINE1, _SPINE2, _CHEST = TRUNK
NECK, HEAD = JOINT_INDEX["neck"], JOINT_INDEX["head"]
COLLARS = np.array([JOINT_INDEX["left_collar"], JOINT_INDEX["right_collar"]])

_LEARN_S = 5.0
"""Time constant with which a person's proportions are learnt."""

_LEAN = 0.4
"""Most the middle of the spine leans out of its line, in its lengths."""
_NECK_TRUST = 0.5
"""How far the neck follows the place of the head, of which trackers are not sure."""
_NARROW = 0.1
"""Damping where the width of the shoulders says little about the height of the chest."""
_BONE_STARTS = np.array([*SHOULDERS, *HIPS, *ELBOWS, *KNEES, SHOULDERS[0]])
_BONE_ENDS = np.array([*ELBOWS, *KNEES, *WRISTS, *ANKLES, SHOULDERS[1]])
"""The limbs, last the width of the shoulders."""
_WIDTH_ALONE = np.eye(9)[8]
_TRUNK_POINTS = np.array([*SHOULDERS, *HIPS])
_FROM, _SHARES = np.array([0, 0, 1]), np.array([1 / 3, 2 / 3, 1 / 2])


class Trunk:
    """The trunk of one person, whose proportions are learnt as they are seen."""

    def __init__(self, rest_joints: Float[np.ndarray, "55 3"], *, same_proportions: bool) -> None:
        """``rest_joints`` are the avatar's, metres; with ``same_proportions`` nothing is learnt."""
        J = rest_joints.astype(np.float64)
        points = body_points_at_rest(rest_joints)
        hips, shoulders = points[HIPS], points[SHOULDERS]
        middle = hips.mean(0)
        self._trunk_length = float(np.linalg.norm(shoulders.mean(0) - middle))
        self._width = float(np.linalg.norm(shoulders[0] - shoulders[1]))
        self._to_spine1 = J[_SPINE1] - middle
        self._spine = np.array([J[_SPINE2] - J[_SPINE1], J[_CHEST] - J[_SPINE2]])
        collar_bones = shoulders - J[COLLARS]
        self._collar_lengths = np.linalg.norm(collar_bones, axis=1)
        # collars, collar bones, neck, and the middle of the shoulders
        to_collars, to_neck, to_middle = (p - J[_CHEST] for p in (J[COLLARS], J[NECK], shoulders.mean(0)))
        self._from_chest = np.array([*to_collars, *collar_bones, to_neck, to_middle])
        self._bone_lengths = np.linalg.norm(points[_BONE_ENDS] - points[_BONE_STARTS], axis=1)
        self._neck = unit(J[HEAD] - J[NECK])
        self._head_to_ears = points[EARS].mean(0) - J[HEAD]
        self._same_proportions = same_proportions
        self.reset()

    def reset(self) -> None:
        """Forget the person's proportions."""
        self._proportions: tuple[float, float] | None = None

    def turn(
        self,
        R: Float64[np.ndarray, "55 3 3"],
        frames: Float64[np.ndarray, "7 3 3"],
        sight: Sight,
        hips_weight: float,
        passed_s: float,
    ) -> None:
        """Set the world rotations ``R`` of pelvis, spine, collars, neck and head.

        ``frames`` are those of pelvis, chest and head first, ``hips_weight`` is how far the hips are in sight.
        """
        points = sight.points
        pelvis, chest, head = frames[:3]
        axes, angles = axis_and_angle(frames[:2].swapaxes(1, 2) @ frames[1:3])
        # a third and two thirds of the way from pelvis to chest, half of it from chest to head
        between = frames[_FROM] @ turn(axes[_FROM], angles[_FROM] * _SHARES)
        lower, middle, half = between

        # where the shoulders come to stand and where they should, from the middle of the hips in the avatar's size
        start = pelvis @ self._to_spine1
        spine = lower @ self._spine[0] + middle @ self._spine[1]
        from_chest = self._from_chest @ chest.T
        collars, bones, to_neck, to_shoulder_middle = from_chest[:2], from_chest[2:4], from_chest[4], from_chest[5]
        offset = start + spine + to_shoulder_middle
        shoulders, hips, ears = points[11:13], points[23:25], points[7:9]
        shoulder_middle = 0.5 * (shoulders[0] + shoulders[1])
        trunk = shoulder_middle - 0.5 * (hips[0] + hips[1])
        scale = self._scale(sight)
        longer, wider = self._learn_proportions(sight, trunk / scale, (shoulders[0] - shoulders[1]) / scale, passed_s)
        target_middle = offset + hips_weight * (trunk * (1 / (scale * longer)) - offset)
        targets = target_middle + (shoulders - shoulder_middle) * (1 / (scale * wider))

        # the spine leans without turning the chest, first towards the shoulders, then until the collars reach them
        length = float(np.sqrt(spine @ spine)) + 1e-9
        leaning = _lean(spine, target_middle - offset, length)
        reaches = targets - start - collars
        for _ in range(2):
            reach = reaches - leaning
            distance = np.sqrt(dot(reach, reach)) + 1e-9
            ways = reach / distance[:, None]
            # damped least squares for the shift that brings both distances to the collar bones' lengths
            left, right = (distance - self._collar_lengths).tolist()
            alike, damped = float(ways[0] @ ways[1]), 1 + _NARROW
            along = np.array([damped * left - alike * right, damped * right - alike * left])
            leaning = _lean(leaning, along @ ways / (damped * damped - alike * alike), length)

        # the neck turns half as far as the head, and points to where ears and face say the head is
        neck = shoulder_middle + scale * (start + leaning + to_neck - target_middle)
        to_head = 0.5 * (ears[0] + ears[1]) - scale * (head @ self._head_to_ears) - neck
        halfway = half @ self._neck
        to_head = halfway + hips_weight * _NECK_TRUST * (unit(to_head) - halfway)

        before, after = np.empty((4, 3)), np.empty((4, 3))  # spine, collars, neck
        before[0], before[1:3], before[3] = spine / length, bones / self._collar_lengths[:, None], halfway
        after[0], after[1:3], after[3] = leaning, reaches - leaning, to_head
        arcs = unit_arc(before, unit(after))
        R[PELVIS], R[_CHEST], R[HEAD] = frames[:3]
        R[[_SPINE1, _SPINE2]] = arcs[0] @ between[:2]
        R[COLLARS] = arcs[1:3] @ chest
        R[NECK] = arcs[3] @ half

    def _scale(self, sight: Sight) -> float:
        """Size of the person in sizes of the avatar, by the limbs in sight (else by the shoulders' width)."""
        weight = np.minimum(sight.seen[_BONE_STARTS], sight.seen[_BONE_ENDS])
        weight[-1] = 0
        if weight.sum() < 1:
            weight = _WIDTH_ALONE
        bones = sight.points[_BONE_ENDS] - sight.points[_BONE_STARTS]
        ratio = (np.sqrt(dot(bones, bones)) @ weight) / (self._bone_lengths @ weight)
        return max(float(ratio), 0.05)

    def _learn_proportions(
        self, sight: Sight, trunk: np.ndarray, width: np.ndarray, passed_s: float
    ) -> tuple[float, float]:
        """How much longer and wider than the avatar's this person's trunk is, given the same limbs.

        Else a person with a long trunk would always shrug.
        """
        if not self._same_proportions and sight.seen[_TRUNK_POINTS].min() > 0.9:
            part = 1.0 if self._proportions is None else min(passed_s / _LEARN_S, 1.0)
            longer, wider = self._proportions or (1.0, 1.0)
            longer += part * (clamp(math.sqrt(trunk @ trunk) / self._trunk_length, 0.7, 1.4) - longer)
            wider += part * (clamp(math.sqrt(width @ width) / self._width, 0.7, 1.4) - wider)
            self._proportions = (longer, wider)
        return self._proportions or (1.0, 1.0)


def _lean(spine: np.ndarray, shift: np.ndarray, length: float) -> np.ndarray:
    """The spine with its upper end moved by ``shift``, at the same length."""
    far = math.sqrt(shift @ shift) / (_LEAN * length)
    leaning = spine + (shift / far if far > 1 else shift)
    moved: np.ndarray = leaning * (length / (math.sqrt(leaning @ leaning) + 1e-12))
    return moved
