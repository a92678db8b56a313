"""What the model of benchmarks/scaling.py must hold whatever its inputs are."""

import json
import runpy
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PLACE = Path(__file__).parents[2] / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling() -> Any:
    """The script as a module."""
    sys.path.insert(0, str(PLACE.parent))
    try:
        import scaling  # noqa: PLC0415

        return scaling
    finally:
        sys.path.remove(str(PLACE.parent))


@pytest.fixture(scope="module")
def costs(scaling: Any) -> Any:
    return scaling.read_costs(scaling.COSTS, "browser")


@settings(deadline=None, max_examples=20)
@given(audience=st.integers(2, 20_000), share=st.floats(0, 0.5), zipf=st.floats(0, 2), seed=st.integers(0, 99))
def test_who_came_left_or_is_there(scaling: Any, audience: int, share: float, zipf: float, seed: int) -> None:
    assumed = scaling.Assumptions(raid_share=share, zipf=zipf)
    evening = scaling.play_evening(audience, assumed, np.random.default_rng(seed))
    assert evening.at_first + evening.came - evening.left == evening.at_last
    assert evening.fullest.min() >= 0
    assert evening.fullest.sum() >= max(evening.at_first, evening.at_last, evening.mean)
    assert evening.came >= evening.raid == round(share * audience)


def test_the_fullest_minute_is_about_the_audience_asked_for(scaling: Any) -> None:
    evening = scaling.play_evening(100_000, scaling.Assumptions(raid_share=0.0), np.random.default_rng(1))
    assert evening.fullest.sum() == pytest.approx(100_000, rel=0.05)
    # popularity is Zipf's: of two sessions the one twice as far down has half as many
    assert evening.fullest[9] / evening.fullest[19] == pytest.approx(2, rel=0.2)


def test_a_seed_says_everything(scaling: Any, costs: Any) -> None:
    first, again, other = (scaling.plan_all([5000], costs, scaling.Assumptions(), seed) for seed in (3, 3, 4))
    assert first == again
    assert first["plans"] != other["plans"]


@pytest.mark.parametrize("mode", ["video", "relayed", "drawn"])
def test_more_of_anything_that_costs_is_never_cheaper(scaling: Any, costs: Any, mode: str) -> None:
    assumed = scaling.Assumptions()
    evenings = [
        scaling.play_evening(audience, assumed, np.random.default_rng(0)) for audience in (100, 3_000, 90_000, 500_000)
    ]
    plans = [scaling.plan(mode, evening, costs[mode], assumed) for evening in evenings]
    for fewer, more in pairwise(plans):
        assert more.cores > fewer.cores
        assert more.egress_gbit > fewer.egress_gbit
        assert more.machines + more.janus_machines >= fewer.machines + fewer.janus_machines
        assert more.usd_per_month > fewer.usd_per_month
    plain = plans[2]
    dearer = scaling.plan(mode, evenings[2], replace(costs[mode], session=2 * costs[mode].session), assumed)
    assert dearer.cores > plain.cores
    assert dearer.served_share == plain.served_share
    heavier = scaling.plan(mode, evenings[2], replace(costs[mode], viewer=2 * costs[mode].viewer), assumed)
    assert heavier.served_share < plain.served_share
    larger = scaling.plan(mode, evenings[2], costs[mode], replace(assumed, cores=2 * assumed.cores))
    assert larger.machines + larger.janus_machines <= plain.machines + plain.janus_machines


def test_nobody_is_served_beyond_what_a_session_carries(scaling: Any, costs: Any) -> None:
    assumed = scaling.Assumptions(viewers_per_session=1000.0)
    evening = scaling.play_evening(2000, assumed, np.random.default_rng(0))
    cost = replace(costs["video"], viewer=0.0699, mbit=2.0)
    plan = scaling.plan("video", evening, cost, assumed)
    assert plan.largest_served == 10
    assert plan.served_share == pytest.approx(20 / evening.fullest.sum(), abs=1e-4)
    assert plan.cores == pytest.approx(2 * cost.session + 20 * 0.0699 + 20 / 1200 * cost.join_cpu_s, abs=0.06)
    assert plan.egress_gbit == pytest.approx(0.04, abs=1e-3)
    assert plan.breaks_first == "event loop of a session"
    one = scaling.plan("relayed", evening, replace(costs["relayed"], viewer=0.0699), assumed)
    ten = scaling.plan(
        "relayed", evening, replace(costs["relayed"], viewer=0.0699), replace(assumed, janus_per_session=10)
    )
    assert one.largest_served == 160
    assert one.served_share < ten.served_share <= 1


def test_it_is_a_program(tmp_path: Path, scaling: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--audience", "300", "--json", "--cores", "4"])
    runpy.run_path(str(PLACE), run_name="__main__")
    report = json.loads(capsys.readouterr().out)
    assert [plan["mode"] for plan in report["plans"]] == ["video", "relayed", "drawn"]
    assert report["assumed"]["cores"] == 4
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--audience", "300"])
    runpy.run_path(str(PLACE), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) == 4
    (tmp_path / "half.json").write_text('{"sessions": {}}')
    for arguments, says in (
        (["--costs", str(tmp_path / "half.json")], "browser sessions and their viewers cost"),
        (["--stay-min", "0"], "stay_min is 0.0, expected more than 0"),
        (["--audience", "1"], "the audience is 1, expected at least 2"),
    ):
        monkeypatch.setattr(sys, "argv", ["scaling.py", *arguments])
        with pytest.raises(SystemExit, match=says):
            runpy.run_path(str(PLACE), run_name="__main__")
