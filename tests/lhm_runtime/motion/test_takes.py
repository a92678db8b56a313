"""Takes: what is written is read, a crash costs the end, and no bytes do harm."""

import json
import struct
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhm_runtime.errors import InvalidInputError, MotionFileError
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.motion.sequences import load_motion
from lhm_runtime.motion.takes import MAGIC, Scene, format_pose, format_poses, format_scene, parse_take, read_take
from lhm_runtime.types import SmplxPose

SCENE = Scene(
    avatar="ada",
    expression_names=("jawOpen", "browDown"),
    width=128,
    height=160,
    fps=30,
    framing="half",
    background="00B140",
    mirror=True,
    yaw=0.5,
    pitch=-0.25,
)


def pose(step: int, coefficients: int = 2) -> SmplxPose:
    return replace(
        relaxed_pose(),
        transl=np.array([0.01 * step, 0, 0], np.float32),
        expression=np.arange(coefficients, dtype=np.float32) + step,
    )


def block(kind: bytes, content: bytes, check: int | None = None) -> bytes:
    return struct.pack("<4sII", kind, len(content), zlib.crc32(content) if check is None else check) + content


def scene_block(**changes: object) -> bytes:
    return block(b"SCNE", json.dumps({**asdict(SCENE), **changes}).encode())


POSES = format_poses(format_pose(3000 * step, pose(step)) for step in range(5))
WHOLE = MAGIC + format_scene(SCENE) + POSES


def test_what_is_written_is_read(tmp_path: Path) -> None:
    other = replace(SCENE, avatar="eve", expression_names=("tongueOut", "jawOpen", "smile"), mirror=False)
    path = tmp_path / "me.motion"
    path.write_bytes(WHOLE + format_scene(other) + format_poses([format_pose(90_000, pose(9, 3))]))
    take = read_take(path)
    assert take.scenes == (SCENE, other)
    assert take.scene_index.tolist() == [0] * 5 + [1]
    assert take.expression_names == ("jawOpen", "browDown", "tongueOut", "smile")
    np.testing.assert_allclose(take.timestamps_s, [0, 1 / 30, 2 / 30, 0.1, 4 / 30, 1.0], atol=1e-12)
    np.testing.assert_array_equal(take.rotvec[5], relaxed_pose().rotvec)
    np.testing.assert_array_equal(take.transl[:, 0], np.array([0, 0.01, 0.02, 0.03, 0.04, 0.09], np.float32))
    np.testing.assert_array_equal(take.expression[4], [4, 5, 0, 0])
    np.testing.assert_array_equal(take.expression[5], [10, 0, 9, 11])
    motion = load_motion(path)
    assert motion.expression_names == take.expression_names
    np.testing.assert_array_equal(motion.rotvec, take.rotvec)


def test_a_block_has_an_end() -> None:
    with pytest.raises(InvalidInputError, match="a block holds 1048576"):
        format_poses([format_pose(0, pose(0))] * 1600)


@settings(max_examples=20)
@given(st.integers(0, len(WHOLE) - 1))
def test_a_crash_costs_the_block_in_the_making(length: int) -> None:
    second = format_poses([format_pose(90_000, pose(9))])
    take = parse_take(WHOLE + second[: length % len(second)])
    assert len(take.timestamps_s) == 5
    garbled = second[:-1] + bytes([second[-1] ^ 1])
    assert len(parse_take(WHOLE + garbled).timestamps_s) == 5
    with pytest.raises(InvalidInputError, match="damaged"):
        parse_take(WHOLE + garbled + second)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no take"),
        (b"PK\x03\x04", "no take"),
        (MAGIC.replace(b"1", b"2"), "another version"),
        (MAGIC, "holds no pose"),
        (MAGIC + format_scene(SCENE), "holds no pose"),
        (MAGIC + POSES, "begins with poses"),
        (WHOLE + block(b"WHAT", b""), "unknown"),
        (WHOLE + block(b"POSE", bytes(679)), "multiple of 684"),
        (WHOLE + POSES, "times must increase"),
        (MAGIC + scene_block() + block(b"POSE", struct.pack("<I170f", 0, np.nan, *[0.0] * 169)), "finite"),
        (MAGIC + scene_block() + block(b"POSE", struct.pack("<I170f", 0, 1e9, *[0.0] * 169)), "1e\\+09"),
        (MAGIC + block(b"SCNE", b"[" * 100_000) + POSES, "no JSON"),
        (MAGIC + block(b"SCNE", b"\xff") + POSES, "no JSON"),
        (MAGIC + block(b"SCNE", b"{}") + POSES, "expected an object of"),
        (MAGIC + scene_block(width=0), "width"),
        (MAGIC + scene_block(height=1 << 20), "height"),
        (MAGIC + scene_block(fps=30.5), "fps"),
        (MAGIC + scene_block(framing="whole"), "framing"),
        (MAGIC + scene_block(background="green"), "background"),
        (MAGIC + scene_block(mirror=1), "mirror"),
        (MAGIC + scene_block(yaw=float("inf")), "yaw"),
        (MAGIC + scene_block(pitch=2.0), "pitch"),
        (MAGIC + scene_block(avatar=""), "avatar"),
        (MAGIC + scene_block(expression_names=["a", "a"]), "expression_names"),
        (MAGIC + scene_block(expression_names=[["a"]]), "expression_names"),
        (MAGIC + scene_block(expression_names=None), "expression_names"),
        (MAGIC + scene_block(expression_names=[f"n{i}" for i in range(300)]), "expression_names"),
    ],
)
def test_what_is_no_take_says_why(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_take(data)
    (tmp_path / "bad.motion").write_bytes(data)
    with pytest.raises(MotionFileError, match=r"bad\.motion"):
        load_motion(tmp_path / "bad.motion")


@given(st.data())
def test_any_bytes_are_a_take_or_an_error(data: st.DataObject) -> None:
    """Also where checksums are right: they keep out accidents, not mischief."""
    content = bytearray(data.draw(st.sampled_from([WHOLE, WHOLE[:200], MAGIC])))
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    if data.draw(st.booleans()):
        content += block(data.draw(st.sampled_from([b"SCNE", b"POSE"])), data.draw(st.binary(max_size=1400)))
    try:
        take = parse_take(bytes(content))
    except InvalidInputError:
        return
    assert np.isfinite(take.rotvec).all()
    assert (np.diff(take.timestamps_s) > 0).all()
    assert len(take.timestamps_s) * 676 < len(content)
    assert take.scene_index.max() < len(take.scenes)
