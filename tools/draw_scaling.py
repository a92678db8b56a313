"""Draw docs/images/scaling.svg: what an audience costs a month by the way of watching, and how much of it is served.

python tools/draw_scaling.py
"""

import json
import subprocess
import sys
from math import log10
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
OUT: Final = ROOT / "docs" / "images" / "scaling.svg"
AUDIENCES: Final = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
LOOKS: Final = {
    "video": ("video from us", "#b4442c", ""),
    "relayed": ("one Janus a session", "#2c6db4", "8 3"),
    "tree": ("many Janus a session (not built)", "#6aa0d8", "2 3"),
    "drawn": ("drawn by viewers", "#3a8f5c", ""),
}
WIDTH, HEIGHT, LEFT, TOP, PLOT, GAP = 860, 380, 64, 40, 300, 110
STYLE: Final = 'font-family="sans-serif" font-size="12" fill="#333"'


def main() -> None:
    """Run the model and draw."""
    rows = _plans()
    plans = {mode: [row for row in rows if row["mode"] == mode] for mode in ("video", "relayed", "drawn")}
    plans["tree"] = [row for row in _plans("--janus-per-session", "100000") if row["mode"] == "relayed"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {STYLE}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_plot(
            LEFT,
            "USD a month, for those who are served",
            [10**k for k in range(2, 9)],
            2,
            8,
            plans,
            lambda row: log10(row["usd_per_month"]),
        ),
        *_plot(LEFT + PLOT + GAP, "share who are served", [0, 0.25, 0.5, 0.75, 1], 0, 1, plans, _served),
    ]
    for number, (name, colour, dashes) in enumerate(LOOKS.values()):
        x = LEFT + (0, 140, 310, 570)[number]
        parts.append(
            f'<path d="M{x} {HEIGHT - 14}h26" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}"/>'
        )
        parts.append(f'<text x="{x + 32}" y="{HEIGHT - 10}">{name}</text>')
    OUT.write_text("\n".join([*parts, "</svg>", ""]))
    print(OUT)


def _plans(*options: str) -> list[dict[str, Any]]:
    sizes = [str(size) for size in AUDIENCES]
    command = [sys.executable, str(ROOT / "benchmarks" / "scaling.py"), "--json", "--audience", *sizes, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)["plans"]
    return found


def _served(row: dict[str, Any]) -> float:
    return float(row["served_share"])


def _plot(
    left: int,
    title: str,
    ticks: list[float],
    low: float,
    high: float,
    plans: dict[str, list[dict[str, Any]]],
    value: Any,
) -> list[str]:
    """Axes and lines; ``value`` is between ``low`` and ``high``, as the logarithms of ticks above 1 are."""
    bottom, height = HEIGHT - 70, HEIGHT - 70 - TOP
    parts = [f'<text x="{left}" y="{TOP - 16}" font-weight="bold">{title}</text>']

    def across(audience: float) -> float:
        return left + PLOT * (log10(audience) - 2) / 5.2

    def up(at: float) -> float:
        return bottom - height * (at - low) / (high - low)

    for tick in ticks:
        y = up(log10(tick) if high > 1 else tick)
        says = f"{tick:.0%}" if high <= 1 else _short(tick)
        parts.append(f'<path d="M{left} {y:.1f}h{PLOT}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{says}</text>')
    for audience in (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        x = across(audience)
        parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_short(audience)}</text>')
    parts.append(f'<text x="{left + PLOT / 2}" y="{bottom + 33}" text-anchor="middle">viewers</text>')
    for mode, (_, colour, dashes) in LOOKS.items():
        points = " ".join(f"{across(row['viewers']):.1f},{up(value(row)):.1f}" for row in plans[mode])
        stroke = f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}"'
        parts.append(f'<polyline points="{points}" fill="none" {stroke}/>')
    return parts


def _short(number: float) -> str:
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{sign}"
    return f"{number:g}"


if __name__ == "__main__":
    main()
