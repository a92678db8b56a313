"""People who come and go, for twenty seconds: what ``make soak`` does for an hour.

Two at a time instead of one, each for two seconds instead of twenty, so that some twenty visits, five of them with a
session of their own, pass: what one visit leaves behind shows as it would in minutes. Latency may drift by what other
tests beside this one do to it; the hour says how little it does.
"""

import json
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"
LIMIT_S = 240.0


def test_nothing_is_left_behind_by_those_who_came_and_went() -> None:
    command = [sys.executable, str(SOAK), "--seconds", "20", "--stay", "2", "--visitors", "2", "--drift", "30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["complaints"] == [], report
    assert done.returncode == 0
    assert report["visits"] >= 12
    assert set(report["ways"]) == {"says goodbye", "closes", "drives", "vanishes"}
