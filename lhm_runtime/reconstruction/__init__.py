"""Where avatars come from: ``reconstruct`` makes one of photos.

What it needs (OpenCV, MediaPipe) loads when it is first asked for: showing an avatar does without.
"""

from typing import TYPE_CHECKING

from lhm_runtime.errors import BackendError

if TYPE_CHECKING:
    from lhm_runtime.reconstruction.recipe import METHODS, Method, Reconstruction, reconstruct

__all__ = ["METHODS", "Method", "Reconstruction", "reconstruct"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import cv2  # noqa: F401, PLC0415
    except ImportError as error:
        raise BackendError(
            f"OpenCV, which photos are worked on with, does not load: {error}. Install it with pip install "
            "opencv-contrib-python; on Debian and Ubuntu it also needs apt-get install libgl1 libglib2.0-0"
        ) from error
    from lhm_runtime.reconstruction import recipe  # noqa: PLC0415

    return getattr(recipe, name)
