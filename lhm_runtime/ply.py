"""Gaussians in the .ply layout of 3D Gaussian Splatting (Kerbl et al. 2023), which public viewers open.

Stored per vertex: position, unused normals, colour as the constant spherical harmonic, opacity as a logit,
scales as logarithms, rotation wxyz. Higher harmonics (``f_rest_*``) are neither written nor read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from jaxtyping import Float64
from scipy.special import expit, logit

from lhm_runtime.avatar import check_gaussians
from lhm_runtime.errors import AvatarFileError, InvalidInputError
from lhm_runtime.files import write_atomically
from lhm_runtime.types import Gaussians

SH_C0: Final = 0.28209479177387814
"""The constant spherical harmonic, 1 / (2 sqrt(pi)): rgb = 0.5 + SH_C0 f_dc."""

OPACITY_MARGIN: Final = 1e-3
"""Opacity is written within [margin, 1 - margin], as LHM does, so that its logit stays finite."""

MIN_SCALE_M: Final = 1e-9
"""Smallest standard deviation written, for the same reason."""

_MEANS: Final = ("x", "y", "z")
_NORMALS: Final = ("nx", "ny", "nz")
_COLOUR: Final = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALES: Final = ("scale_0", "scale_1", "scale_2")
_ROTATION: Final = ("rot_0", "rot_1", "rot_2", "rot_3")
_WRITTEN: Final = (*_MEANS, *_NORMALS, *_COLOUR, "opacity", *_SCALES, *_ROTATION)
_READ: Final = tuple(name for name in _WRITTEN if name not in _NORMALS)

_MAX_HEADER_BYTES: Final = 1 << 16
_SCALAR_TYPES: Final = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


def export_ply(gaussians: Gaussians, path: Path) -> None:
    """Write Gaussians as a binary little-endian 3DGS .ply, whole or not at all.

    Exact but for opacity outside [0.001, 0.999] and scales below 1e-9 m, which are clamped.

    Raises:
        InvalidInputError: a value outside the contract of ``Gaussians``.
        OSError: the file cannot be written.
    """
    check_gaussians(gaussians)
    columns = [
        gaussians.means,
        np.zeros_like(gaussians.means),
        (gaussians.rgb.astype(np.float64) - 0.5) / SH_C0,
        logit(gaussians.opacity.astype(np.float64).clip(OPACITY_MARGIN, 1 - OPACITY_MARGIN))[:, None],
        np.log(gaussians.scales.astype(np.float64).clip(MIN_SCALE_M)),
        gaussians.quat_wxyz,
    ]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"]
    header += [f"property float {name}" for name in _WRITTEN]
    header += ["end_header", ""]
    write_atomically(path, "\n".join(header).encode() + np.hstack(columns).astype("<f4").tobytes())


def import_ply(path: Path) -> Gaussians:
    """Read a 3DGS .ply, ASCII or binary, whatever the order of its properties.

    Rotations are normalised, colours clipped to [0, 1]; normals, higher harmonics and the rest are ignored.

    Raises:
        AvatarFileError: the file is missing, truncated, no 3DGS .ply, or holds a value no Gaussian may have.
    """
    try:
        return _activate(read_columns(path, _READ, "3DGS .ply"))
    except InvalidInputError as error:
        raise AvatarFileError(f"{path}: {error}") from error
    except OSError as error:
        raise AvatarFileError(f"{path} cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class _Header:
    encoding: str
    count: int
    """Vertices it claims."""
    properties: tuple[tuple[str, str], ...]
    """(name, numpy type code) of each property of a vertex."""
    length: int
    """Bytes up to the first vertex."""

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.properties]

    @property
    def dtype(self) -> np.dtype:
        order = ">" if self.encoding == "binary_big_endian" else "<"
        return np.dtype([(name, order + code) for name, code in self.properties])

    @property
    def min_data_bytes(self) -> int:
        if self.encoding == "ascii":  # a digit and a separator, but for the last
            return max(0, 2 * len(self.properties) * self.count - 1)
        return self.count * self.dtype.itemsize


def read_columns(path: Path, names: Sequence[str], kind: str) -> Float64[np.ndarray, "n k"]:
    """The numbers stored under ``names`` at each vertex of a .ply, as they are there.

    Raises:
        InvalidInputError: not a .ply, truncated, or no ``kind`` because its vertices lack one of the names.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        header = _parse_header(file.read(_MAX_HEADER_BYTES))
        missing = [name for name in names if name not in header.names]
        if missing:
            raise InvalidInputError(f"no {kind}: its vertices lack the properties {', '.join(missing)}")
        count, least = header.count, header.min_data_bytes
        follow = path.stat().st_size - header.length
        if follow < least:
            raise InvalidInputError(
                f"truncated: {count} vertices take {least} bytes or more, {follow} follow the header"
            )
        file.seek(header.length)
        read = _read_ascii if header.encoding == "ascii" else _read_binary
        return read(header, file, names)


