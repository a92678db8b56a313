"""What /metrics shows, in Prometheus' terms.

prometheus_client keeps these in its own registry, as is its custom; nothing else in the server room is global.
"""

import asyncio
import time
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
_BYTES: Final = (1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 5e4, 1e5, 2e5)

STAGE_SECONDS: Final = Histogram(
    "lhm_live_stage_seconds", "Time a frame spent in one stage.", ["stage"], buckets=_SECONDS
)
FRAMES_DROPPED: Final = Counter("lhm_live_frames_dropped_total", "Frames that were not shown, by reason.", ["reason"])
FRAMES_ENCODED: Final = Counter("lhm_live_frames_encoded_total", "Frames encoded, once for all viewers.", ["encoder"])
KEYFRAME_BYTES: Final = Histogram("lhm_live_keyframe_bytes", "Size of keyframes.", buckets=_BYTES)
KEYFRAME_REQUESTS: Final = Counter("lhm_live_keyframe_requests_total", "Who wanted a keyframe, and why.", ["reason"])
TARGET_BPS: Final = Gauge("lhm_live_target_bps", "Bitrate the encoder aims at.", ["session", "tier"])
NACKS: Final = Counter("lhm_live_nacked_packets_total", "Packets that viewers reported lost.")
RETRANSMISSIONS: Final = Counter("lhm_live_retransmissions_total", "Lost packets by what was done.", ["outcome"])
UNSENT_PACKETS: Final = Counter(
    "lhm_live_unsent_packets_total", "Packets dropped because the system had no room to send them."
)
SKIPPED_GAPS: Final = Counter("lhm_live_skipped_gaps_total", "Lost stretches of incoming video that were given up.")
RIGS_LOST: Final = Counter("lhm_live_rigs_lost_total", "Rigs whose last will came over MQTT.")
VIEWERS: Final = Gauge("lhm_live_viewers", "Viewers that receive packets.")
SESSIONS: Final = Gauge("lhm_live_sessions", "Driven avatars.")
CLUSTER_SESSIONS: Final = Gauge("lhm_live_cluster_sessions", "Sessions by node of the cluster.", ["node", "address"])
CLUSTER_FREE_SEATS: Final = Gauge("lhm_live_cluster_free_seats", "Processes that wait for a session.")
CLUSTER_RESTARTS: Final = Counter(
    "lhm_live_cluster_restarts_total", "Sessions that this gateway began again elsewhere."
)
CLUSTER_MOVES: Final = Counter("lhm_live_cluster_moves_total", "Sessions that this gateway moved from nodes that end.")
GLASS_TO_GLASS_SECONDS: Final = Histogram(
    "lhm_live_glass_to_glass_seconds", "Latency measured by viewers.", buckets=_SECONDS
)
LOOP_LAG_SECONDS: Final = Histogram(
    "lhm_live_loop_lag_seconds", "How late the event loop woke a sleeper.", buckets=_SECONDS
)


async def watch_loop_lag(interval_s: float = 0.25) -> None:
    """Sleep and see by how much it was longer, until cancelled."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(interval_s)
        LOOP_LAG_SECONDS.observe(max(0.0, time.perf_counter() - before - interval_s))
