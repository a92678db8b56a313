import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from motions import random_motion
from scipy.spatial.transform import Rotation

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.errors import InvalidInputError, MotionFileError
from lhm_runtime.motion.sequences import (
    LHM_FPS,
    MotionSequence,
    load_motion,
    read_bvh,
    read_lhm_folder,
    write_amass,
    write_bvh,
    write_lhm_folder,
)

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "motion"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="real motions of ../shared are absent")


def amass_arrays(frames: int = 5, columns: int = 156, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "poses": rng.normal(0, 0.5, (frames, columns)),
        "trans": rng.normal(size=(frames, 3)),
        "mocap_framerate": np.array(120.0),
        "gender": np.array("male"),
    }


def lhm_frame(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {
        "root_pose": (3,),
        "body_pose": (21, 3),
        "jaw_pose": (3,),
        "leye_pose": (3,),
        "reye_pose": (3,),
        "lhand_pose": (15, 3),
        "rhand_pose": (15, 3),
        "trans": (3,),
    }
    frame: dict[str, Any] = {key: rng.normal(0, 0.5, shape).tolist() for key, shape in shapes.items()}
    return {**frame, "betas": [0.0] * 10, "focal": [1000.0, 1000.0], "pad_ratio": 0.2}


def write_clip(folder: Path, frames: dict[str, Any]) -> Path:
    (folder / "smplx_params").mkdir(parents=True)
    for name, frame in frames.items():
        (folder / "smplx_params" / name).write_text(json.dumps(frame))
    return folder


class TestUnknownFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MotionFileError, match="does not exist"):
            load_motion(tmp_path / "nothing.npz")

    def test_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.npz").write_text("hello")
        with pytest.raises(MotionFileError, match=r"a\.npz is not a motion"):
            load_motion(tmp_path / "a.npz")

    def test_single_array(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros(3))
        with pytest.raises(MotionFileError, match="single array"):
            load_motion(tmp_path / "a.npy")

    def test_other_archive_lists_what_it_holds(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", cats=np.zeros(3))
        with pytest.raises(MotionFileError, match="holds cats: neither"):
            load_motion(tmp_path / "a.npz")

    def test_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(MotionFileError, match=r"no \*\.json"):
            load_motion(tmp_path)


class TestAmass:
    def test_z_up_becomes_y_up(self, tmp_path: Path) -> None:
        """Joints move as one rigid world turn, up to a constant offset for the other body's pelvis."""
        arrays = amass_arrays(columns=165)
        np.savez(tmp_path / "a.npz", **arrays)
        motion = load_motion(tmp_path / "a.npz")
        rest = BodyModel.default().rest_joints()
        theirs = np.array(
            [
                forward_kinematics(pose.reshape(55, 3), rest, trans)[:, :3, 3]
                for pose, trans in zip(arrays["poses"], arrays["trans"], strict=True)
            ]
        )
        ours = np.array(
            [forward_kinematics(motion.rotvec[i], rest, motion.transl[i])[:, :3, 3] for i in range(len(motion))]
        )
        np.testing.assert_allclose(np.ptp(ours[..., 1] - theirs[..., 2]), 0, atol=1e-5)  # their z is our y
        first, second = ours[0] - ours[0, 0], theirs[0] - theirs[0, 0]
        turn, _ = Rotation.align_vectors(first, second)
        expected = theirs @ turn.as_matrix().T
        np.testing.assert_allclose(ours - ours[0, 0], expected - expected[0, 0], atol=2e-4)

    def test_first_frame_faces_front(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", **amass_arrays(seed=3))
        facing = Rotation.from_rotvec(load_motion(tmp_path / "a.npz").rotvec[0, 0]).apply([0.0, 0.0, 1.0])
        assert abs(facing[0]) < 1e-5
        assert facing[2] > 0

    def test_a_standing_actor_stands(self, tmp_path: Path) -> None:
        arrays = amass_arrays()
        arrays["poses"] = np.zeros((5, 156))
        arrays["poses"][:, 0] = np.pi / 2  # AMASS: the body's y axis lifted to the world's z
        np.savez(tmp_path / "a.npz", **arrays)
        np.testing.assert_allclose(load_motion(tmp_path / "a.npz").rotvec, 0, atol=1e-6)

    def test_parts_equal_the_whole(self, tmp_path: Path) -> None:
        arrays = amass_arrays(columns=165)
        poses = arrays["poses"]
        np.savez(tmp_path / "whole.npz", **arrays)
        np.savez(
            tmp_path / "parts.npz",
            root_orient=poses[:, :3],
            pose_body=poses[:, 3:66],
            pose_jaw=poses[:, 66:69],
            pose_eye=poses[:, 69:75],
            pose_hand=poses[:, 75:],
            trans=arrays["trans"],
            mocap_frame_rate=np.array(120.0),
        )
        whole, parts = load_motion(tmp_path / "whole.npz"), load_motion(tmp_path / "parts.npz")
        np.testing.assert_array_equal(whole.rotvec, parts.rotvec)
        np.testing.assert_array_equal(whole.transl, parts.transl)
        np.testing.assert_allclose(parts.timestamps_s, np.arange(5) / 120)

    def test_smplh_has_hands_but_no_face(self, tmp_path: Path) -> None:
        arrays = amass_arrays()
        np.savez(tmp_path / "a.npz", **arrays)
        motion = load_motion(tmp_path / "a.npz")
        assert not motion.rotvec[:, 22:25].any()
        np.testing.assert_allclose(motion.rotvec[:, 25:].reshape(5, 90), arrays["poses"][:, 66:], rtol=1e-6)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"poses": np.zeros((5, 72))}, "72 columns, expected 156"),
            ({"poses": np.zeros((4, 156))}, r"poses has shape \(4, 156\)"),
            ({"trans": None}, "lacks 'trans'"),
            ({"trans": np.zeros((0, 3)), "poses": np.zeros((0, 156))}, "no frames"),
            ({"trans": np.full((5, 3), np.inf)}, r"trans\[0, 0\] is inf"),
            ({"mocap_framerate": None}, "lacks 'mocap_frame_rate'"),
            ({"mocap_framerate": np.array(0.0)}, "is 0.0, expected a positive"),
            ({"mocap_framerate": np.array("fast")}, "expected numbers"),
            ({"poses": np.full((5, 156), 1e39)}, "rotvec"),
        ],
    )
    def test_each_fault_has_its_message(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        arrays = {key: value for key, value in {**amass_arrays(), **change}.items() if value is not None}
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(MotionFileError, match=message):
            load_motion(tmp_path / "a.npz")


class TestLhmFolder:
    def test_camera_space_becomes_our_world(self, tmp_path: Path) -> None:
        frames = [lhm_frame(seed) for seed in range(3)]
        motion = load_motion(write_clip(tmp_path / "clip", {f"{i + 1:05d}.json": f for i, f in enumerate(frames)}))
        rest = BodyModel.default().rest_joints()
        for i, frame in enumerate(frames):
            camera = forward_kinematics(_rotvec_of(frame), rest, np.array(frame["trans"]))[:, :3, 3]
            ours = forward_kinematics(motion.rotvec[i], rest, motion.transl[i])[:, :3, 3]
            np.testing.assert_allclose(ours, camera * [1, -1, -1], atol=1e-3)  # pelvis differs by under 1 mm

    def test_numbers_are_frames(self, tmp_path: Path) -> None:
        clip = write_clip(
            tmp_path / "clip", {"00002.json": lhm_frame(), "10.json": lhm_frame(), "00005.json": lhm_frame()}
        )
        np.testing.assert_allclose(load_motion(clip).timestamps_s, [0, 0.1, 8 / 30])
        np.testing.assert_allclose(read_lhm_folder(clip / "smplx_params", fps=10.0).timestamps_s, [0, 0.3, 0.8])

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda frame: frame.pop("jaw_pose"), "lacks 'jaw_pose'"),
            (lambda frame: frame.update(trans=[1.0, 2.0]), r"trans has shape \(2,\)"),
            (lambda frame: frame.update(body_pose=[[0.0] * 3] * 20 + [[0.0]]), "body_pose is unusable"),
            (lambda frame: frame.update(root_pose=["a", "b", "c"]), "root_pose is unusable"),
            (lambda frame: frame.update(root_pose=None), "root_pose"),
            (
                lambda frame: frame["rhand_pose"][14].__setitem__(1, float("nan")),
                r"rhand_pose\[14, 1\] is nan",
            ),
        ],
    )
    def test_each_fault_names_its_file(
        self, tmp_path: Path, spoil: Callable[[dict[str, Any]], object], message: str
    ) -> None:
        bad = lhm_frame()
        spoil(bad)
        clip = write_clip(tmp_path / "clip", {"00001.json": lhm_frame(), "00002.json": bad})
        with pytest.raises(MotionFileError, match=rf"00002\.json.*{message}"):
            load_motion(clip)

    def test_names_must_be_numbers_and_differ(self, tmp_path: Path) -> None:
        with pytest.raises(MotionFileError, match=r"first\.json.*by number"):
            load_motion(write_clip(tmp_path / "a", {"first.json": lhm_frame()}))
        with pytest.raises(MotionFileError, match=r"timestamps_s\[1\]"):
            load_motion(write_clip(tmp_path / "b", {"1.json": lhm_frame(), "00001.json": lhm_frame()}))

    @pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\xff"])
    def test_broken_json(self, tmp_path: Path, text: str) -> None:
        clip = write_clip(tmp_path / "clip", {"00001.json": lhm_frame()})
        (clip / "smplx_params" / "00002.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(MotionFileError, match=r"00002\.json"):
            load_motion(clip)


@pytest.mark.shared
@needs_shared
class TestRealFiles:
    def test_amass_and_its_lhm_conversion_agree(self) -> None:
        """The clip was made from the recording at a quarter of its rate, with its own pelvis estimate."""
        amass, clip = load_motion(SHARED / "amass_sample.npz"), load_motion(SHARED / "seq_amass")
        assert len(amass) == 601
        assert len(clip) == 151
        again = amass.resample(30.0)
        np.testing.assert_allclose(again.timestamps_s, clip.timestamps_s)
        np.testing.assert_allclose(again.rotvec[:, 1:], clip.rotvec[:, 1:], atol=1e-5)
        between = Rotation.from_rotvec(again.rotvec[:, 0]).inv() * Rotation.from_rotvec(clip.rotvec[:, 0])
        assert np.degrees(between.magnitude()).max() < 1

    def test_wave_stands_upright_before_the_camera(self) -> None:
        motion = load_motion(SHARED / "seq_wave")
        up = Rotation.from_rotvec(motion.rotvec[:, 0]).apply([0.0, 1.0, 0.0])
        facing = Rotation.from_rotvec(motion.rotvec[:, 0]).apply([0.0, 0.0, 1.0])
        assert (up[:, 1] > 0.9).all()
        assert facing[0, 2] > 0.99
        assert (motion.transl[:, 2] < -2).all()


def _rotvec_of(frame: dict[str, Any]) -> np.ndarray:
    keys = ("root_pose", "body_pose", "jaw_pose", "leye_pose", "reye_pose", "lhand_pose", "rhand_pose")
    return np.concatenate([np.reshape(frame[key], (-1, 3)) for key in keys])


def steady_motion(frames: int = 6, fps: float = 30.0, seed: int = 3) -> MotionSequence:
    motion = random_motion(frames, names=(), seed=seed)
    return MotionSequence(motion.rotvec, motion.transl, motion.expression, np.arange(frames) / fps, ())


def assert_same_motion(got: MotionSequence, wanted: MotionSequence) -> None:
    turn = Rotation.from_rotvec(got.rotvec.reshape(-1, 3)).inv() * Rotation.from_rotvec(wanted.rotvec.reshape(-1, 3))
    assert turn.magnitude().max() < 2e-6
    np.testing.assert_allclose(got.transl, wanted.transl, atol=1e-6)
    np.testing.assert_allclose(got.timestamps_s, wanted.timestamps_s - wanted.timestamps_s[0], atol=1e-6)


class TestWriting:
    @pytest.mark.parametrize("fps", [24.0, 30.0, 120.0])
    def test_bvh_comes_back(self, tmp_path: Path, fps: float) -> None:
        motion = steady_motion(fps=fps)
        write_bvh(tmp_path / "clip.bvh", motion, BodyModel.default().rest_joints())
        assert_same_motion(load_motion(tmp_path / "clip.bvh"), motion)

    def test_bvh_of_another_body_keeps_its_limbs_directions(self, tmp_path: Path) -> None:
        body = BodyModel.default()
        tall = body.rest_joints(np.array([2.0, 0, -1, 0, 0, 1], np.float32))
        motion = steady_motion()
        write_bvh(tmp_path / "clip.bvh", motion, tall)
        again = read_bvh(tmp_path / "clip.bvh")
        for k in range(len(motion)):
            theirs = forward_kinematics(motion.rotvec[k], tall, motion.transl[k])[:, :3, 3]
            ours = forward_kinematics(again.rotvec[k], body.rest_joints(), again.transl[k])[:, :3, 3]
            for start, end in ((16, 18), (18, 20), (1, 4), (4, 7)):
                a, b = theirs[end] - theirs[start], ours[end] - ours[start]
                assert np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)) < 0.01

    def test_amass_comes_back(self, tmp_path: Path) -> None:
        motion = steady_motion(fps=60.0)
        write_amass(tmp_path / "clip.npz", motion)
        assert_same_motion(load_motion(tmp_path / "clip.npz"), motion)

    def test_amass_has_what_others_read(self, tmp_path: Path) -> None:
        motion = steady_motion()
        write_amass(tmp_path / "clip.npz", motion)
        with np.load(tmp_path / "clip.npz") as file:
            assert float(file["mocap_frame_rate"]) == pytest.approx(30)
            assert file["poses"].shape == (6, 165)
            parts = ("root_orient", "pose_body", "pose_jaw", "pose_eye", "pose_hand")
            np.testing.assert_array_equal(np.concatenate([file[key] for key in parts], axis=1), file["poses"])
            up = Rotation.from_rotvec(file["root_orient"][2]).apply([0, 1, 0])
            wanted = Rotation.from_rotvec(motion.rotvec[2, 0]).apply([0, 1, 0])
            np.testing.assert_allclose(up, wanted[[0, 2, 1]] * [1, -1, 1], atol=1e-6)  # z is up there

    def test_lhm_folder_comes_back_with_its_gaps(self, tmp_path: Path) -> None:
        motion = steady_motion(frames=4)
        late = MotionSequence(motion.rotvec, motion.transl, motion.expression, 7 + np.array([0, 1, 5, 6]) / LHM_FPS, ())
        write_lhm_folder(tmp_path / "clip", late)
        assert (tmp_path / "clip" / "smplx_params" / "00006.json").is_file()
        assert_same_motion(load_motion(tmp_path / "clip"), late)

    def test_lhm_frames_have_every_key(self, tmp_path: Path) -> None:
        write_lhm_folder(tmp_path / "clip", steady_motion(), image_size=(720, 1280))
        frame = json.loads((tmp_path / "clip" / "smplx_params" / "00001.json").read_text())
        assert set(frame) == set(lhm_frame()) | {"princpt", "img_size_wh"}
        assert frame["focal"] == pytest.approx([1108.5125] * 2)
        assert frame["princpt"] == [360, 640]
        assert np.shape(frame["lhand_pose"]) == (15, 3)

    def test_lhm_folder_refuses_what_does_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"frame 1 is at .*resample"):
            write_lhm_folder(tmp_path / "clip", steady_motion(fps=50.0))
        write_lhm_folder(tmp_path / "clip", steady_motion())
        with pytest.raises(InvalidInputError, match="holds frames already"):
            write_lhm_folder(tmp_path / "clip", steady_motion())

    def test_uneven_times_have_no_one_rate(self, tmp_path: Path) -> None:
        motion = random_motion()
        for write in (
            lambda: write_amass(tmp_path / "clip.npz", motion),
            lambda: write_bvh(tmp_path / "clip.bvh", motion, BodyModel.default().rest_joints()),
        ):
            with pytest.raises(InvalidInputError, match=r"s apart, .*resample first"):
                write()
        assert not list(tmp_path.iterdir())

    def test_bad_bvh_names_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "clip.bvh"
        path.write_bytes(b"\x00\xff garbage")
        with pytest.raises(MotionFileError, match=r"clip\.bvh: BVH line 1: expected HIERARCHY"):
            load_motion(path)

    @pytest.mark.shared
    @needs_shared
    @pytest.mark.parametrize("name", ["amass_sample.npz", "seq_wave"])
    def test_real_motion_survives_all_formats(self, tmp_path: Path, name: str) -> None:
        motion = load_motion(SHARED / name)
        write_bvh(tmp_path / "clip.bvh", motion, BodyModel.default().rest_joints())
        assert_same_motion(load_motion(tmp_path / "clip.bvh"), motion)
        write_amass(tmp_path / "clip.npz", motion)
        assert_same_motion(load_motion(tmp_path / "clip.npz"), motion)
        if name == "seq_wave":
            write_lhm_folder(tmp_path / "clip", motion)
            assert_same_motion(load_motion(tmp_path / "clip"), motion)
