"""Rotations made for another skeleton, as a pose of ours.

Both skeletons have a rest pose. What is carried over is the turn of each bone from its rest, in world axes; and
where the rests differ (T-pose or A-pose, arms level or drooping) limbs are first laid parallel, so that an arm that
points somewhere in the source points there here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES, NUM_JOINTS, PARENTS
from lhm_runtime.body.rotations import matrix_to_quat_wxyz, matrix_to_rotvec, quat_wxyz_to_matrix, rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError, require_finite, require_shape
from lhm_runtime.motion.bone_names import own_face_shape, vrm_bones, vrm_face_mix, vrm_joints
from lhm_runtime.motion.rest_pose import rest_turns
from lhm_runtime.types import SmplxPose

Convention = Literal["unity", "vrm0", "vrm1", "smplx"]
"""Whose names and axes: ``unity`` is what VMC sends (left-handed, x right, y up, z forward); ``vrm0`` and ``vrm1`` are
the glTF files of VRM (right-handed, y up, facing -z and +z); ``smplx`` is ours (right-handed, y up, facing +z)."""

_AXES = {
    "unity": np.array([-1.0, 1, 1]),
    "vrm0": np.array([-1.0, 1, -1]),
    "vrm1": np.ones(3),
    "smplx": np.ones(3),
}

_ARMS = ("shoulder", "elbow", "wrist")
_LEGS = ("hip", "knee")
_ZERO_QUATERNION = 1e-6
_MAX_NAMES = 1000  # remembered; a hostile sender may make up ever more
_SMPLX_PARTS = {
    ("global_orient", "root_pose"): 3,
    ("body_pose",): 63,
    ("jaw_pose",): 3,
    ("leye_pose",): 3,
    ("reye_pose",): 3,
    ("left_hand_pose", "lhand_pose"): 45,
    ("right_hand_pose", "rhand_pose"): 45,
    ("transl", "trans"): 3,
    ("expression", "expr"): None,
}


@dataclass(frozen=True, slots=True, eq=False)
class BoneRotations:
    """One moment of a foreign skeleton: each bone's rotation in its parent, relative to the skeleton's T-pose."""

    names: tuple[str, ...]
    """Bone names, as the convention has them; case is ignored."""
    quat_wxyz: Float32[np.ndarray, "n 4"]
    """Rotations in the convention's axes, of any length but zero; bones not listed are at rest."""
    timestamp_s: float
    """When this was so, on the source's clock."""
    convention: Convention
    root_transl: Float32[np.ndarray, " 3"] | None = None
    """Where the hips are, metres, in the convention's axes; for ``smplx`` the pose's ``transl`` itself."""
    blendshape_names: tuple[str, ...] = ()
    """ARKit or VRM names of face shapes."""
    blendshape_values: Float32[np.ndarray, " k"] | None = None
    """Their weights, 0 to 1; None without names."""


