"""Takes: the poses of a filmed session with their times, written while it runs. docs/takes.md describes the bytes.

A file is ``MAGIC`` and then blocks, each whole or not there: kind, length, CRC-32, content. A ``SCNE`` block is a Scene
as JSON, true of all poses up to the next one; a ``POSE`` block is some of these, one after the other. Nothing is ever
changed once written, so a crash costs the block in the making and no more.
"""

import json
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lhm_runtime.body.joints import NUM_JOINTS
from lhm_runtime.errors import InvalidInputError, MotionFileError, require_finite
from lhm_runtime.types import MAX_IMAGE_SIDE, SmplxPose

MAGIC: Final = b"lhm-live take 1\n"
"""The first bytes of a file; the number is the version."""
SUFFIX: Final = ".motion"
TICKS_HZ: Final = 90_000
"""Times are counted in these: those of RTP and of the film."""
MAX_TAKE_BYTES: Final = 512_000_000
"""Five hours at 30 poses a second; neither written nor read beyond."""
MAX_TICKS: Final = (1 << 32) - 1

_MAX_BLOCK_BYTES: Final = 1 << 20
_MAX_NAMES: Final = 256
_MAX_NAME_CHARS: Final = 100
_BLOCK = struct.Struct("<4sII")
_SCENE, _POSES = b"SCNE", b"POSE"
_FARTHEST: Final = 1000.0
"""No metres, radians or coefficients of a person are larger."""
_FIXED = 4 + 4 * 3 + 4 * 3 * NUM_JOINTS
"""Bytes of a pose before its expression: tick, translation, rotations."""

_Framing = Literal["full", "half", "head"]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME_CHARS and value.isprintable()


@dataclass(frozen=True, slots=True)
class Scene:
    """What a film shows besides a pose; raises InvalidInputError when any of it is unusable."""

    avatar: str
    """Id of who is seen."""
    expression_names: tuple[str, ...]
    """Names of their face coefficients."""
    width: int
    height: int
    fps: int
    """What the session aimed at."""
    framing: _Framing
    background: str
    """Six hex digits, or ``transparent``, which films show as light grey."""
    mirror: bool
    yaw: float
    """Where the camera stood, radians round the person; 0 sees the face."""
    pitch: float

    def __post_init__(self) -> None:
        _require_scene({name: getattr(self, name) for name in _CHECKS})


def _require_scene(values: Mapping[str, Any]) -> None:
    for name, is_usable in _CHECKS.items():
        if not is_usable(values[name]):
            raise InvalidInputError(f"a scene's {name} is {str(values[name])[:80]!r}, which it cannot be")


_CHECKS: Final[Mapping[str, Any]] = {
    "avatar": _is_name,
    "expression_names": lambda value: (
        len(value) <= _MAX_NAMES and all(map(_is_name, value)) and len(set(value)) == len(value)
    ),
    "width": lambda value: type(value) is int and 1 <= value <= MAX_IMAGE_SIDE,
    "height": lambda value: type(value) is int and 1 <= value <= MAX_IMAGE_SIDE,
    "fps": lambda value: type(value) is int and 1 <= value <= 240,
    "framing": lambda value: value in get_args(_Framing),
    "background": lambda value: isinstance(value, str) and re.fullmatch("transparent|[0-9a-fA-F]{6}", value),
    "mirror": lambda value: isinstance(value, bool),
    "yaw": lambda value: type(value) is float and math.isfinite(value),
    "pitch": lambda value: type(value) is float and -math.pi / 2 < value < math.pi / 2,
}


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """A file's content: t poses in the world of types.py, and what was to be seen of them."""

    rotvec: Float32[np.ndarray, "t 55 3"]
    transl: Float32[np.ndarray, "t 3"]
    expression: Float32[np.ndarray, "t e"]
    """By the names of all scenes; 0 where a scene does not have one."""
    timestamps_s: Float64[np.ndarray, " t"]
    """Seconds of the film; increasing, and those of its pictures are among them."""
    expression_names: tuple[str, ...]
    scenes: tuple[Scene, ...]
    scene_index: Int64[np.ndarray, " t"]
    """Which of the scenes each pose is in."""


def format_scene(scene: Scene) -> bytes:
    """The block of a scene."""
    return _block(_SCENE, json.dumps(asdict(scene), ensure_ascii=False, separators=(",", ":")).encode())


def format_pose(tick: int, pose: SmplxPose) -> bytes:
    """One pose for a block of them, at ``tick`` of TICKS_HZ."""
    parts = (pose.transl, pose.rotvec, pose.expression)
    return struct.pack("<I", tick) + b"".join(part.astype("<f4").tobytes() for part in parts)


def format_poses(poses: Iterable[bytes]) -> bytes:
    """The block of poses made by ``format_pose``, all of one scene.

    Raises:
        InvalidInputError: they are more than a block holds, which is a megabyte.
    """
    content = b"".join(poses)
    if len(content) > _MAX_BLOCK_BYTES:
        raise InvalidInputError(f"{len(content)} bytes of poses, a block holds {_MAX_BLOCK_BYTES}")
    return _block(_POSES, content)


