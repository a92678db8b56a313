"""The kernel against the prototype it grew from, in turn in one process on the same scene.

Needs ../shared/prototypes/raster and g++. The scene is the built-in person cut to four joints a Gaussian (all that the
prototype knows); ours writes I420, the prototype RGBA8 (it has no other). `exact` is gsplat's stop rule, `inclusive`
the default (the prototype's inclusive build also has a coarser exponential, 85 dB). Prints JSON: median CPU
milliseconds and the median of the ratios frame by frame.

    python benchmarks/prototype_ratio.py
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Renderer, frame_person
from lhm_runtime.rasterizer.cpu import library
from lhm_runtime.rasterizer.cpu.scene import morton_order
from lhm_runtime.rasterizer.reference import covariances
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.types import Camera
from streaming.bench.machine import this_machine

PROTOTYPE = Path(__file__).parents[2] / "shared" / "prototypes" / "raster" / "raster_impl.h"
ARCH = {"v2": ["-march=x86-64"], "v3": ["-march=x86-64-v3"], "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}
FRAMES = 60


def build(folder: Path, isa: str, *, exact: bool) -> ctypes.CDLL:
    """Compile the prototype with the flags of its own build.sh."""
    library_path = folder / f"{isa}{exact}.so"
    flags = (
        "-std=c++17 -O3 -fno-math-errno -fno-trapping-math -fno-signed-zeros -ffp-contract=fast -fPIC -shared -pthread"
    )
    rule = [] if exact else ["-DEXACT=0", "-DEXPDEG=3"]
    names = ["-DPFX(x)=p_##x", "-DNS=ns_p", "-Wno-parentheses", *rule, *ARCH[isa]]
    command = ["g++", *flags.split(), *names, "-x", "c++", str(PROTOTYPE), "-o", str(library_path)]
    subprocess.run(command, check=True, capture_output=True)
    return ctypes.CDLL(str(library_path))


class Prototype:
    """One avatar in the prototype kernel."""

    def __init__(self, lib: ctypes.CDLL, avatar: Avatar) -> None:
        self.lib = lib
        lib.p_create.restype = ctypes.c_void_p
        order = morton_order(avatar.gaussians.means)
        cov = covariances(avatar.gaussians)[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
        arrays = (avatar.gaussians.means, cov, avatar.gaussians.opacity, avatar.gaussians.rgb)
        kept = [np.ascontiguousarray(a[order], np.float32) for a in arrays]
        kept += [np.ascontiguousarray(avatar.skin_joints[order]), np.ascontiguousarray(avatar.skin_weights[order])]
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in kept]
        self.handle = ctypes.c_void_p(lib.p_create(len(order), *pointers))

    def cpu_ms(self, matrices: np.ndarray, camera: Camera, out: np.ndarray) -> float:
        """Draw one frame and say how long it took."""
        T = camera.T_camera_world
        focal = [camera.fx, camera.fy, camera.cx, camera.cy]
        view = np.concatenate([T[:3, :3].ravel(), T[:3, 3], focal]).astype(np.float32)
        times, background = np.zeros(12), np.zeros(4, np.float32)
        self.lib.p_render(
            self.handle,
            ctypes.c_void_p(matrices.ctypes.data),
            len(matrices),
            ctypes.c_void_p(view.ctypes.data),
            camera.width,
            camera.height,
            1,
            ctypes.c_void_p(out.ctypes.data),
            0,
            ctypes.c_void_p(background.ctypes.data),
            ctypes.c_void_p(times.ctypes.data),
            None,
        )
        return float(times[9])


def four_joints(avatar: Avatar) -> Avatar:
    """The same person with at most four joints a Gaussian."""
    weights = avatar.skin_weights[:, :4]
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return replace(avatar, skin_joints=np.ascontiguousarray(avatar.skin_joints[:, :4]), skin_weights=weights)


def main() -> None:
    """Print the table as JSON."""
    if not PROTOTYPE.is_file():
        sys.exit("the prototype is not here: this comparison needs ../shared/prototypes/raster")
    avatar = four_joints(build_person())
    pose = relaxed_pose(avatar.expression_names)
    matrices = joint_matrices(pose, avatar.rest_joints)
    joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)[:, :3, 3]
    report: dict[str, object] = {"machine": asdict(this_machine()), "frames": FRAMES, "runnable": library.runnable()}
    with tempfile.TemporaryDirectory() as folder:
        for isa in library.runnable():
            renderer = Renderer(avatar, isa=isa)
            for exact in (True, False):
                prototype = Prototype(build(Path(folder), isa, exact=exact), avatar)
                for size in (512, 1024):
                    camera = frame_person(joints, "full", size, size, yaw=0.35)
                    rgba, i420 = np.empty((size, size, 4), np.uint8), np.empty((size * 3 // 2, size), np.uint8)
                    pairs = []
                    for _ in range(FRAMES + 5):
                        theirs = prototype.cpu_ms(matrices, camera, rgba)
                        rule = "gsplat" if exact else "inclusive"
                        profile = renderer.profile(matrices, None, camera, i420, stop_rule=rule)
                        pairs.append((profile.total_ms, theirs))
                    ours_ms, theirs_ms = np.array(pairs[5:]).T
                    report[f"{isa} {size} {'exact' if exact else 'inclusive'}"] = {
                        "ours_ms": round(float(np.median(ours_ms)), 3),
                        "prototype_ms": round(float(np.median(theirs_ms)), 3),
                        "ratio": round(float(np.median(ours_ms / theirs_ms)), 3),
                    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
