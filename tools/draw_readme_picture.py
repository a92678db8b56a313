"""Draw docs/images/person.png: the built-in person as the README shows her. Run after changing her look.

python tools/draw_readme_picture.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.motion.procedural import relaxed_pose, wave
from lhm_runtime.rasterizer import Framing, Renderer, frame_person
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.types import SmplxPose

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "person.png"
BACKGROUND = (0.914, 0.925, 0.937)
HEIGHT = 560


def main() -> None:
    """Draw."""
    avatar = build_person()
    renderer = Renderer(avatar)
    names = avatar.expression_names
    waving, still = wave(4.0, 30.0, names).pose(50), relaxed_pose(names)

    def draw(pose: SmplxPose, framing: Framing, width: int, yaw: float) -> np.ndarray:
        joints = forward_kinematics(still.rotvec, avatar.rest_joints, still.transl)[:, :3, 3]
        camera = frame_person(joints, framing, 2 * width, 2 * HEIGHT, yaw=yaw)
        matrices = joint_matrices(pose, avatar.rest_joints)
        return renderer.render(matrices, pose.expression, camera, pixel_format="rgb", background=BACKGROUND)

    row = [draw(still, "full", 280, -0.6), draw(waving, "full", 360, 0.25), draw(waving, "head", 480, -0.35)]
    sheet = Image.fromarray(np.hstack(row))
    sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
