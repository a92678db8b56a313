"""Maps are softmax rows of the network's own queries and keys, of the points that were chosen."""

import numpy as np
import pytest
import torch
from lhm_checkpoints import CONFIG, write_lhm
from people import DEMO_PERSON

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.lhm.attention_maps import WATCHED, AttentionProbe, choose_points, look_inside
from lhm_runtime.reconstruction.lhm.checkpoint import open_checkpoint
from lhm_runtime.reconstruction.lhm.network import LhmNetwork
from lhm_runtime.reconstruction.lhm.run import LhmRun, prepare_run
from lhm_runtime.reconstruction.lhm.weights import find_lhm
from lhm_runtime.reconstruction.photo import read_photo


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LhmRun:
    return prepare_run(find_lhm(None, write_lhm(tmp_path_factory.mktemp("lhm"))), "cpu")


@pytest.fixture(scope="module")
def network(run: LhmRun) -> LhmNetwork:
    return open_checkpoint(run.checkpoint.path).load_network()


def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    body = torch.randn(1, 16, CONFIG.body_feature_dim, generator=generator)
    return body, torch.randn(1, 9, CONFIG.head_feature_dim, generator=generator)


def watch(network: LhmNetwork, run: LhmRun, groups: dict[str, np.ndarray]) -> AttentionProbe:
    points, rig = run.place_points()
    probe = AttentionProbe(groups, len(points))
    with probe.watch(network):
        network(torch.from_numpy(points), *features(), torch.from_numpy(rig.is_upper_body))
    return probe


def test_points_are_on_the_front_of_what_they_are_called(run: LhmRun) -> None:
    points, rig = run.place_points()
    chosen = choose_points(points, rig)
    assert set(chosen) == set(WATCHED)
    joint = rig.skin_weights.argmax(axis=1)
    for name, indices in chosen.items():
        assert 1 <= len(indices) <= 16
        moved = joint == JOINT_INDEX[WATCHED[name]]
        assert moved[indices].all()
        assert points[indices, 2].min() >= np.median(points[moved, 2]) - 1e-6
    middles = {name: points[indices].mean(axis=0) for name, indices in chosen.items()}
    assert middles["head"][1] > middles["chest"][1] > middles["left knee"][1] > middles["right foot"][1]
    assert middles["left hand"][0] > 0.3
    assert middles["right hand"][0] < -0.3


def test_maps_are_rows_of_the_softmax(network: LhmNetwork, run: LhmRun) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    attention = network.transformer.layers[1].body_dit.attn
    hook = attention.register_forward_pre_hook(lambda _, given: seen.append(given))
    probe = watch(network, run, {"some": np.array([3, 1100])})
    hook.remove()
    assert [(one.layer, one.picture) for one in probe.maps] == [(0, "head"), (0, "body"), (1, "head"), (1, "body")]
    [found] = [one for one in probe.maps if (one.layer, one.picture) == (1, "body")]
    with torch.inference_mode():
        q, k, _ = attention.project(*seen[0])
        rows = (q @ k.transpose(2, 3) / CONFIG.head_dim**0.5).softmax(dim=3)[0, :, [3, 1100], CONFIG.points :]
    assert found.weights.shape == (4, 4)
    np.testing.assert_allclose(found.weights.ravel(), rows.mean(dim=(0, 1)), rtol=1e-4, atol=1e-7)
    assert all(0 < one.weights.sum() < 1 for one in probe.maps)


def test_a_patch_like_a_point_gets_its_attention(network: LhmNetwork, run: LhmRun) -> None:
    """Keys of one patch are set along the queries of one point: it looks there, another does not."""
    points, rig = run.place_points()
    given = (torch.from_numpy(points), *features(), torch.from_numpy(rig.is_upper_body))
    attention = network.transformer.layers[0].body_dit.attn
    project = attention.project

    def aligned(points: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = project(points, image)
        k = 0.01 * k
        k[:, :, CONFIG.points + 6] = 40 * q[:, :, 5] / q[:, :, 5].norm(dim=2, keepdim=True)
        return q, k, v

    attention.project = aligned
    try:
        probe = AttentionProbe({"it": np.array([5])}, len(points))
        with probe.watch(network):
            network(*given)
    finally:
        del attention.project
    body = next(one for one in probe.maps if one.picture == "body")
    assert np.unravel_index(body.weights.argmax(), body.weights.shape) == (1, 2)
    assert body.weights.max() > 100 * np.median(body.weights)


def test_nothing_stays_behind(network: LhmNetwork, run: LhmRun) -> None:
    probe = watch(network, run, {"it": np.array([0])})
    count = len(probe.maps)
    points, rig = run.place_points()
    network(torch.from_numpy(points), *features(), torch.from_numpy(rig.is_upper_body))
    assert len(probe.maps) == count


def test_points_that_are_none() -> None:
    for indices in (np.array([], int), np.array([10]), np.array([-1])):
        with pytest.raises(InvalidInputError, match="expected some of 0 to 9"):
            AttentionProbe({"it": indices}, 10)


@pytest.mark.filterwarnings("ignore")
def test_a_photo_is_looked_into(run: LhmRun) -> None:
    canonical, maps = look_inside(run, read_photo(DEMO_PERSON))
    assert len(canonical.gaussians) == CONFIG.points
    assert {(one.points, one.layer) for one in maps} == {(name, layer) for name in WATCHED for layer in (0, 1)}
    assert {one.weights.shape for one in maps if one.picture == "body"} == {(64, 64)}
    assert {one.weights.shape for one in maps if one.picture == "head"} == {(32, 32)}
    assert {one.points for one in maps if one.picture == "head"} == {"head"}
