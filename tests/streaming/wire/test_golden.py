"""Every valid and every broken form, byte for byte: the files are what writers of senders test against."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import BROKEN, GOLDEN, VALID, Packet, complaint

from lhm_runtime.avatar import Avatar
from streaming.config import Motion
from streaming.errors import ProtocolError
from streaming.follower import Follower
from streaming.protocol import BoneSample, parse_sample
from streaming.sources import Sample

INDEX: dict[str, str] = json.loads((GOLDEN / "broken" / "index.json").read_text(encoding="utf-8"))
BINARY = {name: packet for name, packet in VALID.items() if isinstance(packet, bytes)} | {
    path.name: path.read_bytes() for path in GOLDEN.glob("landmarks_*.bin")
}


def read(path: Path) -> Packet:
    return path.read_bytes() if path.suffix == ".bin" else path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", VALID)
def test_writes_the_recorded_packets(name: str) -> None:
    assert read(GOLDEN / name) == VALID[name]
    assert complaint(read(GOLDEN / name)) == ""


@pytest.mark.parametrize("name", BROKEN)
def test_refuses_the_recorded_packets(name: str) -> None:
    packet = read(GOLDEN / "broken" / name)
    assert packet == BROKEN[name]
    assert INDEX[name].startswith("ProtocolError: ")
    assert complaint(packet).startswith(INDEX[name])  # the index leaves out what the JSON reader adds


def test_every_file_is_known() -> None:
    broken = {path.name for path in (GOLDEN / "broken").iterdir()} - {"index.json"}
    assert broken == set(BROKEN) == set(INDEX)
    samples = {path.name for path in GOLDEN.glob("*.*") if not path.name.startswith("drawn")}
    assert samples - {"README.md"} == set(VALID) | set(BINARY)


@given(
    name=st.sampled_from(sorted(BINARY)),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    cut=st.none() | st.integers(0, 3400),
    more=st.binary(max_size=8),
)
def test_damaged_packets(name: str, changes: list[tuple[int, int]], cut: int | None, more: bytes) -> None:
    data = bytearray(BINARY[name][:cut] + more)
    for index, value in changes:
        if index < len(data):
            data[index] = value
    require_sane(bytes(data))


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"LL\x01\x02" + tail))
def test_noise(data: bytes) -> None:
    require_sane(data)


def require_sane(packet: Packet) -> None:
    """A packet is refused, or all of its numbers are within the limits."""
    try:
        sample = parse_sample(packet)
    except ProtocolError:
        return
    motion = sample.bones if isinstance(sample, BoneSample) else sample.landmarks
    assert np.isfinite(motion.timestamp_s)
    for field in motion.__dataclass_fields__:
        value = getattr(motion, field)
        assert not isinstance(value, np.ndarray) or np.isfinite(value).all(), field
    if isinstance(sample, BoneSample):
        np.testing.assert_allclose(np.linalg.norm(sample.bones.quat_wxyz, axis=1), 1, atol=1e-5)


def test_whatever_is_taken_makes_a_pose(avatar: Avatar) -> None:
    """The follower meets nothing it cannot use: every valid packet, and every damaged one that is still one."""
    rng, follower, poses = random.Random(5), Follower(avatar, Motion()), 0
    for number in range(600):
        data = bytearray(BINARY[rng.choice(sorted(BINARY))])
        for _ in range(rng.choice([0, 1, 1, 3])):
            data[rng.randrange(min(30, len(data)), len(data)) if len(data) > 31 else -1] = rng.randrange(256)
        try:
            sample = parse_sample(bytes(data))
        except ProtocolError:
            continue
        motion = sample.bones if isinstance(sample, BoneSample) else sample.landmarks
        pose = follower.follow(Sample(motion))
        if pose is not None:
            poses += 1
            assert np.isfinite(pose.rotvec).all(), number
            assert np.isfinite(pose.transl).all()
            assert np.isfinite(pose.expression).all()
    assert poses > 200
