"""Recorded motion: one in-memory form, and readers for the files people have.

``load_motion`` tells by content which of these a path is:

- our own recording, a ``.npz`` written by ``save_motion``: lossless, already in the world of types.py;
- the poses of a filmed session, a ``.motion`` (takes.py);
- an AMASS ``.npz`` (Mahmood et al. 2019), SMPL-H or SMPL-X: world z up, facing anywhere (here +z at first);
- a folder of ``smplx_params/*.json``, one file a frame, as LHM writes and reads: camera space, y down;
- a ``.bvh`` of any skeleton with common joint names, retargeted to the free body.

All but the first two are turned into our world here, at the border. Their body shapes are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy.lib.npyio import NpzFile

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError, LhmLiveError, MotionFileError, require_finite, require_shape
from lhm_runtime.files import write_atomically
from lhm_runtime.motion.archives import open_archive, take, take_numbers, write_archive
from lhm_runtime.motion.bvh import format_bvh, parse_bvh
from lhm_runtime.motion.recorded_skeletons import body_bvh, retarget_bvh
from lhm_runtime.motion.smplx_files import amass_arrays, lhm_frames, read_amass, read_lhm_frames
from lhm_runtime.motion.takes import SUFFIX, Take, read_take
from lhm_runtime.types import SmplxPose

RECORDING_FORMAT = "lhm-live motion 1"
"""Value of the ``format`` entry of our own recordings."""

LHM_FPS = 30.0
"""Frame rate of LHM's json folders, which do not state one."""

MAX_BVH_BYTES = 1 << 30
"""Hours of BVH: a person takes some 2 kB a frame."""

MAX_RESAMPLED_FRAMES = 200_000
"""Nearly two hours at 30 frames a second; more is a file with a wild timestamp."""

_EVEN = 0.01  # of a frame: what rounding may add


@dataclass(frozen=True, slots=True, eq=False)
class MotionSequence:
    """A motion over time, in the world of types.py; raises InvalidInputError when any value is unusable."""

    rotvec: Float32[np.ndarray, "t 55 3"]
    """Joint rotations relative to the parent, SMPL-X order."""
    transl: Float32[np.ndarray, "t 3"]
    """Translation added after posing, metres."""
    expression: Float32[np.ndarray, "t e"]
    """Face coefficients."""
    timestamps_s: Float64[np.ndarray, " t"]
    """When each frame is shown, strictly increasing."""
    expression_names: tuple[str, ...]
    """Names of the e coefficients."""

    def __post_init__(self) -> None:
        frames = len(self.timestamps_s)
        require_shape("timestamps_s", self.timestamps_s, (None,))
        require_shape("rotvec", self.rotvec, (frames, 55, 3))
        require_shape("transl", self.transl, (frames, 3))
        require_shape("expression", self.expression, (frames, len(self.expression_names)))
        if frames == 0:
            raise InvalidInputError("a motion needs at least one frame, got none")
        for name in ("rotvec", "transl", "expression", "timestamps_s"):
            require_finite(name, getattr(self, name))
        if len(set(self.expression_names)) != len(self.expression_names):
            raise InvalidInputError(f"expression_names repeat a name: {', '.join(self.expression_names)}")
        late = np.flatnonzero(np.diff(self.timestamps_s) <= 0)
        if late.size:
            i = int(late[0]) + 1
            before, here = self.timestamps_s[i - 1], self.timestamps_s[i]
            raise InvalidInputError(f"timestamps_s[{i}] is {here} after {before}; times must increase")

    def __len__(self) -> int:
        return len(self.timestamps_s)

    def pose(self, index: int) -> SmplxPose:
        """Frame ``index``; negative counts from the end, IndexError outside."""
        return SmplxPose(
            rotvec=self.rotvec[index],
            transl=self.transl[index],
            expression=self.expression[index],
            timestamp_s=float(self.timestamps_s[index]),
        )

    def with_expressions(self, names: Sequence[str]) -> "MotionSequence":
        """The same motion for a face with other coefficients: matched by name, zero where there is none."""
        expression = np.zeros((len(self), len(names)), np.float32)
        for column, name in enumerate(names):
            if name in self.expression_names:
                expression[:, column] = self.expression[:, self.expression_names.index(name)]
        return MotionSequence(self.rotvec, self.transl, expression, self.timestamps_s, tuple(names))

    def resample(self, fps: float) -> "MotionSequence":
        """The same motion at a steady rate from its first time on; rotations move along great arcs."""
        if not 0 < fps < np.inf:
            raise InvalidInputError(f"fps is {fps}, expected a positive number")
        span = self.timestamps_s[-1] - self.timestamps_s[0]
        count = int(np.floor(span * fps + 1e-6)) + 1
        if count > MAX_RESAMPLED_FRAMES:
            raise InvalidInputError(
                f"{span} s at {fps} frames a second is {count} frames, more than {MAX_RESAMPLED_FRAMES}"
            )
        steps = np.arange(count) / fps
        times = self.timestamps_s[0] + np.minimum(steps, span)
        after = np.clip(np.searchsorted(self.timestamps_s, times), 1, max(len(self) - 1, 1))
        before, after = after - 1, np.minimum(after, len(self) - 1)
        gap = self.timestamps_s[after] - self.timestamps_s[before]
        part = np.where(gap > 0, (times - self.timestamps_s[before]) / np.where(gap > 0, gap, 1), 0.0)[:, None]

        R_before = rotvec_to_matrix(self.rotvec[before].astype(np.float64))
        R_after = rotvec_to_matrix(self.rotvec[after].astype(np.float64))
        arc = matrix_to_rotvec(np.swapaxes(R_before, -1, -2) @ R_after)
        rotvec = matrix_to_rotvec(R_before @ rotvec_to_matrix(arc * part[..., None]))
        return MotionSequence(
            rotvec=rotvec.astype(np.float32),
            transl=_mix(self.transl, before, after, part),
            expression=_mix(self.expression, before, after, part),
            timestamps_s=self.timestamps_s[0] + steps,
            expression_names=self.expression_names,
        )


