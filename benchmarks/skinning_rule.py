"""Which rotation does a Gaussian take under linear blend skinning? Two rules, compared in pictures.

quaternion   the blended matrix as a quaternion, normalised, times the Gaussian's own (LHM's rule, and the product's)
covariance   C -> A C A^T with the blended 3x3 matrix A

Poses are every nth frame of the procedural wave and of the recordings in ../shared/data/motion, where that folder is
there; the avatar is the built-in person. Prints JSON: PSNR over the whole 512x512 picture on white and inside the
person's bounding box, per motion.

    python benchmarks/skinning_rule.py
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lhm_runtime.avatar import Avatar, pose_gaussians
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.body.rotations import matrix_to_quat_wxyz, quat_wxyz_to_matrix
from lhm_runtime.motion.procedural import wave
from lhm_runtime.motion.sequences import MotionSequence, load_motion
from lhm_runtime.rasterizer import Framing, frame_person, rasterize
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.types import Gaussians, SmplxPose
from streaming.bench.machine import this_machine

MOTIONS = Path(__file__).parents[2] / "shared" / "data" / "motion"
FRAMES = 8
WHITE = (1.0, 1.0, 1.0)


def pose_by_covariance(avatar: Avatar, matrices: np.ndarray) -> Gaussians:
    """A C A^T, read back as orthogonal axes by a singular value decomposition of A times the axes."""
    blended = (avatar.skin_weights[:, :, None, None] * matrices[avatar.skin_joints]).sum(1)
    A, rest = blended[:, :, :3], avatar.gaussians
    means = (A @ rest.means[:, :, None])[:, :, 0] + blended[:, :, 3]
    axes, scales, _ = np.linalg.svd(A @ (quat_wxyz_to_matrix(rest.quat_wxyz) * rest.scales[:, None]))
    axes[:, :, 2] *= np.linalg.det(axes)[:, None]  # right-handed; an axis has no sign
    return Gaussians(means, matrix_to_quat_wxyz(axes), scales, rest.opacity, rest.rgb)


def compare(avatar: Avatar, pose: SmplxPose, framing: Framing) -> tuple[float, float]:
    """PSNR of the picture, and of the person's box in it, decibels."""
    matrices = joint_matrices(pose, avatar.rest_joints)
    joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)[:, :3, 3]
    camera = frame_person(joints, framing, 512, 512, yaw=0.4)
    pictures = [
        rasterize(gaussians, camera, pixel_format="rgb", background=WHITE).astype(np.float64) / 255
        for gaussians in (pose_gaussians(avatar, matrices), pose_by_covariance(avatar, matrices))
    ]
    rows, columns = np.nonzero((pictures[0] < 1).any(axis=2))
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return _psnr(*pictures), _psnr(pictures[0][box], pictures[1][box])


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def main() -> None:
    """Print the table as JSON."""
    avatar = build_person()
    motions: dict[str, MotionSequence] = {"wave": wave(4.0, 30.0)}
    if MOTIONS.is_dir():
        for path in sorted(MOTIONS.iterdir()):
            motions[path.stem] = load_motion(path)
    report: dict[str, object] = {"machine": asdict(this_machine()), "frames_each": FRAMES}
    for name, motion in motions.items():
        for framing in ("full", "half"):
            chosen = np.linspace(0, len(motion) - 1, FRAMES).round().astype(int)
            results = np.array([compare(avatar, motion.pose(int(i)), framing) for i in chosen])
            report[f"{name}, {framing}"] = {
                "picture_db": {
                    "median": round(float(np.median(results[:, 0])), 1),
                    "min": round(results[:, 0].min(), 1),
                },
                "box_db": {"median": round(float(np.median(results[:, 1])), 1), "min": round(results[:, 1].min(), 1)},
            }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
