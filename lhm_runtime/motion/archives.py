"""The ``.npz`` container: read with every fault named, written whole or not at all."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy.lib.npyio import NpzFile

from lhm_runtime.errors import InvalidInputError, MotionFileError, require_finite, require_shape
from lhm_runtime.files import write_atomically

_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError)


def open_archive(path: Path) -> NpzFile:
    """Open an ``.npz``; nothing in it is unpickled.

    Raises:
        MotionFileError: it is none, or damaged.
    """
    try:
        archive = np.load(path, allow_pickle=False)
    except _BROKEN as error:
        # numpy takes what is no file of its own for a pickle, and says how to load that
        reason = "it does not begin like one" if "pickle" in str(error) else error
        raise MotionFileError(f"{path} is not a motion .npz, or is cut short: {reason}") from error
    if not isinstance(archive, NpzFile):
        raise MotionFileError(f"{path} is a single array (.npy), expected an .npz with named arrays")
    return archive


def take(path: Path, archive: NpzFile, key: str) -> np.ndarray:
    """One array; MotionFileError when it is absent or cannot be read."""
    if key not in archive:
        raise MotionFileError(f"{path} lacks {key!r}; it holds {', '.join(archive.files)}")
    try:
        array: np.ndarray = archive[key]
    except _BROKEN as error:
        raise MotionFileError(f"{path}: {key!r} cannot be read: {error}") from error
    return array


def take_numbers(path: Path, archive: NpzFile, key: str, shape: tuple[int | None, ...]) -> Float64[np.ndarray, "..."]:
    """One array of finite numbers of this shape (None: any length), else MotionFileError."""
    array = take(path, archive, key)
    if array.dtype.kind not in "fiu":
        raise MotionFileError(f"{path}: {key!r} has dtype {array.dtype}, expected numbers")
    try:
        require_shape(key, array, shape)
        require_finite(key, array)
    except InvalidInputError as error:
        raise MotionFileError(f"{path}: {error}") from error
    return array.astype(np.float64)


def write_archive(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed ``.npz``, whatever the suffix of ``path``."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getvalue())
