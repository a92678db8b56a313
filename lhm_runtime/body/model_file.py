"""Reading of SMPL-X layout .npz files: every doubt about the file ends here, in one BodyModelError."""

import hashlib
import io
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from lhm_runtime.body.joints import NUM_JOINTS, PARENTS
from lhm_runtime.errors import BodyModelError

_UNREADABLE = (
    ValueError,  # also: an object array, which only pickle could read
    EOFError,
    OSError,
    MemoryError,  # a header that claims more than fits
    OverflowError,
    RuntimeError,  # encrypted, or packed by an unknown method (NotImplementedError)
    SyntaxError,  # numpy evaluates the array header
    TypeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile, zlib and numpy raise on damaged bytes."""

_SMPLX_COLUMNS = {400: 300, 20: 10}
"""Columns of an official ``shapedirs`` -> how many of them are shape; the rest is expression."""


class ModelFile:
    """A body model file in memory; each method reads and checks one thing or raises BodyModelError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BodyModelError(f"{path}: cannot be read: {error.strerror}") from error
        self.sha256 = hashlib.sha256(data).hexdigest()
        try:
            npz = np.load(io.BytesIO(data), allow_pickle=False)
        except _UNREADABLE as error:
            raise BodyModelError(f"{path}: not an .npz file, or a damaged one ({error})") from error
        if not isinstance(npz, np.lib.npyio.NpzFile):
            raise BodyModelError(f"{path}: holds a single array, expected an .npz file with the keys of SMPL-X")
        self._npz = npz

    def floats(self, key: str, shape: tuple[int | None, ...]) -> Float32[np.ndarray, "..."]:
        """Finite float32 array of ``shape`` (None: any length)."""
        raw = self._array(key, "fiu", shape)
        with np.errstate(over="ignore"):  # becomes Inf, which is refused below
            array = raw.astype(np.float32)
        finite = np.isfinite(array)
        if not finite.all():
            index = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise self._error(key, f"is {raw[index]} at {list(index)}", "finite values")
        return _frozen(array)

    def indices(self, key: str, shape: tuple[int | None, ...], below: int) -> Int32[np.ndarray, "..."]:
        """Integers in [0, below)."""
        raw = self._array(key, "iu", shape)
        outside = (raw < 0) | (raw >= below)
        if outside.any():
            raise self._error(key, f"holds index {raw[outside][0]}", f"0 to {below - 1}")
        return _frozen(raw.astype(np.int32))

    def blend_shapes(self, v: int) -> tuple[np.ndarray, tuple[str, ...], np.ndarray, tuple[str, ...]]:
        """Shape directions [v,3,b], their names, expression directions [v,3,e], their names.

        ``shapedirs`` has 300 + 100 columns, 10 + 10, or those of ``beta_names``, then ``expression_names``.
        """
        columns = self.floats("shapedirs", (v, 3, None))
        beta_names, expression_names = self._names("beta_names"), self._names("expression_names")
        count = columns.shape[2]
        named = len(beta_names or ()) + len(expression_names or ())
        if count == named:
            split = len(beta_names or ())
        elif count in _SMPLX_COLUMNS:
            split = _SMPLX_COLUMNS[count]
        else:
            found = f"has {count} columns while beta_names and expression_names name {named}"
            raise self._error("shapedirs", found, "400, 20 or as many columns as names")
        betas = self._used(columns[:, :, :split], beta_names, "beta")
        expressions = self._used(columns[:, :, split:], expression_names, "expression")
        return *betas, *expressions

    def pose_directions(self, v: int) -> Float32[np.ndarray, "v 3 486"] | None:
        """Pose correctives, None where the file has none or only zeros."""
        if "posedirs" not in self._npz:
            return None
        directions = self.floats("posedirs", (v, 3, 9 * (NUM_JOINTS - 1)))
        return directions if directions.any() else None

    def skin_weights(self, v: int) -> Float32[np.ndarray, "v 55"]:
        """Skinning weights, none negative, each row summing to 1 (within 1 %, as files round)."""
        weights = self.floats("weights", (v, NUM_JOINTS))
        if weights.min() < 0:
            raise self._error("weights", f"holds {weights.min()}", "values of 0 and above")
        sums = weights.sum(1)
        worst = int(np.abs(sums - 1).argmax())
        if abs(sums[worst] - 1) > 0.01:
            raise self._error("weights", f"has row {worst} with sum {sums[worst]}", "rows with sum 1")
        return weights

    def landmarks(
        self, prefix: str, f: int
    ) -> tuple[Int32[np.ndarray, " l"], Float32[np.ndarray, "l 3"]] | tuple[None, None]:
        """Triangles and barycentric coordinates of face landmarks, (None, None) where the file has none."""
        if f"{prefix}_faces_idx" not in self._npz and f"{prefix}_bary_coords" not in self._npz:
            return None, None
        triangles = self.indices(f"{prefix}_faces_idx", (None,), below=f)
        return triangles, self.floats(f"{prefix}_bary_coords", (len(triangles), 3))

    def check_joint_tree(self) -> None:
        """Raise unless ``kintree_table`` [2,55] holds SMPL-X's parents; any non-joint may mark the root."""
        parents = self._array("kintree_table", "iu", (2, NUM_JOINTS))[0]
        for joint in range(NUM_JOINTS):
            found, expected = int(parents[joint]), int(PARENTS[joint])
            if found != expected and (expected >= 0 or 0 <= found < NUM_JOINTS):
                raise self._error(
                    "kintree_table", f"gives joint {joint} the parent {found}", f"{expected}, as in SMPL-X"
                )

    def _array(self, key: str, kinds: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """The array of ``key`` if its dtype kind is in ``kinds`` and its shape is ``shape``."""
        wanted = f"an array of shape ({', '.join('n' if n is None else str(n) for n in shape)})"
        if key not in self._npz:
            raise self._error(key, "is missing", wanted)
        try:
            array = self._npz[key]
        except _UNREADABLE as error:
            raise self._error(key, f"cannot be read ({error})", wanted) from error
        if not isinstance(array, np.ndarray):
            raise self._error(key, "is not a numpy array", wanted)
        if array.ndim != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, array.shape, strict=True)
        ):
            raise self._error(key, f"has shape {array.shape}", wanted)
        if 0 in array.shape:
            raise self._error(key, f"is empty, shape {array.shape}", wanted)
        if array.dtype.kind not in kinds:
            numbers = {"fiu": "numbers", "iu": "integers", "U": "strings"}[kinds]
            raise self._error(key, f"has dtype {array.dtype}", numbers)
        return array

    def _names(self, key: str) -> tuple[str, ...] | None:
        return tuple(str(name) for name in self._array(key, "U", (None,))) if key in self._npz else None

    def _used(
        self, columns: np.ndarray, names: tuple[str, ...] | None, kind: str
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """The named columns; without names, those up to the last that is not zero."""
        nonzero = np.flatnonzero(columns.any((0, 1)))
        count = int(nonzero[-1]) + 1 if len(nonzero) else 0
        if names is None:
            names = tuple(f"{kind}{i}" for i in range(count))
        elif not count <= len(names) <= columns.shape[2]:
            raise self._error(
                f"{kind}_names", f"has {len(names)} names", f"{count} to {columns.shape[2]}, as shapedirs has"
            )
        return _frozen(np.ascontiguousarray(columns[:, :, : len(names)])), names

    def _error(self, key: str, found: str, expected: str) -> BodyModelError:
        return BodyModelError(f"{self._path}: key '{key}' {found}; expected {expected}")


def _frozen(array: np.ndarray) -> np.ndarray:
    """Read-only: the default body is shared by all who ask for it."""
    array.setflags(write=False)
    return array