def load_motion(path: Path) -> MotionSequence:
    """Read a recording of any kind this module knows.

    Raises:
        MotionFileError: there is no such file, it is none of these kinds, or its content is unusable.
    """
    if path.is_dir():
        return read_lhm_folder(path)
    if not path.is_file():
        raise MotionFileError(
            f"{path} does not exist; give a motion .npz, .motion or .bvh, or a folder of LHM smplx_params"
        )
    if path.suffix.lower() == ".bvh":
        return read_bvh(path)
    if path.suffix.lower() == SUFFIX:
        return motion_of_take(read_take(path))
    archive = open_archive(path)
    with archive:
        if "format" in archive:
            return _read_recording(path, archive)
        if "poses" in archive or "root_orient" in archive:
            return _sequence(path, *read_amass(path, archive))
        raise MotionFileError(
            f"{path} holds {', '.join(archive.files) or 'nothing'}: neither a recording of lhm-live (format, "
            "rotvec, ...) nor AMASS (poses or root_orient, trans, mocap_framerate)"
        )


def motion_of_take(take: Take) -> MotionSequence:
    """A take's poses as a motion."""
    return MotionSequence(take.rotvec, take.transl, take.expression, take.timestamps_s, take.expression_names)


def save_motion(path: Path, motion: MotionSequence) -> None:
    """Write ``motion`` to ``path`` without loss; an older file stays whole until the new one is."""
    write_archive(
        path,
        {
            "format": np.array(RECORDING_FORMAT),
            "rotvec": motion.rotvec,
            "transl": motion.transl,
            "expression": motion.expression,
            "timestamps_s": motion.timestamps_s,
            "expression_names": np.array(motion.expression_names, dtype=np.str_),
        },
    )


def read_lhm_folder(path: Path, fps: float = LHM_FPS) -> MotionSequence:
    """Read a clip of LHM: ``path`` or ``path/smplx_params`` holds one ``NNNNN.json`` a frame.

    File numbers are frame numbers at ``fps``, so frames without a person stay gaps. Camera intrinsics, betas
    and the optional ``expr`` (FLAME coefficients, dropped by LHM's own loader as well) are not read.

    Raises:
        MotionFileError: no frames, a file name that is no number, a missing key, a wrong shape, NaN.
    """
    folder = path / "smplx_params" if (path / "smplx_params").is_dir() else path
    return _sequence(folder, *read_lhm_frames(folder, fps))


def read_bvh(
    path: Path,
    rest_joints: Float[np.ndarray, "55 3"] | None = None,
    *,
    metres_per_unit: float | None = None,
    rest_frame: int | None = None,
) -> MotionSequence:
    """Read a BVH of any skeleton with common names as the motion of a body (the free body's where none is given).

    ``metres_per_unit`` and ``rest_frame`` are those of ``recorded_skeletons.retarget_bvh``.

    Raises:
        MotionFileError: the file cannot be read, breaks the format, or has no skeleton known here.
        InvalidInputError: an option that makes no sense.
    """
    try:
        _check_size(path)
        clip = parse_bvh(path.read_text(encoding="utf-8-sig", errors="replace"))
        if rest_joints is None:
            rest_joints = BodyModel.default().rest_joints()
        rotvec, transl = retarget_bvh(clip, rest_joints, metres_per_unit=metres_per_unit, rest_frame=rest_frame)
    except (OSError, MotionFileError) as error:
        raise MotionFileError(f"{path}: {error}") from error
    return _sequence(path, rotvec, transl, np.arange(len(rotvec)) * clip.frame_time_s)


