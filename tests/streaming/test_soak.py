"""People who come and go, for a minute: what ``make soak`` does for an hour.

Two at a time instead of one, each for three seconds instead of twenty, so that some forty visits, ten of them with a
session of their own, pass in a minute: what one visit leaves behind shows as much as it would in a quarter of an hour.
"""

import json
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"
LIMIT_S = 240.0


def test_nothing_is_left_behind_by_those_who_came_and_went() -> None:
    command = [sys.executable, str(SOAK), "--seconds", "60", "--stay", "3", "--visitors", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["complaints"] == [], report
    assert done.returncode == 0
    assert report["visits"] >= 24
    assert set(report["ways"]) == {"says goodbye", "closes", "drives", "vanishes"}
