"""Avatars of random numbers, valid and small."""

import numpy as np

from lhm_runtime.avatar import Avatar, AvatarMetadata
from lhm_runtime.types import Gaussians

METADATA = AvatarMetadata(
    reconstructor="test 1",
    body_model="free_body",
    body_model_sha256="0123456789abcdef" * 4,
    licence="CC0-1.0",
    created_at="2026-01-31T12:00:00+00:00",
    photo_sha256="f" * 64,
    shown="half",
)


def make_avatar(n: int = 12, k: int = 3, m: int = 4, e: int = 2, seed: int = 0) -> Avatar:
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=(n, 4))
    weights = -np.sort(-rng.dirichlet(np.ones(k), size=n), axis=1)
    return Avatar(
        gaussians=Gaussians(
            means=rng.normal(size=(n, 3)).astype(np.float32),
            quat_wxyz=(quat / np.linalg.norm(quat, axis=1, keepdims=True)).astype(np.float32),
            scales=rng.uniform(0.001, 0.02, (n, 3)).astype(np.float32),
            opacity=rng.random(n).astype(np.float32),
            rgb=rng.random((n, 3)).astype(np.float32),
        ),
        skin_joints=rng.integers(0, 55, (n, k)).astype(np.uint8),
        skin_weights=weights.astype(np.float32),
        constrained=rng.random(n) < 0.3,
        expression_gaussians=np.sort(rng.choice(n, m, replace=False)).astype(np.int32),
        expression_directions=rng.uniform(-0.1, 0.1, (m, e, 3)).astype(np.float16).astype(np.float32),
        expression_names=tuple(f"expression{i}" for i in range(e)),
        rest_joints=rng.normal(size=(55, 3)).astype(np.float32),
        metadata=METADATA,
    )
