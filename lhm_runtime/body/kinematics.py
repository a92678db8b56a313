"""From a pose to joint matrices: what one frame needs of the body."""

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.body.joints import NUM_JOINTS, PARENTS
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.errors import require_finite
from lhm_runtime.types import SmplxPose


def _ancestors() -> list[np.ndarray]:
    """[56] ancestors of each joint 1, 2, 4, 8 steps up; past the root is entry 55, its own parent."""
    up = np.append(PARENTS, NUM_JOINTS)
    up[0] = NUM_JOINTS
    steps = []
    while (up != NUM_JOINTS).any():
        steps.append(up)
        up = up[up]
    return steps


_ANCESTORS = _ancestors()


def forward_kinematics(
    rotvec: Float[np.ndarray, "55 3"], rest_joints: Float[np.ndarray, "55 3"], transl: Float[np.ndarray, " 3"]
) -> Float64[np.ndarray, "55 4 4"]:
    """``T_world_joint``: joint frame to world, with axes parallel to the world's at zero pose.

    As in SMPL-X, the root turns about its own rest position and ``transl`` (metres) is added last.

    Raises:
        InvalidInputError: a NaN or Inf in any argument, with its index.
    """
    require_finite("rotvec", rotvec)
    require_finite("rest_joints", rest_joints)
    require_finite("transl", transl)
    transforms = np.zeros((NUM_JOINTS + 1, 4, 4))
    transforms[:, 3, 3] = 1
    transforms[NUM_JOINTS] = np.eye(4)  # above the root
    local = transforms[:NUM_JOINTS]
    local[:, :3, :3] = rotvec_to_matrix(rotvec.astype(np.float64))
    local[:, :3, 3] = rest_joints
    local[1:, :3, 3] -= rest_joints[PARENTS[1:]]
    local[0, :3, 3] += transl
    # each round doubles the chain a matrix covers: 4 batched products instead of one for each of 10 levels
    for ancestors in _ANCESTORS:
        transforms = transforms[ancestors] @ transforms
    return transforms[:NUM_JOINTS]


def skinning_matrices(
    T_world_joint: Float[np.ndarray, "55 4 4"], rest_joints: Float[np.ndarray, "55 3"]
) -> Float32[np.ndarray, "55 3 4"]:
    """Matrices that carry zero-pose points, rigid to each joint, into the world."""
    matrices = T_world_joint[:, :3].copy()
    matrices[:, :, 3] -= (T_world_joint[:, :3, :3] @ rest_joints[:, :, None])[:, :, 0]
    return matrices.astype(np.float32)


def joint_matrices(pose: SmplxPose, rest_joints: Float[np.ndarray, "55 3"]) -> Float32[np.ndarray, "55 3 4"]:
    """Skinning matrices of a pose: the per-frame call.

    Raises:
        InvalidInputError: a NaN or Inf in the pose or the rest joints, with its index.
    """
    return skinning_matrices(forward_kinematics(pose.rotvec, rest_joints, pose.transl), rest_joints)
