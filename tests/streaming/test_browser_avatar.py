import gzip

import numpy as np
from drawn import golden_avatar, read_avatar

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import PARENTS
from streaming.browser_avatar import encode_avatar, pack_avatar

BYTES_A_GAUSSIAN = 3_000_000 / 40_000


def nearest(avatar: Avatar, means: np.ndarray) -> np.ndarray:
    """Which Gaussian of the avatar each is: they are sent in another order."""
    squares = np.square(means[:, None] - avatar.gaussians.means[None]).sum(2)
    return np.asarray(squares.argmin(axis=1))


def test_what_browsers_get_is_the_avatar(avatar: Avatar) -> None:
    for sent in (avatar, golden_avatar()):
        read = read_avatar(encode_avatar(sent))
        told, meant = read.gaussians, sent.gaussians
        which = nearest(sent, told.means)
        visible = np.flatnonzero(meant.opacity >= 1 / 255)
        assert sorted(which) == visible.tolist(), "all that can be seen, once"
        extent = np.ptp(meant.means, axis=0)
        assert (np.abs(told.means - meant.means[which]) <= 0.51 * extent / 65535 + 1e-6).all()
        assert np.abs(np.log(told.scales / np.maximum(meant.scales[which], 1e-5))).max() < 0.025
        cosine = np.abs((told.quat_wxyz * meant.quat_wxyz[which]).sum(1))
        assert np.degrees(2 * np.arccos(np.minimum(cosine, 1))).max() < 0.3
        assert np.abs(told.rgb - meant.rgb[which]).max() <= 0.5 / 255 + 1e-6
        assert np.abs(told.opacity - meant.opacity[which]).max() <= 0.5 / 255 + 1e-6
        assert (read.constrained == sent.constrained[which]).all()
        assert np.array_equal(read.rest_joints, sent.rest_joints)
        assert np.array_equal(read.parents[1:], PARENTS[1:])
        assert read.parents[0] == 255


def test_joints_pull_and_expressions_move_as_they_did(avatar: Avatar) -> None:
    for sent in (avatar, golden_avatar()):
        read = read_avatar(encode_avatar(sent))
        which = nearest(sent, read.gaussians.means)
        told, meant = np.zeros((2, len(which), 55))
        rows = np.arange(len(which))[:, None]
        np.add.at(told, (rows, read.skin_joints), read.skin_weights)
        np.add.at(meant, (rows, sent.skin_joints[which]), sent.skin_weights[which])
        assert np.abs(told - meant).max() <= 4.5 / 255
        assert np.allclose(read.skin_weights.sum(1), 1)
        assert (np.diff(read.skin_weights, axis=1) <= 1e-9).all(), "the shader stops at the first without weight"

        moves = np.zeros((len(sent), len(sent.expression_names), 3))
        moves[sent.expression_gaussians] = sent.expression_directions
        moved = read.directions.shape[2]
        most = np.abs(moves).max(axis=(0, 2))
        assert np.abs(read.directions.transpose(2, 0, 1) - moves[which[:moved]]).max() <= 0.51 * most.max() / 127
        assert np.abs(moves[which[moved:]]).max(initial=0) < 2e-5


def test_the_file_is_small_and_always_the_same(avatar: Avatar) -> None:
    packed = pack_avatar(avatar)
    assert gzip.decompress(packed) == encode_avatar(avatar)
    assert packed == pack_avatar(avatar), "or browsers would load it anew"
    assert len(packed) < BYTES_A_GAUSSIAN * len(avatar) / 2
