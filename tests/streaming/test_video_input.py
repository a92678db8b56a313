from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lhm_runtime.errors import BackendError, FileFormatError, InvalidInputError
from streaming.video_file import write_video
from streaming.video_input import VideoInput

TKHD_MATRIX = 40  # bytes from the start of tkhd's version field


def ramp(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    return [
        np.concatenate([np.full((height, width), 20 + 4 * i, np.uint8), np.full((height // 2, width), 128, np.uint8)])
        for i in range(count)
    ]


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, ramp(20), 25.0)
    with VideoInput(str(path)) as video:
        assert (video.length, video.fps, video.is_camera) == (20, 25.0, False)
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.timestamp_s for frame in frames], np.arange(20) / 25)
    assert frames[0].rgb.shape == (48, 64, 3)
    assert frames[0].rgb.dtype == np.uint8
    brightness = [frame.rgb.mean() for frame in frames]
    np.testing.assert_allclose(np.diff(brightness), 4 * 255 / 219, atol=1)


def test_variable_frame_rates_keep_their_times(tmp_path: Path) -> None:
    path, times = tmp_path / "a.mp4", [0, 3, 4, 10, 11, 30]
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for time, picture in zip(times, ramp(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoInput(str(path)) as video:
        np.testing.assert_allclose([frame.timestamp_s for frame in video], np.array(times) / 30, atol=1e-3)


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((0, 1, -1, 0), (0, -1)),  # a phone held upright: turned clockwise
        ((-1, 0, 0, -1), (-1, -1)),
        ((0, -1, 1, 0), (-1, 0)),
    ],
)
def test_pictures_are_turned_upright(tmp_path: Path, matrix: tuple[int, ...], corner: tuple[int, int]) -> None:
    path = tmp_path / "a.mp4"
    picture = ramp(1)[0]
    picture[:16, :16] = 235  # bright top left
    write_video(path, [picture] * 3, 30.0)
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + TKHD_MATRIX
    assert data[at : at + 4] == (1 << 16).to_bytes(4, "big")
    a, b, c, d = (value << 16 for value in matrix)
    for place, value in zip((0, 4, 12, 16), (a, b, c, d), strict=True):
        data[at + place : at + place + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    with VideoInput(str(path)) as video:
        rgb = next(iter(video)).rgb
    assert rgb.shape == ((48, 64, 3) if matrix[0] else (64, 48, 3))
    corners = {(y, x): rgb[y, x].mean() for y in (0, -1) for x in (0, -1)}
    assert max(corners, key=corners.__getitem__) == corner


def test_a_damaged_video_gives_what_is_whole_then_says_where(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(16, 235, (40, 72, 64), np.uint8)
    write_video(path, noise, 30.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    seen = []
    with (
        VideoInput(str(path)) as video,
        pytest.raises(FileFormatError, match=r"a\.mp4 .* after frame \d+ \(.* s\)") as error,
    ):
        seen.extend(frame.index for frame in video)
    assert 5 < len(seen) < 35
    assert f"after frame {seen[-1]} " in str(error.value)


def test_what_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is no file; name a video, or a camera"):
        VideoInput(str(tmp_path / "a.mp4"))
    (tmp_path / "a.mp4").write_bytes(b"hello")
    with pytest.raises(FileFormatError, match="no video that FFmpeg can read"):
        VideoInput(str(tmp_path / "a.mp4"))
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(FileFormatError, match="no video that FFmpeg can read"):
        VideoInput(str(tmp_path / "empty.mp4"))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(FileFormatError, match="holds no video"):
        VideoInput(str(path))


@pytest.mark.parametrize("camera", ["99", "/dev/video99"])
def test_a_camera_that_is_not_there(camera: str) -> None:
    with pytest.raises(BackendError, match=r"no camera /dev/video99; cameras here|Video4Linux"):
        VideoInput(camera)
