import numpy as np
import pytest
from scenes import random_gaussians

from lhm_runtime.avatar import Avatar, AvatarMetadata
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.types import Gaussians, SmplxPose


@pytest.fixture(scope="session")
def crowd_avatar() -> Avatar:
    """4,000 Gaussians on the bundled body, every fourth constrained, two in three moved by expressions."""
    rng = np.random.default_rng(1)
    body = BodyModel.default()
    vertex = rng.choice(len(body.v_template), 4000, replace=False)
    gaussians = random_gaussians(4000, seed=2)
    joints = np.argsort(-body.skin_weights[vertex], axis=1)[:, :6].astype(np.uint8)
    weights = np.take_along_axis(body.skin_weights[vertex], joints.astype(np.int64), axis=1)
    moved = np.sort(rng.choice(4000, 2600, replace=False)).astype(np.int32)
    return Avatar(
        gaussians=Gaussians(
            means=body.v_template[vertex].astype(np.float32),
            quat_wxyz=gaussians.quat_wxyz,
            scales=gaussians.scales,
            opacity=gaussians.opacity,
            rgb=gaussians.rgb,
        ),
        skin_joints=joints,
        skin_weights=(weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
        constrained=np.arange(4000) % 4 == 0,
        expression_gaussians=moved,
        expression_directions=rng.normal(0, 0.02, (2600, 5, 3)).astype(np.float32),
        expression_names=tuple("abcde"),
        rest_joints=body.rest_joints().astype(np.float32),
        metadata=AvatarMetadata("test", body.name, body.sha256, "CC0-1.0", "2026-01-01T00:00:00+00:00"),
    )


@pytest.fixture(scope="session")
def bent_joints(crowd_avatar: Avatar) -> np.ndarray:
    """A pose with every joint bent a little."""
    rotvec = np.random.default_rng(3).normal(0, 0.25, (55, 3)).astype(np.float32)
    pose = SmplxPose(rotvec, np.array([0.1, 0.05, -0.2], np.float32), np.zeros(0, np.float32), 0.0)
    return joint_matrices(pose, crowd_avatar.rest_joints)
