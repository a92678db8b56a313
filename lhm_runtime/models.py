"""Weight files: what each is, whether it is intact, and where it lies on this machine.

A file is looked for in the package, then in the folder of the environment variable LHM_LIVE_MODELS, then in the
user's cache folder. Nothing is fetched from anywhere.
"""

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lhm_runtime.errors import BackendError, InvalidInputError

MODELS_VARIABLE = "LHM_LIVE_MODELS"
"""Environment variable that names a folder with weight files."""

_ASSETS = Path(__file__).parent / "assets"
_MEDIAPIPE = "https://ai.google.dev/edge/mediapipe/solutions/vision"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One weight file."""

    name: str
    """File name."""
    size: int
    """Bytes."""
    sha256: str
    """Of the whole file, lower-case hex."""
    licence: str
    """SPDX identifier."""
    source: str
    """Who publishes it, and where that is described."""


MODELS = (
    ModelFile(
        "pose_landmarker_full.task",
        9_398_198,
        "4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad",
        "Apache-2.0",
        f"{_MEDIAPIPE}/pose_landmarker",
    ),
    ModelFile(
        "pose_landmarker_lite.task",
        5_777_726,
        "d07af13303208dd8677b372438947f500780ec76fdfd1b783c1dc710d481c27f",
        "Apache-2.0",
        f"{_MEDIAPIPE}/pose_landmarker",
    ),
    ModelFile(
        "face_landmarker.task",
        3_758_596,
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        "Apache-2.0",
        f"{_MEDIAPIPE}/face_landmarker",
    ),
    ModelFile(
        "hand_landmarker.task",
        7_819_105,
        "fbc2a30080c3c557093b5ddfc334698132eb341044ccee322ccf8bcf3607cde1",
        "Apache-2.0",
        f"{_MEDIAPIPE}/hand_landmarker",
    ),
    ModelFile(
        "hand_roi_refinement.tflite",
        123_942,
        "d4f9ac02d1c3f74e305f954f5846bed59d75548ebfb70d73c52804b909cdd2c1",
        "Apache-2.0",
        f"{_MEDIAPIPE}/holistic_landmarker",
    ),
)
"""All weight files in use."""


def find_model(name: str) -> Path:
    """Where the weight file ``name`` of MODELS lies, after its size and sha256 are found right.

    Raises:
        InvalidInputError: MODELS has no such name.
        BackendError: no place holds it intact; the message lists them, what is wrong there, and what to do.
    """
    model = next((model for model in MODELS if model.name == name), None)
    if model is None:
        raise InvalidInputError(f"no model is called {name!r}; known: {', '.join(known.name for known in MODELS)}")
    findings = []
    for folder in model_folders():
        path = folder / name
        fault = _find_fault(path, model)
        if not fault:
            return path
        findings.append(f"{path}: {fault}")
    raise BackendError(
        f"the model {name} is not on this machine. Looked for: {'; '.join(findings)}. Install lhm-live again (it "
        f"brings the file), or put the {model.size:,} byte file described at {model.source} (sha256 {model.sha256}) "
        f"into {findings[-1].rpartition(': ')[0]} or into a folder named by {MODELS_VARIABLE}"
    )


def model_folders() -> list[Path]:
    """Where weight files are looked for, in this order: the package, the folder named by the environment, the cache."""
    named = os.environ.get(MODELS_VARIABLE)
    return [_ASSETS, *([Path(named)] if named else []), _cache_folder() / "lhm-live" / "models"]


def _cache_folder() -> Path:
    """Where programs of this user keep what they can get again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _find_fault(path: Path, model: ModelFile) -> str:
    """What is wrong with the file at ``path``; "" when it is the model."""
    try:
        status = path.stat()
        if status.st_size != model.size:
            return f"has {status.st_size:,} bytes instead of {model.size:,}"
        sha256 = _sha256(path, status.st_mtime_ns, status.st_size)
    except FileNotFoundError:
        return "absent"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if sha256 == model.sha256 else f"has sha256 {sha256[:12]}... instead of {model.sha256[:12]}..."


@lru_cache(maxsize=64)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001 - time and size tell a changed file
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
