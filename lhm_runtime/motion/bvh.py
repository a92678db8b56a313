"""The BVH text format (Biovision 1999; Meredith and Maddock 2001, "Motion Capture File Formats Explained").

Only the format: names, offsets, channels and numbers as the file has them, in its own units and axes. What a
skeleton's joints mean is the business of ``retargeting``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from lhm_runtime.errors import MotionFileError

MAX_JOINTS = 500
"""More is no person."""
MAX_VALUES = 50_000_000
"""Numbers in the motion: 400 MB in memory; 100 joints for an hour and a half at 30 frames a second."""

_AXES = "xyz"
CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "XYZ")
"""All channels a joint can have, written this way."""
_CHANNEL_NAMES = {name.lower(): name for name in CHANNELS}
_SHOWN = 60  # characters of a line quoted in a message


@dataclass(frozen=True, slots=True, eq=False)
class BvhClip:
    """A skeleton and its motion; joints stand in depth-first order, the root first."""

    names: tuple[str, ...]
    parents: Int[np.ndarray, " j"]
    """-1 for the root."""
    offsets: Float64[np.ndarray, "j 3"]
    """From the parent, in the file's unit."""
    channels: tuple[tuple[str, ...], ...]
    """Of each joint, among ``CHANNELS``, in the file's order."""
    end_parents: Int[np.ndarray, " e"]
    """The joint each end site hangs on."""
    end_offsets: Float64[np.ndarray, "e 3"]
    frame_time_s: float
    values: Float64[np.ndarray, "t c"]
    """A row a frame, a column a channel of all joints in turn; positions in the file's unit, angles in degrees."""


def parse_bvh(text: str) -> BvhClip:
    """Read the text of a BVH file.

    Raises:
        MotionFileError: it breaks the format or a limit; the message has the line.
    """
    lines = _Lines(text)
    lines.take_keyword("HIERARCHY")
    skeleton = _parse_hierarchy(lines)
    lines.take_keyword("MOTION")
    frames = lines.take_number("Frames:")
    if frames != int(frames) or frames < 1:
        lines.fail(f"the number of frames is {frames:g}, expected a whole number from 1 on")
    frame_time_s = lines.take_number("Frame Time:")
    if not 0 < frame_time_s < np.inf:
        lines.fail(f"the frame time is {frame_time_s:g}, expected a positive number of seconds")
    width = sum(len(channels) for channels in skeleton.channels)
    if frames * width > MAX_VALUES:
        lines.fail(f"{frames:g} frames of {width} numbers are more than the {MAX_VALUES} this program reads")
    values = _parse_frames(lines, int(frames), width)
    return BvhClip(
        names=tuple(skeleton.names),
        parents=np.array(skeleton.parents),
        offsets=np.array(skeleton.offsets),
        channels=tuple(skeleton.channels),
        end_parents=np.array(skeleton.end_parents, np.intp),
        end_offsets=np.array(skeleton.end_offsets, np.float64).reshape(-1, 3),
        frame_time_s=frame_time_s,
        values=values,
    )


def format_bvh(clip: BvhClip) -> str:
    """The text of a BVH file; six decimals, a hundredth of a micron where the unit is a centimetre."""
    lines = ["HIERARCHY"]
    _format_joint(clip, 0, 0, lines)
    lines += ["MOTION", f"Frames: {len(clip.values)}", f"Frame Time: {clip.frame_time_s:.9g}"]
    lines += [" ".join(f"{value:.6f}" for value in row) for row in clip.values.tolist()]
    return "\n".join(lines) + "\n"


def local_transforms(clip: BvhClip) -> tuple[Float64[np.ndarray, "t j 3 3"], Float64[np.ndarray, "t j 3"]]:
    """Rotation and position of each joint in its parent, frame by frame.

    The rotations of a joint multiply in the order of its channels; its position channels stand for its offset.
    """
    frames = len(clip.values)
    rotation = np.broadcast_to(np.eye(3), (frames, len(clip.names), 3, 3)).copy()
    position = np.broadcast_to(clip.offsets, (frames, len(clip.names), 3)).copy()
    column = 0
    for joint, channels in enumerate(clip.channels):
        for channel in channels:
            axis = _AXES.index(channel[0].lower())
            if channel.endswith("position"):
                position[:, joint, axis] = clip.values[:, column]
            else:
                rotation[:, joint] = rotation[:, joint] @ _turns(axis, np.radians(clip.values[:, column]))
            column += 1
    return rotation, position


def _turns(axis: int, angles: Float64[np.ndarray, " t"]) -> Float64[np.ndarray, "t 3 3"]:
    matrix = np.zeros((len(angles), 3, 3))
    second, third = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, second, second] = matrix[:, third, third] = np.cos(angles)
    matrix[:, third, second] = np.sin(angles)
    matrix[:, second, third] = -matrix[:, third, second]
    return matrix


