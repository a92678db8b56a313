"""Where and on what a figure was measured: without it no figure is quoted."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """What a benchmark prints about itself."""

    cpu: str
    cores: int
    load: float
    """Load average of the last minute when the benchmark started."""
    python: str
    commit: str
    """Git commit of the sources, with ``+`` when changed; the version where there is no checkout."""
    measured_at: str


def this_machine() -> Machine:
    """Ask the system; nothing is guessed."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        commit=_commit(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    return f"{fields['model name']} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def _commit() -> str:
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"version {version('lhm-live')}"
    return head.stdout.strip()
