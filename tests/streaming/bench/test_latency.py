import asyncio
import shutil
from pathlib import Path

import av
import pytest
from apart import needs_own_network, run_apart
from janus_server import SETTINGS, needs_janus

from lhm_runtime.errors import InvalidInputError
from streaming.app import WEB
from streaming.bench import latency
from streaming.time_code import read_time_code


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_CAMERA_FRAMES", 60)
    monkeypatch.setattr(latency, "_WARM_UP_S", 0.5)
    monkeypatch.setattr(latency, "_GAUSSIANS", 5_000)


@pytest.mark.usefixtures("short")
def test_the_camera_tells_its_frames_apart(tmp_path: Path) -> None:
    path = tmp_path / "camera.y4m"
    latency._film_camera(None, path)
    with av.open(path) as container:
        planes = [frame.reformat(format="yuv420p").to_ndarray() for frame in container.decode(video=0)]
    codes = [read_time_code(picture[:480]) for picture in planes]
    assert [code.drawn_ms for code in codes if code] == [50 * i for i in range(60)]


@pytest.mark.usefixtures("short")
@pytest.mark.skipif(not (WEB / "index.html").is_file(), reason="the page is not built (make web)")
@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here")
def test_the_way_from_the_camera_is_measured_for_both_servers() -> None:
    stream = latency._Stream("vp8", 256, 192, 15)
    report = asyncio.run(latency.measure(stream, None, ["camera_to_display"], 3.0, 1, stock=True))["camera_to_display"]
    for server in ("ours", "stock"):
        found = report[server]
        assert 0 < found["p50_ms"] <= found["p95_ms"] < 10_000
        run = found["runs"][0]
        assert run["pictures"] > 0
        assert run["browser_parts_mean_ms"]["decode"] > 0
        assert any(name.startswith("chromium") for name in run["cpu_percent_of_a_core"])
    assert report["stock_to_ours_p50"] > 0
    parts = report["ours"]["runs"][0]["server_parts_mean_ms"]
    assert {"solve", "render", "encode"} <= set(parts)
    # means, and not of quite the same frames: one may be on its way at either end
    assert parts["track"] + parts["convert"] <= 1.15 * parts["arrival_to_landmarks"] + 1
    assert "camera_encode" in report["stock"]["runs"][0]["browser_parts_mean_ms"]


@needs_janus
@needs_own_network
@pytest.mark.usefixtures("short")
@pytest.mark.skipif(not (WEB / "view.html").is_file(), reason="the page is not built (make web)")
@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here")
def test_the_way_by_a_relay_is_measured_beside_the_direct_one() -> None:
    async def main() -> None:
        stream = latency._Stream("h264", 256, 192, 15)
        report = await latency.measure(stream, None, ["draw_to_display"], 2.0, 1, stock=False, janus=SETTINGS)
        found = report["draw_to_display"]
        for server in ("ours", "janus"):
            assert 0 < found[server]["p50_ms"] <= found[server]["p95_ms"] < 10_000
            assert found[server]["runs"][0]["pictures"] > 3
        assert found["janus_to_ours_p50"] > 0

    run_apart(main())


@pytest.mark.parametrize(("text", "size"), [("512", (512, 512)), ("720x1280", (720, 1280))])
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert latency.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "511", "512x", "x512", "720x1281", "64", "4096", "512x512x3", "-512", "9" * 40]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected 512 or 720x1280"):
        latency.parse_size(text)
