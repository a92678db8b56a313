"""Avatar: everything that depends on the person alone.

A frame then needs only 55 joint matrices, an expression vector and a camera.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from lhm_runtime.types import Gaussians

FORMAT_VERSION = 1
"""Version written into and expected from .avatar files."""

MAX_INFLUENCES = 8
"""Most joints that may move one Gaussian."""


@dataclass(frozen=True, slots=True)
class AvatarMetadata:
    """Where an avatar came from and what may be done with it."""

    reconstructor: str
    """What made it, with version: ``builtin-person 1``, ``projection 1``, ``lhm-500m``."""
    body_model: str
    """Name of the body model its joints follow."""
    body_model_sha256: str
    """SHA-256 of that body model's file, hex; empty when the model travels inside the avatar (LHM)."""
    licence: str
    """SPDX identifier or short statement."""
    created_at: str
    """ISO 8601, UTC."""
    photo_sha256: str = ""
    """SHA-256 of the source photo, hex; empty when there was none."""


@dataclass(frozen=True, slots=True, eq=False)
class Avatar:
    """Gaussians at the body's zero pose, and how joints and expressions move them."""

    gaussians: Gaussians
    """The person at zero pose."""
    skin_joints: UInt8[np.ndarray, "n k"]
    """Joints that move each Gaussian, k <= 8, heaviest first."""
    skin_weights: Float32[np.ndarray, "n k"]
    """Their weights, each row non-negative with sum 1."""
    constrained: Bool[np.ndarray, " n"]
    """Gaussians that move but never rotate (LHM's ``is_constrain_body``)."""
    expression_gaussians: Int32[np.ndarray, " m"]
    """Indices of the Gaussians that expressions move, ascending."""
    expression_directions: Float32[np.ndarray, "m e 3"]
    """Displacement of each of them per unit of each expression coefficient, metres, at zero pose."""
    expression_names: tuple[str, ...]
    """Names of the e coefficients."""
    rest_joints: Float32[np.ndarray, "55 3"]
    """Joint positions at zero pose, metres."""
    metadata: AvatarMetadata

    def __len__(self) -> int:
        return len(self.gaussians)
