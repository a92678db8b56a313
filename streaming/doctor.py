"""Look at this machine and say what works, what does not, and how to get it."""

import ctypes
import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.rasterizer import look_at, rasterize
from lhm_runtime.rasterizer.cpu.library import choose, libraries, runnable
from lhm_runtime.types import Gaussians
from streaming.config import load_config
from streaming.video_file import H264_ENCODERS, try_encoder

ENCODERS = (*H264_ENCODERS, "libvpx", "libvpx-vp9", "hevc_nvenc", "av1_nvenc")
"""Video encoders worth knowing about: recordings use the first H.264 one that opens."""

SYSTEM_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
}
"""What MediaPipe loads at run time, and the Debian package it comes from."""

_OPTIONAL = (("torch", "lhm"), ("gsplat", "cuda"), ("ray", "scale"), ("pyvirtualcam", "camera"))
"""Packages that extras bring, and the extra."""

_ISA_FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "asimd", "sve")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    subject: str
    """What it is."""
    verdict: Literal["ok", "absent", "broken"]
    """``absent``: something optional is not here. ``broken``: the default path does not work without it."""
    detail: str
    """What was found, and what to do where that is not what one wants."""


def examine() -> list[Finding]:
    """Look at everything; takes about a second and changes nothing."""
    return [
        Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        Finding("cpu", "ok", _describe_cpu()),
        _examine_kernel(),
        _examine_picture(),
        *_examine_encoders(),
        _examine_gpu(),
        *(_examine_package(*package) for package in _OPTIONAL),
        _examine_system_libraries(),
        _examine_page(),
        _examine_data_folder(),
    ]


def works(findings: list[Finding]) -> bool:
    """Whether an avatar can be drawn and recorded here."""
    return all(finding.verdict != "broken" for finding in findings)


def _describe_cpu() -> str:
    facts: dict[str, str] = {}
    if Path("/proc/cpuinfo").is_file():
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    model = facts.get("model name") or platform.processor() or platform.machine()
    present = set((facts.get("flags") or facts.get("Features") or "").split())
    flags = [flag for flag in _ISA_FLAGS if flag in present]
    return f"{model}: {' '.join(flags) or platform.machine()}"


def _examine_kernel() -> Finding:
    try:
        usable, chosen = runnable(), choose("auto")
    except (BackendError, OSError) as error:
        return Finding("rasterizer kernel", "broken", str(error))
    return Finding(
        "rasterizer kernel",
        "ok",
        f"{chosen} chosen; built: {', '.join(libraries())}; this CPU runs: {', '.join(usable)}",
    )


def _examine_picture() -> Finding:
    """Draw an opaque red ball on blue with every kernel this CPU runs."""
    ball = Gaussians(
        means=np.zeros((1, 3), np.float32),
        quat_wxyz=np.array([[1, 0, 0, 0]], np.float32),
        scales=np.full((1, 3), 0.1, np.float32),
        opacity=np.ones(1, np.float32),
        rgb=np.array([[1, 0, 0]], np.float32),
    )
    camera = look_at(np.array([0.0, 0.0, 2.0]), np.zeros(3), 32, 32)
    try:
        for isa in runnable():
            picture = rasterize(ball, camera, pixel_format="rgb", background=(0.0, 0.0, 1.0), isa=isa)
            middle, corner = picture[15:17, 15:17].mean(axis=(0, 1)), picture[0, 0]
            if np.abs(middle - (255, 0, 0)).max() > 8 or np.abs(corner - (0.0, 0, 255)).max() > 1:
                drawn = f"{middle.round().astype(int).tolist()} in the middle, {corner.tolist()} in a corner"
                advice = "please report this with the cpu line above"
                return Finding("test picture", "broken", f"kernel {isa} drew a red ball on blue as {drawn}; {advice}")
    except (BackendError, OSError) as error:
        return Finding("test picture", "broken", str(error))
    return Finding("test picture", "ok", f"a red ball on blue, right with {', '.join(runnable())}")


def _examine_encoders() -> list[Finding]:
    reasons = {name: try_encoder(name) for name in ENCODERS}
    opening = [name for name, reason in reasons.items() if not reason]
    failing = [f"{name} ({reason})" for name, reason in reasons.items() if reason]
    if any(name in opening for name in H264_ENCODERS):
        found = Finding("video encoders", "ok", f"these open: {', '.join(opening)}")
    else:
        found = Finding(
            "video encoders",
            "broken",
            "no H.264 encoder opens: reinstall with `pip install --force-reinstall av`",
        )
    return [found, Finding("other encoders", "absent", "; ".join(failing))] if failing else [found]


def _examine_gpu() -> Finding:
    """Ask the driver itself: importing torch would take seconds."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Finding("nvidia gpu", "absent", "no NVIDIA driver (libcuda.so.1); everything runs on the CPU")
    count, name = ctypes.c_int(), ctypes.create_string_buffer(128)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or count.value == 0:
        return Finding(
            "nvidia gpu",
            "absent",
            f"a driver but no usable card (CUDA status {status}); everything runs on the CPU",
        )
    names = []
    for device in range(count.value):
        driver.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode())
    return Finding("nvidia gpu", "ok", ", ".join(names))


def _examine_package(package: str, extra: str) -> Finding:
    try:
        return Finding(package, "ok", importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, "absent", f"optional: `pip install 'lhm-live[{extra}]'`")


def _examine_system_libraries() -> Finding:
    if sys.platform != "linux":
        return Finding("mediapipe's libraries", "ok", f"nothing to look for on {sys.platform}")
    missing = []
    for library, package in SYSTEM_LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    if missing:
        return Finding(
            "mediapipe's libraries",
            "absent",
            f"needed for avatars of photos and for tracking on the server: `sudo apt-get install {' '.join(missing)}`",
        )
    return Finding("mediapipe's libraries", "ok", ", ".join(SYSTEM_LIBRARIES))


def _examine_page() -> Finding:
    page = Path(__file__).parent / "web" / "index.html"
    if page.is_file():
        return Finding("studio page", "ok", "built")
    return Finding(
        "studio page", "absent", "nothing to see in a browser: build it with `make streaming/web/index.html`"
    )


def _examine_data_folder() -> Finding:
    try:
        folder = load_config().storage.data
    except InvalidInputError as error:
        return Finding("data folder", "broken", str(error))
    there = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding(
            "data folder", "broken", f"{folder} cannot be written; another one: `export LHM_LIVE_STORAGE__DATA=FOLDER`"
        )
    return Finding("data folder", "ok", f"{folder}, {shutil.disk_usage(there).free / 1e9:.0f} GB free")