def _parse_header(start: bytes) -> _Header:
    """Understand as much of the PLY 1.0 header as concerns the vertices, which must come first."""
    if not re.match(rb"ply[ \t]*\r?\n", start):
        raise InvalidInputError("not a .ply file: its first line is not 'ply'")
    end = re.search(rb"\nend_header[ \t]*\r?\n", start)
    if end is None:
        raise InvalidInputError(f"truncated or not a .ply file: no end_header in its first {len(start)} bytes")
    lines = [line.split() for line in start[: end.start()].decode("utf-8", "replace").splitlines()[1:]]
    match [line for line in lines if line and line[0] not in ("comment", "obj_info")]:
        case [["format", "ascii" | "binary_little_endian" | "binary_big_endian" as encoding, "1.0"], *rest]:
            count, properties = _parse_vertex(rest)
        case _:
            raise InvalidInputError("its header has no format line that we know")
    header = _Header(encoding, count, tuple(properties), end.end())
    if len(set(header.names)) < len(properties):
        raise InvalidInputError(f"its header declares a property twice: {', '.join(header.names)}")
    return header


def _parse_vertex(lines: list[list[str]]) -> tuple[int, list[tuple[str, str]]]:
    """Count and (name, numpy type code) of each property of the first element, which must be ``vertex``."""
    match lines[:1]:
        case [["element", "vertex", digits]] if re.fullmatch("[0-9]{1,18}", digits):
            count = int(digits)
        case _:
            found = " ".join(lines[0]) if lines else "nothing"
            raise InvalidInputError(
                f"its first element is {found!r}, expected 'element vertex' and a count (no compressed .ply)"
            )
    properties = []
    for line in lines[1:]:
        match line:
            case ["property", code, name] if code in _SCALAR_TYPES:
                properties.append((name, _SCALAR_TYPES[code]))
            case ["element", *_]:
                break  # it comes after the vertices, so we never reach its data
            case _:
                raise InvalidInputError(f"header line {' '.join(line)!r} is not one that a 3DGS .ply has")
    return count, properties


def _read_binary(header: _Header, file: BinaryIO, names: Sequence[str]) -> Float64[np.ndarray, "n k"]:
    table = np.frombuffer(file.read(header.min_data_bytes), header.dtype, header.count)
    with np.errstate(invalid="ignore"):  # a signalling NaN, told later
        return np.stack([table[name].astype(np.float64) for name in names], axis=1)


def _read_ascii(header: _Header, file: BinaryIO, names: Sequence[str]) -> Float64[np.ndarray, "n k"]:
    if header.count == 0:
        return np.empty((0, len(names)))
    columns = [header.names.index(name) for name in names]
    try:
        table = np.loadtxt(file, comments=None, usecols=columns, max_rows=header.count, ndmin=2, encoding="ascii")
    except ValueError as error:
        raise InvalidInputError(f"its vertices are not lines of numbers: {error}") from error
    if len(table) < header.count:
        raise InvalidInputError(f"truncated: {header.count} vertices announced, {len(table)} found")
    return table


def _activate(columns: Float64[np.ndarray, "n 14"]) -> Gaussians:
    """From stored columns, in the order of _READ, to Gaussians."""
    finite = np.isfinite(columns)
    if not finite.all():
        vertex, column = (int(i) for i in np.argwhere(~finite)[0])
        raise InvalidInputError(
            f"{_READ[column]} of vertex {vertex} is {columns[vertex, column]}, expected a finite number"
        )
    means, colour, opacity, scales, rotation = np.split(columns, [3, 6, 7, 10], axis=1)
    longest = np.abs(rotation).max(axis=1, keepdims=True)
    if not longest.all():
        raise InvalidInputError(f"rot_0 to rot_3 of vertex {int(np.argmin(longest))} are all 0, which is no rotation")
    rotation = rotation / longest  # first, so that no square overflows
    rotation /= np.linalg.norm(rotation, axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # what does not fit float32 is told below
        gaussians = Gaussians(
            means=means.astype(np.float32),
            quat_wxyz=rotation.astype(np.float32),
            scales=np.exp(scales).astype(np.float32),
            opacity=expit(opacity[:, 0]).astype(np.float32),
            rgb=(0.5 + SH_C0 * colour).clip(0, 1).astype(np.float32),
        )
    check_gaussians(gaussians)
    return gaussians
