"""Photos that nobody would choose, all the way: each becomes an avatar that says what is unsure, or one sentence."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from people import DEMO_PERSON
from PIL import Image

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.errors import PhotoError
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Renderer, frame_person
from lhm_runtime.reconstruction import reconstruct
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.photo import read_photo
from lhm_runtime.reconstruction.still_models import StillModels

WALL = (0.72, 0.71, 0.68)


@pytest.fixture(scope="module")
def models() -> Iterator[StillModels]:
    with StillModels() as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> Avatar:
    """Who is photographed in every pose."""
    return build_person(20_000)


def outcome(path: Path, models: StillModels) -> str:
    """What is said of a photo: the warnings of its avatar, or why there is none."""
    try:
        photo = read_photo(path, models=models)
    except PhotoError as error:
        return f"refused: {error}"
    made = reconstruct(photo, count=10_000)
    made.avatar.validate()
    assert made.avatar.metadata.shown == photo.shot
    return "made: " + "; ".join(made.warnings)


def grey(rgb: np.ndarray) -> np.ndarray:
    return rgb[::2, ::2].mean(axis=2, keepdims=True).repeat(3, axis=2)


def silhouette(rgb: np.ndarray) -> np.ndarray:
    person = np.abs(rgb.astype(int) - rgb[8, 8]).max(axis=2) > 40
    return np.where(person[:, :, None], 10, rgb)


def thumbnail(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).resize((64, 85), Image.Resampling.LANCZOS))


def enormous(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).resize((6700, 8933), Image.Resampling.NEAREST))


def face_only(rgb: np.ndarray) -> np.ndarray:
    return rgb[70:300, 470:685]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (grey, "made: .*black and white"),
        (silhouette, "made: .*dark silhouette|refused: nobody was found"),
        (thumbnail, "made: .*pixels high|refused: .*(nobody was found|pixels large)"),
        (enormous, "made: $"),
        (face_only, "made: .*legs are not in view"),
    ],
)
def test_a_poor_picture(
    change: Callable[[np.ndarray], np.ndarray], said: str, tmp_path: Path, models: StillModels
) -> None:
    rgb = np.asarray(Image.open(DEMO_PERSON).convert("RGB"))
    path = tmp_path / "photo.jpg"
    Image.fromarray(change(rgb).astype(np.uint8)).save(path, quality=90)
    assert re.match(said, outcome(path, models))


POSES: dict[str, tuple[float, dict[str, tuple[float, float, float]], str]] = {
    "behind": (180.0, {}, "seen from behind"),
    "profile": (90.0, {}, "seen from the side"),
    "lying": (0.0, {"pelvis": (0, 0, 1.5)}, "lying|nobody was found"),
    "sitting": (
        20.0,
        {"left_hip": (-1.5, 0, 0), "right_hip": (-1.5, 0, 0), "left_knee": (1.5, 0, 0), "right_knee": (1.5, 0, 0)},
        "sitting",
    ),
    "arms crossed": (
        0.0,
        {
            "left_shoulder": (0, -0.9, -1.1),
            "right_shoulder": (0, 0.9, 1.1),
            "left_elbow": (0, -1.9, 0),
            "right_elbow": (0, 1.9, 0),
        },
        "arms are crossed|an arm is before the body",
    ),
    "hand before the face": (
        0.0,
        {"left_shoulder": (-0.85, -1.05, 0.28), "left_elbow": (0, -1.94, 0)},
        "hand is before the face|no face was found",
    ),
}


@pytest.mark.parametrize("name", POSES)
def test_a_poor_pose(name: str, model: Avatar, tmp_path: Path, models: StillModels) -> None:
    yaw_deg, turns, said = POSES[name]
    pose = relaxed_pose(model.expression_names)
    rotvec = pose.rotvec.copy()
    for joint, turn in turns.items():
        rotvec[JOINT_INDEX[joint]] = turn
    pose = replace(pose, rotvec=rotvec)
    joints = forward_kinematics(pose.rotvec, model.rest_joints, pose.transl)[:, :3, 3]
    camera = frame_person(joints, "full", 450, 600, yaw=float(np.radians(yaw_deg)))
    with Renderer(model) as renderer:
        matrices = joint_matrices(pose, model.rest_joints)
        photo = renderer.render(matrices, pose.expression, camera, pixel_format="rgb", background=WALL)
    Image.fromarray(photo).save(tmp_path / "photo.png", compress_level=1)
    assert re.search(said, outcome(tmp_path / "photo.png", models))


def test_a_damaged_file(tmp_path: Path, models: StillModels) -> None:
    data = DEMO_PERSON.read_bytes()
    path = tmp_path / "photo.png"
    for damaged in (data[: len(data) // 3], b"\xff\xd8\xff" + data[3:], b"", data[:33] + bytes(4000)):
        path.write_bytes(damaged)
        said = outcome(path, models)
        assert said.startswith("refused: ")
        assert str(path) in said
        assert "\n" not in said