def write_bvh(path: Path, motion: MotionSequence, rest_joints: Float[np.ndarray, "55 3"]) -> None:
    """Write the body's movement as BVH in centimetres; the format has no place for the face or the starting time.

    Raises:
        InvalidInputError: the frames are not evenly spaced in time.
    """
    frame_time_s = 1 / _steady_fps(motion)
    write_atomically(path, format_bvh(body_bvh(motion.rotvec, motion.transl, rest_joints, frame_time_s)).encode())


def write_amass(path: Path, motion: MotionSequence) -> None:
    """Write an AMASS ``.npz`` for SMPL-X; the format has no place for the face or the starting time.

    Raises:
        InvalidInputError: the frames are not evenly spaced in time.
    """
    write_archive(path, amass_arrays(motion.rotvec, motion.transl, _steady_fps(motion)))


def write_lhm_folder(path: Path, motion: MotionSequence, image_size: tuple[int, int] = (720, 1280)) -> None:
    """Write ``path/smplx_params/00001.json`` ... as LHM reads them, for a camera at our origin that looks along -z.

    A person LHM can see is therefore some metres down -z. Expressions are not written: LHM's are another set.

    Args:
        path: a folder, made where there is none; one that already holds a clip is refused.
        motion: its frames must lie on a grid of ``LHM_FPS``; leave some out and they stay gaps.
        image_size: width and height, pixels.

    Raises:
        InvalidInputError: a frame is off the grid, or the folder holds frames already.
    """
    places = (motion.timestamps_s - motion.timestamps_s[0]) * LHM_FPS
    numbers = np.rint(places)
    off = np.flatnonzero(np.abs(places - numbers) > _EVEN)
    if off.size:
        raise InvalidInputError(
            f"frame {off[0]} is at {motion.timestamps_s[off[0]]} s, between two frames of {LHM_FPS:g} a second: "
            f"resample({LHM_FPS:g}) first"
        )
    folder = path / "smplx_params"
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.json")):
        raise InvalidInputError(f"{folder} holds frames already; name another folder, or remove them")
    for number, frame in zip(numbers, lhm_frames(motion.rotvec, motion.transl, image_size), strict=True):
        (folder / f"{int(number) + 1:05d}.json").write_text(frame, encoding="utf-8")


def _read_recording(path: Path, archive: NpzFile) -> MotionSequence:
    written = str(take(path, archive, "format"))
    if written != RECORDING_FORMAT:
        raise MotionFileError(f"{path} has format {written!r}, this version reads {RECORDING_FORMAT!r}")
    names = take(path, archive, "expression_names")
    if names.dtype.kind != "U" or names.ndim != 1:
        raise MotionFileError(
            f"{path}: 'expression_names' is {names.dtype} of shape {names.shape}, expected a row of strings"
        )
    timestamps_s = take_numbers(path, archive, "timestamps_s", (None,))
    frames = len(timestamps_s)
    try:
        return MotionSequence(
            rotvec=take_numbers(path, archive, "rotvec", (frames, 55, 3)).astype(np.float32),
            transl=take_numbers(path, archive, "transl", (frames, 3)).astype(np.float32),
            expression=take_numbers(path, archive, "expression", (frames, len(names))).astype(np.float32),
            timestamps_s=timestamps_s,
            expression_names=tuple(names.tolist()),
        )
    except InvalidInputError as error:
        raise MotionFileError(f"{path}: {error}") from error


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_BVH_BYTES:
        raise MotionFileError(f"it has {size} bytes, more than the {MAX_BVH_BYTES} this program reads")


def _sequence(
    path: Path, rotvec: np.ndarray, transl: np.ndarray, timestamps_s: Float64[np.ndarray, " t"]
) -> MotionSequence:
    with np.errstate(over="ignore"):  # beyond float32 is Inf, which the sequence reports with its place
        rotvec, transl = rotvec.astype(np.float32), transl.astype(np.float32)
    try:
        return MotionSequence(rotvec, transl, np.zeros((len(rotvec), 0), np.float32), timestamps_s, ())
    except LhmLiveError as error:
        raise MotionFileError(f"{path}: {error}") from error


def _steady_fps(motion: MotionSequence) -> float:
    steps = np.diff(motion.timestamps_s)
    if not steps.size:
        return LHM_FPS
    mean = float(steps.mean())
    if np.abs(steps - mean).max() > _EVEN * mean:
        raise InvalidInputError(
            f"frames are {steps.min():.4f} to {steps.max():.4f} s apart, and this format knows only one rate: "
            "resample first"
        )
    return 1 / mean


def _mix(
    values: Float32[np.ndarray, "t c"],
    before: np.ndarray,
    after: np.ndarray,
    part: Float64[np.ndarray, "s 1"],
) -> Float32[np.ndarray, "s c"]:
    mixed: np.ndarray = values[before] * (1 - part) + values[after] * part
    return mixed.astype(np.float32)
