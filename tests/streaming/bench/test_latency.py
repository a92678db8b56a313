import asyncio
import shutil

import av
import pytest

from streaming.app import WEB
from streaming.bench import latency
from streaming.time_code import read_time_code


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_CAMERA_FRAMES", 60)
    monkeypatch.setattr(latency, "_WARM_UP_S", 0.5)
    monkeypatch.setattr(latency, "_GAUSSIANS", 5_000)


@pytest.mark.usefixtures("short")
def test_the_camera_tells_its_frames_apart(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "camera.mjpeg"
    latency._film_camera(None, path)
    with av.open(path) as container:
        planes = [frame.reformat(format="yuv420p").to_ndarray() for frame in container.decode(video=0)]
    codes = [read_time_code(picture[:480]) for picture in planes]
    assert [code.drawn_ms for code in codes if code] == [50 * i for i in range(60)]


@pytest.mark.usefixtures("short")
@pytest.mark.skipif(not (WEB / "index.html").is_file(), reason="the page is not built (make web)")
@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here")
def test_both_ways_are_measured() -> None:
    report = asyncio.run(latency.measure("vp8", 256, 15, None, 3.0))
    for way in ("draw_to_display", "camera_to_display"):
        assert report[way]["pictures"] > 3
        assert 0 < report[way]["p50_ms"] <= report[way]["p95_ms"] < 10_000
