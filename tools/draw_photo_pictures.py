"""Draw docs/images/photos.jpg: what becomes of good and of difficult photos, of people who may be shown.

python tools/draw_photo_pictures.py
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import lhm_runtime
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Renderer, frame_person
from lhm_runtime.reconstruction import reconstruct
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.photo import see_person
from lhm_runtime.reconstruction.still_models import StillModels
from streaming.preview import draw_preview

ASSETS = Path(lhm_runtime.__file__).parent / "assets"
OUT = Path(__file__).parents[1] / "docs" / "images" / "photos.jpg"
SHOWN = (0, 1, 3, 4, 5, 7)  # of the preview's tiles: photo, same view, 30, 90 and 180 degrees, arms up
TILE = (150, 200)
TITLE_PX = 24
WALL = (0.72, 0.71, 0.68)

POSES: dict[str, tuple[float, dict[str, tuple[float, float, float]]]] = {
    "seen from the side": (90.0, {}),
    "seen from behind": (180.0, {}),
    "sitting": (
        20.0,
        {"left_hip": (-1.5, 0, 0), "right_hip": (-1.5, 0, 0), "left_knee": (1.5, 0, 0), "right_knee": (1.5, 0, 0)},
    ),
    "arms crossed": (
        0.0,
        {
            "left_shoulder": (0, -0.9, -1.1),
            "right_shoulder": (0, 0.9, 1.1),
            "left_elbow": (0, -1.9, 0),
            "right_elbow": (0, 1.9, 0),
        },
    ),
}


def photos() -> Iterator[tuple[str, np.ndarray]]:
    """Titles and pictures, the good ones first."""
    person = np.asarray(Image.open(ASSETS / "demo_person.png").convert("RGB"))
    yield "all of the person, from the front, arms away from the body: good", person
    portrait = np.asarray(Image.open(ASSETS / "demo_portrait.png").convert("RGB"))
    yield "a portrait: good to the waist, legs made up", portrait
    yield "only a face", portrait[40:240, 120:320]
    yield (
        "a dark silhouette",
        np.where(np.abs(person.astype(int) - person[8, 8]).max(axis=2, keepdims=True) > 40, 10, person),
    )
    avatar = build_person(40_000)
    with Renderer(avatar) as renderer:
        for title, (yaw_deg, turns) in POSES.items():
            pose = relaxed_pose(avatar.expression_names)
            rotvec = pose.rotvec.copy()
            for joint, turn in turns.items():
                rotvec[JOINT_INDEX[joint]] = turn
            pose = replace(pose, rotvec=rotvec)
            joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)[:, :3, 3]
            camera = frame_person(joints, "full", 720, 960, yaw=float(np.radians(yaw_deg)))
            matrices = joint_matrices(pose, avatar.rest_joints)
            yield title, renderer.render(matrices, pose.expression, camera, pixel_format="rgb", background=WALL)


def main() -> None:
    """Draw it, and print what was said of each photo."""
    rows: list[np.ndarray] = []
    with StillModels() as models:
        for title, rgb in photos():
            made = reconstruct(see_person(rgb.astype(np.uint8), name=title, models=models))
            print(title, *made.warnings, sep="\n    ")
            tiles = draw_preview(made)
            small = [np.asarray(Image.fromarray(tiles[k]).resize(TILE, Image.Resampling.LANCZOS)) for k in SHOWN]
            rows += [headline(title, TILE[0] * len(SHOWN)), np.concatenate(small, axis=1)]
    Image.fromarray(np.concatenate(rows)).save(OUT, quality=82)


def headline(text: str, width: int) -> np.ndarray:
    """A strip with words."""
    strip = Image.new("RGB", (width, TITLE_PX), "white")
    ImageDraw.Draw(strip).text((6, TITLE_PX // 2), text, "black", ImageFont.load_default(14), anchor="lm")
    return np.asarray(strip)


if __name__ == "__main__":
    main()
