"""What sessions and viewers cost, with a few of them and for a moment."""

import asyncio
import time
from pathlib import Path

import pytest

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import BackendError
from streaming.bench import capacity
from streaming.bench.audience import gather, serve_session, watch_video
from streaming.bench.capacity import _feed, _measure_drawn, _Settings, sum_up
from streaming.browser_avatar import pack_avatar
from streaming.settings import NewSession

SETTINGS = _Settings(
    width=128,
    height=128,
    fps=20,
    bitrate_bps=500_000,
    seconds=1.0,
    rounds=1,
    viewers=3,
    drawing=6,
    joiners=2,
    janus=None,
)


def test_who_draws_is_counted_and_paid_for(avatar: Avatar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "_SETTLE_S", 0.5)
    cost = _measure_drawn(avatar, SETTINGS)
    assert cost["poses_per_second"] == pytest.approx(20, rel=0.5)
    poses = 360 + 2 * len(avatar.expression_names) + 56
    assert cost["mbit_per_second"] == pytest.approx(8e-6 * 20 * poses, abs=1e-4)
    assert 0 < cost["session_cores"] < 1
    assert cost["join_megabytes"] == pytest.approx(len(pack_avatar(avatar)) / 1e6, abs=1e-3)


def test_who_comes_by_whep_gets_packets(avatar: Avatar, tmp_path: Path) -> None:
    wish = NewSession(avatar="builtin", source="idle", width=128, height=128, fps=10)
    with serve_session(tmp_path, avatar, wish) as served, gather(served, watch_video, 2) as audience:
        assert audience.came_cpu_s > 0
        first = audience.received()
        while (last := audience.received()).messages < first.messages + 10:
            time.sleep(0.05)
        assert last.bytes > first.bytes


def test_sending_to_a_relay_costs_something() -> None:
    assert 0 < asyncio.run(_feed(SETTINGS)) < 0.5


def test_medians_and_what_follows_from_them() -> None:
    sessions = {
        "replay": [{"cores": cores, "pose_cores": 0.01} for cores in (0.2, 0.9, 0.28)],
        "browser": [{"cores": 0.35, "pose_cores": 0.06}],
    }
    ways = {
        "video": [{"viewer_cores": 0.005}],
        "relayed": [{"viewer_cores": 0.007, "feed_cores": 0.003}],
        "drawn": [{"viewer_cores": 0.001, "session_cores": 0.04}],
    }
    report = sum_up(sessions, ways)
    assert report["sessions"]["replay"]["cores"] == 0.28
    assert report["sessions"]["replay"]["undrawn_cores"] == 0.04
    assert report["sessions"]["browser"]["undrawn_cores"] == 0.09
    assert report["viewers"]["relayed"] == {"viewer_cores": 0.007, "feed_cores": 0.003}
    assert report["per_core_at_70_percent"] == {
        "sessions": {"replay": 2.5, "browser": 2.0},
        "undrawn_sessions": {"replay": 17.5, "browser": 7.8},
        "viewers": {"video": 140, "relayed": 100, "drawn": 700},
    }
    ways["drawn"][0]["viewer_cores"] = -0.0001
    with pytest.raises(BackendError, match=r"\(drawn\) seems to cost -0.0001 cores"):
        sum_up(sessions, ways)
