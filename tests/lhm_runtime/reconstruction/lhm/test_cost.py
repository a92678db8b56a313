"""What a run needs is known before it starts, and true: the same to the byte as torch's allocator hands out."""

import gc
import weakref
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lhm_checkpoints import CONFIG, write_lhm
from people import DEMO_PERSON
from torch.profiler import ProfilerActivity, profile

from lhm_runtime.errors import BackendError
from lhm_runtime.reconstruction.lhm import cost, pipeline, transformer
from lhm_runtime.reconstruction.lhm.allocations import AllocationTrace, trace_peak
from lhm_runtime.reconstruction.lhm.checkpoint import open_checkpoint
from lhm_runtime.reconstruction.lhm.config import VARIANTS, DinoConfig
from lhm_runtime.reconstruction.lhm.cost import (
    Meter,
    StageNeed,
    estimate_needs,
    free_bytes,
    require_memory,
)
from lhm_runtime.reconstruction.lhm.dinov2 import HeadEncoder
from lhm_runtime.reconstruction.lhm.network import LhmNetwork
from lhm_runtime.reconstruction.lhm.sapiens import Sapiens, SapiensConfig
from lhm_runtime.reconstruction.lhm.throughput import scale_down
from lhm_runtime.reconstruction.photo import read_photo

SMALL = replace(scale_down(VARIANTS["LHM-500M"], 16), layers=2, dino=DinoConfig(64, 2, 2, (0, 1)))


