"""What a run of LHM costs: memory before it starts, from shapes alone; time and memory of each stage while it runs."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import torch

from lhm_runtime.errors import BackendError
from lhm_runtime.reconstruction.lhm.allocations import trace_peak
from lhm_runtime.reconstruction.lhm.checkpoint import weight_bytes
from lhm_runtime.reconstruction.lhm.config import LhmConfig
from lhm_runtime.reconstruction.lhm.dinov2 import HeadEncoder
from lhm_runtime.reconstruction.lhm.network import LhmNetwork
from lhm_runtime.reconstruction.lhm.preprocessing import HEAD_INPUT_PX
from lhm_runtime.reconstruction.lhm.sapiens import SAPIENS_1B, Sapiens, runs_as_saved

STAGES: Final = ("cutting out", "body features", "head features", "transformer")

_PROCESS: Final = Path("/proc/self")
_CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class StageNeed:
    """Memory that a stage will take, beside what is in use before it."""

    stage: str
    weight_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """Of both, which are there at once."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage took."""

    stage: str
    seconds: float
    peak_bytes: int | None
    """Most memory in use during it: of the whole process on a CPU, of torch on a card. None: nobody tells."""

    def __str__(self) -> str:
        memory = "" if self.peak_bytes is None else f", {self.peak_bytes / 1e9:.2f} GB at most"
        return f"{self.stage}: {self.seconds:.1f} s{memory}"


def estimate_needs(
    config: LhmConfig, dtype: torch.dtype, *, device: str = "cpu", sapiens: Path | None = None
) -> tuple[StageNeed, ...]:
    """What each stage with a network in it needs, found by running it on the meta device.

    Args:
        config: of the network.
        dtype: of the large weights.
        device: torch's name of where it is to run.
        sapiens: file of the body encoder; the published one where None. A smaller one is taken to need less.
    """
    with torch.device("meta"):
        body_encoder = Sapiens(replace(SAPIENS_1B, depth=2)).to(dtype)
        head_encoder = HeadEncoder(config.dino, config.head_feature_dim).to(dtype)
        # blocks and layers between the first and the last take what these take
        network = LhmNetwork(replace(config, layers=min(config.layers, 2))).to_precision(dtype)
        side = SAPIENS_1B.grid * SAPIENS_1B.patch_px
        body_peak = trace_peak(body_encoder, torch.empty(1, 3, side, side))
        head_peak = trace_peak(head_encoder, torch.empty(1, 3, HEAD_INPUT_PX, HEAD_INPUT_PX))
        network_peak = trace_peak(
            network,
            torch.empty(config.points, 3),
            torch.empty(1, SAPIENS_1B.grid**2, config.body_feature_dim),
            torch.empty(1, (HEAD_INPUT_PX // 14) ** 2, config.head_feature_dim),
            torch.empty(config.points, dtype=torch.bool),
        )
    full = 4 * _sapiens_parameters()
    share = 1.0 if sapiens is None else min(sapiens.stat().st_size / full, 1.0)
    if runs_as_saved(dtype, device):
        dtype_share = 1.0
        body_peak += 2 * 4 * SAPIENS_1B.heads * (1 + SAPIENS_1B.grid**2) ** 2  # attention may be whole, in float32
    else:
        dtype_share = dtype.itemsize / 4
    weights = weight_bytes(config, dtype)
    return (
        StageNeed(STAGES[1], int(share * dtype_share * full), int(share * body_peak)),
        StageNeed(STAGES[2], weights["head_encoder"], head_peak),
        StageNeed(STAGES[3], weights["network"], network_peak),
    )


def require_memory(needs: tuple[StageNeed, ...], device: str, free: int | None) -> None:
    """Raise BackendError unless the largest of the needs is free; None: nobody tells how much is."""
    most = max(needs, key=lambda need: need.total_bytes)
    if free is None or most.total_bytes <= free:
        return
    stages = ", ".join(f"{need.stage} {need.total_bytes / 1e9:.1f}" for need in needs)
    raise BackendError(
        f"LHM needs {most.total_bytes / 1e9:.1f} GB of memory on {device} (GB by stage: {stages}), of which "
        f"{free / 1e9:.1f} are free: close other programs, or take --dtype bf16, --device cpu, --method lhm-mini, or "
        "--method projection, which needs one"
    )


def free_bytes(device: str) -> int | None:
    """Memory that can be had on a device now; None where nobody tells."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    free = _field(Path("/proc/meminfo"), "MemAvailable")
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        # files in the cache are given up when memory is asked for
        inside = int(text) - int(used.read_text()) + (_field(_CGROUP / "memory.stat", "inactive_file", unit=1) or 0)
        free = inside if free is None else min(free, inside)
    return free


class Meter:
    """Takes the time and the memory of one stage after the other."""

    def __init__(self, device: str, tell: Callable[[str, float], None] | None = None) -> None:
        """``tell`` gets the name of each stage that begins, and the share of all that is done."""
        self.costs: list[StageCost] = []
        self._is_card = device.startswith("cuda")
        self._device, self._tell = device, tell
        self._stage, self._since = "", 0.0

    def begin(self, stage: str, done: float) -> None:
        """Another stage begins, and the one before ends."""
        self.end()
        if self._tell is not None:
            self._tell(stage, done)
        self._stage, self._since = stage, time.perf_counter()
        if self._is_card:
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with suppress(OSError):  # where this is not to be had, the peak is that of the process so far
                (_PROCESS / "clear_refs").write_text("5")  # the peak begins anew (proc(5))

    def end(self) -> None:
        """The stage under way ends; nothing where there is none."""
        if not self._stage:
            return
        if self._is_card:
            torch.cuda.synchronize(self._device)
            peak: int | None = int(torch.cuda.max_memory_allocated(self._device))
        else:
            peak = _field(_PROCESS / "status", "VmHWM")
        self.costs.append(StageCost(self._stage, time.perf_counter() - self._since, peak))
        self._stage = ""


@cache
def _sapiens_parameters() -> int:
    with torch.device("meta"):
        return sum(tensor.numel() for tensor in Sapiens().state_dict().values())


def _field(path: Path, name: str, unit: int = 1024) -> int | None:
    """Bytes of a field in a file of the kernel's; most of those below /proc are in kB."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return None
    return next((unit * int(line[1]) for line in lines if line and line[0].removesuffix(":") == name), None)
