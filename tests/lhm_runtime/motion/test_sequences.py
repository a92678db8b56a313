from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motions import random_motion
from scipy.spatial.transform import Rotation, Slerp

from lhm_runtime.errors import InvalidInputError, MotionFileError
from lhm_runtime.motion.sequences import (
    MotionSequence,
    load_motion,
    save_motion,
)


class TestMotionSequence:
    def test_pose_is_one_frame(self) -> None:
        motion = random_motion()
        pose = motion.pose(-2)
        np.testing.assert_array_equal(pose.rotvec, motion.rotvec[5])
        np.testing.assert_array_equal(pose.transl, motion.transl[5])
        np.testing.assert_array_equal(pose.expression, motion.expression[5])
        assert pose.timestamp_s == motion.timestamps_s[5]
        with pytest.raises(IndexError):
            motion.pose(7)

    @pytest.mark.parametrize("field", ["rotvec", "transl", "expression", "timestamps_s"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_every_value_must_be_finite(self, field: str, value: float) -> None:
        arrays = {name: getattr(random_motion(), name).copy() for name in MotionSequence.__slots__[:4]}
        arrays[field][3, ...] = value
        with pytest.raises(InvalidInputError, match=rf"{field}\[3"):
            MotionSequence(**arrays, expression_names=("jawOpen", "browUp"))

    @pytest.mark.parametrize("step", [0.0, -0.5])
    def test_time_must_go_on(self, step: float) -> None:
        motion = random_motion()
        times = motion.timestamps_s.copy()
        times[4] = times[3] + step
        with pytest.raises(InvalidInputError, match=r"timestamps_s\[4\] is .* after"):
            MotionSequence(motion.rotvec, motion.transl, motion.expression, times, motion.expression_names)

    def test_no_frames_and_repeated_names_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="at least one frame"):
            random_motion(frames=0)
        with pytest.raises(InvalidInputError, match="repeat a name"):
            random_motion(names=("jawOpen", "jawOpen"))

    def test_lengths_must_agree(self) -> None:
        motion = random_motion()
        with pytest.raises(Exception, match=r"transl|timestamps_s"):
            MotionSequence(
                motion.rotvec,
                motion.transl[1:],
                motion.expression,
                motion.timestamps_s,
                motion.expression_names,
            )

    def test_expressions_go_by_name(self) -> None:
        motion = random_motion(names=("jawOpen", "browUp"))
        other = motion.with_expressions(("tongueOut", "browUp"))
        assert other.expression_names == ("tongueOut", "browUp")
        assert not other.expression[:, 0].any()
        np.testing.assert_array_equal(other.expression[:, 1], motion.expression[:, 1])


class TestResample:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**31), fps=st.floats(5, 200))
    def test_rotations_follow_great_arcs(self, seed: int, fps: float) -> None:
        motion = random_motion(seed=seed)
        again = motion.resample(fps)
        times = np.clip(again.timestamps_s, motion.timestamps_s[0], motion.timestamps_s[-1])
        for joint in (0, 17, 54):
            wanted = Slerp(motion.timestamps_s, Rotation.from_rotvec(motion.rotvec[:, joint]))(times)
            error = (Rotation.from_rotvec(again.rotvec[:, joint]).inv() * wanted).magnitude()
            assert error.max() < 1e-5
        for axis in range(3):
            wanted_path = np.interp(times, motion.timestamps_s, motion.transl[:, axis])
            np.testing.assert_allclose(again.transl[:, axis], wanted_path, atol=1e-5)

    def test_steps_are_even_and_stay_inside(self) -> None:
        motion = random_motion()
        again = motion.resample(30.0)
        np.testing.assert_allclose(np.diff(again.timestamps_s), 1 / 30)
        assert again.timestamps_s[0] == motion.timestamps_s[0]
        left = motion.timestamps_s[-1] - again.timestamps_s[-1]
        assert -1e-6 < left < 1 / 30

    def test_its_own_rate_changes_nothing(self) -> None:
        motion = random_motion()
        even = MotionSequence(
            motion.rotvec, motion.transl, motion.expression, np.arange(7) / 25, motion.expression_names
        )
        again = even.resample(25.0)
        assert len(again) == 7
        np.testing.assert_allclose(again.rotvec, even.rotvec, atol=2e-6)
        np.testing.assert_array_equal(again.expression, even.expression)

    def test_a_single_frame_stays_one(self) -> None:
        assert len(random_motion(frames=1).resample(30.0)) == 1

    @pytest.mark.parametrize("fps", [0.0, -1.0, np.nan, np.inf])
    def test_rate_must_be_positive(self, fps: float) -> None:
        with pytest.raises(InvalidInputError, match="fps"):
            random_motion().resample(fps)

    def test_a_wild_timestamp_does_not_fill_the_memory(self) -> None:
        motion = random_motion()
        times = motion.timestamps_s.copy()
        times[-1] = 1e12
        wild = MotionSequence(motion.rotvec, motion.transl, motion.expression, times, motion.expression_names)
        with pytest.raises(InvalidInputError, match="more than 200000"):
            wild.resample(30.0)


