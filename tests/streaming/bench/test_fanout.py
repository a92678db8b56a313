"""Fan-out by way of a Janus: who serves the viewers, and who pays."""

import pytest
from apart import needs_own_network, run_apart
from janus_server import SETTINGS, needs_janus

from streaming.bench.fanout import _measure_one, _Settings


@needs_janus
@needs_own_network
def test_viewers_by_way_of_janus_get_what_is_sent_once() -> None:
    settings = _Settings(
        viewers=2,
        width=128,
        height=128,
        codec="h264",
        fps=20,
        bitrate_bps=500_000,
        grain=10,
        seconds=1.0,
        janus=SETTINGS,
    )
    measured: dict[str, float] = {}

    async def main() -> None:
        measured.update(_measure_one(settings))

    run_apart(main())
    assert measured["fps_per_viewer"] == pytest.approx(20, rel=0.5)
    assert measured["mbps_per_viewer"] == pytest.approx(0.5, rel=0.4)
    assert measured["janus_cpu_ms_per_frame"] > 0
    assert measured["cpu_ms_per_frame"] > 0