def allocated(module: torch.nn.Module, *given: torch.Tensor) -> int:
    """Bytes that torch's own allocator has handed out at most during a forward pass."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        module(*given)
    events: list[Any] = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    live, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def inputs(config: Any, device: str = "cpu") -> list[torch.Tensor]:
    return [
        torch.zeros(config.points, 3, device=device),
        torch.zeros(1, 256, config.body_feature_dim, device=device),
        torch.zeros(1, 64, config.head_feature_dim, device=device),
        torch.zeros(config.points, dtype=torch.bool, device=device),
    ]


@cache
def published_needs(name: str, dtype: torch.dtype, device: str) -> tuple[StageNeed, ...]:
    return estimate_needs(VARIANTS[name].config, dtype, device=device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_network_takes_what_was_foretold(dtype: torch.dtype) -> None:
    network = LhmNetwork(SMALL).to_precision(dtype).eval()
    with torch.device("meta"):
        foretold = trace_peak(LhmNetwork(SMALL).to_precision(dtype), *inputs(SMALL, "meta"))
    assert allocated(network, *inputs(SMALL)) == pytest.approx(foretold, rel=0.02)


def test_the_encoders_take_what_was_foretold() -> None:
    sapiens = SapiensConfig(width=48, depth=2, heads=2, grid=16)
    for make, side in ((lambda: Sapiens(sapiens), 256), (lambda: HeadEncoder(SMALL.dino, 24), 448)):
        with torch.device("meta"):
            foretold = trace_peak(make(), torch.empty(1, 3, side, side))
        assert allocated(make().eval(), torch.zeros(1, 3, side, side)) == pytest.approx(foretold, rel=0.02)


def test_what_is_freed_is_not_counted() -> None:
    given = torch.zeros(1000)
    with AllocationTrace(given) as trace:
        first = given + 1
        second = first.view(10, 100)
        assert trace.live_bytes == 4000
        del first, second
        gc.collect()
        assert trace.live_bytes == 0
        given.view(10, 100)
    assert trace.peak_bytes == 4000


def test_feed_forwards_in_portions_take_less(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, points=4096, layers=1, decoder_width=64)

    def peak() -> int:
        with torch.device("meta"):
            return trace_peak(LhmNetwork(config), *inputs(config, "meta"))

    monkeypatch.setattr(transformer, "FEED_FORWARD_ROWS", 512)
    in_portions = peak()
    monkeypatch.setattr(transformer, "FEED_FORWARD_ROWS", 1 << 30)
    assert peak() > 1.2 * in_portions


@pytest.mark.parametrize(("name", "gigabytes"), [("LHM-MINI", 8), ("LHM-500M", 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_published_networks_fit_small_cards(name: str, gigabytes: int, dtype: torch.dtype) -> None:
    needs = published_needs(name, dtype, "cuda")
    assert [need.stage for need in needs] == ["body features", "head features", "transformer"]
    assert 1e9 < max(need.total_bytes for need in needs) < gigabytes * 1e9
    transformer_need = needs[-1]
    assert transformer_need.activation_bytes > 12 * VARIANTS[name].config.points * 1024  # tokens, q, k, v at least


def test_depth_does_not_matter() -> None:
    """So two blocks tell what forty take."""
    peaks = []
    for depth in (2, 3):
        with torch.device("meta"):
            encoder = Sapiens(SapiensConfig(width=48, depth=depth, heads=2, grid=16))
            network = LhmNetwork(replace(SMALL, layers=depth))
            peaks.append(
                (trace_peak(encoder, torch.empty(1, 3, 256, 256)), trace_peak(network, *inputs(SMALL, "meta")))
            )
    assert peaks[0] == peaks[1]


def test_half_precision_halves_the_weights() -> None:
    whole, half = (published_needs("LHM-500M", dtype, "cuda") for dtype in (torch.float32, torch.bfloat16))
    assert half[0].weight_bytes == pytest.approx(whole[0].weight_bytes / 2, rel=0.01)
    assert all(a.total_bytes < b.total_bytes for a, b in zip(half, whole, strict=True))


def test_a_published_script_may_need_whole_attention() -> None:
    on_cpu, on_card = (published_needs("LHM-500M", torch.float32, device)[0] for device in ("cpu", "cuda"))
    assert on_cpu.activation_bytes > on_card.activation_bytes + 3e9


def test_too_little_memory_says_how_much() -> None:
    needs = (StageNeed("body features", int(4e9), int(1e9)), StageNeed("transformer", int(1e9), int(2e9)))
    require_memory(needs, "cpu", int(5e9))
    require_memory(needs, "cpu", None)
    with pytest.raises(BackendError) as caught:
        require_memory(needs, "cpu", int(4.9e9))
    assert "needs 5.0 GB of memory on cpu (GB by stage: body features 5.0, transformer 3.0)" in str(caught.value)
    assert "4.9 are free" in str(caught.value)
    assert "--method projection" in str(caught.value)


def test_containers_have_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_CGROUP", tmp_path)
    outside = free_bytes("cpu")
    (tmp_path / "memory.current").write_text("900000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes("cpu") == pytest.approx(outside, rel=0.2)
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert free_bytes("cpu") == 100_000_000
    (tmp_path / "memory.stat").write_text("anon 700000000\nfile 200000000\ninactive_file 150000000\nactive_file 5\n")
    assert free_bytes("cpu") == 250_000_000


def test_each_stage_has_its_own_peak() -> None:
    told: list[str] = []
    meter = Meter("cpu", lambda stage, done: told.append(f"{stage} {done}"))
    meter.begin("large", 0.0)
    block = torch.ones(50_000_000)
    del block
    meter.begin("small", 0.5)
    meter.end()
    meter.end()
    assert told == ["large 0.0", "small 0.5"]
    large, small = meter.costs
    assert large.seconds > 0
    if (Path("/proc/self") / "clear_refs").exists():
        assert large.peak_bytes is not None
        assert small.peak_bytes is not None
        assert large.peak_bytes - small.peak_bytes > 150_000_000
    assert str(large).startswith("large: ")


@pytest.mark.filterwarnings("ignore")
def test_encoders_are_gone_before_the_network_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_lhm(tmp_path)
    checkpoint = open_checkpoint(folder)
    encoders: list[weakref.ref[Any]] = []
    alive: list[int] = []
    load_sapiens, make_head = pipeline.load_sapiens, type(checkpoint).load_head_encoder
    load_network = type(checkpoint).load_network

    def watch(module: Any) -> Any:
        alive.append(sum(reference() is not None for reference in encoders))
        encoders.append(weakref.ref(module))
        return module

    monkeypatch.setattr(pipeline, "load_sapiens", lambda *a, **k: watch(load_sapiens(*a, **k)))
    monkeypatch.setattr(type(checkpoint), "load_head_encoder", lambda *a, **k: watch(make_head(*a, **k)))
    monkeypatch.setattr(type(checkpoint), "load_network", lambda *a, **k: watch(load_network(*a, **k)))
    sapiens = folder / "sapiens_1b_epoch_173_torchscript.pt2"
    made = pipeline.reconstruct_canonical(read_photo(DEMO_PERSON), checkpoint, sapiens, source_size=512)
    assert alive == [0, 0, 0]
    assert [one.stage for one in made.costs] == list(cost.STAGES)
    assert len(made.gaussians) == CONFIG.points
