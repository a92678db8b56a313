"""``lhm-live bench rasterizer``: milliseconds a frame by stage, and against what a user could write."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.body.rotations import quat_wxyz_to_matrix
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Framing, Renderer, frame_person
from lhm_runtime.rasterizer.reference import rasterize_reference, warp
from lhm_runtime.reconstruction.builtin_person import MAX_COUNT, build_person
from lhm_runtime.types import Camera, Gaussians
from streaming.bench.machine import this_machine
from streaming.bench.naive_splatting import naive_renderer

IsaChoice = Literal["auto", "v2", "v3", "v4", "generic"]

_REFERENCE_GAUSSIANS, _REFERENCE_SIZE = 10_000, 128
"""The reference is three orders of magnitude slower: it gets a small scene, and so does the kernel beside it."""


def rasterizer(
    gaussians: Annotated[int, typer.Option(min=100, max=2_000_000, help="Gaussians of the built-in person.")] = 40_000,
    size: Annotated[int, typer.Option(min=16, max=8192, help="Width and height in pixels; even.")] = 512,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads that blend.")] = 1,
    isa: Annotated[IsaChoice, typer.Option(help="Which kernel; auto is the fastest this CPU runs.")] = "auto",
    framing: Annotated[Framing, typer.Option(help="How much of the person is in the picture.")] = "full",
    frames: Annotated[int, typer.Option(min=5, help="Frames measured, after a few that are not.")] = 100,
    peers: Annotated[
        bool, typer.Option(help="Also time the float64 reference (a small scene) and naive numba code.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the CPU rasterizer on the built-in person: skinning, projection, sort, bins, blending, I420 out.

    Stages are CPU milliseconds of the calling thread, medians; the whole frame is also given in wall time, which
    another program on the machine makes longer.

    \b
    [bold]Examples[/bold]
      lhm-live bench rasterizer
      lhm-live bench rasterizer --size 1024 --isa v2 --json
      lhm-live bench rasterizer --framing head --threads 2
    """
    report = measure(gaussians, size, threads, isa, framing, frames, peers=peers)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def measure(
    gaussians: int, size: int, threads: int, isa: IsaChoice, framing: Framing, frames: int, *, peers: bool
) -> dict[str, Any]:
    """Everything the command prints."""
    avatar = _person(gaussians)
    pose = relaxed_pose(avatar.expression_names)
    matrices = joint_matrices(pose, avatar.rest_joints)
    joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)[:, :3, 3]
    camera = frame_person(joints, framing, size, size, yaw=0.35)
    renderer = Renderer(avatar, threads=threads, isa=isa)
    out = np.empty((size * 3 // 2, size), np.uint8)
    for _ in range(5):
        renderer.render(matrices, pose.expression, camera, pixel_format="i420", out=out)
    profiles, walls = [], []
    for _ in range(frames):
        start = time.perf_counter()
        profiles.append(asdict(renderer.profile(matrices, pose.expression, camera, out)))
        walls.append((time.perf_counter() - start) * 1e3)
    stages = {name: float(np.median([p[name] for p in profiles])) for name in profiles[0]}
    report: dict[str, Any] = {
        "machine": asdict(this_machine()),
        "scene": {
            "gaussians": gaussians,
            "size": size,
            "framing": framing,
            "threads": threads,
            "isa": renderer.isa,
            "output": "i420",
            "frames": frames,
        },
        "stage_cpu_ms": {name: round(value, 3) for name, value in stages.items()},
        "frame_cpu_ms": round(float(np.median([sum(p.values()) for p in profiles])), 3),
        "frame_wall_ms": {"min": round(min(walls), 3), "median": round(float(np.median(walls)), 3)},
    }
    if peers:
        report["peers"] = _peers(avatar, matrices, camera, framing, renderer, joints)
    return report


def _person(count: int) -> Avatar:
    """The built-in person; beyond its own limit each Gaussian is split into several smaller ones."""
    parts = -(-count // MAX_COUNT)
    person = build_person(count // parts)
    if parts == 1:
        return person
    rest, rng = person.gaussians, np.random.default_rng(0)
    source = np.arange(count) % len(person)
    axes = quat_wxyz_to_matrix(rest.quat_wxyz) * rest.scales[:, None]
    offsets = np.einsum("nij,nj->ni", axes[source], rng.normal(0, 0.7, (count, 3)))
    still = np.zeros(0, np.int32)
    return replace(
        person,
        gaussians=Gaussians(
            (rest.means[source] + offsets).astype(np.float32),
            rest.quat_wxyz[source],
            rest.scales[source] / np.float32(np.sqrt(parts)),
            rest.opacity[source],
            rest.rgb[source],
        ),
        skin_joints=person.skin_joints[source],
        skin_weights=person.skin_weights[source],
        constrained=person.constrained[source],
        expression_gaussians=still,
        expression_directions=person.expression_directions[still],
    )


def _peers(
    avatar: Avatar, matrices: np.ndarray, camera: Camera, framing: Framing, renderer: Renderer, joints: np.ndarray
) -> dict[str, Any]:
    def ours() -> object:
        return renderer.render(matrices, None, camera, pixel_format="float")

    found: dict[str, Any] = {}
    try:
        draw = naive_renderer(avatar)
    except ImportError:
        found["naive_numba"] = "numba is not installed: pip install 'lhm-live[bench]'"
    else:
        draw(matrices, camera)
        theirs_ms, ours_ms = _in_turn(lambda: draw(matrices, camera), ours, 7)
        found["naive_numba"] = {"ms": theirs_ms, "kernel_ms": ours_ms, "ratio": round(theirs_ms / ours_ms, 1)}
    small = build_person(_REFERENCE_GAUSSIANS)
    view = frame_person(joints, framing, _REFERENCE_SIZE, _REFERENCE_SIZE, yaw=0.35)
    small_renderer = Renderer(small, isa=renderer.isa)

    def reference() -> object:
        means, covs = warp(small, matrices, np.zeros(len(small.expression_names)))
        return rasterize_reference(means, covs, small.gaussians.opacity, small.gaussians.rgb, view)

    theirs_ms, ours_ms = _in_turn(
        reference, lambda: small_renderer.render(matrices, None, view, pixel_format="float"), 3
    )
    found["float64_reference"] = {
        "gaussians": _REFERENCE_GAUSSIANS,
        "size": _REFERENCE_SIZE,
        "ms": theirs_ms,
        "kernel_ms": ours_ms,
        "ratio": round(theirs_ms / ours_ms, 1),
    }
    return found


def _in_turn(a: Callable[[], object], b: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall milliseconds of two functions called in turn, so that both meet the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for function, kept in zip((a, b), times, strict=True):
            start = time.perf_counter()
            function()
            kept.append((time.perf_counter() - start) * 1e3)
    return round(float(np.median(times[0])), 3), round(float(np.median(times[1])), 3)


def _print(report: dict[str, Any]) -> None:
    scene, console = report["scene"], Console()
    table = Table(
        title=f"{scene['gaussians']} Gaussians, {scene['size']}x{scene['size']} {scene['output']}, {scene['framing']}, "
        f"kernel {scene['isa']}, {scene['threads']} thread(s)"
    )
    table.add_column("stage")
    table.add_column("ms (median)", justify="right")
    for name, value in report["stage_cpu_ms"].items():
        table.add_row(name.removesuffix("_ms").replace("_", " "), f"{value:.2f}")
    table.add_row("frame, CPU", f"{report['frame_cpu_ms']:.2f}", style="bold")
    wall = report["frame_wall_ms"]
    table.add_row("frame, wall (best)", f"{wall['median']:.2f} ({wall['min']:.2f})")
    for name, peer in report.get("peers", {}).items():
        label = name.replace("_", " ")
        if isinstance(peer, str):
            table.add_row(label, peer)
        else:
            table.add_row(f"{label}, against {peer['kernel_ms']:.2f}", f"{peer['ms']:.1f} ({peer['ratio']}x)")
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), style="dim")
