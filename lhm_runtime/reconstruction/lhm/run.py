"""A run of LHM, ready to go: everything that can be wrong with files, device and memory has been found out before."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32

from lhm_runtime.avatar import Avatar, AvatarMetadata
from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.reconstruction.lhm.animation import PointRig, make_avatar
from lhm_runtime.reconstruction.lhm.checkpoint import Checkpoint, choose_dtype, open_checkpoint
from lhm_runtime.reconstruction.lhm.config import VARIANTS, source_size
from lhm_runtime.reconstruction.lhm.cost import StageNeed, estimate_needs, free_bytes, require_memory
from lhm_runtime.reconstruction.lhm.network import LhmNetwork
from lhm_runtime.reconstruction.lhm.pipeline import Canonical, place_points, reconstruct_canonical
from lhm_runtime.reconstruction.lhm.points import read_points
from lhm_runtime.reconstruction.lhm.weights import LICENCE, LhmFiles, find_points
from lhm_runtime.reconstruction.photo import Photo

Precision = Literal["bf16", "fp32"]

PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

_DTYPES: Final = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True, eq=False)
class LhmRun:
    """Files, device and precision that go together."""

    name: str
    """Of the network, in small letters: ``lhm-500m``; ``lhm`` for one that is not published."""
    checkpoint: Checkpoint
    sapiens: Path
    points: Float32[np.ndarray, "p 3"] | None
    device: str
    dtype: torch.dtype
    needs: tuple[StageNeed, ...]
    """Memory of each stage."""
    warnings: tuple[str, ...]
    """What is not as published, one sentence each."""

    def reconstruct(
        self,
        photo: Photo,
        progress: Callable[[str, float], None] | None = None,
        probe: Callable[[LhmNetwork], AbstractContextManager[object]] = nullcontext,
    ) -> Canonical:
        """Run the network; arguments and errors as for ``reconstruct_canonical``."""
        return reconstruct_canonical(
            photo,
            self.checkpoint,
            self.sapiens,
            source_size=source_size(self.checkpoint.config),
            points=self.points,
            device=self.device,
            dtype=self.dtype,
            progress=progress,
            probe=probe,
        )

    def place_points(self) -> tuple[Float32[np.ndarray, "p 3"], PointRig]:
        """The points that the network is given, in its own pose, and what moves them."""
        rig, body = self.checkpoint.read_rig(), self.checkpoint.read_body()
        return place_points(self.points, rig, body), rig

    def finish(self, canonical: Canonical, photo: Photo) -> Avatar:
        """The avatar of what ``reconstruct`` gave for that photo, of a body of average shape."""
        metadata = AvatarMetadata(
            reconstructor=self.name,
            body_model=canonical.body.name,
            body_model_sha256=canonical.body.sha256,
            licence=f"{LICENCE}, and as the photo",
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            photo_sha256=photo.sha256,
            shown=photo.shot,
        )
        return make_avatar(canonical.gaussians, canonical.rig, canonical.body, metadata)


def prepare_run(files: LhmFiles, device: str | None = None, precision: Precision | None = None) -> LhmRun:
    """Open the files, and find out whether the memory will do.

    Args:
        files: of ``find_lhm``.
        device: torch's name; a card where there is one, where None.
        precision: of the large weights; what the device is fast at where None.

    Raises:
        FileFormatError: a checkpoint or file of points that is damaged, or of another network than asked for.
        BackendError: no such device, or too little memory on it; the message says how much is needed.
        InvalidInputError: a device that torch does not know.
    """
    device = _choose_device(device)
    dtype = choose_dtype(device) if precision is None else dtype_of(precision)
    checkpoint = open_checkpoint(files.checkpoint, files.variant)
    config = checkpoint.config
    needs = estimate_needs(config, dtype, device=device, sapiens=files.sapiens)
    require_memory(needs, device, free_bytes(device))
    path = find_points(config.points, files.folder)
    warnings = (
        ()
        if path
        else (
            f"the query points 1_{config.points}.ply are not on this machine: points near them were drawn, so details "
            "differ a little from the published network's; lhm-live models says where the file comes from",
        )
    )
    known = next((name for name, variant in VARIANTS.items() if variant.config == config), "lhm")
    return LhmRun(
        name=(files.variant or known).lower(),
        checkpoint=checkpoint,
        sapiens=files.sapiens,
        points=None if path is None else read_points(path, config.points),
        device=device,
        dtype=dtype,
        needs=needs,
        warnings=warnings,
    )


def dtype_of(precision: Precision) -> torch.dtype:
    """Of the large weights."""
    return _DTYPES[precision]


def _choose_device(device: str | None) -> str:
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not device.startswith("cuda"):
        raise InvalidInputError(f"device is {device!r}, expected cpu or cuda")
    if device != "cpu" and not torch.cuda.is_available():
        raise BackendError(
            f"there is no card for --device {device}: torch {torch.__version__} finds no NVIDIA driver or was built "
            "without CUDA; --device cpu takes minutes"
        )
    return device
