import asyncio

import pytest

from lhm_runtime.avatar import Avatar
from streaming.bench.session import Driver, measure
from streaming.settings import NewSession


@pytest.mark.parametrize("driver", ["browser", "webcam", "replay", "idle"])
def test_every_stage_is_accounted_for(avatar: Avatar, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.bench.session._WARM_UP_S", 1.0)
    replay = "wave" if driver == "replay" else None
    wish = NewSession(avatar="builtin", source=driver, replay=replay, width=64, height=64, fps=20)
    report = asyncio.run(measure(avatar, wish, "h264", 1.0, alpha=driver == "replay"))
    assert report["session"]["alpha"] == (driver == "replay")
    assert report["pictures_per_second"] > 1
    stages = report["cpu_ms_per_picture"]
    assert set(stages) == {
        *("convert", "track", "solve and smooth", "pose and draw"),
        *("encode", "event loop", "other threads"),
    }
    assert (stages["track"] > 0) == (driver == "webcam")
    assert stages["pose and draw"] > 0
    assert (stages["solve and smooth"] > 0) == (driver != "idle")
    total = sum(stages.values()) * report["pictures_per_second"] / 1e3
    assert total == pytest.approx(report["cpu_share_of_one_core"], rel=0.05)
