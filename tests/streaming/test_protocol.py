"""Golden samples: golden/README.md gives the formula; the web client's tests read the same files."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.types import Landmarks
from streaming.errors import ProtocolError
from streaming.protocol import (
    MAX_REACH_M,
    LandmarkSample,
    encode_landmarks,
    is_newer,
    parse_sample,
)

GOLDEN = Path(__file__).parent / "golden"
SIZE = (640, 480)
ARRAYS = [field.name for field in fields(Landmarks) if field.name not in {"timestamp_s", "image_size"}]
EVERYTHING = frozenset(ARRAYS)
LARGEST = 3368
"""Bytes of a landmark sample with all its parts."""
BODY = frozenset({"body_world", "body_image", "body_visibility"})
WEBCAM = BODY | {"left_hand_world", "left_hand_image", "face_blendshapes", "T_camera_face"}
SAMPLES = {"nobody": frozenset(), "body": BODY, "webcam": WEBCAM, "everything": EVERYTHING}


def ramp(count: int, start: int, divisor: float, centre: float) -> np.ndarray:
    i = np.arange(count) + start
    return ((i * 37 % 101 - centre) / divisor).astype(np.float32)


def landmarks(parts: frozenset[str] = EVERYTHING) -> Landmarks:
    pixels = np.float32(SIZE)
    arrays = {
        "body_world": ramp(99, 1, 60, 50).reshape(33, 3),
        "body_image": ramp(66, 2, 90, 10).reshape(33, 2) * pixels,
        "body_visibility": ramp(33, 3, 100, 0),
        "left_hand_world": ramp(63, 4, 700, 50).reshape(21, 3),
        "left_hand_image": ramp(42, 5, 110, 0).reshape(21, 2) * pixels,
        "right_hand_world": ramp(63, 6, 700, 50).reshape(21, 3),
        "right_hand_image": ramp(42, 7, 110, 0).reshape(21, 2) * pixels,
        "face_image": ramp(956, 8, 300, 0).reshape(478, 2) * pixels,
        "face_blendshapes": ramp(52, 9, 100, 0),
        "T_camera_face": ramp(16, 10, 3, 50).reshape(4, 4),
    }
    kept = {name: array for name, array in arrays.items() if name in parts}
    return Landmarks(timestamp_s=1_790_000_000.125, image_size=SIZE, **kept)


def sample(parts: frozenset[str] = EVERYTHING, sequence: int = 4_000_000_001) -> LandmarkSample:
    return LandmarkSample(sequence, landmarks(parts))


class TestGolden:
    @pytest.mark.parametrize("name", SAMPLES)
    def test_encodes_to_the_recorded_bytes(self, name: str) -> None:
        assert encode_landmarks(sample(SAMPLES[name])) == (GOLDEN / f"landmarks_{name}.bin").read_bytes()

    @pytest.mark.parametrize("name", SAMPLES)
    def test_decodes_from_the_recorded_bytes(self, name: str) -> None:
        decoded = parse_sample((GOLDEN / f"landmarks_{name}.bin").read_bytes())
        assert decoded.sequence == 4_000_000_001
        assert decoded.landmarks.timestamp_s == 1_790_000_000.125
        assert decoded.landmarks.image_size == SIZE
        for field in ARRAYS:
            expected, array = getattr(landmarks(SAMPLES[name]), field), getattr(decoded.landmarks, field)
            if expected is None:
                assert array is None, field
                continue
            assert array.dtype == np.float32
            if field.endswith("_image"):
                np.testing.assert_allclose(array / SIZE, expected / SIZE, atol=2**-11)  # half precision below 2
            elif field in {"body_visibility", "face_blendshapes"}:
                np.testing.assert_allclose(array, expected, atol=2**-12)
            else:
                np.testing.assert_array_equal(array, expected)

    def test_header_by_hand(self) -> None:
        data = (GOLDEN / "landmarks_body.bin").read_bytes()
        assert data[:4] == b"LL\x01\x01"
        assert data[4:6] == b"\x03\x00"  # body and body image
        assert int.from_bytes(data[6:10], "little") == 4_000_000_001
        assert np.frombuffer(data, "<f8", 1, 10)[0] == 1_790_000_000_125
        assert data[18:22] == b"\x80\x02\xe0\x01"  # 640 x 480
        assert np.frombuffer(data, "<f4", 1, 22)[0] == np.float32((37 - 50) / 60)

    def test_sizes(self) -> None:
        sizes = {name: (GOLDEN / f"landmarks_{name}.bin").stat().st_size for name in SAMPLES}
        assert sizes["nobody"] == 22
        assert sizes["everything"] == LARGEST
        assert len(encode_landmarks(sample(EVERYTHING - {"face_image"}))) == 1456


class TestDecode:
    """Anything from outside is a sample or a ProtocolError."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data[:21], "landmark sample of 21 bytes, one with parts 0x007f has 3368"),
            (lambda data: data[:17], "message of 17 bytes, a sample has at least 18"),
            (lambda data: data[:0], "message of 0 bytes"),
            (lambda data: data + bytes(4097 - len(data)), "message of 4097 bytes, a sample has at most 4096"),
            (lambda data: b"XL" + data[2:], "starts with b'XL'"),
            (lambda data: data[:2] + b"\x02" + data[3:], "version 2, this server reads version 1"),
            (lambda data: data[:3] + b"\x07" + data[4:], "kind 7"),
            (lambda data: data[:4] + b"\x83\x00" + data[6:], "unknown parts 0x0083"),
            (lambda data: data[:5] + b"\x80" + data[6:], "unknown parts 0x807f"),
            (lambda data: data[:-1], f"sample of {LARGEST - 1} bytes"),
            (lambda data: data + b"\x00", f"sample of {LARGEST + 1} bytes"),
            (lambda data: data[: len(data) // 2], f"sample of {LARGEST // 2} bytes"),
            (lambda data: data[:4] + b"\x01\x00" + data[6:], "one with parts 0x0001 has 418"),
            (lambda data: data[:18] + b"\x00\x00" + data[20:], "picture of 0x480"),
            (lambda data: data[:20] + b"\xff\xff" + data[22:], "picture of 640x65535"),
            (lambda data: data[:10] + np.float64(np.nan).tobytes() + data[18:], "capture time is nan"),
            (lambda data: data[:10] + np.float64(-np.inf).tobytes() + data[18:], "capture time is -inf"),
            (lambda data: data[:22] + np.float32(np.nan).tobytes() + data[26:], r"body_world\[0, 0\] is nan"),
            (lambda data: data[:26] + np.float32(-101).tobytes() + data[30:], r"body_world\[0, 1\] is -101"),
            (lambda data: data[:418] + np.float16(np.inf).tobytes() + data[420:], r"body_image\[0, 0\] is inf"),
            (lambda data: data[:550] + np.float16(-0.5).tobytes() + data[552:], r"body_visibility\[0\] is -0.5"),
            (lambda data: data[:3200] + np.float16(1.5).tobytes() + data[3202:], r"face_blendshapes\[0\] is 1.5"),
            (lambda data: data[:-4] + np.float32(2e5).tobytes(), r"T_camera_face\[3, 3\] is 200000"),
        ],
    )
    def test_says_what_is_wrong(self, change, message: str) -> None:
        with pytest.raises(ProtocolError, match=message):
            parse_sample(change((GOLDEN / "landmarks_everything.bin").read_bytes()))

    @given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"LL\x01\x01" + tail))
    def test_noise(self, data: bytes) -> None:
        try:
            decoded = parse_sample(data)
        except ProtocolError:
            return
        assert encode_landmarks(decoded)[:10] == data[:10]

    @given(
        name=st.sampled_from(sorted(SAMPLES)),
        changes=st.lists(st.tuples(st.integers(0, LARGEST), st.integers(0, 255)), max_size=6),
        cut=st.none() | st.integers(0, LARGEST),
    )
    def test_damaged_samples(self, name: str, changes: list[tuple[int, int]], cut: int | None) -> None:
        data = bytearray((GOLDEN / f"landmarks_{name}.bin").read_bytes())
        for index, value in changes:
            if index < len(data):
                data[index] = value
        try:
            seen = parse_sample(memoryview(data)[:cut]).landmarks
        except ProtocolError:
            return
        assert np.isfinite(seen.timestamp_s)
        for field in ARRAYS:
            array = getattr(seen, field)
            assert array is None or np.isfinite(array).all(), field
        if seen.body_world is not None:
            assert np.abs(seen.body_world).max() <= MAX_REACH_M
        if seen.face_blendshapes is not None:
            assert 0 <= seen.face_blendshapes.min() <= seen.face_blendshapes.max() <= 1

    def test_owns_its_arrays(self) -> None:
        data = bytearray((GOLDEN / "landmarks_body.bin").read_bytes())
        decoded = parse_sample(data).landmarks
        before = decoded.body_world.copy()
        data[22:] = bytes(len(data) - 22)
        np.testing.assert_array_equal(decoded.body_world, before)
        decoded.body_world[0] = 0  # writable


