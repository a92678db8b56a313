"""What an audience of any size takes: machines, traffic, money, and what gives way first (docs/scaling.md).

An evening is played through: viewers come to sessions of uneven popularity (Zipf) and leave, and once a crowd comes to
the most watched session within seconds. The fullest minute is then served in each of three ways: video straight from
us, video by way of Janus, poses to viewers who draw the avatar themselves. What a session and a viewer cost is measured
(lhm-live bench capacity --janus deploy/janus --json, by default what is kept in capacity.json); everything else is
assumed, and an option.

    python benchmarks/scaling.py [--costs FILE] [--audience 1000 100000 10000000] [--seed 0] [--json]
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from streaming.bench.capacity import USE
from streaming.hub import KEYFRAME_INTERVAL_S

COSTS: Final = Path(__file__).with_name("capacity.json")
SIZES: Final = (1_000, 100_000, 10_000_000)
MODES: Final = ("video", "relayed", "drawn")


@dataclass(frozen=True)
class Assumptions:
    """What is not measured; prices as of November 2026, rounded, of no provider in particular."""

    viewers_per_session: float = 100.0
    """On average, at the fullest."""
    zipf: float = 1.0
    """The kth session has a share of the audience in proportion to k to the minus this."""
    stay_min: float = 20.0
    """Of a viewer, on average; exponentially distributed."""
    evening_min: int = 120
    raid_share: float = 0.01
    """Of the audience, which comes to the most watched session at once."""
    patience_s: float = 10.0
    """Who waits longer for a picture goes."""
    cores: int = 16
    """Of a machine."""
    nic_gbit: float = 10.0
    """Of a machine, outwards."""
    janus_per_session: int = 1
    """To how many Janus a session may be sent; more than one is not built."""
    janus_join_cpu_s: float = 0.005
    """A viewer's handshakes there, in C; ours are measured."""
    relay_join_cpu_s: float = 0.003
    """Ours for such a viewer, whose offer and answer pass through."""
    keyframe_kbit: float = 200.0
    """Of a picture that stands by itself."""
    machine_usd: float = 350.0
    """A month."""
    egress_usd_per_gb: float = 0.01
    """In bulk; by the gigabyte, clouds ask five to nine times as much."""
    hours_a_day: float = 6.0
    """Of such evenings; machines are paid day and night."""


@dataclass(frozen=True)
class Costs:
    """Of one way of watching, in cores (CPU seconds a second)."""

    session: float
    viewer: float
    join_cpu_s: float
    mbit: float
    join_megabytes: float
    feed: float = 0.0
    """Of a session, for each Janus it is sent to."""


@dataclass(frozen=True, eq=False)
class Evening:
    """Who came and went."""

    at_first: int
    came: int
    left: int
    at_last: int
    mean: float
    """Viewers present, over the evening."""
    fullest: np.ndarray
    """Viewers of each session in the fullest minute, int64."""
    raid: int
    """How many came at once."""


@dataclass(frozen=True)
class Plan:
    """What serves the fullest minute."""

    mode: str
    viewers: int
    sessions: int
    served_share: float
    """Of the viewers; the others are beyond what one session can serve this way."""
    largest_session: int
    largest_served: int
    machines: int
    """Ours; without spares."""
    janus_machines: int
    cores: float
    """Busy ones, of all machines."""
    egress_gbit: float
    usd_per_month: float
    egress_share_of_cost: float
    loads: dict[str, float]
    """What may give way, and how far it is used: 1 is its limit."""
    breaks_first: str