def read_take(path: Path) -> Take:
    """Read a take; what a crash cut off at its end is left out.

    Raises:
        MotionFileError: it cannot be read, is no take, is damaged, or holds no pose.
    """
    try:
        if path.stat().st_size > MAX_TAKE_BYTES:
            raise MotionFileError(
                f"{path} has {path.stat().st_size} bytes, more than the {MAX_TAKE_BYTES} of the longest take"
            )
        return parse_take(path.read_bytes())
    except OSError as error:
        raise MotionFileError(f"{path} cannot be read: {error.strerror}") from error
    except InvalidInputError as error:
        raise MotionFileError(f"{path}: {error}") from error


def parse_take(data: bytes) -> Take:
    """The take in a file's bytes.

    Raises:
        InvalidInputError: it is none, is damaged, or holds no pose.
    """
    if not data.startswith(MAGIC):
        what = "of another version" if data.startswith(MAGIC[:-2]) else "no take of lhm-live"
        raise InvalidInputError(f"it is {what}: it begins with {data[: len(MAGIC)]!r}, expected {MAGIC!r}")
    scenes: list[Scene] = []
    runs: list[tuple[int, np.ndarray]] = []
    for at, kind, content in _read_blocks(data):
        if kind == _SCENE:
            scenes.append(_read_scene(bytes(content), scenes))
        elif kind != _POSES:
            raise InvalidInputError(f"the block at byte {at} is of kind {kind!r}, which is unknown here")
        elif not scenes:
            raise InvalidInputError("it begins with poses, expected a scene")
        elif content:
            runs.append((len(scenes) - 1, _split_poses(content, len(scenes[-1].expression_names))))
    if not runs:
        raise InvalidInputError("it holds no pose: nothing was filmed")
    return _join(scenes, runs)


def _block(kind: bytes, content: bytes) -> bytes:
    return _BLOCK.pack(kind, len(content), zlib.crc32(content)) + content


def _read_blocks(data: bytes) -> Iterator[tuple[int, bytes, memoryview]]:
    """Where each block is, its kind and content; without one at the end that was never finished."""
    at, whole = len(MAGIC), memoryview(data)
    while at + _BLOCK.size <= len(data):
        kind, length, check = _BLOCK.unpack_from(data, at)
        end = at + _BLOCK.size + length
        if end > len(data):
            return
        content = whole[at + _BLOCK.size : end]
        if length > _MAX_BLOCK_BYTES or zlib.crc32(content) != check:
            if end == len(data):
                return
            raise InvalidInputError(f"the block at byte {at} is damaged")
        yield at, kind, content
        at = end


def _read_scene(content: bytes, before: list[Scene]) -> Scene:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"a scene is no JSON: {error}") from error
    wanted = {field.name for field in fields(Scene)}
    if not isinstance(said, dict) or set(said) != wanted:
        raise InvalidInputError(f"a scene says {str(said)[:80]}, expected an object of {', '.join(sorted(wanted))}")
    if not isinstance(said["expression_names"], list):
        raise InvalidInputError("a scene's expression_names are no list")
    names = tuple(said["expression_names"])
    if before and before[-1].expression_names == names:
        names = before[-1].expression_names  # there may be many scenes, and they share these
    _require_scene({**said, "expression_names": names})
    return Scene(**{**said, "expression_names": names})


def _split_poses(content: memoryview, coefficients: int) -> np.ndarray:
    size = _FIXED + 4 * coefficients
    if len(content) % size:
        raise InvalidInputError(f"a block of {len(content)} bytes, expected a multiple of {size}, a pose of its scene")
    return np.frombuffer(content, "<f4").reshape(-1, size // 4)


def _join(scenes: list[Scene], runs: list[tuple[int, np.ndarray]]) -> Take:
    columns: dict[str, int] = {}
    for scene in {scene.expression_names: scene for scene in scenes}.values():
        for name in scene.expression_names:
            columns.setdefault(name, len(columns))
    if len(columns) > _MAX_NAMES:
        raise InvalidInputError(f"its scenes have {len(columns)} different coefficients, at most {_MAX_NAMES} are read")
    lengths = [len(run) for _, run in runs]
    ticks = np.concatenate([run[:, 0].copy().view("<u4") for _, run in runs]).astype(np.int64)
    late = np.flatnonzero(np.diff(ticks) <= 0)
    if late.size:
        i = int(late[0]) + 1
        raise InvalidInputError(f"pose {i} is at tick {ticks[i]} after {ticks[i - 1]}; times must increase")
    values = np.concatenate([run[:, 1 : _FIXED // 4] for _, run in runs]).astype(np.float32)
    expression = np.zeros((len(ticks), len(columns)), np.float32)
    start = 0
    for (index, run), length in zip(runs, lengths, strict=True):
        listed = [columns[name] for name in scenes[index].expression_names]
        expression[start : start + length, listed] = run[:, _FIXED // 4 :]
        start += length
    for name, array in (("pose", values), ("expression", expression)):
        require_finite(name, array)
        if array.size and np.abs(array).max() > _FARTHEST:
            raise InvalidInputError(f"its {name} reaches {np.abs(array).max():g}, at most {_FARTHEST:g} is read")
    return Take(
        values[:, 3:].reshape(-1, NUM_JOINTS, 3),
        values[:, :3],
        expression,
        ticks / TICKS_HZ,
        tuple(columns),
        tuple(scenes),
        np.repeat([index for index, _ in runs], lengths),
    )