class _Lines:
    """The lines that are not blank, one after the other; knows where it is for the messages."""

    def __init__(self, text: str) -> None:
        self._lines: Iterator[tuple[int, str]] = (
            (number, line) for number, line in enumerate(text.splitlines(), start=1) if line and not line.isspace()
        )
        self.number = 0
        self.line = ""

    def advance(self, expected: str) -> str:
        """Move to the next line; ``expected`` is what the file lacks if there is none."""
        found = next(self._lines, None)
        if found is None:
            raise MotionFileError(f"the BVH ends after line {self.number}, expected {expected}: it is cut short")
        self.number, self.line = found
        return self.line

    def take_keyword(self, keyword: str) -> None:
        if self.advance(keyword).strip().upper() != keyword:
            self.fail(f"expected {keyword}")

    def take_number(self, label: str) -> float:
        line = " ".join(self.advance(label).split())
        if not line.lower().startswith(label.lower()):
            self.fail(f"expected '{label}'")
        return float(self.numbers(line[len(label) :].split(), 1)[0])

    def numbers(self, words: list[str], count: int) -> Float64[np.ndarray, " n"]:
        """``count`` finite numbers, no more and no less."""
        if len(words) != count:
            self.fail(f"expected {count} numbers, got {len(words)}")
        try:
            numbers = np.array(words, np.float64)
        except ValueError as error:
            raise MotionFileError(f"BVH line {self.number}: {error}") from error
        if not np.isfinite(numbers).all():
            self.fail(f"{words[int(np.argmin(np.isfinite(numbers)))]} is not finite")
        return numbers

    def fail(self, problem: str) -> None:
        shown = self.line.strip()
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
        raise MotionFileError(f"BVH line {self.number}: {problem}, in {shown!r}")


class _Skeleton:
    def __init__(self) -> None:
        self.names: list[str] = []
        self.parents: list[int] = []
        self.offsets: list[np.ndarray] = []
        self.channels: list[tuple[str, ...]] = []
        self.end_parents: list[int] = []
        self.end_offsets: list[np.ndarray] = []


def _parse_hierarchy(lines: _Lines) -> _Skeleton:
    """Joints in the order of the file; a list of those still open stands for recursion, so depth is no danger."""
    skeleton = _Skeleton()
    first = lines.advance("ROOT").split(maxsplit=1)
    if first[0].upper() != "ROOT" or len(first) < 2:
        lines.fail("expected ROOT and a name")
    open_joints = [_open_joint(lines, skeleton, first[1].strip(), -1)]
    while open_joints:
        words = lines.advance("JOINT, End Site or }").split(maxsplit=1)
        keyword = words[0].upper()
        if keyword == "}":
            open_joints.pop()
        elif keyword == "JOINT" and len(words) == 2:
            open_joints.append(_open_joint(lines, skeleton, words[1].strip(), open_joints[-1]))
        elif keyword == "END":
            lines.take_keyword("{")
            skeleton.end_offsets.append(_take_offset(lines))
            skeleton.end_parents.append(open_joints[-1])
            lines.take_keyword("}")
        else:
            lines.fail("expected JOINT and a name, End Site or }")
    return skeleton


def _open_joint(lines: _Lines, skeleton: _Skeleton, name: str, parent: int) -> int:
    if len(skeleton.names) == MAX_JOINTS:
        lines.fail(f"more than {MAX_JOINTS} joints")
    if name in skeleton.names:
        lines.fail(f"there are two joints {name!r}")
    lines.take_keyword("{")
    offset = _take_offset(lines)
    words = lines.advance("CHANNELS").split()
    if words[0].upper() != "CHANNELS" or len(words) < 2:
        lines.fail("expected CHANNELS, how many and which")
    channels = tuple(_CHANNEL_NAMES.get(word.lower(), "") for word in words[2:])
    if words[1] != str(len(channels)) or "" in channels or len(set(channels)) < len(channels):
        lines.fail(f"expected CHANNELS, their number and as many different ones of {', '.join(CHANNELS)}")
    skeleton.names.append(name)
    skeleton.parents.append(parent)
    skeleton.offsets.append(offset)
    skeleton.channels.append(channels)
    return len(skeleton.names) - 1


def _take_offset(lines: _Lines) -> Float64[np.ndarray, " 3"]:
    words = lines.advance("OFFSET").split()
    if words[0].upper() != "OFFSET":
        lines.fail("expected OFFSET x y z")
    return lines.numbers(words[1:], 3)


def _parse_frames(lines: _Lines, frames: int, width: int) -> Float64[np.ndarray, "t c"]:
    rows = []
    for k in range(frames if width else 0):
        words = lines.advance(f"frame {k + 1} of {frames}").split()
        rows.append(lines.numbers(words, width))
    return np.stack(rows) if rows else np.zeros((frames, 0))


def _format_joint(clip: BvhClip, joint: int, depth: int, lines: list[str]) -> None:
    indent = "\t" * depth

    def offset(values: np.ndarray) -> str:
        return "OFFSET " + " ".join(f"{value:.6f}" for value in values)

    lines += [f"{indent}{'JOINT' if depth else 'ROOT'} {clip.names[joint]}", f"{indent}{{"]
    lines.append(f"{indent}\t{offset(clip.offsets[joint])}")
    channels = clip.channels[joint]
    lines.append(" ".join([f"{indent}\tCHANNELS", str(len(channels)), *channels]))
    for end in np.flatnonzero(clip.end_parents == joint):
        lines += [f"{indent}\tEnd Site", f"{indent}\t{{"]
        lines += [f"{indent}\t\t{offset(clip.end_offsets[end])}", f"{indent}\t}}"]
    for child in np.flatnonzero(clip.parents == joint):
        _format_joint(clip, int(child), depth + 1, lines)
    lines.append(f"{indent}}}")
