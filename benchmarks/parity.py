"""The kernel against the float64 reference on the built-in person: 40,000 Gaussians at 512x512, every kernel and rule.

Prints JSON: PSNR and largest error outside the boundary band (reference.py says what that is), and its size. A minute.

    python benchmarks/parity.py
"""

import json
from dataclasses import asdict

import numpy as np

from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.motion.procedural import wave
from lhm_runtime.rasterizer import Renderer, frame_person
from lhm_runtime.rasterizer.contract import STOP_RULES
from lhm_runtime.rasterizer.cpu import library
from lhm_runtime.rasterizer.reference import rasterize_reference, warp
from lhm_runtime.reconstruction.builtin_person import build_person
from streaming.bench.machine import this_machine


def main() -> None:
    """Print the table as JSON."""
    avatar = build_person()
    pose = wave(4.0, 30.0, avatar.expression_names).pose(50)
    matrices = joint_matrices(pose, avatar.rest_joints)
    joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)[:, :3, 3]
    camera = frame_person(joints, "full", 512, 512, yaw=0.35)
    means, covs = warp(avatar, matrices, pose.expression)
    report: dict[str, object] = {"machine": asdict(this_machine())}
    for rule in STOP_RULES:
        reference = rasterize_reference(means, covs, avatar.gaussians.opacity, avatar.gaussians.rgb, camera, rule)
        inside = ~reference.boundary
        for isa in library.runnable():
            picture = Renderer(avatar, isa=isa).render(
                matrices, pose.expression, camera, pixel_format="float", stop_rule=rule
            )
            error = np.abs(picture - reference.rgba).max(axis=2)
            report[f"{isa} {rule}"] = {
                "psnr_db": round(float(-10 * np.log10(np.mean((picture - reference.rgba)[inside] ** 2))), 1),
                "max_error": round(float(error[inside].max()), 6),
                "max_error_in_band": round(float(error[~inside].max(initial=0)), 5),
                "band_share": round(float((~inside).mean()), 5),
            }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
