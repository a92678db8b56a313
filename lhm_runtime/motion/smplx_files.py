"""Files that hold SMPL-X poses in other worlds than ours: AMASS archives and LHM's folders, read and written.

A pose is turned into the other world about the pelvis, since that is what roots turn about: ``transl`` does not simply
turn with it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from numpy.lib.npyio import NpzFile

from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.errors import MotionFileError, require_finite, require_shape
from lhm_runtime.motion.archives import take_numbers

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
_LHM_FIELD_OF_VIEW_DEG = 60.0  # on the longer side, as LHM assumes
_AMASS_PARTS = {"root_orient": 3, "pose_body": 63, "pose_jaw": 3, "pose_eye": 6, "pose_hand": 90}
_AMASS_OPTIONAL = ("pose_jaw", "pose_eye")  # SMPL-H has neither
_KEEPS_HEADING = "lhm_live_keeps_heading"  # in our own AMASS files: the first frame need not face front

SmplxMotion = tuple[Float64[np.ndarray, "t 55 3"], Float64[np.ndarray, "t 3"], Float64[np.ndarray, " t"]]
"""Rotations and translations in our world, and seconds from the first frame."""


def read_amass(path: Path, archive: NpzFile) -> SmplxMotion:
    """The motion in an open AMASS archive.

    Raises:
        MotionFileError: a key is missing, or holds something else than expected.
    """
    transl = take_numbers(path, archive, "trans", (None, 3))
    frames = len(transl)
    if frames == 0:
        raise MotionFileError(f"{path}: 'trans' holds no frames")
    if "poses" in archive:
        poses = take_numbers(path, archive, "poses", (frames, None))
        width = poses.shape[1]
        if width not in (156, 165):
            raise MotionFileError(f"{path}: 'poses' has {width} columns, expected 156 (SMPL-H) or 165 (SMPL-X)")
        if width == 156:
            poses = np.concatenate([poses[:, :66], np.zeros((frames, 9)), poses[:, 66:]], axis=1)
        smplh = width == 156
    else:
        absent = [key for key in _AMASS_OPTIONAL if key not in archive]
        parts = [
            np.zeros((frames, columns)) if key in absent else take_numbers(path, archive, key, (frames, columns))
            for key, columns in _AMASS_PARTS.items()
        ]
        poses = np.concatenate(parts, axis=1)
        smplh = bool(absent)
    rate_key = "mocap_framerate" if "mocap_framerate" in archive else "mocap_frame_rate"
    fps = float(take_numbers(path, archive, rate_key, ()))
    if fps <= 0:
        raise MotionFileError(f"{path}: {rate_key!r} is {fps}, expected a positive number")
    pelvis = _PELVIS_SMPLH if smplh else _PELVIS
    rotvec = poses.reshape(frames, 55, 3)
    R_ours_theirs = _WORLD_Z_UP
    if _KEEPS_HEADING not in archive:
        R_ours_theirs = _facing_front(_WORLD_Z_UP @ rotvec_to_matrix(rotvec[0, 0])) @ _WORLD_Z_UP
    return *_in_other_world(rotvec, transl, R_ours_theirs, pelvis, _PELVIS), np.arange(frames) / fps


def amass_arrays(
    rotvec: Float32[np.ndarray, "t 55 3"], transl: Float32[np.ndarray, "t 3"], fps: float
) -> dict[str, np.ndarray]:
    """The entries of an AMASS archive for SMPL-X."""
    turned, moved = _in_other_world(rotvec, transl, _WORLD_Z_UP.T, _PELVIS, _PELVIS)
    poses = turned.reshape(len(turned), 165)
    edges = np.cumsum(list(_AMASS_PARTS.values()))[:-1]
    return {
        "gender": np.array("neutral"),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.array(fps),
        "betas": np.zeros(16),
        "trans": moved,
        "poses": poses,
        **dict(zip(_AMASS_PARTS, np.split(poses, edges, axis=1), strict=True)),
        _KEEPS_HEADING: np.array(True),
    }


def read_lhm_frames(folder: Path, fps: float) -> SmplxMotion:
    """The motion in a folder of LHM's json, whose file numbers are frame numbers at ``fps``.

    Raises:
        MotionFileError: no frames, a file name that is no number, a missing key, a wrong shape, NaN.
    """
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
    return *_in_other_world(rotvec, transl, _WORLD_CAMERA, _PELVIS, _PELVIS), times


def lhm_frames(
    rotvec: Float32[np.ndarray, "t 55 3"], transl: Float32[np.ndarray, "t 3"], image_size: tuple[int, int]
) -> list[str]:
    """The json of each frame, for a camera at our world's origin that looks along -z."""
    turned, moved = _in_other_world(rotvec, transl, _WORLD_CAMERA.T, _PELVIS, _PELVIS)
    width, height = image_size
    focal_px = max(width, height) / (2 * np.tan(np.radians(_LHM_FIELD_OF_VIEW_DEG) / 2))
    edges = np.cumsum([int(np.prod(shape)) // 3 for key, shape in _LHM_KEYS.items() if key != "trans"])[:-1]
    frames = []
    for pose, trans in zip(turned, moved, strict=True):
        parts = [*np.split(pose, edges), trans]
        frame = {
            "betas": [0.0] * 10,
            **{key: part.reshape(shape).tolist() for (key, shape), part in zip(_LHM_KEYS.items(), parts, strict=True)},
            "focal": [focal_px, focal_px],
            "princpt": [width / 2, height / 2],
            "img_size_wh": [width, height],
            "pad_ratio": 0.0,
        }
        frames.append(json.dumps(frame))
    return frames


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


def _facing_front(R_world_root: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """The turn about y that makes a root face +z: headings in a mocap studio mean nothing outside it."""
    heading = np.arctan2(R_world_root[0, 2], R_world_root[2, 2])
    return rotvec_to_matrix(np.array([0.0, -heading, 0.0]))


def _in_other_world(
    rotvec: np.ndarray,
    transl: np.ndarray,
    R_to_from: Float64[np.ndarray, "3 3"],
    pelvis_from: Float64[np.ndarray, " 3"],
    pelvis_to: Float64[np.ndarray, " 3"],
) -> tuple[Float64[np.ndarray, "t 55 3"], Float64[np.ndarray, "t 3"]]:
    turned = rotvec.astype(np.float64)
    turned[:, 0] = matrix_to_rotvec(R_to_from @ rotvec_to_matrix(turned[:, 0]))
    return turned, (transl + pelvis_from) @ R_to_from.T - pelvis_to
