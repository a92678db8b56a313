"""Every recorded tensor, from the photo to the exported .ply: LHM's own numbers."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lhm_goldens import (
    COMPACT,
    PICTURE_TOLERANCE,
    TOLERANCE,
    Golden,
    canonical,
    errors,
    named_poses,
    record_animation,
    record_network,
    record_pictures,
    wrong,
)

from lhm_runtime.avatar import Avatar, AvatarMetadata, load_avatar, pose_gaussians, save_avatar
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.ply import export_ply, import_ply
from lhm_runtime.reconstruction.lhm.animation import deform, make_avatar, rig_points
from lhm_runtime.reconstruction.lhm.checkpoint import plan_tensors
from lhm_runtime.types import Camera, Gaussians

RASTERISER = "out.raster."
"""Camera of the published rasteriser, as it wants to be told."""

INPUTS = ("image_u8", "ellipse", "error")

METADATA = AvatarMetadata("lhm-golden", "LHM's SMPL-X", "", "CC-BY-NC-4.0", "2026-01-31T12:00:00+00:00")


def test_the_network(golden: Golden) -> None:
    expected = golden.expected("mid.") | golden.expected("out.gs.")
    found = errors(golden, record_network(golden), expected)
    assert len(found) > 30
    assert not wrong(found)


def test_the_animation(golden: Golden) -> None:
    expected = {
        name: array for name, array in golden.expected("out.").items() if not name.startswith(("out.gs.", RASTERISER))
    }
    found = errors(golden, record_animation(golden), expected)
    assert len(found) == 3 + 2 * (len(golden.poses()) + 2)
    assert not wrong(found)


def test_the_camera(golden: Golden) -> None:
    """A camera of ours with the recorded intrinsics sees every point where the published rasteriser draws it."""
    recorded = {name.removeprefix(RASTERISER): array for name, array in golden.expected(RASTERISER).items()}
    if not recorded:
        pytest.skip("this golden has no camera: it was cut away to keep the file small")
    (intrinsics,) = (array[0, 0].astype(np.float64) for array in golden.expected("in.render_intrs").values())
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    camera = Camera(np.eye(4), float(fx), float(fy), float(cx), float(cy), int(2 * cx), int(2 * cy))
    assert (camera.width, camera.height) == (recorded["image_width"].item(), recorded["image_height"].item())
    np.testing.assert_allclose(camera.T_camera_world, recorded["viewmatrix"].T, atol=TOLERANCE)
    np.testing.assert_allclose(recorded["campos"], 0, atol=TOLERANCE)
    points = np.random.default_rng(3).uniform([-0.3, -0.5, 2.0], [0.3, 0.5, 4.0], (50, 3))
    clip = np.hstack([points, np.ones((50, 1))]) @ recorded["projmatrix"].astype(np.float64)
    size = np.array([camera.width, camera.height])
    theirs = (clip[:, :2] / clip[:, 3:] + 1) * size / 2
    ours = [camera.fx, camera.fy] * points[:, :2] / points[:, 2:] + [camera.cx, camera.cy]
    np.testing.assert_allclose(ours, theirs, atol=1e-3)  # pixels
    tan_half = size / [2 * camera.fx, 2 * camera.fy]
    np.testing.assert_allclose(tan_half, [recorded["tanfovx"].item(), recorded["tanfovy"].item()], atol=TOLERANCE)


def test_the_pictures(golden: Golden) -> None:
    expected = {name: array for name, array in golden.pictures.items() if not name.endswith(INPUTS)}
    found = errors(golden, record_pictures(golden), expected, PICTURE_TOLERANCE)
    assert len(found) > 9
    assert not wrong(found)


def test_the_recorded_state_has_all_that_is_planned(golden: Golden) -> None:
    recorded = golden.meta.get("keys") or {
        name.removeprefix("sd."): array.shape for name, array in golden.expected("sd.").items()
    }
    for key, needed in plan_tensors(golden.config).items():
        shape = tuple(recorded[key])
        assert len(shape) == len(needed.shape), key
        assert all(want in (None, got) for want, got in zip(needed.shape, shape, strict=True)), key


@pytest.fixture
def avatar(golden: Golden) -> Avatar:
    checkpoint = golden.checkpoint
    made = make_avatar(canonical(golden), checkpoint.read_rig(), checkpoint.read_body(), METADATA, golden.betas)
    made.validate()
    return made


def test_an_avatar_moves_as_lhm_does(golden: Golden, avatar: Avatar) -> None:
    for name, pose in named_poses(golden).items():
        posed = pose_gaussians(avatar, joint_matrices(pose, avatar.rest_joints), pose.expression)
        np.testing.assert_allclose(posed.means, golden.arrays[f"out.{name}.xyz"], atol=TOLERANCE, err_msg=name)
        if golden.folder == COMPACT:  # how far hips may be off depends on the recorded poses
            degrees = _angles(posed.quat_wxyz, golden.arrays[f"out.{name}.rot"])
            assert degrees.max() < 1, name
            assert degrees.mean() < 0.1, name


def test_an_avatar_turns_as_lhm_does_but_for_hips(golden: Golden, avatar: Avatar) -> None:
    rig = golden.checkpoint.read_rig()
    far_from_hips = np.isclose(rig.skin_weights[:, [1, 2, 4, 5, 7, 8, 10, 11]].sum(axis=1), 0)
    assert far_from_hips.any()
    for name, pose in named_poses(golden).items():
        posed = pose_gaussians(avatar, joint_matrices(pose, avatar.rest_joints), pose.expression)
        expected = golden.arrays[f"out.{name}.rot"]
        kept = far_from_hips if pose.rotvec.any() else slice(None)
        np.testing.assert_allclose(posed.quat_wxyz[kept], expected[kept], atol=TOLERANCE, err_msg=name)


def test_the_exported_t_pose(golden: Golden, avatar: Avatar, tmp_path: Path) -> None:
    path = tmp_path / "tpose.ply"
    export_ply(avatar.gaussians, path)
    theirs_head, theirs = (golden.folder / "golden_tpose.ply").read_bytes().split(b"end_header\n", 1)
    ours_head, ours = path.read_bytes().split(b"end_header\n", 1)
    assert ours_head == theirs_head
    np.testing.assert_allclose(np.frombuffer(ours, "<f4"), np.frombuffer(theirs, "<f4"), rtol=1e-5, atol=TOLERANCE)
    assert len(import_ply(path)) == golden.config.points


def test_an_avatar_file_keeps_everything(avatar: Avatar, tmp_path: Path) -> None:
    path = tmp_path / "golden.avatar"
    in_columns = replace(avatar, expression_directions=np.asfortranarray(avatar.expression_directions))
    for order in (avatar, in_columns):
        save_avatar(order, path)
        loaded = load_avatar(path)
        assert loaded.metadata == METADATA
        np.testing.assert_array_equal(loaded.gaussians.means, avatar.gaussians.means)
        np.testing.assert_array_equal(loaded.skin_joints, avatar.skin_joints)
        np.testing.assert_array_equal(loaded.constrained, avatar.constrained)
        np.testing.assert_allclose(loaded.expression_directions, avatar.expression_directions, atol=TOLERANCE)


def test_from_photo_to_driven_avatar(golden: Golden) -> None:
    """Nothing recorded in between: our Gaussians, our points, our joints."""
    checkpoint, computed = golden.checkpoint, record_network(golden)
    rig, body = checkpoint.read_rig(), checkpoint.read_body()
    ours = Gaussians(
        means=record_animation(golden)["out.query_points"][0] + computed["out.gs.offset_xyz"],
        quat_wxyz=computed["out.gs.rotation"],
        scales=computed["out.gs.scaling"],
        opacity=computed["out.gs.opacity"][:, 0],
        rgb=computed["out.gs.shs"][:, 0],
    )
    for name, pose in named_poses(golden).items():
        posed = deform(ours, rig, body, pose, golden.betas)
        np.testing.assert_allclose(posed.means, golden.arrays[f"out.{name}.xyz"], atol=TOLERANCE)
        np.testing.assert_allclose(posed.quat_wxyz, golden.arrays[f"out.{name}.rot"], atol=TOLERANCE)


def test_bfloat16_stays_near(compact: Golden) -> None:
    exact, halved = record_network(compact), record_network(compact, torch.bfloat16)
    for name in compact.expected("out.gs."):
        difference = np.abs(halved[name] - exact[name])
        assert 0 < difference.max() < 0.02, name
        assert difference.mean() < 1e-3, name


@pytest.mark.shared
def test_the_rig_can_be_made_again(whole: Golden) -> None:
    published = whole.checkpoint.read_rig()
    again = rig_points(whole.arrays["dense_pts"], whole.checkpoint.read_body(), published)
    for field in fields(published):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(published, field.name), field.name)


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between rotations."""
    cosine = np.abs((a.astype(np.float64) * b).sum(axis=1)) / np.linalg.norm(b, axis=1) / np.linalg.norm(a, axis=1)
    return np.degrees(2 * np.arccos(cosine.clip(0, 1)))
