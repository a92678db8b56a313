"""What a long session costs beyond its frames: memory growth, and the time to the first picture.

Each is measured in fresh processes. Prints JSON.

    python benchmarks/steady_state.py [FRAMES]
"""

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lhm_runtime.avatar import save_avatar
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming.bench.machine import this_machine

COLD_STARTS = 5
FIRST_PICTURE = """
import time
start = time.perf_counter()
import sys
from pathlib import Path
from lhm_runtime.avatar import load_avatar
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Renderer, frame_person
avatar = load_avatar(Path(sys.argv[1]))
pose = relaxed_pose(avatar.expression_names)
camera = frame_person(avatar.rest_joints, "full", 512, 512)
renderer = Renderer(avatar)
renderer.render(joint_matrices(pose, avatar.rest_joints), pose.expression, camera, pixel_format="i420")
print(time.perf_counter() - start)
"""


def rss_growth(frames: int) -> int:
    """Bytes of resident memory gained over ``frames`` frames of a waving person, after the first hundred."""
    from lhm_runtime.body.kinematics import joint_matrices  # noqa: PLC0415
    from lhm_runtime.motion.procedural import wave  # noqa: PLC0415
    from lhm_runtime.rasterizer import Renderer, frame_person  # noqa: PLC0415

    avatar = build_person()
    motion = wave(4.0, 30.0, avatar.expression_names)
    poses = [motion.pose(i) for i in range(len(motion))]
    camera = frame_person(avatar.rest_joints, "full", 128, 128)
    renderer, out = Renderer(avatar, threads=2), np.empty((192, 128), np.uint8)

    def draw(i: int) -> None:
        pose = poses[i % len(poses)]
        matrices = joint_matrices(pose, avatar.rest_joints)
        renderer.render(matrices, pose.expression, camera, pixel_format="i420", out=out)

    for i in range(2 * len(poses)):
        draw(i)
    before = _rss()
    for i in range(frames):
        draw(i)
    return _rss() - before


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """Print the figures as JSON."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "person.avatar"
        save_avatar(build_person(), path)
        starts = [
            float(subprocess.run([sys.executable, "-c", FIRST_PICTURE, path], check=True, capture_output=True).stdout)
            for _ in range(COLD_STARTS)
        ]
    report = {
        "machine": asdict(this_machine()),
        "import_to_first_picture_s": {"median": round(float(np.median(starts)), 3), "min": round(min(starts), 3)},
        "frames": frames,
        "rss_growth_bytes": rss_growth(frames),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
