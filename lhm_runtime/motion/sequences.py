"""Recorded motion: one in-memory form, and readers for the files people have.

``load_motion`` tells by content which of these a path is:

- our own recording, a ``.npz`` written by ``save_motion``: lossless, already in the world of types.py;
- an AMASS ``.npz`` (Mahmood et al. 2019), SMPL-H or SMPL-X: world z up, facing anywhere (here +z at first);
- a folder of ``smplx_params/*.json``, one file a frame, as LHM writes and reads: camera space, y down.

The last two are turned into our world here, at the border. Their body shapes are not read.
"""

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy.lib.npyio import NpzFile

from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError, LhmLiveError, MotionFileError, require_finite, require_shape
from lhm_runtime.types import SmplxPose

RECORDING_FORMAT = "lhm-live motion 1"
"""Value of the ``format`` entry of our own recordings."""

LHM_FPS = 30.0
"""Frame rate of LHM's json folders, which do not state one."""

MAX_RESAMPLED_FRAMES = 200_000
"""Nearly two hours at 30 frames a second; more is a file with a wild timestamp."""

_WORLD_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # AMASS actors face -y there, +z here
_WORLD_CAMERA = np.diag([1.0, -1.0, -1.0])  # OpenCV axes; half a turn about x
_PELVIS = np.array([0.0, -0.35, 0.01])  # at rest, metres, in SMPL-X and in the free body, to a few mm
_PELVIS_SMPLH = np.array([0.0, -0.23, 0.028])  # varies by 2 cm with gender and shape

_LHM_KEYS = {
    "root_pose": (3,),
    "body_pose": (21, 3),
    "jaw_pose": (3,),
    "leye_pose": (3,),
    "reye_pose": (3,),
    "lhand_pose": (15, 3),
    "rhand_pose": (15, 3),
    "trans": (3,),
}
_AMASS_PARTS = {"root_orient": 3, "pose_body": 63, "pose_jaw": 3, "pose_eye": 6, "pose_hand": 90}
_AMASS_OPTIONAL = ("pose_jaw", "pose_eye")  # SMPL-H has neither
_BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError)


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
        raise MotionFileError(f"{path} does not exist; give a motion .npz or a folder of LHM smplx_params")
    archive = _open_archive(path)
    with archive:
        if "format" in archive:
            return _read_recording(path, archive)
        if "poses" in archive or "root_orient" in archive:
            return _read_amass(path, archive)
        raise MotionFileError(
            f"{path} holds {', '.join(archive.files) or 'nothing'}: neither a recording of lhm-live (format, "
            "rotvec, ...) nor AMASS (poses or root_orient, trans, mocap_framerate)"
        )


