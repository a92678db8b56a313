"""Cut the compact golden out of the whole one: ``python cut_golden.py WHOLE_FOLDER``.

Kept are all weights and inputs of the network, so that everything recorded can be computed again; of what was recorded,
every so many tokens or pixels. Of the body model, only the vertices that joints depend on stay. Weights of the
transformers are rounded to 18 bits of mantissa; what was recorded then still holds within the tests' tolerance.
"""

import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np

OUT = Path(__file__).parent / "golden"
BODY = "sd.renderer.smplx_model.smplx_layer."
NEVER_READ = ("posedirs", "pose_dirs", "voxel_ws", "lmk_", "extra_joints", "neck_kin", "in.render", "out.raster")
ROUNDED = ("sd.encoder.", "sd.transformer.", "sapiens_stub.")
DROPPED_BITS = 5
LOSSLESS = 101
KEPT_TOKENS = 24
PICTURES = ("tall", "edge", "wide")  # air all around, cut off by the picture, and padded above
PICTURE_STEP = 4


def main(whole: Path) -> None:
    OUT.mkdir(exist_ok=True)
    meta = json.loads((whole / "golden_meta.json").read_text())
    del meta["keys"]
    with np.load(whole / "golden_e2e.npz") as file:
        meta["token_strides"] = _cut_network({name: file[name] for name in file.files if not _is_never_read(name)})
    with np.load(whole / "golden_preproc.npz") as file:
        _cut_pictures(file)
    (OUT / "golden_tpose.ply").write_bytes((whole / "golden_tpose.ply").read_bytes())
    (OUT / "golden_meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    sys.stdout.write(f"{sum(file.stat().st_size for file in OUT.iterdir()):,} bytes\n")


def _cut_network(arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """Write what was recorded of the network; every how many tokens of each tensor were kept."""
    used = np.flatnonzero(arrays[BODY + "J_regressor"].any(axis=0))
    arrays[BODY + "J_regressor"] = arrays[BODY + "J_regressor"][:, used]
    for name in ("v_template", "shapedirs", "expr_dirs", "lbs_weights"):
        arrays[BODY + name] = arrays[BODY + name][used]
    arrays[BODY + "faces_tensor"] = arrays[BODY + "faces_tensor"][:0]
    strides: dict[str, int] = {}
    packed: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        kept, called = _round(array) if name.startswith(ROUNDED) else array, name
        if name.startswith("mid.") and name.rpartition("_s")[2].isdecimal():
            kept, called = _thin(array, name)
        elif name.startswith("mid.") and array.ndim > 1 and array.shape[-2] > KEPT_TOKENS:
            strides[name] = array.shape[-2] // KEPT_TOKENS | 1
            kept = array[..., :: strides[name], :]
        packed.update(_pack(called, kept))
    np.savez_compressed(OUT / "golden_e2e.npz", **packed)
    return strides


def _cut_pictures(file: np.lib.npyio.NpzFile) -> None:
    pictures: dict[str, np.ndarray] = {}
    for name in file.files:
        case = name.split(".")[1]
        if name.startswith("crop.") and case not in PICTURES:
            continue
        if name.endswith("image_u8"):
            image = file[name].copy()  # noise; what lies outside the mask does not matter
            height, width, cx, cy, rx, ry = (int(v) for v in file[f"crop.{case}.ellipse"])
            y, x = np.mgrid[:height, :width]
            image[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 >= 1] = 0
            pictures.update(_pack(name, image))
        else:
            kept, called = _thin(file[name], name) if re.search(r"s\d+$", name) else (file[name], name)
            pictures[called] = kept
    np.savez_compressed(OUT / "golden_preproc.npz", **pictures)


def _is_never_read(name: str) -> bool:
    return any(part in name for part in NEVER_READ)


def _thin(array: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    """Every few pixels, and the name that says so."""
    head, _, step = name.rpartition("s")
    return array[..., ::PICTURE_STEP, ::PICTURE_STEP], f"{head}s{int(step) * PICTURE_STEP}"


def _pack(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    if array.ndim == 3 and array.dtype == np.uint8:
        return {f"picture/{name}": _picture(array)}
    if array.dtype == np.float32 and array.size > 256:
        return {f"planes/{name}": np.moveaxis(array[..., None].view(np.uint8), -1, 0)}
    return {name: array}


def _picture(array: np.ndarray) -> np.ndarray:
    return cv2.imencode(".webp", array, [cv2.IMWRITE_WEBP_QUALITY, LOSSLESS])[1].ravel()


def _round(array: np.ndarray) -> np.ndarray:
    half = np.uint32(1 << (DROPPED_BITS - 1))
    bits = (array.view(np.uint32) + half) >> np.uint32(DROPPED_BITS) << np.uint32(DROPPED_BITS)
    return bits.view(np.float32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
