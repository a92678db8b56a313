"""Pictures of the built-in person, which MediaPipe takes for one."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

import lhm_runtime
from lhm_runtime.avatar import Avatar
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.motion.procedural import wave
from lhm_runtime.motion.sequences import MotionSequence
from lhm_runtime.rasterizer import Framing, Renderer, frame_person
from lhm_runtime.reconstruction.builtin_person import build_person

BACKGROUND = (0.8, 0.82, 0.85)
DEMO_PERSON = Path(lhm_runtime.__file__).parent / "assets" / "demo_person.png"


def small_demo_person(folder: Path) -> Path:
    """The demo's photo, half as large, which takes half as long."""
    path = folder / "person.png"
    with Image.open(DEMO_PERSON) as opened:
        opened.reduce(2).save(path)
    return path


@cache
def person() -> Avatar:
    return build_person(20_000)


@cache
def waving() -> MotionSequence:
    return wave(4.0, 15.0, person().expression_names)


@cache
def picture_of_person(frame: int = 0, framing: Framing = "full", width: int = 360, height: int = 640) -> np.ndarray:
    """RGB of the person at ``frame`` of a wave, uint8 [height, width, 3], not to be written to; the camera stays."""
    avatar, motion = person(), waving()
    first, pose = (joint_matrices(motion.pose(i), avatar.rest_joints) for i in (0, frame))
    joints = np.einsum("jab,jb->ja", first[..., :3], avatar.rest_joints) + first[..., 3]
    camera = frame_person(joints, framing, width, height)
    with Renderer(avatar) as renderer:
        rgb = renderer.render(pose, motion.expression[frame], camera, pixel_format="rgb", background=BACKGROUND)
    rgb.setflags(write=False)
    return rgb
