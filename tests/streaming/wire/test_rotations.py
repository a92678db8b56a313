"""Bone samples as bytes; what is refused is in golden/broken, see test_golden.py."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import CAPTURED_S, SEQUENCE, UPPER, WHOLE, bones

from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.bone_names import vrm_joints
from lhm_runtime.motion.landmark_points import BLENDSHAPE_NAMES
from lhm_runtime.motion.retargeting import BoneRotations
from streaming.protocol import BoneSample, Form, encode_bones, parse_sample
from streaming.wire.rotations import BONE_NAMES, CONVENTIONS

FORMS: tuple[Form, ...] = get_args(Form)


def decode(data: bytes) -> BoneSample:
    sample = parse_sample(data)
    assert isinstance(sample, BoneSample)
    return sample


def between_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles from one set of unit quaternions to another, without the rounding of arccos at 1."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    sign = np.sign((a * b).sum(1, keepdims=True))
    return np.degrees(4 * np.arcsin(np.clip(np.linalg.norm(a - sign * b, axis=1) / 2, 0, 1)))


def test_header_by_hand() -> None:
    data = encode_bones(WHOLE)
    assert data[:4] == b"LL\x01\x02"
    assert data[4:6] == b"\x1c\x00"  # half-precision quaternions, root, expression
    assert int.from_bytes(data[6:10], "little") == SEQUENCE
    assert np.frombuffer(data, "<f8", 1, 10)[0] == CAPTURED_S * 1e3
    assert data[18] == 0  # SMPL-X
    assert int.from_bytes(data[19:27], "little") == (1 << 55) - 1
    first = np.frombuffer(data, "<f2", 4, 27).astype(np.float32)
    np.testing.assert_allclose(first, WHOLE.bones.quat_wxyz[0], atol=2**-11)


def test_sizes_are_as_documented() -> None:
    assert [len(encode_bones(WHOLE, form)) for form in ("quat_f16", "quat_f32", "rotvec")] == [583, 1023, 803]


@pytest.mark.parametrize(("form", "error_deg"), [("quat_f16", 0.06), ("quat_f32", 1e-4), ("rotvec", 1e-4)])
def test_no_bone_turns_further_than_promised(form: Form, error_deg: float) -> None:
    rng = np.random.default_rng(1)
    worst = 0.0
    for _ in range(50):
        quat = rng.normal(size=(55, 4))
        quat = (quat / np.linalg.norm(quat, axis=1, keepdims=True)).astype(np.float32)
        sent = BoneSample(0, replace(WHOLE.bones, quat_wxyz=quat))
        worst = max(worst, between_deg(decode(encode_bones(sent, form)).bones.quat_wxyz, quat).max())
    assert 0 < worst < error_deg


def test_quaternions_come_out_as_unit_ones() -> None:
    quat = WHOLE.bones.quat_wxyz * np.linspace(0.6, 1.9, 55, dtype=np.float32)[:, None]
    got = decode(encode_bones(BoneSample(0, replace(WHOLE.bones, quat_wxyz=quat)), "quat_f32")).bones.quat_wxyz
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    assert between_deg(got, WHOLE.bones.quat_wxyz).max() < 1e-4


def test_few_face_shapes_are_named_and_many_are_not() -> None:
    few = bones(range(3), face=BLENDSHAPE_NAMES[:3])
    assert decode(encode_bones(few)).bones.blendshape_names == BLENDSHAPE_NAMES[:3]
    many = decode(encode_bones(bones(range(3), face=(*BLENDSHAPE_NAMES[10:40], "tongueOut")))).bones
    assert many.blendshape_names == (*BLENDSHAPE_NAMES, "tongueOut")
    values = dict(zip(many.blendshape_names, many.blendshape_values.tolist(), strict=True))
    sent = bones(range(3), face=(*BLENDSHAPE_NAMES[10:40], "tongueOut")).bones
    for name, value in zip(sent.blendshape_names, sent.blendshape_values, strict=True):
        assert abs(values.pop(name) - value) < 2**-11
    assert set(values.values()) == {0.0}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_each_convention_names_the_55_joints_of_smplx(convention: str) -> None:
    names = BONE_NAMES[convention]
    assert len(set(names)) == 55
    if convention != "smplx":
        joints = vrm_joints(names, vrm1=convention == "vrm1")
        assert [joints[name] for name in names] == list(range(55))
    else:
        assert names == JOINT_NAMES


def test_names_in_any_case_and_order() -> None:
    shuffled = replace(
        UPPER.bones,
        names=tuple(name.upper() for name in reversed(UPPER.bones.names)),
        quat_wxyz=UPPER.bones.quat_wxyz[::-1].copy(),
    )
    assert encode_bones(BoneSample(SEQUENCE, shuffled)) == encode_bones(UPPER)


def test_owns_its_arrays() -> None:
    data = bytearray(encode_bones(WHOLE))
    got = decode(data).bones
    before = got.quat_wxyz.copy()
    data[19:] = bytes(len(data) - 19)
    np.testing.assert_array_equal(got.quat_wxyz, before)
    got.quat_wxyz[0] = 0  # writable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("pelvis", "elbow")}, "no bone of smplx is called 'elbow'"),
        ({"names": ("neck", "neck")}, "bones repeat a name"),
        ({"names": ("neck", "Neck")}, "'Neck' is there twice"),
        ({"quat_wxyz": np.zeros((2, 4), np.float32)}, "of length 0"),
        ({"quat_wxyz": np.full((2, 4), np.nan, np.float32)}, "of length nan"),
        ({"root_transl": np.full(3, 1e3, np.float32)}, r"root\[0\] is 1000"),
        ({"timestamp_s": float("inf")}, "timestamp_s is inf"),
        (
            {"blendshape_names": ("joy",), "blendshape_values": np.full(1, 1.5, np.float32)},
            "face shape joy is 1.5",
        ),
        (
            {"blendshape_names": ("j" * 65,), "blendshape_values": np.zeros(1, np.float32)},
            "no name of 1 to 64 printable bytes",
        ),
        (
            {
                "blendshape_names": tuple(f"{i:064}" for i in range(100)),
                "blendshape_values": np.zeros(100, np.float32),
            },
            "at most 4096 can be sent",
        ),
        (
            {"blendshape_names": tuple(map(str, range(129))), "blendshape_values": np.zeros(129, np.float32)},
            "129 face shapes, at most 128",
        ),
    ],
)
def test_refuses_to_send_what_it_could_not_read(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        encode_bones(
            BoneSample(
                0,
                replace(bones(range(2)).bones, names=("pelvis", "neck"), **change)
                if "names" not in change
                else replace(bones(range(2)).bones, **change),
            )
        )


@pytest.mark.parametrize("sequence", [-1, 2**32])
def test_refuses_sequences_that_do_not_fit(sequence: int) -> None:
    with pytest.raises(InvalidInputError, match=f"sequence is {sequence}"):
        encode_bones(BoneSample(sequence, WHOLE.bones))


@given(
    convention=st.sampled_from(CONVENTIONS),
    form=st.sampled_from(FORMS),
    joints=st.sets(st.integers(0, 54)),
    seed=st.integers(0, 2**16),
    sequence=st.integers(0, 2**32 - 1),
    root=st.none() | st.tuples(*[st.floats(-100, 100, width=32)] * 3),
    face=st.dictionaries(
        st.sampled_from(BLENDSHAPE_NAMES) | st.text("abcäß ", min_size=1, max_size=20),
        st.floats(0, 1, width=16),
        max_size=60,
    ),
)
def test_reading_undoes_writing(convention, form, joints, seed, sequence, root, face) -> None:
    quat = np.random.default_rng(seed).normal(size=(len(joints), 4))
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    sent = BoneRotations(
        names=tuple(BONE_NAMES[convention][joint] for joint in sorted(joints)),
        quat_wxyz=quat.astype(np.float32),
        timestamp_s=float(seed),
        convention=convention,
        root_transl=None if root is None else np.array(root, np.float32),
        blendshape_names=tuple(face),
        blendshape_values=np.array([*face.values()], np.float32) if face else None,
    )
    sample = decode(encode_bones(BoneSample(sequence, sent), form))
    got = sample.bones
    assert (sample.sequence, got.names, got.timestamp_s) == (sequence, sent.names, float(seed))
    assert got.convention == convention
    if joints:
        assert between_deg(got.quat_wxyz, sent.quat_wxyz).max() < 0.06
    if root is None:
        assert got.root_transl is None
    else:
        np.testing.assert_array_equal(got.root_transl, sent.root_transl)
    values = [] if got.blendshape_values is None else got.blendshape_values.tolist()
    scores = dict(zip(got.blendshape_names, values, strict=True))
    assert {name: value for name, value in scores.items() if name in face or value} == face
