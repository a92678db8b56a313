"""Added proportions: bones get longer by what they say, joints and skin together, and nothing else moves."""

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.body_proportions import PROPORTIONS, with_proportions


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return with_proportions(BodyModel.default())


def betas_of(body: BodyModel, name: str, amount: float) -> np.ndarray:
    betas = np.zeros(len(body.beta_names), np.float32)
    betas[body.beta_names.index(name)] = amount
    return betas


def length(joints: np.ndarray, first: str, second: str) -> float:
    return float(np.linalg.norm(joints[JOINT_INDEX[first]] - joints[JOINT_INDEX[second]]))


@pytest.mark.parametrize(
    ("name", "bones"),
    [
        ("arm length", [("left_shoulder", "left_elbow"), ("right_elbow", "right_wrist")]),
        ("leg length", [("right_hip", "right_knee"), ("left_knee", "left_ankle")]),
    ],
)
def test_bones_stretch_by_a_tenth_per_unit(body: BodyModel, name: str, bones: list[tuple[str, str]]) -> None:
    before, after = body.rest_joints(), body.rest_joints(betas_of(body, name, 0.5))
    for bone in bones:
        assert length(after, *bone) / length(before, *bone) == pytest.approx(1.05, abs=0.01)
    for bone in (("pelvis", "spine1"), ("neck", "head"), ("left_wrist", "left_middle1"), ("left_ankle", "left_foot")):
        assert length(after, *bone) / length(before, *bone) == pytest.approx(1.0, abs=0.012)


def test_head_grows_about_the_neck(body: BodyModel) -> None:
    head = body.skin_weights[:, JOINT_INDEX["head"]] > 0.99
    before, after = (body.rest_vertices(betas_of(body, "head size", amount))[head] for amount in (0.0, 1.0))
    assert np.ptp(after, axis=0) / np.ptp(before, axis=0) == pytest.approx(1.1, abs=0.005)
    assert length(body.rest_joints(betas_of(body, "head size", 1.0)), "head", "neck") == pytest.approx(
        length(body.rest_joints(), "head", "neck"), abs=0.004
    )


@pytest.mark.parametrize("name", PROPORTIONS)
def test_both_sides_change_alike(body: BodyModel, name: str) -> None:
    moved = body.rest_joints(betas_of(body, name, 1.0)) - body.rest_joints()
    left = [joint for label, joint in JOINT_INDEX.items() if label.startswith("left_") and "eye" not in label]
    right = [
        JOINT_INDEX[label.replace("left", "right")]
        for label in JOINT_INDEX
        if label.startswith("left_") and "eye" not in label
    ]
    np.testing.assert_allclose(moved[left], moved[right] * [-1, 1, 1], atol=2.5e-3)


def test_keeps_the_body_but_for_its_betas(body: BodyModel) -> None:
    plain = BodyModel.default()
    assert body.sha256 == plain.sha256
    assert body.beta_names == (*plain.beta_names[:10], *PROPORTIONS)
    betas = np.linspace(-1, 1, 10, dtype=np.float32)
    np.testing.assert_array_equal(body.rest_vertices(betas), plain.rest_vertices(betas))
    assert with_proportions(plain) is body
