"""``lhm-live bench lhm``: the transformer's speed against plain torch, and the memory a network needs."""

import json
from dataclasses import asdict
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from lhm_runtime.errors import BackendError
from streaming.bench.machine import this_machine

Network = Literal["lhm-mini", "lhm-500m", "lhm-1b"]


def lhm(
    network: Annotated[Network, typer.Option(help="Whose proportions.")] = "lhm-500m",
    divisor: Annotated[
        int, typer.Option(min=1, max=16, help="Tokens and channels are divided by this; a divisor of 16.")
    ] = 8,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How often each way is run.")] = 7,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of torch.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time LHM's transformer, and the same written down in plain torch, in turn; list the memory it needs.

    No weights are needed: they are drawn at random, in float32 on the CPU. Tokens and channels are divided alike, so
    that attention takes the same share of the work as at full size, where plain attention alone takes 124 GB.

    \b
    [bold]Examples[/bold]
      lhm-live bench lhm
      lhm-live bench lhm --network lhm-mini --divisor 4 --json
    """
    report = measure(network, divisor, rounds, threads)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def measure(network: Network, divisor: int, rounds: int, threads: int) -> dict[str, Any]:
    """Everything the command prints.

    Raises:
        BackendError: torch is not installed.
    """
    if find_spec("torch") is None:
        raise BackendError("this benchmark needs torch: pip install 'lhm-live[lhm]'")
    from lhm_runtime.reconstruction.lhm.config import find_variant  # noqa: PLC0415
    from lhm_runtime.reconstruction.lhm.cost import estimate_needs  # noqa: PLC0415
    from lhm_runtime.reconstruction.lhm.run import PRECISIONS, dtype_of  # noqa: PLC0415
    from lhm_runtime.reconstruction.lhm.throughput import measure_throughput, use_threads  # noqa: PLC0415

    use_threads(threads)
    found = measure_throughput(find_variant(network), divisor=divisor, rounds=rounds)
    config = find_variant(network).config
    memory = {
        precision: {
            need.stage: round(need.total_bytes / 1e9, 2)
            for need in estimate_needs(config, dtype_of(precision), device="cuda")
        }
        for precision in PRECISIONS
    }
    shapes = {key: getattr(found, key) for key in ("points", "image_tokens", "width", "layers")}
    return {
        "machine": asdict(this_machine()),
        "network": network,
        "divisor": divisor,
        "rounds": rounds,
        "threads": threads,
        "shapes": shapes,
        "cpu_s": {
            "ours": round(found.ours_s, 4),
            "plain": round(found.plain_s, 4),
            "plain with torch's attention": round(found.plain_fused_s, 4),
        },
        "speedup": round(found.plain_s / found.ours_s, 2),
        "largest_difference": found.largest_difference,
        "gigabytes_on_a_card": memory,
    }


def _print(report: dict[str, Any]) -> None:
    console = Console(highlight=False)
    shapes = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in report["shapes"].items())
    table = Table(title=f"transformer of {report['network']}, divided by {report['divisor']}: {shapes}")
    table.add_column("way")
    table.add_column("CPU s", justify="right")
    for way, seconds in report["cpu_s"].items():
        table.add_row(way, f"{seconds:.3f}")
    console.print(table)
    console.print(
        f"{report['speedup']:.2f} times as fast as plain; results differ by {report['largest_difference']:.1e}"
    )
    needs = report["gigabytes_on_a_card"]
    memory = Table(title=f"{report['network']} at full size on a card: GB of weights and activations")
    memory.add_column("stage")
    for precision in needs:
        memory.add_column(precision, justify="right")
    for stage in next(iter(needs.values())):
        memory.add_row(stage, *(f"{needs[precision][stage]:.1f}" for precision in needs))
    console.print(memory)
    machine = report["machine"]
    console.print(
        f"{machine['cpu']}, load {machine['load']}, commit {machine['commit']}, {report['threads']} thread(s)"
    )
