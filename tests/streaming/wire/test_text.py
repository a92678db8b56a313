"""Samples as JSON; what is refused is in golden/broken, see test_golden.py."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import GOLDEN, UPPER, WHOLE, bones

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.landmark_points import BLENDSHAPE_NAMES
from lhm_runtime.types import Landmarks
from streaming.errors import ProtocolError
from streaming.protocol import BoneSample, LandmarkSample, encode_bones, encode_landmarks, format_sample, parse_sample


@pytest.mark.parametrize("form", ["rotvec", "quat_wxyz"])
def test_bones_say_the_same_as_text_and_as_bytes(form: str) -> None:
    for sample in (WHOLE, UPPER, bones(range(0)), bones(range(4), convention="unity", root=True)):
        text = parse_sample(format_sample(sample, form)).bones
        data = parse_sample(encode_bones(sample, "quat_f32")).bones
        assert (text.names, text.convention, text.timestamp_s) == (data.names, data.convention, data.timestamp_s)
        np.testing.assert_allclose(
            text.quat_wxyz * np.sign((text.quat_wxyz * data.quat_wxyz).sum(1))[:, None], data.quat_wxyz, atol=2e-6
        )
        assert (text.root_transl is None) == (data.root_transl is None)
        if text.root_transl is not None:
            np.testing.assert_allclose(text.root_transl, data.root_transl, atol=1e-6)
        assert text.blendshape_names == data.blendshape_names
        if text.blendshape_values is not None:
            np.testing.assert_allclose(text.blendshape_values, data.blendshape_values, atol=2**-11)


@pytest.mark.parametrize("name", ["nobody", "body", "webcam", "everything"])
def test_landmarks_say_the_same_as_text_and_as_bytes(name: str) -> None:
    sample = parse_sample((GOLDEN / f"landmarks_{name}.bin").read_bytes())
    assert isinstance(sample, LandmarkSample)
    again = parse_sample(format_sample(sample))
    assert again.sequence == sample.sequence
    assert again.landmarks.timestamp_s == sample.landmarks.timestamp_s
    for field in Landmarks.__dataclass_fields__:
        before, after = getattr(sample.landmarks, field), getattr(again.landmarks, field)
        if isinstance(before, np.ndarray):
            assert after.dtype == np.float32
            np.testing.assert_allclose(after, before, atol=4e-4)  # a millionth of a picture, in pixels
        else:
            assert after == before
    encode_landmarks(again)


def test_bytes_that_begin_with_a_brace_are_text() -> None:
    text = format_sample(UPPER)
    assert parse_sample(text.encode()).bones.names == UPPER.bones.names
    assert parse_sample(memoryview(bytearray(text.encode()))).bones.names == UPPER.bones.names
    with pytest.raises(ProtocolError, match="no UTF-8"):
        parse_sample(b'{"version": "\xff"}')
    with pytest.raises(ProtocolError, match="message of 32769 bytes"):
        parse_sample(b"{" + bytes(32768))


def test_what_a_hand_writes_is_enough() -> None:
    text = '{"version": 1, "kind": "rotations", "sequence": 0, "captured_ms": 0, "rotvec": {"left_elbow": [0, -1, 0]}}'
    sample = parse_sample(text)
    assert isinstance(sample, BoneSample)
    np.testing.assert_allclose(sample.bones.quat_wxyz, [[np.cos(0.5), 0, -np.sin(0.5), 0]], atol=1e-7)
    assert sample.bones.convention == "smplx"


def test_it_is_readable() -> None:
    message = json.loads(format_sample(UPPER, "rotvec"))
    assert list(message) == ["version", "kind", "sequence", "captured_ms", "convention", "rotvec", "expression"]
    assert "Augen zu, später" in message["expression"]
    assert "später" in format_sample(UPPER)  # as itself, not escaped


def test_refuses_to_send_what_it_could_not_read() -> None:
    with pytest.raises(InvalidInputError, match="sequence is -1"):
        format_sample(BoneSample(-1, WHOLE.bones))


@given(
    st.text(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["version", "kind", "sequence", "captured_ms", "rotvec", "expression", "neck", "root"])
                | st.text(max_size=5),
                inner,
                max_size=8,
            )
        ),
        max_leaves=20,
    ).map(json.dumps)
)
def test_noise(text: str) -> None:
    with pytest.raises(ProtocolError) as refusal:
        parse_sample(text)
    str(refusal.value).encode()  # it can be told


FIELDS = st.sampled_from(
    ["version", "kind", "sequence", "captured_ms", "convention", "quat_wxyz", "root", "expression"]
)
JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.floats(), max_size=5)
    | st.dictionaries(
        st.sampled_from(["neck", "Neck", "jawOpen"]) | st.text(max_size=5),
        st.floats() | st.lists(st.floats(-2, 2), max_size=5),
        max_size=3,
    )
)


@given(st.dictionaries(FIELDS, JUNK, max_size=3))
def test_samples_with_other_things_in_them(change: dict[str, object]) -> None:
    text = json.dumps(json.loads(format_sample(bones(range(3), root=True, face=BLENDSHAPE_NAMES[:2]))) | change)
    try:
        got = parse_sample(text).bones
    except ProtocolError as error:
        str(error).encode()
        return
    assert np.isfinite(got.quat_wxyz).all()
    assert got.blendshape_values is None or (got.blendshape_values.min() >= 0 and got.blendshape_values.max() <= 1)