class TestEncode:
    @given(
        parts=st.sets(st.sampled_from(["body_world", "body", "left", "right", "face_image", "face_blendshapes"])),
        sequence=st.integers(0, 2**32 - 1),
        seed=st.integers(0, 2**16),
        size=st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
    )
    def test_decoding_undoes_it(self, parts: set[str], sequence: int, seed: int, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(seed)
        groups = {
            "body": ("body_image", "body_visibility"),
            "left": ("left_hand_world", "left_hand_image"),
            "right": ("right_hand_world", "right_hand_image"),
        }
        names = [name for part in sorted(parts) for name in groups.get(part, (part,))]
        shapes = {name: getattr(landmarks(), name).shape for name in names}
        arrays = {name: rng.uniform(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        arrays = {n: a * np.float32(size) if n.endswith("_image") else a for n, a in arrays.items()}
        sent = LandmarkSample(sequence, Landmarks(timestamp_s=float(seed), image_size=size, **arrays))
        data = encode_landmarks(sent)
        got = parse_sample(data)
        assert got.sequence == sequence
        assert got.landmarks.image_size == size
        assert got.landmarks.timestamp_s == seed
        for field in ARRAYS:
            array = getattr(got.landmarks, field)
            assert (array is None) == (field not in arrays), field
            if array is not None:
                scale = np.float32(size) if field.endswith("_image") else 1
                np.testing.assert_allclose(array / scale, arrays[field] / scale, atol=2**-11)
        assert encode_landmarks(got) == data

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"body_visibility": None}, "body_visibility is missing"),
            ({"left_hand_world": None}, "left_hand_world is missing"),
            ({"right_hand_image": None}, "right_hand_image is missing"),
            ({"image_size": (0, 480)}, "picture of 0x480"),
            ({"image_size": (640, 10_000)}, "picture of 640x10000"),
            ({"timestamp_s": float("nan")}, "timestamp_s is nan"),
            ({"body_world": np.full((33, 3), np.nan, np.float32)}, r"body_world\[0, 0\] is nan"),
            ({"body_image": np.full((33, 2), 1e6, np.float32)}, r"body_image\[0, 0\] is 1562.5"),
            ({"face_blendshapes": np.full(52, -0.5, np.float32)}, r"face_blendshapes\[0\] is -0.5"),
        ],
    )
    def test_refuses_what_it_could_not_read(self, change: dict[str, object], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            encode_landmarks(LandmarkSample(0, replace(landmarks(), **change)))

    @pytest.mark.parametrize("sequence", [-1, 2**32])
    def test_refuses_sequences_that_do_not_fit(self, sequence: int) -> None:
        with pytest.raises(InvalidInputError, match=f"sequence is {sequence}"):
            encode_landmarks(sample(BODY, sequence))


class TestOrder:
    def test_wraps(self) -> None:
        assert is_newer(0, 2**32 - 1)
        assert not is_newer(2**32 - 1, 0)
        assert not is_newer(7, 7)

    @given(st.integers(0, 2**32 - 1), st.integers(1, 2**31 - 1))
    def test_later_is_newer(self, last: int, step: int) -> None:
        assert is_newer((last + step) % 2**32, last)
        assert not is_newer(last, (last + step) % 2**32)