def main() -> None:
    """Print the plans."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--costs", type=Path, default=COSTS, help="JSON of lhm-live bench capacity")
    parser.add_argument("--audience", type=int, nargs="+", default=SIZES, metavar="N", help="at the fullest")
    parser.add_argument("--driver", default="browser", choices=("replay", "browser", "webcam"), help="of all sessions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    given = vars(parser.parse_args())
    try:
        assumed = Assumptions(**{field.name: given[field.name] for field in fields(Assumptions)})
        report = plan_all(given["audience"], read_costs(given["costs"], given["driver"]), assumed, given["seed"])
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(report, indent=2) if given["json"] else table(report))


def read_costs(path: Path, driver: str) -> dict[str, Costs]:
    """The measured costs of each way, for sessions driven by ``driver``; raises ValueError."""
    try:
        report = json.loads(path.read_text())
        session = report["sessions"][driver]
        found = {}
        for mode in MODES:
            viewer = report["viewers"][mode]
            found[mode] = Costs(
                session=session["undrawn_cores" if mode == "drawn" else "cores"],
                viewer=viewer["viewer_cores"],
                join_cpu_s=viewer.get("join_cpu_s", 0.0),
                mbit=viewer["mbit_per_second"],
                join_megabytes=viewer["join_megabytes"],
                feed=viewer.get("feed_cores", 0.0),
            )
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} does not say what {driver} sessions and their viewers cost ({type(error).__name__}: {error}): "
            "make it with lhm-live bench capacity --janus deploy/janus --json"
        ) from error
    return found


def plan_all(audiences: list[int], costs: Mapping[str, Costs], assumed: Assumptions, seed: int) -> dict[str, Any]:
    """Everything that is printed."""
    plans = []
    for audience in audiences:
        evening = play_evening(audience, assumed, np.random.default_rng([seed, audience]))
        plans += [asdict(plan(mode, evening, costs[mode], assumed)) for mode in MODES]
    used = {mode: asdict(cost) for mode, cost in costs.items()}
    return {"seed": seed, "measured": used, "assumed": asdict(assumed) | {"use": USE}, "plans": plans}


def play_evening(audience: int, assumed: Assumptions, rng: np.random.Generator) -> Evening:
    """Viewers by the minute; about ``audience`` are there at the fullest. Raises ValueError for impossible numbers."""
    _check(audience, assumed)
    sessions = max(1, round(audience / assumed.viewers_per_session))
    popularity = 1.0 / np.arange(1, sessions + 1) ** assumed.zipf
    popularity /= popularity.sum()
    leaving = -np.expm1(-1 / assumed.stay_min)
    raid = round(assumed.raid_share * audience)
    present = at_first = rng.multinomial(audience // 2, popularity)
    fullest, came, left, mean = present, 0, 0, 0.0
    for minute in range(assumed.evening_min):
        # as many as would leave if that share of the audience were there
        wanted = np.interp(minute / assumed.evening_min, (0, 1 / 3, 2 / 3, 1), (0.5, 1, 1, 0.5))
        coming = rng.poisson(audience * wanted * leaving * popularity)
        if minute == assumed.evening_min // 2:
            coming[0] += raid
        going = rng.binomial(present, leaving)
        present = present + coming - going
        came, left, mean = came + int(coming.sum()), left + int(going.sum()), mean + present.sum()
        if present.sum() > fullest.sum():
            fullest = present
    return Evening(
        int(at_first.sum()), came, left, int(present.sum()), mean / assumed.evening_min, fullest.astype(np.int64), raid
    )


def plan(mode: str, evening: Evening, cost: Costs, assumed: Assumptions) -> Plan:
    """Serve the fullest minute one way."""
    viewers = evening.fullest
    relayed = mode == "relayed"
    # one event loop serves a session, unless a Janus does
    by_cpu = USE * assumed.cores / cost.viewer if relayed else USE / cost.viewer
    by_nic = 1e3 * USE * assumed.nic_gbit / cost.mbit
    most = int(min(by_cpu, by_nic))
    limit = most * (assumed.janus_per_session if relayed else 1)
    served = np.minimum(viewers, limit)
    joins_per_s = served / (60 * assumed.stay_min)
    if relayed:  # which goes on where nobody watches
        feeds = np.maximum(np.ceil(served / most), 1)
        ours = (cost.session + cost.feed * feeds + joins_per_s * assumed.relay_join_cpu_s).sum()
        theirs = (served * cost.viewer + joins_per_s * assumed.janus_join_cpu_s).sum()
    else:
        ours = ((served > 0) * cost.session + served * cost.viewer + joins_per_s * cost.join_cpu_s).sum()
        theirs = 0.0
    egress_gbit = (1e-3 * served * cost.mbit + 8e-3 * joins_per_s * cost.join_megabytes).sum()
    machines = _machines(ours, 0.0 if relayed else egress_gbit, assumed)
    janus_machines = _machines(theirs, egress_gbit, assumed) if relayed else 0
    seconds_a_month = 30 * 3600 * assumed.hours_a_day
    egress_usd = egress_gbit / 8 * evening.mean / viewers.sum() * seconds_a_month * assumed.egress_usd_per_gb
    usd = (machines + janus_machines) * assumed.machine_usd + egress_usd
    loads = _loads(mode, evening, cost, assumed, most, limit)
    return Plan(
        mode=mode,
        viewers=int(viewers.sum()),
        sessions=len(viewers),
        served_share=round(float(served.sum() / viewers.sum()), 4),
        largest_session=int(viewers.max()),
        largest_served=limit,
        machines=machines,
        janus_machines=janus_machines,
        cores=round(float(ours + theirs), 1),
        egress_gbit=round(float(egress_gbit), 3),
        usd_per_month=round(float(usd)),
        egress_share_of_cost=round(float(egress_usd / usd), 3),
        loads={name: round(float(load), 3) for name, load in loads.items()},
        breaks_first=max(loads, key=lambda name: loads[name]),
    )


def _loads(mode: str, evening: Evening, cost: Costs, assumed: Assumptions, most: int, limit: int) -> dict[str, float]:
    """How far the most watched session uses what may give way."""
    largest = int(evening.fullest.max())
    # of a raid, only those are let in for whom there is room
    let_in = min(evening.raid, limit)
    in_time = let_in / (USE * assumed.patience_s)
    keyframes_per_s = min(largest / (60 * assumed.stay_min), 1 / KEYFRAME_INTERVAL_S)
    keyframes = keyframes_per_s * assumed.keyframe_kbit / (1e3 * cost.mbit)
    if mode == "relayed":
        cores = assumed.cores * np.ceil(min(largest, limit) / most)
        return {
            "its Janus": largest / limit,
            "raid: our signalling": in_time * assumed.relay_join_cpu_s,
            "raid: handshakes": in_time * assumed.janus_join_cpu_s / cores,
            "bits for joiners' keyframes": keyframes,
        }
    loads = {"event loop of a session": largest / limit, "raid: handshakes": in_time * cost.join_cpu_s}
    if mode == "drawn":
        gbit = 8e-3 * let_in * cost.join_megabytes / assumed.patience_s
        return loads | {"raid: avatar downloads": gbit / (USE * assumed.nic_gbit)}
    return loads | {"bits for joiners' keyframes": keyframes}


def _machines(cores: float, gbit: float, assumed: Assumptions) -> int:
    if cores <= 0 and gbit <= 0:
        return 0
    return max(1, int(np.ceil(max(cores / (USE * assumed.cores), gbit / (USE * assumed.nic_gbit)))))


def _check(audience: int, assumed: Assumptions) -> None:
    if audience < 2:
        raise ValueError(f"the audience is {audience}, expected at least 2")
    for name, value in asdict(assumed).items():
        least = 0.0 if name in {"zipf", "raid_share", "egress_usd_per_gb", "machine_usd", "keyframe_kbit"} else 1e-9
        if not least <= value < np.inf:
            raise ValueError(f"{name} is {value}, expected {'a number from 0 on' if least == 0 else 'more than 0'}")


def table(report: Mapping[str, Any]) -> str:
    """For people."""
    rows = [
        (
            "viewers",
            "way",
            "sessions",
            "served",
            "machines",
            "of Janus",
            "cores",
            "Gbit/s",
            "USD/month",
            "used most (1: its limit)",
        )
    ]
    for row in report["plans"]:
        first = row["breaks_first"]
        rows.append(
            (
                f"{row['viewers']:,}",
                row["mode"],
                f"{row['sessions']:,}",
                f"{row['served_share']:.1%}",
                f"{row['machines']:,}",
                f"{row['janus_machines']:,}",
                f"{row['cores']:,.0f}",
                f"{row['egress_gbit']:,.2f}",
                f"{row['usd_per_month']:,}",
                f"{first} ({row['loads'][first]:.2g})",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = {1, len(widths) - 1}
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if column in left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    main()
