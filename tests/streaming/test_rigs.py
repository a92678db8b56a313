import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.body.joints import NUM_JOINTS, PARENTS
from lhm_runtime.body.rotations import quat_multiply_wxyz
from lhm_runtime.motion.retargeting import BoneRotations
from streaming.errors import ProtocolError
from streaming.rigs import RigMeta, read_meta
from streaming.wire.rotations import BONE_NAMES


def meta(**fields: Any) -> bytes:
    return json.dumps({"version": 1, **fields}).encode()


def test_everything_a_rig_may_say() -> None:
    told = read_meta(meta(skeleton="vrm1", rate_hz=60, units="m", neutral={"head": [0, 0, 0]}, color="red"))
    assert (told.skeleton, told.rate_hz) == ("vrm1", 60.0)
    assert told.neutral is not None
    assert told.neutral.names == ("Head",)
    assert read_meta(meta()).neutral is None


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 30_000, "no JSON"),
        (b"[]", "a JSON list"),
        (b"{}", "version None"),
        (b'{"version": 2}', "version 2, this server reads version 1"),
        (meta(skeleton="cat"), "skeleton is 'cat'"),
        (meta(skeleton=["unity"]), "skeleton is"),
        (meta(units="cm"), "in metres"),
        (meta(rate_hz=0), "rate_hz is 0"),
        (meta(rate_hz=True), "rate_hz is True"),
        (meta(neutral={"Head": [1, 0, 0, 0]}), "needs a skeleton"),
        (meta(skeleton="landmarks", neutral={"Head": [1, 0, 0, 0]}), "needs a skeleton"),
        (meta(skeleton="unity", neutral=[1]), "expected an object"),
        (meta(skeleton="unity", neutral={"Head": [1, 0]}), "neutral.Head"),
        (meta(skeleton="unity", neutral={"Head": ["1", 0, 0, 0]}), "neutral.Head"),
        (meta(skeleton="unity", neutral={"Head": [0, 0, 0, 0]}), "Head"),
        (meta(skeleton="unity", neutral={"Tail": [1, 0, 0, 0]}), "Tail"),
        (b'{"version": 1, "rate_hz": NaN}', "rate_hz is nan"),
        (b" " * 40_000, "40000 bytes"),
    ],
)
def test_what_is_no_description(message: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        read_meta(message)


@given(st.binary(max_size=200))
def test_any_bytes(message: bytes) -> None:
    try:
        read_meta(message)
    except ProtocolError:
        return
    raise AssertionError(f"{message!r} was read")


@given(st.integers(0, 2**32 - 1))
def test_the_neutral_pose_becomes_rest_and_turns_in_the_world_stay(seed: int) -> None:
    random = np.random.default_rng(seed)

    def draw() -> BoneRotations:
        quat_wxyz = random.normal(size=(NUM_JOINTS, 4))
        quat_wxyz /= np.linalg.norm(quat_wxyz, axis=1, keepdims=True)
        return BoneRotations(BONE_NAMES["unity"], quat_wxyz.astype(np.float32), 0.0, "unity")

    def in_the_world(bones: BoneRotations) -> np.ndarray:
        world = bones.quat_wxyz.astype(np.float64)
        for joint in range(1, NUM_JOINTS):
            world[joint] = quat_multiply_wxyz(world[PARENTS[joint]], world[joint])
        return world

    neutral, posed = draw(), draw()
    corrected = RigMeta("unity", None, neutral).correct(posed)
    since = quat_multiply_wxyz(in_the_world(posed), in_the_world(neutral) * [1, -1, -1, -1])
    np.testing.assert_allclose(in_the_world(corrected), since, atol=1e-4)
    at_rest = RigMeta("unity", None, neutral).correct(neutral)
    np.testing.assert_allclose(at_rest.quat_wxyz, [[1, 0, 0, 0]] * NUM_JOINTS, atol=1e-5)


def test_another_convention_is_left_as_it_is() -> None:
    told = read_meta(meta(skeleton="unity", neutral={"Head": [0, 1, 0, 0]}))
    bones = BoneRotations(("head",), np.array([[1, 0, 0, 0]], np.float32), 0.0, "smplx")
    assert told.correct(bones) is bones
