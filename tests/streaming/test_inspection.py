from dataclasses import replace

import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.types import Gaussians
from streaming.inspection import describe_avatar, describe_gaussians


def test_an_avatar_is_described(avatar: Avatar) -> None:
    facts = dict(describe_avatar(avatar))
    assert facts["gaussians"] == "2,000"
    assert facts["made by"].startswith(avatar.metadata.reconstructor)
    assert facts["licence"] == avatar.metadata.licence
    assert facts["source photo"] == "none"
    assert facts["expressions"] == f"52, moving {len(avatar.expression_gaussians):,} Gaussians"
    low, high = avatar.gaussians.means[:, 1].min(), avatar.gaussians.means[:, 1].max()
    assert f"y {low:.3f} to {high:.3f}" in facts["bounds"]


def test_what_a_photo_leaves_open_is_said(avatar: Avatar) -> None:
    metadata = replace(avatar.metadata, licence="as the photo", shown="half", photo_sha256="ab" * 32)
    facts = dict(describe_avatar(replace(avatar, metadata=metadata)))
    assert facts["licence"].startswith("as the photo: what you may do with it")
    assert facts["shown"] == "down to the hips or so; what is below was made up"
    assert facts["source photo"].startswith("sha256 abababab")
    assert dict(describe_avatar(avatar))["shown"] == "all of the person"


def test_joints_that_move_nothing_are_named(avatar: Avatar) -> None:
    alone = replace(
        avatar,
        skin_joints=np.zeros_like(avatar.skin_joints),
        skin_weights=np.eye(1, avatar.skin_weights.shape[1], dtype=np.float32).repeat(len(avatar), 0),
    )
    joints = dict(describe_avatar(alone))["joints used"]
    assert joints.startswith("1 of 55, not left_hip, right_hip")


def test_no_gaussians_at_all() -> None:
    nothing = Gaussians(
        means=np.zeros((0, 3), np.float32),
        quat_wxyz=np.zeros((0, 4), np.float32),
        scales=np.zeros((0, 3), np.float32),
        opacity=np.zeros(0, np.float32),
        rgb=np.zeros((0, 3), np.float32),
    )
    assert describe_gaussians(nothing) == [("gaussians", "0"), ("memory", "0.00 MB")]
