from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from lhm_runtime.errors import BackendError, InvalidInputError
from streaming import video_file
from streaming.video_file import try_encoder, write_video


def grey_ramp(count: int, width: int = 64, height: int = 48) -> Iterator[np.ndarray]:
    """Brighter with every frame, on constant chroma, always in the same buffer."""
    picture = np.empty((height * 3 // 2, width), np.uint8)
    for i in range(count):
        picture[:height] = 20 + 8 * i
        picture[height : height * 5 // 4] = 90
        picture[height * 5 // 4 :] = 170
        yield picture


def test_frames_come_back_as_they_went_in(tmp_path: Path) -> None:
    path = tmp_path / "ramp.mp4"
    assert write_video(path, grey_ramp(20), 25.0) == "libx264"
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (64, 48)
        assert stream.average_rate == 25
        frames = list(container.decode(stream))
    assert len(frames) == 20
    for i, frame in enumerate(frames):
        planes = frame.to_ndarray()
        assert abs(planes[:48].mean() - (20 + 8 * i)) < 1
        assert abs(planes[48:60].mean() - 90) < 1
        assert abs(planes[60:].mean() - 170) < 1
        assert frame.time == pytest.approx(i / 25)


def test_colours_are_labelled_bt709_limited(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_ramp(2), 30.0)
    with av.open(tmp_path / "a.mp4") as container:
        context = container.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        assert context.colorspace == Colorspace.ITU709
        assert context.color_range == ColorRange.MPEG
        assert context.color_primaries == ColorPrimaries.BT709
        assert context.color_trc == ColorTrc.BT709


def test_index_comes_first(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_ramp(5), 30.0)
    content = (tmp_path / "a.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


def test_fractional_rates_keep_their_time(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_ramp(10), 30_000 / 1001)
    with av.open(tmp_path / "a.mp4") as container:
        last = list(container.decode(video=0))[-1]
    assert last.time == pytest.approx(9 * 1001 / 30_000, abs=1e-6)


def test_lower_crf_is_nearer_to_the_original(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(16, 235, (96, 64), np.uint8)
    errors = []
    for crf in (0, 18, 40):
        write_video(tmp_path / "a.mp4", [noise], 30.0, crf=crf)
        with av.open(tmp_path / "a.mp4") as container:
            errors.append(np.abs(next(container.decode(video=0)).to_ndarray().astype(int) - noise).mean())
    assert errors[0] == 0
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "at least one frame"),
        ([np.zeros((48, 64, 3), np.uint8)], "expected I420"),
        ([np.zeros((72, 64), np.float32)], "frame 0 is float32"),
        ([np.zeros((73, 64), np.uint8)], "expected I420"),
        ([np.zeros((0, 64), np.uint8)], "expected I420"),
        ([np.zeros((72, 63), np.uint8)], "63x48; H.264 needs an even"),
        ([np.zeros((72, 64), np.uint8), np.zeros((72, 66), np.uint8)], r"frame 1 is uint8 \(72, 66\)"),
    ],
)
def test_unusable_frames_are_refused_and_leave_nothing(tmp_path: Path, frames: list[np.ndarray], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        write_video(tmp_path / "a.mp4", frames, 30.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [0.0, -1.0, np.nan, np.inf, 1e6])
def test_unusable_rates_are_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(InvalidInputError, match="fps"):
        write_video(tmp_path / "a.mp4", grey_ramp(1), fps)


def test_an_interrupted_video_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"the old one")

    def interrupted() -> Iterator[np.ndarray]:
        yield from grey_ramp(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, interrupted(), 30.0)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"nowhere/a\.mp4 cannot be written"):
        write_video(tmp_path / "nowhere" / "a.mp4", grey_ramp(1), 30.0)


def test_the_next_encoder_steps_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "H264_ENCODERS", ("h264_absent", "mpeg4"))
    assert write_video(tmp_path / "a.mp4", grey_ramp(5), 30.0) == "mpeg4"
    with av.open(tmp_path / "a.mp4") as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
        assert len(list(container.decode(video=0))) == 5


def test_without_any_encoder_each_reason_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "H264_ENCODERS", ("h264_absent", "aac"))
    with pytest.raises(BackendError, match=r"h264_absent: not built into this FFmpeg; aac: not a video encoder"):
        write_video(tmp_path / "a.mp4", grey_ramp(5), 30.0)


def test_try_encoder_really_encodes() -> None:
    assert try_encoder("libx264") == ""
    assert try_encoder("libx264", 2, 2) == ""
    assert try_encoder("mp3") == "not a video encoder"
