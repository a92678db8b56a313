"""Everything the model room raises on purpose.

LhmLiveError
├── InvalidInputError      an argument outside the contract: shape, range, NaN (also a ValueError)
├── FileFormatError        a file that cannot be used as what it claims to be (also a ValueError)
│   ├── AvatarFileError    .avatar and .ply
│   ├── BodyModelError     SMPL-X layout .npz
│   ├── MotionFileError    recordings
│   └── PhotoError         pictures a person is reconstructed from
└── BackendError           a kernel, library or device that is missing or fails, and how to get it

Each message says what was wrong, with which value, and what to do about it.
"""

import numpy as np


class LhmLiveError(Exception):
    """Base of everything raised on purpose by lhm_runtime and streaming."""


class InvalidInputError(LhmLiveError, ValueError):
    """An argument is outside the contract of the function it was given to."""


class FileFormatError(LhmLiveError, ValueError):
    """A file cannot be used as what it claims to be."""


class AvatarFileError(FileFormatError):
    """An .avatar or .ply file is truncated, malformed or of an unknown version."""


class BodyModelError(FileFormatError):
    """A body model file lacks a key or holds an array of the wrong shape."""


class MotionFileError(FileFormatError):
    """A motion recording cannot be read."""


class PhotoError(FileFormatError):
    """A picture cannot be read, or shows nobody an avatar can be made of."""


class BackendError(LhmLiveError, RuntimeError):
    """A kernel, optional library or device is missing or failed."""


def require_finite(name: str, array: np.ndarray) -> None:
    """Raise InvalidInputError naming the first NaN or Inf in ``array`` and its index."""
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InvalidInputError(f"{name}{list(index)} is {array[index]}; every value must be finite")


def require_shape(name: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Raise InvalidInputError unless ``array`` has ``shape`` (None: any length)."""
    if array.ndim != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=True)
    ):
        wanted = ", ".join("n" if length is None else str(length) for length in shape)
        raise InvalidInputError(f"{name} has shape {array.shape}, expected ({wanted})")
