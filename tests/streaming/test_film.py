from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import wave
from lhm_runtime.motion.sequences import MotionSequence, save_motion
from lhm_runtime.rasterizer import Renderer
from streaming.film import Film, draw, plan_demo, plan_film, sample_frames

SIZE = (64, 96)


def joints_of(film: Film) -> np.ndarray:
    matrices = film.joint_matrices
    return np.einsum("tjab,jb->tja", matrices[..., :3], film.avatar.rest_joints) + matrices[..., 3]


def pixels_of(film: Film, points: np.ndarray, frame: int) -> np.ndarray:
    camera = film.cameras[frame]
    x, y, z = camera.T_camera_world[:3, :3] @ points.T + camera.T_camera_world[:3, 3:]
    return np.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], axis=-1)


def test_turntable_goes_round_once_at_one_distance(avatar: Avatar) -> None:
    film = plan_film(avatar, "turntable", size=SIZE, fps=10.0, seconds=2.0)
    assert len(film) == 20
    eyes = np.array([-c.T_camera_world[:3, :3].T @ c.T_camera_world[:3, 3] for c in film.cameras])
    middle = joints_of(film)[0, 0]
    yaw = np.unwrap(np.arctan2(eyes[:, 0] - middle[0], eyes[:, 2] - middle[2]))
    np.testing.assert_allclose(np.diff(yaw), 2 * np.pi / 20, atol=1e-6)
    assert yaw[0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm((eyes - middle)[:, [0, 2]], axis=1), abs(eyes[0, 2] - middle[2]))


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64)])
@pytest.mark.parametrize("framing", ["full", "half"])
def test_a_waving_hand_stays_in_the_picture(avatar: Avatar, framing: str, size: tuple[int, int]) -> None:
    film = plan_film(avatar, "wave", size=size, framing=framing, fps=10.0)  # type: ignore[arg-type]
    joints = joints_of(film)
    hand = [JOINT_INDEX[f"right_{finger}3"] for finger in ("index", "middle", "pinky", "thumb")]
    for frame in range(14, 27):  # the hand is up
        pixels = pixels_of(film, joints[frame, hand], frame)
        assert (pixels > 0).all()
        assert (pixels < size).all()
    assert all(
        camera is film.cameras[0] or (camera.T_camera_world == film.cameras[0].T_camera_world).all()
        for camera in film.cameras
    )


def test_a_film_begins_with_what_the_photo_showed(avatar: Avatar) -> None:
    for shown in ("full", "half", "head"):
        of_it = replace(avatar, metadata=replace(avatar.metadata, shown=shown))  # type: ignore[arg-type]
        asked = plan_film(avatar, "turntable", size=SIZE, framing=shown, fps=4.0)  # type: ignore[arg-type]
        left_out = plan_film(of_it, "turntable", size=SIZE, fps=4.0)
        np.testing.assert_array_equal(left_out.cameras[0].T_camera_world, asked.cameras[0].T_camera_world)


def test_half_is_nearer_than_full_and_head_nearest(avatar: Avatar) -> None:
    distances = [
        plan_film(avatar, "turntable", size=SIZE, framing=framing, fps=4.0).cameras[0].T_camera_world[2, 3]
        for framing in ("head", "half", "full")
    ]
    assert distances[0] < distances[1] < distances[2]


def test_a_walk_out_of_the_picture_moves_the_camera_back(avatar: Avatar, tmp_path: Path) -> None:
    standing = wave(2.0, 10.0)
    away = standing.transl + np.linspace(0, 2, 20, dtype=np.float32)[:, None] * np.array([1, 0, 0], np.float32)
    save_motion(
        tmp_path / "walk.npz",
        MotionSequence(standing.rotvec, away, standing.expression, standing.timestamps_s, ()),
    )
    film = plan_film(avatar, str(tmp_path / "walk.npz"), size=SIZE, fps=10.0)
    pixels = pixels_of(film, joints_of(film)[-1], -1)
    assert (pixels > 0).all()
    assert (pixels < SIZE).all()


def test_recordings_are_resampled_cut_and_given_the_avatars_face(avatar: Avatar, tmp_path: Path) -> None:
    save_motion(tmp_path / "m.npz", wave(2.0, 50.0, ("mouthSmileLeft", "unheardOf")))
    path = str(tmp_path / "m.npz")
    whole = plan_film(avatar, path, size=SIZE, fps=25.0)
    assert len(whole) == 50
    assert len(plan_film(avatar, path, size=SIZE, fps=25.0, seconds=1.0)) == 25
    assert len(plan_film(avatar, path, size=SIZE, fps=25.0, seconds=100.0)) == 50
    assert whole.expression.shape == (50, len(avatar.expression_names))
    smile = avatar.expression_names.index("mouthSmileLeft")
    assert whole.expression[25, smile] > 0.3
    assert not np.delete(whole.expression, smile, axis=1).any()


@pytest.mark.parametrize("seconds", [0.0, -1.0, np.nan])
def test_lengths_must_be_positive(avatar: Avatar, tmp_path: Path, seconds: float) -> None:
    save_motion(tmp_path / "m.npz", wave(1.0, 10.0))
    for pose in ("wave", "turntable", str(tmp_path / "m.npz")):
        with pytest.raises(InvalidInputError, match=r"seconds|no motion"):
            plan_film(avatar, pose, size=SIZE, seconds=seconds)


def test_unknown_pose(avatar: Avatar) -> None:
    with pytest.raises(InvalidInputError, match="'moonwalk' is neither wave nor turntable"):
        plan_film(avatar, "moonwalk", size=SIZE)


def test_demo_is_one_shot_without_a_jump(avatar: Avatar) -> None:
    film = plan_demo(avatar, size=SIZE)
    points = joints_of(film)
    pixels = np.array([pixels_of(film, points[i], i) for i in range(len(film))])
    steps = np.abs(np.diff(pixels, axis=0)).max(axis=(1, 2))
    assert steps.max() < 6  # the waving hand; a cut would be tens of pixels
    assert steps[175:185].max() < 0.5  # the turn has come to rest where the wave begins
    assert (pixels > 0).all()
    assert (pixels < SIZE).all()


def test_drawn_frames_show_the_person_on_the_background(avatar: Avatar) -> None:
    film = plan_film(avatar, "turntable", size=SIZE, fps=4.0, seconds=1.0)
    with Renderer(avatar) as renderer:
        pictures = [picture.copy() for picture in draw(film, renderer, "rgb", background=(0.0, 1.0, 0.0))]
        alphas = [picture[..., 3].copy() for picture in draw(film, renderer, "rgba", frames=[0, 2])]
    assert len(pictures) == 4
    assert len(alphas) == 2
    for picture in pictures:
        assert picture.shape == (96, 64, 3)
        np.testing.assert_array_equal(picture[0, 0], [0, 255, 0])
    np.testing.assert_array_equal(alphas[1] == 0, (pictures[2] == (0, 255, 0)).all(axis=-1))
    assert alphas[0][48, 32] > 200
    front, back = pictures[0][4:20, 24:40].astype(int), pictures[2][4:20, 24:40].astype(int)
    assert np.abs(front - back).mean() > 5  # a face is not the back of a head


def test_sampled_frames_are_spread_evenly() -> None:
    assert sample_frames(16, 8) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert sample_frames(3, 8) == [0, 1, 2]
    assert sample_frames(8, 8) == list(range(8))
