"""Motion recorded on a skeleton of its own, in BVH, as the motion of a body; and back.

Bones are found by name, axes and unit from the rest pose, and each of our joints takes over the world turn of its bone;
see ``retargeting`` for how rest poses that differ are reconciled.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES, NUM_JOINTS, PARENTS
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError, MotionFileError
from lhm_runtime.motion.bone_names import recorded_joints
from lhm_runtime.motion.bvh import BvhClip, local_transforms
from lhm_runtime.motion.rest_pose import LIMBS, rest_turns

_REQUIRED = ("pelvis", "head", *(f"{s}_{j}" for s in ("left", "right") for j in ("hip", "knee", "shoulder", "elbow")))
_SPINE = ("spine1", "spine2", "spine3")
_CM_PER_M = 100
_NEARLY_ALONG_AXIS = 0.85  # cosine; 32 degrees


def retarget_bvh(
    clip: BvhClip,
    rest_joints: Float[np.ndarray, "55 3"],
    *,
    metres_per_unit: float | None = None,
    rest_frame: int | None = None,
) -> tuple[Float32[np.ndarray, "t 55 3"], Float32[np.ndarray, "t 3"]]:
    """Rotations and translations of a body that moves as a recorded skeleton does.

    Args:
        clip: the recording, of any skeleton whose names ``recorded_joints`` knows.
        rest_joints: the body's joints at zero pose.
        metres_per_unit: the file's unit; None scales the recorded legs to the body's, so that feet do not slide.
        rest_frame: a frame in which the actor stands upright in T- or A-pose, for files whose offsets alone do not.

    Raises:
        MotionFileError: joints that are needed are missing, or the rest pose is no standing person.
        InvalidInputError: a unit that is not positive, or no such frame.
    """
    if metres_per_unit is not None and not 0 < metres_per_unit < np.inf:
        raise InvalidInputError(f"metres_per_unit is {metres_per_unit}, expected a positive number")
    if rest_frame is not None and not 0 <= rest_frame < len(clip.values):
        raise InvalidInputError(f"rest_frame is {rest_frame}; the clip has frames 0 to {len(clip.values) - 1}")
    joints = recorded_joints(clip.names)
    missing = [joint for joint in _REQUIRED if joint not in joints]
    if missing:
        raise MotionFileError(
            f"the skeleton has no joint known as {', '.join(missing)}; its joints are {', '.join(clip.names[:80])}"
        )
    R_world, p_world = _world_transforms(clip)
    if rest_frame is None:
        R_rest, p_rest = np.broadcast_to(np.eye(3), R_world.shape[1:]), _rest_positions(clip)
    else:
        R_rest, p_rest = R_world[rest_frame], p_world[rest_frame]

    R_ours_theirs = _standing_axes(p_rest, joints, snap=rest_frame is None)
    turned = R_ours_theirs @ R_world @ np.swapaxes(R_rest, -1, -2) @ R_ours_theirs.T
    target = _pose_joints(clip, joints, turned)
    directions = np.full((NUM_JOINTS, 3), np.nan)
    for joint, end in LIMBS.items():
        if joint in joints and end in joints:
            directions[JOINT_INDEX[joint]] = R_ours_theirs @ (p_rest[joints[end]] - p_rest[joints[joint]])
    target = target @ rest_turns(rest_joints, directions)
    local = target.copy()
    local[:, 1:] = np.swapaxes(target[:, PARENTS[1:]], -1, -2) @ target[:, 1:]

    if metres_per_unit is None:
        metres_per_unit = _leg_length(rest_joints, JOINT_INDEX) / _leg_length(p_rest, joints)
    transl = metres_per_unit * p_world[:, joints["pelvis"]] @ R_ours_theirs.T - rest_joints[0]
    return matrix_to_rotvec(local).astype(np.float32), transl.astype(np.float32)


def body_bvh(
    rotvec: Float32[np.ndarray, "t 55 3"],
    transl: Float32[np.ndarray, "t 3"],
    rest_joints: Float[np.ndarray, "55 3"],
    frame_time_s: float,
) -> BvhClip:
    """A body's motion as BVH: its 55 joints under our names, centimetres, y up, facing +z, rotations ZXY."""
    order = _depth_first()
    place = {joint: i for i, joint in enumerate(order)}
    parents = np.array([-1, *(place[PARENTS[joint]] for joint in order[1:])])
    offsets = rest_joints.astype(np.float64) * _CM_PER_M
    offsets[1:] -= offsets[PARENTS[1:]]
    offsets = offsets[order]
    leaves = np.setdiff1d(np.arange(NUM_JOINTS), parents)
    angles = np.degrees(_matrix_to_zxy(rotvec_to_matrix(rotvec[:, order].astype(np.float64))))
    pelvis = (transl.astype(np.float64) + rest_joints[0]) * _CM_PER_M
    turns = ("Zrotation", "Xrotation", "Yrotation")
    return BvhClip(
        names=tuple(JOINT_NAMES[joint] for joint in order),
        parents=parents,
        offsets=offsets,
        channels=(("Xposition", "Yposition", "Zposition", *turns), *[turns] * (NUM_JOINTS - 1)),
        end_parents=leaves,
        end_offsets=offsets[leaves],  # as long again as the bone before
        frame_time_s=frame_time_s,
        values=np.concatenate([pelvis, angles.reshape(len(angles), -1)], axis=1),
    )


