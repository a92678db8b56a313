"""Who used the processors: this process by thread, and the processes it started by what they are."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lhm_runtime.errors import BackendError

_PROC = Path("/proc")
_STAGES = {"-solve": "solve", "render": "draw", "encode-": "encode", "webcam-frames": "convert", "tracker": "hand over"}


@dataclass(frozen=True, slots=True)
class CpuClock:
    """CPU seconds used so far, by name."""

    at: float
    used: Mapping[str, float]

    def shares_since(self, before: "CpuClock") -> dict[str, float]:
        """Percent of one core used since ``before``, what is under half a percent left out."""
        took = self.at - before.at
        shares = {name: 100 * (used - before.used.get(name, 0.0)) / took for name, used in self.used.items()}
        return {name: round(share, 1) for name, share in sorted(shares.items()) if share >= 0.5}


def read_cpu_clock() -> CpuClock:
    """Read the clocks of all threads and child processes; raises BackendError where there is no /proc."""
    if not (_PROC / "self" / "task").is_dir():
        raise BackendError("this system does not tell what each process uses: /proc is missing")
    used: defaultdict[str, float] = defaultdict(float)
    for thread in threading.enumerate():
        used[f"server: {_stage(thread.name)}"] += _thread_seconds(thread.native_id)
    # decoders of incoming video and executors come and go; what is theirs shows in the whole
    whole = sum(os.times()[:2])
    used["server: other threads"] = max(whole - sum(used.values()), 0.0)
    for process in _descendants(os.getpid()):
        name, seconds = _process(process)
        used[name] += seconds
    return CpuClock(time.perf_counter(), used)


def children_seconds() -> float:
    """CPU seconds of the processes this one has started and of theirs, while they live; 0 where there is no /proc."""
    return sum(_process(process)[1] for process in _descendants(os.getpid())) if _PROC.is_dir() else 0.0


def _stage(thread: str) -> str:
    if thread == "MainThread":
        return "event loop"
    return next((stage for part, stage in _STAGES.items() if part in thread), "other threads")


def _thread_seconds(native_id: int | None) -> float:
    try:
        return int((_PROC / "self" / "task" / str(native_id) / "schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def _descendants(parent: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = list(children.get(parent, ()))
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting.extend(children.get(process, ()))
    return found


def _process(process: int) -> tuple[str, float]:
    folder = _PROC / str(process)
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        # Chromium's children write theirs with spaces
        command = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").split(" ")
    except OSError:
        return "ended", 0.0
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return _kind(command), seconds


def _kind(command: list[str]) -> str:
    options = dict(part.partition("=")[::2] for part in command)
    if "--type" in options:
        part = options.get("--utility-sub-type", options["--type"]).split(".")[0]
        return f"chromium: {part}"
    if any("chrom" in part for part in command[:1]):
        return "chromium: browser"
    return "tracker, or a server measured beside" if "--multiprocessing-fork" in command else "other processes"