def save_motion(path: Path, motion: MotionSequence) -> None:
    """Write ``motion`` to ``path`` without loss; an older file stays whole until the new one is."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False) as file:
        part = Path(file.name)
        try:
            np.savez_compressed(
                file,
                format=np.array(RECORDING_FORMAT),
                rotvec=motion.rotvec,
                transl=motion.transl,
                expression=motion.expression,
                timestamps_s=motion.timestamps_s,
                expression_names=np.array(motion.expression_names, dtype=np.str_),
            )
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def read_lhm_folder(path: Path, fps: float = LHM_FPS) -> MotionSequence:
    """Read a clip of LHM: ``path`` or ``path/smplx_params`` holds one ``NNNNN.json`` a frame.

    File numbers are frame numbers at ``fps``, so frames without a person stay gaps. Camera intrinsics, betas
    and the optional ``expr`` (FLAME coefficients, dropped by LHM's own loader as well) are not read.

    Raises:
        MotionFileError: no frames, a file name that is no number, a missing key, a wrong shape, NaN.
    """
    folder = path / "smplx_params" if (path / "smplx_params").is_dir() else path
    files = list(folder.glob("*.json"))
    if not files:
        raise MotionFileError(
            f"{folder} holds no *.json; an LHM clip is a folder of smplx_params/00001.json, 00002.json, ..."
        )
    strange = [file.name for file in files if not file.stem.isdecimal()]
    if strange:
        raise MotionFileError(f"{folder / strange[0]}: the frames of an LHM clip are named by number, like 00001.json")
    files.sort(key=lambda file: int(file.stem))
    frames = [_read_lhm_frame(file) for file in files]
    rotvec = np.stack(
        [np.concatenate([frame[key].reshape(-1, 3) for key in _LHM_KEYS if key != "trans"]) for frame in frames]
    )
    transl = np.stack([frame["trans"] for frame in frames])
    numbers = np.array([int(file.stem) for file in files], np.float64)
    times = (numbers - numbers[0]) / fps
    return _sequence_in_our_world(folder, rotvec, transl, times, R_ours_theirs=_WORLD_CAMERA, pelvis=_PELVIS)


def _read_lhm_frame(file: Path) -> dict[str, np.ndarray]:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MotionFileError(f"{file} is not readable as json: {error}") from error
    if not isinstance(content, dict):
        raise MotionFileError(
            f"{file} holds a {type(content).__name__}, expected an object with {', '.join(_LHM_KEYS)}"
        )
    frame = {}
    for key, shape in _LHM_KEYS.items():
        if key not in content:
            raise MotionFileError(f"{file} lacks {key!r}")
        try:
            frame[key] = np.asarray(content[key], np.float64)
            require_shape(key, frame[key], shape)
            require_finite(key, frame[key])
        except (TypeError, ValueError) as error:
            raise MotionFileError(f"{file}: {key} is unusable: {error}") from error
    return frame


def _open_archive(path: Path) -> NpzFile:
    try:
        archive = np.load(path, allow_pickle=False)
    except _BROKEN_ARCHIVE as error:
        raise MotionFileError(f"{path} is not a motion .npz, or is cut short: {error}") from error
    if not isinstance(archive, NpzFile):
        raise MotionFileError(f"{path} is a single array (.npy), expected an .npz with named arrays")
    return archive


def _take(path: Path, archive: NpzFile, key: str) -> np.ndarray:
    if key not in archive:
        raise MotionFileError(f"{path} lacks {key!r}; it holds {', '.join(archive.files)}")
    try:
        array: np.ndarray = archive[key]
    except _BROKEN_ARCHIVE as error:
        raise MotionFileError(f"{path}: {key!r} cannot be read: {error}") from error
    return array


def _take_numbers(path: Path, archive: NpzFile, key: str, shape: tuple[int | None, ...]) -> Float64[np.ndarray, "..."]:
    array = _take(path, archive, key)
    if array.dtype.kind not in "fiu":
        raise MotionFileError(f"{path}: {key!r} has dtype {array.dtype}, expected numbers")
    try:
        require_shape(key, array, shape)
        require_finite(key, array)
    except InvalidInputError as error:
        raise MotionFileError(f"{path}: {error}") from error
    return array.astype(np.float64)


def _read_recording(path: Path, archive: NpzFile) -> MotionSequence:
    written = str(_take(path, archive, "format"))
    if written != RECORDING_FORMAT:
        raise MotionFileError(f"{path} has format {written!r}, this version reads {RECORDING_FORMAT!r}")
    names = _take(path, archive, "expression_names")
    if names.dtype.kind != "U" or names.ndim != 1:
        raise MotionFileError(
            f"{path}: 'expression_names' is {names.dtype} of shape {names.shape}, expected a row of strings"
        )
    timestamps_s = _take_numbers(path, archive, "timestamps_s", (None,))
    frames = len(timestamps_s)
    try:
        return MotionSequence(
            rotvec=_take_numbers(path, archive, "rotvec", (frames, 55, 3)).astype(np.float32),
            transl=_take_numbers(path, archive, "transl", (frames, 3)).astype(np.float32),
            expression=_take_numbers(path, archive, "expression", (frames, len(names))).astype(np.float32),
            timestamps_s=timestamps_s,
            expression_names=tuple(names.tolist()),
        )
    except InvalidInputError as error:
        raise MotionFileError(f"{path}: {error}") from error


def _read_amass(path: Path, archive: NpzFile) -> MotionSequence:
    transl = _take_numbers(path, archive, "trans", (None, 3))
    frames = len(transl)
    if frames == 0:
        raise MotionFileError(f"{path}: 'trans' holds no frames")
    if "poses" in archive:
        poses = _take_numbers(path, archive, "poses", (frames, None))
        width = poses.shape[1]
        if width not in (156, 165):
            raise MotionFileError(f"{path}: 'poses' has {width} columns, expected 156 (SMPL-H) or 165 (SMPL-X)")
        if width == 156:
            poses = np.concatenate([poses[:, :66], np.zeros((frames, 9)), poses[:, 66:]], axis=1)
        smplh = width == 156
    else:
        absent = [key for key in _AMASS_OPTIONAL if key not in archive]
        parts = [
            np.zeros((frames, columns)) if key in absent else _take_numbers(path, archive, key, (frames, columns))
            for key, columns in _AMASS_PARTS.items()
        ]
        poses = np.concatenate(parts, axis=1)
        smplh = bool(absent)
    rate_key = "mocap_framerate" if "mocap_framerate" in archive else "mocap_frame_rate"
    fps = float(_take_numbers(path, archive, rate_key, ()))
    if fps <= 0:
        raise MotionFileError(f"{path}: {rate_key!r} is {fps}, expected a positive number")
    pelvis = _PELVIS_SMPLH if smplh else _PELVIS
    rotvec = poses.reshape(frames, 55, 3)
    R_ours_theirs = _facing_front(_WORLD_Z_UP @ rotvec_to_matrix(rotvec[0, 0])) @ _WORLD_Z_UP
    times = np.arange(frames) / fps
    return _sequence_in_our_world(path, rotvec, transl, times, R_ours_theirs=R_ours_theirs, pelvis=pelvis)


def _facing_front(R_world_root: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """The turn about y that makes a root face +z: headings in a mocap studio mean nothing outside it."""
    heading = np.arctan2(R_world_root[0, 2], R_world_root[2, 2])
    return rotvec_to_matrix(np.array([0.0, -heading, 0.0]))


def _sequence_in_our_world(
    path: Path,
    rotvec: Float[np.ndarray, "t 55 3"],
    transl: Float[np.ndarray, "t 3"],
    timestamps_s: Float64[np.ndarray, " t"],
    *,
    R_ours_theirs: Float64[np.ndarray, "3 3"],
    pelvis: Float64[np.ndarray, " 3"],
) -> MotionSequence:
    """Turn the world; since roots turn about the pelvis, ``transl`` does not simply turn with it."""
    turned = rotvec.copy()
    turned[:, 0] = matrix_to_rotvec(R_ours_theirs @ rotvec_to_matrix(rotvec[:, 0]))
    moved = (transl + pelvis) @ R_ours_theirs.T - _PELVIS
    with np.errstate(over="ignore"):  # beyond float32 is Inf, which the sequence reports with its place
        turned, moved = turned.astype(np.float32), moved.astype(np.float32)
    try:
        return MotionSequence(
            rotvec=turned,
            transl=moved,
            expression=np.zeros((len(turned), 0), np.float32),
            timestamps_s=timestamps_s,
            expression_names=(),
        )
    except LhmLiveError as error:
        raise MotionFileError(f"{path}: {error}") from error


def _mix(
    values: Float32[np.ndarray, "t c"],
    before: np.ndarray,
    after: np.ndarray,
    part: Float64[np.ndarray, "s 1"],
) -> Float32[np.ndarray, "s c"]:
    mixed: np.ndarray = values[before] * (1 - part) + values[after] * part
    return mixed.astype(np.float32)