def _depth_first() -> list[int]:
    order: list[int] = []
    open_joints = [0]
    while open_joints:
        order.append(open_joints.pop())
        open_joints += [int(child) for child in np.flatnonzero(order[-1] == PARENTS)[::-1]]
    return order


def _matrix_to_zxy(matrix: Float64[np.ndarray, "*b 3 3"]) -> Float64[np.ndarray, "*b 3"]:
    """Angles z, x, y whose turns, multiplied in this order, are the matrix; exact where x is a right angle too."""
    z = np.arctan2(-matrix[..., 0, 1], matrix[..., 1, 1])
    x = np.arctan2(matrix[..., 2, 1], np.hypot(matrix[..., 0, 1], matrix[..., 1, 1]))
    row = np.cos(z)[..., None] * matrix[..., 0, :] + np.sin(z)[..., None] * matrix[..., 1, :]  # with z undone
    return np.stack([z, x, np.arctan2(row[..., 2], row[..., 0])], axis=-1)


def _world_transforms(clip: BvhClip) -> tuple[Float64[np.ndarray, "t j 3 3"], Float64[np.ndarray, "t j 3"]]:
    rotation, position = local_transforms(clip)
    for joint, parent in enumerate(clip.parents):
        if parent >= 0:
            position[:, joint] = position[:, parent] + (rotation[:, parent] @ position[:, joint, :, None])[..., 0]
            rotation[:, joint] = rotation[:, parent] @ rotation[:, joint]
    return rotation, position


def _rest_positions(clip: BvhClip) -> Float64[np.ndarray, "j 3"]:
    position = clip.offsets.copy()
    for joint, parent in enumerate(clip.parents):
        if parent >= 0:
            position[joint] += position[parent]
    return position


def _standing_axes(
    positions: Float64[np.ndarray, "j 3"], joints: Mapping[str, int], *, snap: bool
) -> Float64[np.ndarray, "3 3"]:
    """R_ours_theirs: the file's up axis becomes y, and the rest pose faces +z.

    Up is a whole axis; with ``snap`` so is the person's left where one is near, since a skeleton is never built askew.
    """
    hips = positions[joints["left_hip"]] - positions[joints["right_hip"]]
    rise = positions[joints["head"]] - positions[joints["pelvis"]]
    up = _nearest_axis(rise)
    left = hips - (hips @ up) * up
    length = np.linalg.norm(left)
    if not rise @ up > 0 or not length > 1e-3 * np.linalg.norm(rise):
        raise MotionFileError(
            "the skeleton's rest pose is no standing person (its head is not above its hips, or its hips are one "
            "point); name a frame in which the actor stands in T- or A-pose as rest_frame"
        )
    left /= length
    axis = _nearest_axis(left)
    if snap and axis @ left > _NEARLY_ALONG_AXIS:
        left = axis
    return np.stack([left, up, np.cross(left, up)])


def _nearest_axis(direction: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, " 3"]:
    axis = np.zeros(3)
    longest = int(np.abs(direction).argmax())
    axis[longest] = np.copysign(1, direction[longest])
    return axis


def _pose_joints(
    clip: BvhClip, joints: Mapping[str, int], turned: Float64[np.ndarray, "t j 3 3"]
) -> Float64[np.ndarray, "t 55 3 3"]:
    """World turns of our joints from those of the recorded ones; a joint it lacks goes with its parent."""
    target = np.empty((len(turned), NUM_JOINTS, 3, 3))
    spine = _spine(clip, joints)
    for joint, name in enumerate(JOINT_NAMES):
        if name in _SPINE and name not in joints:
            target[:, joint] = _along(turned[:, spine], (_SPINE.index(name) + 1) / len(_SPINE))
        elif name in joints:
            target[:, joint] = turned[:, joints[name]]
        else:
            target[:, joint] = target[:, PARENTS[joint]]
    return target


def _spine(clip: BvhClip, joints: Mapping[str, int]) -> list[int]:
    """The recorded joints from the pelvis up to the last below the neck (or the head of a skeleton without one)."""
    chain = []
    joint = int(clip.parents[joints.get("neck", joints["head"])])
    while joint not in (-1, joints["pelvis"]):
        chain.append(joint)
        joint = int(clip.parents[joint])
    return [joints["pelvis"], *chain[::-1]]


def _along(chain: Float64[np.ndarray, "t k 3 3"], part: float) -> Float64[np.ndarray, "t 3 3"]:
    """The rotation a part of the way along a chain of them, on great arcs: any number of bones makes our three."""
    place = part * (chain.shape[1] - 1)
    below = min(int(place + 1e-9), chain.shape[1] - 1)
    above = min(below + 1, chain.shape[1] - 1)
    start = chain[:, below]
    step = matrix_to_rotvec(np.swapaxes(start, -1, -2) @ chain[:, above])
    turned: np.ndarray = start @ rotvec_to_matrix(step * (place - below))
    return turned


def _leg_length(positions: Float[np.ndarray, "j 3"], joints: Mapping[str, int]) -> float:
    chains = [[joints[f"{side}_hip"], joints[f"{side}_knee"]] for side in ("left", "right")]
    for side, chain in zip(("left", "right"), chains, strict=True):
        if f"{side}_ankle" in joints:
            chain.append(joints[f"{side}_ankle"])
    length = sum(float(np.linalg.norm(np.diff(positions[chain], axis=0), axis=1).sum()) for chain in chains)
    if not length > 0:
        raise MotionFileError("the skeleton's legs have no length; its OFFSETs may be missing")
    return length
