"""What an avatar holds, as lines to read."""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from lhm_runtime.avatar import FORMAT_VERSION, Avatar, Shown
from lhm_runtime.body.joints import JOINT_NAMES
from lhm_runtime.types import Gaussians

_MEANING: Mapping[str, str] = {
    "as the photo": "as the photo: what you may do with it, you may do with this; ask the photographer and who is shown"
}
_SHOWN: Mapping[Shown, str] = {
    "full": "all of the person",
    "half": "down to the hips or so; what is below was made up",
    "head": "head and shoulders; what is below was made up",
}


def describe_gaussians(gaussians: Gaussians) -> list[tuple[str, str]]:
    """Name and value of each fact about plain Gaussians."""
    facts = [("gaussians", f"{len(gaussians):,}")]
    if len(gaussians):
        low, high = gaussians.means.min(axis=0), gaussians.means.max(axis=0)
        axes = (f"{axis} {a:.3f} to {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True))
        facts += [
            ("bounds", f"{', '.join(axes)} m"),
            ("sizes", _quantiles(1000 * gaussians.scales.max(axis=1), "mm")),
            ("opacity", _quantiles(gaussians.opacity, "")),
        ]
    return [*facts, ("memory", _megabytes(_arrays(gaussians)))]


def describe_avatar(avatar: Avatar) -> list[tuple[str, str]]:
    """Name and value of each fact about an avatar."""
    metadata = avatar.metadata
    used = np.zeros(len(JOINT_NAMES), bool)
    used[avatar.skin_joints[avatar.skin_weights > 0]] = True
    unused = [name for name, is_used in zip(JOINT_NAMES, used, strict=True) if not is_used]
    fingerprint = (
        f" (sha256 {metadata.body_model_sha256[:12]}…)" if metadata.body_model_sha256 else " (inside the avatar)"
    )
    *gaussian_facts, _ = describe_gaussians(avatar.gaussians)
    return [
        ("made by", f"{metadata.reconstructor}, {metadata.created_at}"),
        ("licence", _MEANING.get(metadata.licence, metadata.licence)),
        ("shown", _SHOWN[metadata.shown]),
        ("body model", metadata.body_model + fingerprint),
        ("source photo", f"sha256 {metadata.photo_sha256[:12]}…" if metadata.photo_sha256 else "none"),
        ("format version", str(FORMAT_VERSION)),
        *gaussian_facts,
        ("joints used", f"{used.sum()} of {len(used)}{', not ' + ', '.join(unused) if unused else ''}"),
        ("joints a gaussian", f"up to {avatar.skin_joints.shape[1]}"),
        ("never rotating", f"{avatar.constrained.sum():,}"),
        (
            "expressions",
            f"{len(avatar.expression_names)}, moving {len(avatar.expression_gaussians):,} Gaussians",
        ),
        ("memory", _megabytes([*_arrays(avatar.gaussians), *_arrays(avatar)])),
    ]


def _arrays(holder: Gaussians | Avatar) -> list[np.ndarray]:
    values = (getattr(holder, field.name) for field in fields(holder))
    return [value for value in values if isinstance(value, np.ndarray)]


def _megabytes(arrays: list[np.ndarray]) -> str:
    return f"{sum(array.nbytes for array in arrays) / 1e6:.2f} MB"


def _quantiles(values: np.ndarray, unit: str) -> str:
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"median {middle:.3g}, 90 % between {low:.3g} and {high:.3g} {unit}".rstrip()
