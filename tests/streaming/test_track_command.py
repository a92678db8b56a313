from pathlib import Path

import av
import numpy as np
import pytest
import typer
from people import person, picture_of_person
from typer.testing import CliRunner

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import FileFormatError, InvalidInputError
from lhm_runtime.motion.sequences import load_motion
from streaming.track_command import track
from streaming.video_file import write_video

pytest.importorskip("mediapipe", reason="MediaPipe is not installed")

app = typer.Typer(rich_markup_mode="rich")
app.command()(track)
runner = CliRunner()


def write_pictures(path: Path, pictures: list[np.ndarray]) -> None:
    frames = (av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p") for picture in pictures)
    write_video(path, (frame.to_ndarray() for frame in frames), 15.0)


@pytest.fixture(autouse=True)
def one_person_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making one takes seconds."""
    monkeypatch.setattr("streaming.track_command.build_person", person)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody for three frames, then a raised hand that waves."""
    path = tmp_path_factory.mktemp("clips") / "wave.mp4"
    pictures = [picture_of_person(i) for i in range(15, 31)]
    write_pictures(path, [np.full_like(pictures[0], 205)] * 3 + pictures)
    return path


def test_a_wave_is_recorded_and_shown(clip: Path, tmp_path: Path) -> None:
    out, preview = tmp_path / "wave.npz", tmp_path / "look.mp4"
    result = runner.invoke(app, [str(clip), "-o", str(out), "--preview", str(preview), "--mode", "body"])
    assert result.exit_code == 0, result.output
    assert "16 frames, 1.0 s" in result.output
    assert "seen in 19 frames: body 84%" in result.output
    motion = load_motion(out)
    assert len(motion) == 16
    assert motion.timestamps_s[0] == pytest.approx(3 / 15)
    shoulders = [JOINT_INDEX["left_shoulder"], JOINT_INDEX["right_shoulder"]]
    left, right = motion.rotvec[-1, shoulders]
    assert np.linalg.norm(left - right * [1, -1, -1]) > 0.5  # one arm is up, the other down
    with av.open(preview) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 19
    assert frames[0].shape == (640, 720, 3)
    assert np.ptp(frames[0][:, 370:].astype(int), axis=(0, 1)).max() < 20  # nobody yet
    assert frames[-1][:, 370:].std() > 20


def test_a_damaged_clip_is_kept_as_far_as_it_goes(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    broken, out = tmp_path / "broken.mp4", tmp_path / "out.npz"
    broken.write_bytes(data[: len(data) * 7 // 10])
    result = runner.invoke(app, [str(broken), "-o", str(out), "--mode", "body"])
    assert isinstance(result.exception, FileFormatError)
    assert "after frame" in str(result.exception)
    assert "what was seen until it ended early" in result.output
    assert 1 <= len(load_motion(out)) < 16


def test_seconds_end_it(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    result = runner.invoke(app, [str(clip), "-o", str(out), "--seconds", "0.5", "--mode", "body"])
    assert result.exit_code == 0, result.output
    assert load_motion(out).timestamps_s[-1] < 0.5


def test_nobody_there(tmp_path: Path) -> None:
    write_pictures(tmp_path / "empty.mp4", [np.full((96, 96, 3), 200, np.uint8)] * 3)
    out, preview = tmp_path / "out.npz", tmp_path / "look.mp4"
    result = runner.invoke(app, [str(tmp_path / "empty.mp4"), "-o", str(out), "--preview", str(preview)])
    assert isinstance(result.exception, InvalidInputError)
    assert "nobody was seen in 3 frames" in str(result.exception)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "a.mp4"], "should end in .npz"),
        (["-o", "nowhere/a.npz"], "there is no folder nowhere"),
        (["-o", "a.npz", "--preview", "b.avi"], "should end in .mp4"),
        (["-o", "a.npz", "--mode", "face"], "--mode"),
        (["-o", "a.npz", "--seconds", "0"], "--seconds"),
    ],
)
def test_arguments_that_cannot_be_meant(clip: Path, arguments: list[str], message: str) -> None:
    result = runner.invoke(app, [str(clip), *arguments], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert message in result.output


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = runner.invoke(app, [str(tmp_path / "a.mp4"), "-o", str(tmp_path / "a.npz")])
    assert isinstance(result.exception, InvalidInputError)