class Retargeter:
    """Turns one stream of ``BoneRotations`` into poses of one body."""

    def __init__(
        self,
        rest_joints: Float[np.ndarray, "55 3"],
        expression_names: Sequence[str] = (),
        *,
        match_limbs: bool = True,
        hips_height_m: float | None = None,
    ) -> None:
        """Prepare for a body.

        Args:
            rest_joints: the body's joints at zero pose.
            expression_names: what its expression coefficients are called.
            match_limbs: make arms and legs point where the source's do; otherwise only rotations are carried over, so
                that the source's T-pose becomes the body's zero pose.
            hips_height_m: the source's hips above its floor in T-pose, to scale its steps to this body's legs; None
                takes the height of the first moment as that.

        Raises:
            InvalidInputError: a height that is not positive.
        """
        if hips_height_m is not None and not 0 < hips_height_m < np.inf:
            raise InvalidInputError(f"hips_height_m is {hips_height_m}, expected a positive number of metres")
        self._expression_names = tuple(expression_names)
        self._limb_turns = (
            rest_turns(rest_joints, _t_pose()) if match_limbs else np.broadcast_to(np.eye(3), (NUM_JOINTS, 3, 3))
        )
        self._height_m = float(rest_joints[0, 1] - rest_joints[:, 1].min())
        self._hips_rest: np.ndarray | None = None
        self._scale = 1.0
        if hips_height_m is not None:
            self._set_hips_rest(np.array([0, hips_height_m, 0]))
        self._known_names: tuple[Convention, tuple[str, ...]] | None = None
        self._joints: Mapping[str, int] = {}
        self._ignored: dict[str, None] = {}
        self._faces: dict[str, tuple[str | None, Mapping[str, float] | None]] = {}

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of bones and face shapes seen so far that mean nothing here, each once (the first thousand)."""
        return tuple(self._ignored)

    def to_pose(self, bones: BoneRotations) -> SmplxPose:
        """The body in the position of ``bones``.

        Raises:
            InvalidInputError: a NaN, an Inf, a zero quaternion, counts that do not agree, an unknown convention.
        """
        _check(bones)
        local = np.broadcast_to(np.eye(3), (NUM_JOINTS, 3, 3)).copy()
        joints = self._find_joints(bones)
        rows = [i for i, name in enumerate(bones.names) if name in joints]
        if rows:
            targets = [joints[bones.names[i]] for i in rows]
            local[targets] = _to_our_axes(
                quat_wxyz_to_matrix(bones.quat_wxyz[rows].astype(np.float64)), bones.convention
            )
        if bones.convention != "smplx":
            local = _lay_parallel(local, self._limb_turns)
        return SmplxPose(
            rotvec=matrix_to_rotvec(local).astype(np.float32),
            transl=self._find_transl(bones),
            expression=self._find_expression(bones),
            timestamp_s=bones.timestamp_s,
        )

    def joints_of(self, bones: BoneRotations) -> list[int]:
        """Indices of the joints that ``bones`` turn; the others are at rest."""
        return [*self._find_joints(bones).values()]

    def to_bones(self, pose: SmplxPose, convention: Convention) -> BoneRotations:
        """The rotations of which ``to_pose`` makes ``pose``, with all 55 bones, as ``convention`` has them.

        The hips' position is above this body's floor, so that a retargeter told its ``hips_height_m`` gets ``transl``
        back; expressions go by their names and are cut to 0..1.

        Raises:
            InvalidInputError: an expression of another length than the names given.
        """
        require_shape("expression", pose.expression, (len(self._expression_names),))
        local = rotvec_to_matrix(pose.rotvec.astype(np.float64))
        transl = pose.transl
        if convention != "smplx":
            local = _lay_parallel(local, np.swapaxes(self._limb_turns, -1, -2))
            transl = (transl + np.array([0, self._height_m, 0])) * _AXES[convention]
        return BoneRotations(
            names=JOINT_NAMES if convention == "smplx" else vrm_bones(vrm1=convention == "vrm1"),
            quat_wxyz=matrix_to_quat_wxyz(_to_our_axes(local, convention)).astype(np.float32),
            timestamp_s=pose.timestamp_s,
            convention=convention,
            root_transl=transl.astype(np.float32),
            blendshape_names=self._expression_names,
            blendshape_values=np.clip(pose.expression, 0, 1),
        )

    def _find_joints(self, bones: BoneRotations) -> Mapping[str, int]:
        names = (bones.convention, bones.names)
        if names == self._known_names:  # as in most frames of a stream
            return self._joints
        if bones.convention == "smplx":
            joints = {name: JOINT_INDEX[name.lower()] for name in bones.names if name.lower() in JOINT_INDEX}
        else:
            joints = vrm_joints(bones.names, vrm1=bones.convention == "vrm1")
        self._ignore(name for name in bones.names if name not in joints)
        self._known_names, self._joints = names, joints
        return joints

    def _find_transl(self, bones: BoneRotations) -> Float32[np.ndarray, " 3"]:
        if bones.root_transl is None:
            return np.zeros(3, np.float32)
        if bones.convention == "smplx":
            return bones.root_transl
        hips = bones.root_transl * _AXES[bones.convention]
        if self._hips_rest is None:
            self._set_hips_rest(hips)
        transl: np.ndarray = (hips - self._hips_rest) * self._scale
        return transl.astype(np.float32)

    def _set_hips_rest(self, hips: np.ndarray) -> None:
        self._hips_rest = hips
        if hips[1] > 0:  # else the source counts from its hips, and tells nothing of its size
            self._scale = self._height_m / float(hips[1])

    def _find_expression(self, bones: BoneRotations) -> Float32[np.ndarray, " e"]:
        """Shapes named directly win over what VRM expressions mix in; mixes add up."""
        if bones.blendshape_values is None:
            return np.zeros(len(self._expression_names), np.float32)
        mixed = dict.fromkeys(self._expression_names, 0.0)
        direct: dict[str, float] = {}
        for name, value in zip(bones.blendshape_names, bones.blendshape_values.tolist(), strict=True):
            own, mix = self._know_face(name)
            if own is not None:
                direct[own] = value
            elif mix is None:
                self._ignore([name])
            else:
                for shape in mix.keys() & mixed.keys():
                    mixed[shape] += mix[shape] * value
        return np.clip(np.array([*(mixed | direct).values()], np.float32), 0, 1)

    def _ignore(self, names: Iterable[str]) -> None:
        for name in names:
            if len(self._ignored) < _MAX_NAMES:
                self._ignored[name] = None

    def _know_face(self, name: str) -> tuple[str | None, Mapping[str, float] | None]:
        if name not in self._faces and len(self._faces) < _MAX_NAMES:
            self._faces[name] = (own_face_shape(name, self._expression_names), vrm_face_mix(name))
        return self._faces.get(name, (None, None))


def smplx_values_to_pose(values: Mapping[str, object], timestamp_s: float) -> SmplxPose:
    """A pose from a dictionary as the ``smplx`` package takes it, or a frame of LHM's json; our world, batch of one.

    Read are global_orient (root_pose), body_pose, jaw_pose, leye_pose, reye_pose, left_hand_pose (lhand_pose),
    right_hand_pose (rhand_pose), transl (trans) and expression (expr), each flat or by joint; what is absent is zero.

    Raises:
        InvalidInputError: a wrong number of values (hands as PCA coefficients among them), a NaN, no known key.
    """
    parts = []
    found = False
    for names, count in _SMPLX_PARTS.items():
        key = next((name for name in names if values.get(name) is not None), None)
        found |= key is not None
        part = np.zeros(count if count else 0) if key is None else _numbers(key, values[key])
        if count and part.size != count:
            hint = "; pose hands without PCA (use_pca=False)" if "hand" in names[0] and part.size < count else ""
            raise InvalidInputError(f"{key} has {part.size} values, expected {count}{hint}")
        parts.append(part.astype(np.float32))
    if not found:
        known = ", ".join(name for names in _SMPLX_PARTS for name in names)
        raise InvalidInputError(f"none of the keys {', '.join(map(str, values)) or '(none)'} is one of {known}")
    *rotations, transl, expression = parts
    return SmplxPose(np.concatenate(rotations).reshape(NUM_JOINTS, 3), transl, expression, timestamp_s)


def _check(bones: BoneRotations) -> None:
    if bones.convention not in _AXES:
        raise InvalidInputError(f"convention is {bones.convention!r}, expected one of {', '.join(_AXES)}")
    require_shape("quat_wxyz", bones.quat_wxyz, (len(bones.names), 4))
    require_finite("quat_wxyz", bones.quat_wxyz)
    zero = np.flatnonzero(np.abs(bones.quat_wxyz).max(axis=1, initial=0) < _ZERO_QUATERNION)
    if zero.size:
        raise InvalidInputError(f"quat_wxyz[{zero[0]}] ({bones.names[zero[0]]}) is zero, which is no rotation")
    if bones.root_transl is not None:
        require_shape("root_transl", bones.root_transl, (3,))
        require_finite("root_transl", bones.root_transl)
    if bones.blendshape_values is not None:
        require_shape("blendshape_values", bones.blendshape_values, (len(bones.blendshape_names),))
        require_finite("blendshape_values", bones.blendshape_values)
    elif bones.blendshape_names:
        raise InvalidInputError(f"{len(bones.blendshape_names)} blendshape_names without blendshape_values")
    if not np.isfinite(bones.timestamp_s):
        raise InvalidInputError(f"timestamp_s is {bones.timestamp_s}, expected finite seconds")


def _numbers(key: str, value: object) -> Float64[np.ndarray, " n"]:
    try:
        numbers = np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{key} is not an array of numbers: {error}") from error
    require_finite(key, numbers)
    return numbers


def _t_pose() -> Float64[np.ndarray, "55 3"]:
    """Where limbs point in VRM's T-pose, NaN for bones it leaves to the artist."""
    directions = np.full((NUM_JOINTS, 3), np.nan)
    for side, outward in (("left", 1.0), ("right", -1.0)):
        directions[[JOINT_INDEX[f"{side}_{joint}"] for joint in _ARMS]] = [outward, 0, 0]
        directions[[JOINT_INDEX[f"{side}_{joint}"] for joint in _LEGS]] = [0, -1, 0]
    return directions


def _lay_parallel(
    local: Float64[np.ndarray, "55 3 3"], turns: Float64[np.ndarray, "55 3 3"]
) -> Float64[np.ndarray, "55 3 3"]:
    """Rotations relative to the zero pose of those relative to a rest pose ``turns`` away from it."""
    laid: np.ndarray = local @ turns
    laid[1:] = np.swapaxes(turns[PARENTS[1:]], -1, -2) @ laid[1:]
    return laid


def _to_our_axes(matrix: Float64[np.ndarray, "n 3 3"], convention: Convention) -> Float64[np.ndarray, "n 3 3"]:
    """All conventions differ from ours by signs of axes; a mirrored rotation is still one. The way back is the same."""
    sign = _AXES[convention]
    signed: np.ndarray = matrix * sign[:, None] * sign
    return signed
