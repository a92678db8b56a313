"""The kernel's shared libraries: which there are, which this CPU runs, and their C ABI (kernel.h) in ctypes."""

import ctypes
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from lhm_runtime.errors import BackendError

Isa = Literal["v2", "v3", "v4", "generic"]
"""Instruction sets: x86-64-v2 (SSE4.2), v3 (AVX2), v4 (AVX-512); ``generic`` elsewhere (NEON on 64-bit Arm)."""

OK, OUT_OF_MEMORY, TOO_DENSE, TOO_SMALL = range(4)
"""What the kernel's functions answer."""

_pointer, _int, _long, _float = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float


class SceneDesc(ctypes.Structure):
    """``lhm_scene_desc``."""

    _fields_ = (
        ("count", _int),
        ("influences", _int),
        ("means", _pointer),
        ("covariances", _pointer),
        ("opacity", _pointer),
        ("rgb", _pointer),
        ("skin_joints", _pointer),
        ("skin_weights", _pointer),
        ("constrained", _pointer),
        ("moved_count", _int),
        ("coefficients", _int),
        ("moved", _pointer),
        ("directions", _pointer),
        ("threads", _int),
    )


class Frame(ctypes.Structure):
    """``lhm_frame``."""

    _fields_ = (
        ("joint_matrices", _pointer),
        ("joints", _int),
        ("expression", _pointer),
        ("R_camera_world", _float * 9),
        ("t_camera_world", _float * 3),
        ("fx", _float),
        ("fy", _float),
        ("cx", _float),
        ("cy", _float),
        ("width", _int),
        ("height", _int),
        ("pixel_format", _int),
        ("stop_rule", _int),
        ("background", _float * 3),
        ("matte_rgb", _float * 3),
        ("pixels", _pointer),
        ("depth", _pointer),
        ("stage_ms", _pointer),
        ("counts", _pointer),
    )


class ColourProblem(ctypes.Structure):
    """``lhm_colour_problem``."""

    _fields_ = (
        ("count", _int),
        ("pixels", _long),
        ("pixel_begin", _pointer),
        ("gaussian", _pointer),
        ("weight", _pointer),
        ("wanted", _pointer),
        ("trust", _pointer),
        ("step", _pointer),
        ("limit", _pointer),
        ("rounds", _int),
        ("rgb", _pointer),
        ("solved", _pointer),
    )


def libraries() -> dict[Isa, Path]:
    """The kernels that were built with this installation, by its record (an editable one keeps them elsewhere)."""
    try:
        files = metadata.files("lhm-live") or []
    except metadata.PackageNotFoundError:
        files = []
    built = {file.name: Path(str(file.locate())) for file in files}
    names: dict[Isa, str] = {isa: f"liblhm_raster_{isa}.so" for isa in get_args(Isa)}
    return {isa: built[name] for isa, name in names.items() if name in built and built[name].is_file()}


def runnable() -> tuple[Isa, ...]:
    """The built kernels this CPU can run, slowest first."""
    built = libraries()
    if not built:
        raise BackendError(
            "no rasterizer kernel is installed: install lhm-live with a C++ compiler present (apt-get install g++), "
            "from its sources by `pip install .`"
        )
    baseline: Isa = next(iter(built))
    level = load(baseline).lhm_cpu_level()
    return tuple(isa for isa in built if isa == "generic" or int(isa[1:]) <= level)


def choose(isa: Isa | Literal["auto"]) -> Isa:
    """The fastest runnable kernel, or ``isa`` itself when this CPU runs it."""
    usable = runnable()
    if isa == "auto":
        return usable[-1]
    if isa not in usable:
        raise BackendError(f"kernel {isa!r} cannot run here; built and runnable on this CPU: {', '.join(usable)}")
    return isa


@cache
def load(isa: Isa) -> ctypes.CDLL:
    """The library for ``isa``, its functions declared. Calls release the GIL."""
    library = ctypes.CDLL(str(libraries()[isa]))
    library.lhm_scene_create.argtypes = [ctypes.POINTER(SceneDesc)]
    library.lhm_scene_create.restype = ctypes.c_void_p
    library.lhm_scene_destroy.argtypes = [ctypes.c_void_p]
    library.lhm_scene_destroy.restype = None
    library.lhm_scene_render.argtypes = [ctypes.c_void_p, ctypes.POINTER(Frame)]
    library.lhm_scene_render.restype = ctypes.c_int32
    frame = ctypes.POINTER(Frame)
    library.lhm_scene_weigh.argtypes = [ctypes.c_void_p, frame, _float, _long, _pointer, _pointer, _pointer]
    library.lhm_scene_weigh.restype = ctypes.c_int32
    library.lhm_solve_colours.argtypes = [ctypes.POINTER(ColourProblem)]
    library.lhm_solve_colours.restype = ctypes.c_int32
    library.lhm_contract.argtypes = [ctypes.c_void_p]
    library.lhm_contract.restype = None
    library.lhm_cpu_level.argtypes = []
    library.lhm_cpu_level.restype = ctypes.c_int32
    return library


def contract(isa: Isa) -> dict[str, float]:
    """The numerical contract compiled into the kernel."""
    names = (
        "eps2d",
        "near",
        "alpha_min",
        "alpha_max",
        "transmittance_stop",
        "fov_margin",
        "max_tile_entries",
        "lanes",
    )
    out = np.zeros(len(names))
    load(isa).lhm_contract(out.ctypes.data)
    return dict(zip(names, out.tolist(), strict=True))
