"""Avatar: everything that depends on the person alone, and the .avatar file that holds it.

A frame then needs only 55 joint matrices, an expression vector and a camera.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lhm_runtime.body.joints import NUM_JOINTS
from lhm_runtime.body.rotations import matrix_to_quat_wxyz, quat_multiply_wxyz
from lhm_runtime.errors import AvatarFileError, InvalidInputError, require_finite, require_shape
from lhm_runtime.files import write_atomically
from lhm_runtime.types import Gaussians

FORMAT_VERSION = 2
"""Version written into .avatar files; older ones are read too. 2 added ``shown``."""

Shown = Literal["full", "half", "head"]
"""How much of a person something shows: down to the feet, to the hips or so, or head and shoulders."""

MAX_INFLUENCES = 8
"""Most joints that may move one Gaussian."""

_FORMAT: Final = "lhm-live avatar"
_ADDED: Final[Mapping[str | None, frozenset[str]]] = {"1": frozenset({"shown"}), "2": frozenset()}
"""Metadata that files of each version do not have yet."""
_MAX_HEADER_BYTES: Final = 1 << 20
_UNIT_TOLERANCE: Final = 1e-3
_HALF_PRECISION_ERROR_M: Final = 5e-5
_DTYPES: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "U8": "uint8",
    "I32": "int32",
    "BOOL": "bool",
}
_LAYOUT: Final[Mapping[str, tuple[str, tuple[int | str, ...]]]] = {
    "means": ("float32", ("n", 3)),
    "quat_wxyz": ("float32", ("n", 4)),
    "scales": ("float32", ("n", 3)),
    "opacity": ("float32", ("n",)),
    "rgb": ("float32", ("n", 3)),
    "skin_joints": ("uint8", ("n", "k")),
    "skin_weights": ("float32", ("n", "k")),
    "constrained": ("bool", ("n",)),
    "expression_gaussians": ("int32", ("m",)),
    "expression_directions": ("float32", ("m", "e", 3)),
    "rest_joints": ("float32", (NUM_JOINTS, 3)),
}
"""Tensors of an avatar: n Gaussians, k joints each, m of them moved by e expression coefficients."""


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
    """SHA-256 of the source photo, the first of several, hex; empty when there was none."""
    shown: Shown = "full"
    """How much of the person its sources showed; what is below was made up. The framing to begin with."""


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

    def validate(self) -> None:
        """Check every field against its contract; saving and loading do so too.

        Raises:
            InvalidInputError: naming the field, and the index and value where one value is at fault.
        """
        _check_metadata(self.metadata, self.expression_names)
        layout = {name: (str(tensor.dtype), tensor.shape) for name, tensor in _tensors(self).items()}
        _check_layout(layout, len(self.expression_names))
        check_gaussians(self.gaussians)
        _check_rig(self)


def pose_gaussians(
    avatar: Avatar,
    joint_matrices: Float[np.ndarray, "55 3 4"],
    expression: Float[np.ndarray, " e"] | None = None,
) -> Gaussians:
    """Move an avatar's Gaussians by linear blend skinning.

    With A | t the weighted sum of a Gaussian's joint matrices, its centre x moves to A (x + expression) + t and its
    axes turn by the unit quaternion read off A (A itself is no rotation where joints bend); scales stay. Constrained
    Gaussians move the same but do not turn. This is LHM's rule; benchmarks/README.md compares it with A C A^T.

    Args:
        avatar: a valid avatar.
        joint_matrices: zero pose to world, as ``body.kinematics.joint_matrices`` makes them.
        expression: the first coefficients of ``avatar.expression_names``; those not given are 0.

    Raises:
        InvalidInputError: a wrong shape, a NaN or Inf, or more coefficients than the avatar has.
    """
    require_shape("joint_matrices", joint_matrices, (NUM_JOINTS, 3, 4))
    require_finite("joint_matrices", joint_matrices)
    rest = avatar.gaussians
    means = rest.means.astype(np.float64)
    coefficients = pad_expression(expression, len(avatar.expression_names))
    means[avatar.expression_gaussians] += np.einsum("mec,e->mc", avatar.expression_directions, coefficients)
    blended = np.zeros((len(avatar), 3, 4))
    for joints, weights in zip(avatar.skin_joints.T, avatar.skin_weights.T, strict=True):
        blended += weights[:, None, None] * joint_matrices[joints]
    means = np.einsum("nij,nj->ni", blended[:, :, :3], means) + blended[:, :, 3]

    turned = quat_multiply_wxyz(matrix_to_quat_wxyz(blended[:, :, :3]), rest.quat_wxyz.astype(np.float64))
    turned = np.where(turned[:, :1] < 0, -turned, turned).astype(np.float32)
    quat_wxyz = np.where(avatar.constrained[:, None], rest.quat_wxyz, turned)
    return Gaussians(means.astype(np.float32), quat_wxyz, rest.scales, rest.opacity, rest.rgb)


def pad_expression(expression: Float[np.ndarray, " e"] | None, known: int) -> Float32[np.ndarray, " known"]:
    """All ``known`` coefficients: those given, then zeros. Raises InvalidInputError for a NaN, an Inf or too many."""
    coefficients = np.zeros(known, np.float32)
    if expression is not None:
        require_shape("expression", expression, (None,))
        require_finite("expression", expression)
        if len(expression) > known:
            raise InvalidInputError(f"expression has {len(expression)} coefficients; this avatar knows {known}")
        coefficients[: len(expression)] = expression
    return coefficients


def save_avatar(avatar: Avatar, path: Path) -> None:
    """Write an .avatar file: a safetensors file whose header says where the avatar came from.

    Everything is stored exactly, but for expression directions: they are float16 as long as that moves
    none by more than 0.05 mm (it holds for directions below 12 cm), else float32.

    Raises:
        InvalidInputError: the avatar is not valid.
        OSError: the file cannot be written; a file that was at ``path`` is then still there, whole.
    """
    avatar.validate()
    header = {
        "format": _FORMAT,
        "format_version": str(FORMAT_VERSION),
        "expression_names": json.dumps(avatar.expression_names),
        **asdict(avatar.metadata),
    }
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in _tensors(avatar).items()}
    directions = avatar.expression_directions
    with np.errstate(over="ignore"):
        half = directions.astype(np.float16)
        if np.abs(half - directions).max(initial=0) <= _HALF_PRECISION_ERROR_M:
            tensors["expression_directions"] = np.ascontiguousarray(half)
    data = save(tensors, metadata=header)
    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > _MAX_HEADER_BYTES:
        raise InvalidInputError(f"the metadata take {header_bytes} bytes, more than the {_MAX_HEADER_BYTES} allowed")
    write_atomically(path, data)


def load_avatar(path: Path) -> Avatar:
    """Read and check an .avatar file.

    Raises:
        AvatarFileError: the file is missing, truncated, of another kind or version, or holds a tensor or a
            value that no avatar may hold; the message says which.
    """
    try:
        return _read(path)
    except InvalidInputError as error:
        raise AvatarFileError(f"{path}: {error}") from error
    except SafetensorError as error:
        raise AvatarFileError(f"{path} is truncated or damaged ({error}): copy or make it again") from error
    except OSError as error:
        raise AvatarFileError(f"{path} cannot be read: {error.strerror or error}") from error


def check_gaussians(gaussians: Gaussians) -> None:
    """Raise InvalidInputError for the first value outside the contract of ``Gaussians``, with its index."""
    for name in (field.name for field in fields(Gaussians)):
        require_finite(name, getattr(gaussians, name))
    scales, opacity, rgb = gaussians.scales, gaussians.opacity, gaussians.rgb
    length = np.linalg.norm(gaussians.quat_wxyz.astype(np.float64), axis=1)
    _require(
        "the length of quat_wxyz",
        length,
        np.abs(length - 1) <= _UNIT_TOLERANCE,
        f"1 within {_UNIT_TOLERANCE}",
    )
    _require("scales", scales, scales >= 0, "a standard deviation in metres, 0 or more")
    _require("opacity", opacity, (opacity >= 0) & (opacity <= 1), "0 to 1")
    _require("rgb", rgb, (rgb >= 0) & (rgb <= 1), "0 to 1")


def _tensors(avatar: Avatar) -> dict[str, np.ndarray]:
    return {name: getattr(avatar if hasattr(avatar, name) else avatar.gaussians, name) for name in _LAYOUT}


def _read(path: Path) -> Avatar:
    _check_container(path)
    with safe_open(path, framework="numpy", backend="pread") as file:
        metadata, expression_names = _read_header(file.metadata() or {})
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        layout = {name: (_DTYPES.get(s.get_dtype(), s.get_dtype()), tuple(s.get_shape())) for name, s in slices.items()}
        directions = layout.get("expression_directions")
        if directions is not None and directions[0] == "float16":
            layout["expression_directions"] = ("float32", directions[1])
        _check_layout(layout, len(expression_names))
        tensors = {name: file.get_tensor(name) for name in slices}
    tensors["expression_directions"] = tensors["expression_directions"].astype(np.float32)
    gaussians = Gaussians(*(tensors.pop(field.name) for field in fields(Gaussians)))
    avatar = Avatar(gaussians=gaussians, expression_names=expression_names, metadata=metadata, **tensors)
    avatar.validate()
    return avatar


def _check_container(path: Path) -> None:
    """Tell what is no safetensors file at all before any number in it is believed."""
    with path.open("rb") as file:
        start = file.read(9)
    header_bytes = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or header_bytes > _MAX_HEADER_BYTES:
        raise InvalidInputError("not an .avatar file: it does not begin like a safetensors file")
    size = path.stat().st_size
    if size < 8 + header_bytes:
        raise InvalidInputError(f"truncated: {size} bytes, while its header alone takes {8 + header_bytes}")


def _read_header(header: Mapping[str, str]) -> tuple[AvatarMetadata, tuple[str, ...]]:
    if header.get("format") != _FORMAT:
        raise InvalidInputError(
            f"a safetensors file, but not an avatar: its format is {header.get('format')!r}, not {_FORMAT!r}"
        )
    version = header.get("format_version")
    if version not in _ADDED:
        raise InvalidInputError(
            f"format version {version!r} is unknown: this program reads versions up to {FORMAT_VERSION}; "
            "update lhm-live, or make the avatar again from its source"
        )
    wanted = {field.name for field in fields(AvatarMetadata)} - _ADDED[version]
    _check_names("metadata", set(header) - {"format", "format_version"}, wanted | {"expression_names"})
    _check_shown(header.get("shown", "full"))
    try:
        names = json.loads(header["expression_names"])
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"expression_names is not JSON: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(
            f"expression_names is {header['expression_names'][:80]}, expected a JSON list of strings"
        )
    return AvatarMetadata(**{name: header[name] for name in wanted}), tuple(names)  # type: ignore[arg-type]


def _check_metadata(metadata: AvatarMetadata, expression_names: tuple[str, ...]) -> None:
    for name in ("reconstructor", "body_model", "licence"):
        if not getattr(metadata, name).strip():
            raise InvalidInputError(f"{name} is empty")
    for name in ("body_model_sha256", "photo_sha256"):
        if not re.fullmatch("([0-9a-f]{64})?", getattr(metadata, name)):
            raise InvalidInputError(
                f"{name} is {getattr(metadata, name)!r}, expected 64 lower-case hex digits or nothing"
            )
    _check_shown(metadata.shown)
    try:
        offset = datetime.fromisoformat(metadata.created_at).utcoffset()
    except ValueError:
        offset = None
    if offset != timedelta(0):
        raise InvalidInputError(
            f"created_at is {metadata.created_at!r}, expected ISO 8601 in UTC like 2026-01-31T12:00:00+00:00"
        )
    if len(set(expression_names)) < len(expression_names):
        repeated, _ = Counter(expression_names).most_common(1)[0]
        raise InvalidInputError(f"expression_names has {repeated!r} more than once")


def _check_shown(shown: str) -> None:
    if shown not in get_args(Shown):
        raise InvalidInputError(f"shown is {shown!r}, expected one of {', '.join(get_args(Shown))}")


def _check_names(kind: str, got: set[str], wanted: set[str]) -> None:
    if wanted - got:
        raise InvalidInputError(f"missing {kind}: {', '.join(sorted(wanted - got))}")
    if got - wanted:
        raise InvalidInputError(f"unknown {kind}: {', '.join(sorted(got - wanted))}")


def _check_layout(layout: Mapping[str, tuple[str, tuple[int, ...]]], coefficients: int) -> None:
    """Compare dtypes and shapes with _LAYOUT; the first tensor with a named length fixes it."""
    _check_names("tensor", set(layout), set(_LAYOUT))
    lengths: dict[int | str, int] = {"e": coefficients}
    for name, (dtype, axes) in _LAYOUT.items():
        got_dtype, shape = layout[name]
        if got_dtype != dtype:
            raise InvalidInputError(f"{name} is {got_dtype}, expected {dtype}")
        expected = tuple(
            lengths.setdefault(axis, shape[i] if i < len(shape) else 0) if isinstance(axis, str) else axis
            for i, axis in enumerate(axes)
        )
        if shape != expected:
            named = ", ".join(str(a) if a == n else f"{a}={n}" for a, n in zip(axes, expected, strict=True))
            raise InvalidInputError(f"{name} has shape {shape}, expected ({named})")
    if not 1 <= lengths["k"] <= MAX_INFLUENCES:
        raise InvalidInputError(f"skin_joints has {lengths['k']} joints a Gaussian, expected 1 to {MAX_INFLUENCES}")


def _check_rig(avatar: Avatar) -> None:
    for name in ("skin_weights", "expression_directions", "rest_joints"):
        require_finite(name, getattr(avatar, name))
    joints, weights = avatar.skin_joints, avatar.skin_weights
    _require("skin_joints", joints, joints < NUM_JOINTS, f"a joint below {NUM_JOINTS}")
    _require("skin_weights", weights, weights >= 0, "0 or more")
    total = weights.sum(axis=1, dtype=np.float64)
    _require("the sum of skin_weights", total, np.abs(total - 1) <= _UNIT_TOLERANCE, f"1 within {_UNIT_TOLERANCE}")
    falling = np.diff(weights, axis=1, prepend=np.inf) <= 0
    _require("skin_weights", weights, falling, "no more than the one before it (heaviest first)")
    constrained = avatar.constrained.view(np.uint8)  # a file may hold any byte
    _require("constrained", constrained, constrained <= 1, "0 or 1")
    moved, count = avatar.expression_gaussians, len(avatar)
    _require(
        "expression_gaussians",
        moved,
        (moved >= 0) & (moved < count),
        f"an index of one of the {count} Gaussians",
    )
    rising = np.diff(moved, prepend=-1) > 0
    _require("expression_gaussians", moved, rising, "more than the one before it (ascending, each once)")


def _require(name: str, values: np.ndarray, valid: np.ndarray, expected: str) -> None:
    if not valid.all():
        index = tuple(int(i) for i in np.argwhere(~valid)[0])
        raise InvalidInputError(f"{name}{list(index)} is {values[index]}, expected {expected}")
