import numpy as np
import pytest
from drawn import CAST, GOLDEN, SEQUENCE, TIME_MS, golden_pose, goldens, read_pose
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.types import SmplxPose
from streaming.pose_packet import encode_pose
from streaming.smallest_three import pack_quaternions

angles = arrays(np.float32, (55, 3), elements=st.floats(-3.25, 3.25, width=32))
faces = arrays(np.float32, st.integers(0, 120), elements=st.floats(-8, 8, width=32))


def off_deg(told: np.ndarray, meant: np.ndarray) -> float:
    """The largest angle between two batches of rotations."""
    traces = np.einsum("nij,nij->n", told, meant)
    return float(np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1))).max())


@given(angles, faces, st.integers(0, 1000), st.integers(0, 2**33))
def test_a_pose_arrives_as_it_was(rotvec: np.ndarray, face: np.ndarray, cast: int, sequence: int) -> None:
    transl = np.array([0.1, -20, 3], np.float32)
    data = encode_pose(SmplxPose(rotvec, transl, face, 5.0), cast, sequence, 1e9 + 0.25)
    read = read_pose(data)
    assert (read.cast, read.sequence, read.time_ms) == (cast % 256, sequence % 2**32, 1e9 + 0.25)
    assert read.transl.tolist() == transl.tolist()
    assert np.abs(read.expression - face).max(initial=0) <= 0.002
    assert off_deg(read.matrices, rotvec_to_matrix(rotvec.astype(np.float64))) < 0.05
    assert 60 * len(encode_pose(SmplxPose(rotvec, transl, face[:100], 5.0), 0, 0, 0.0)) < 40_000


def test_what_no_half_float_holds_is_the_largest_one() -> None:
    pose = SmplxPose(np.zeros((55, 3), np.float32), np.zeros(3, np.float32), np.array([1e9, -1e9], np.float32), 0.0)
    assert read_pose(encode_pose(pose, 0, 0, 0.0)).expression.tolist() == [65504, -65504]


@pytest.mark.parametrize("bits", [10, 15])
def test_quaternions_are_packed_to_the_precision_promised(bits: int) -> None:
    rng = np.random.default_rng(0)
    quat = np.vstack([rng.normal(size=(2000, 4)), np.eye(4), -np.eye(4), np.ones((1, 4)), [[1, -1, 1, -1]]])
    packed = pack_quaternions(quat, bits)
    others = (packed[:, 1:] / (2**bits - 1) * 2 - 1) * 0.5**0.5
    told = np.array([np.insert(o, k, np.sqrt(max(0.0, 1 - o @ o))) for k, o in zip(packed[:, 0], others, strict=True)])
    cosine = np.abs((told * quat).sum(1) / np.linalg.norm(quat, axis=1) / np.linalg.norm(told, axis=1))
    assert 2 * np.arccos(np.minimum(cosine, 1)).max() <= 2 * 6**0.5 / (2**bits - 1) + 1e-7


@pytest.mark.parametrize("name", goldens())
def test_the_golden_files_are_what_is_sent(name: str) -> None:
    assert (GOLDEN / name).read_bytes() == goldens()[name]


def test_the_golden_pose_is_the_one_meant() -> None:
    read = read_pose((GOLDEN / "drawn_pose.bin").read_bytes())
    assert (read.cast, read.sequence, read.time_ms) == (CAST, SEQUENCE, TIME_MS)
    assert off_deg(read.matrices, rotvec_to_matrix(golden_pose().rotvec.astype(np.float64))) < 0.05