class TestRecording:
    def test_round_trip_is_exact(self, tmp_path: Path) -> None:
        motion = random_motion(frames=31)
        save_motion(tmp_path / "m.npz", motion)
        again = load_motion(tmp_path / "m.npz")
        for name in ("rotvec", "transl", "expression", "timestamps_s"):
            np.testing.assert_array_equal(getattr(again, name), getattr(motion, name))
            assert getattr(again, name).dtype == getattr(motion, name).dtype
        assert again.expression_names == motion.expression_names

    def test_without_expressions(self, tmp_path: Path) -> None:
        save_motion(tmp_path / "m.npz", random_motion(names=()))
        assert load_motion(tmp_path / "m.npz").expression_names == ()

    def test_failed_save_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "m.npz"
        save_motion(path, random_motion())
        before = path.read_bytes()

        def fail(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            save_motion(path, random_motion(seed=1))
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_every_cut_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "m.npz"
        save_motion(path, random_motion())
        whole = path.read_bytes()
        for length in range(0, len(whole) - 1, 97):
            path.write_bytes(whole[:length])
            with pytest.raises(MotionFileError, match=r"m\.npz"):
                load_motion(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": np.array("lhm-live motion 9")}, "format 'lhm-live motion 9'"),
            ({"rotvec": np.zeros((7, 54, 3), np.float32)}, r"shape \(7, 54, 3\)"),
            ({"rotvec": np.full((7, 55, 3), np.nan, np.float32)}, r"rotvec\[0, 0, 0\] is nan"),
            ({"transl": np.zeros((6, 3), np.float32)}, "transl"),
            ({"transl": None}, "lacks 'transl'"),
            ({"timestamps_s": np.zeros(7)}, r"timestamps_s\[1\]"),
            ({"expression": np.full((7, 2), "x")}, "expected numbers"),
            ({"expression": np.zeros((7, 3), np.float32)}, "expression"),
            ({"expression_names": np.array([1, 2])}, "row of strings"),
            ({"expression_names": np.array(["a", "a"])}, "repeat"),
            ({"rotvec": np.array([{}], dtype=object)}, "rotvec"),
        ],
    )
    def test_each_fault_has_its_message(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        motion = random_motion()
        arrays = {
            "format": np.array("lhm-live motion 1"),
            **{name: getattr(motion, name) for name in ("rotvec", "transl", "expression", "timestamps_s")},
            "expression_names": np.array(motion.expression_names),
            **change,
        }
        np.savez(tmp_path / "m.npz", **{key: value for key, value in arrays.items() if value is not None})
        with pytest.raises(MotionFileError, match=message):
            load_motion(tmp_path / "m.npz")
