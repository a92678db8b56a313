"""``lhm-live bench motion``: how exact, calm, quick and fast landmarks become poses."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.motion.accuracy import GeometryAccuracy, measure_geometry, measure_noise, random_poses
from lhm_runtime.motion.ideal_landmarks import IdealTracker, TrackerNoise
from lhm_runtime.motion.landmark_points import ANKLES, ELBOWS, HIPS, KNEES, SHOULDERS, WRISTS
from lhm_runtime.motion.procedural import relaxed_pose, wave
from lhm_runtime.motion.sequences import load_motion
from lhm_runtime.motion.smoothing import Smoother
from lhm_runtime.motion.solver import SolvedPose, Solver
from lhm_runtime.motion.tracker import Tracker
from lhm_runtime.types import Landmarks, SmplxPose
from streaming.bench.machine import this_machine
from streaming.video_input import VideoInput

_VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi"}
_FPS = 30.0
_STILL_S = 6.0
_STRIDE_HZ, _SWING_RAD = 0.9, 0.5
"""A walk at about 1.3 m/s: strides a second, and how far thighs and upper arms swing."""
_PAIRS = (
    *((SHOULDERS, "shoulder"), (ELBOWS, "elbow"), (WRISTS, "wrist")),
    *((HIPS, "hip"), (KNEES, "knee"), (ANKLES, "ankle")),
)
_SEEN = 0.6
"""Visibility above which a detected point is compared."""


def motion(
    source: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="Also this: a motion file (.npz, .bvh, LHM folder) or a video."),
    ] = None,
    poses: Annotated[int, typer.Option(min=10, help="Random poses for the geometry.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the solver and the smoothing on the free body.

    Geometry: perfect landmarks of known poses, solved. Noise: the same with MediaPipe's measured errors (2 mm jitter,
    10 % bone length, 60 mm depth) at several levels. Calm and quick: standing still with jitter, and the lag that
    smoothing adds at walking speed. A video is tracked, solved and smoothed, and its skeleton projected back.

    \b
    [bold]Examples[/bold]
      lhm-live bench motion
      lhm-live bench motion --input dance.npz --json
      lhm-live bench motion --input webcam.mp4
    """
    rest_joints = BodyModel.default().rest_joints()
    clips = {"wave": _poses(wave(4.0, _FPS))}
    if source is not None and source.suffix.lower() not in _VIDEOS:
        clips[source.stem] = _poses(load_motion(source))
    report: dict[str, Any] = {
        "machine": asdict(this_machine()),
        "geometry": {name: _geometry(measure_geometry(clip, rest_joints)) for name, clip in clips.items()},
        "noise": {name: _noise(clip, rest_joints) for name, clip in clips.items()},
        "still": _still(rest_joints),
        "added_lag_ms": _lag(rest_joints),
    }
    report["geometry"][f"{poses} random"] = _geometry(measure_geometry(random_poses(poses), rest_joints, separate=True))
    report["cpu_ms"] = _speed(clips["wave"], rest_joints)
    if source is not None and source.suffix.lower() in _VIDEOS:
        report["video"] = {source.name: _video(source, rest_joints)}
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def _poses(sequence: Any) -> list[SmplxPose]:
    return [sequence.pose(i) for i in range(len(sequence))]


def _geometry(accuracy: GeometryAccuracy) -> dict[str, Any]:
    return {
        "frames": accuracy.frames,
        "position_mm": round(accuracy.mean_position_mm, 2),
        "direction_deg": round(accuracy.mean_direction_deg, 3),
        "twist_deg": {name: round(value, 1) for name, value in accuracy.twist_deg.items()},
    }


def _noise(clip: Sequence[SmplxPose], rest_joints: np.ndarray) -> dict[str, Any]:
    rows = {}
    for level in (0.25, 0.5, 1.0, 2.0):
        noise = TrackerNoise().scaled(level)
        raw = measure_noise(clip, rest_joints, noise)
        smooth = measure_noise(clip, rest_joints, noise, _smoothed(Smoother()))
        rows[str(level)] = {
            "flips": raw.flips,
            "rotation_deg": round(raw.rotation_deg, 2),
            "direction_deg": round(raw.direction_deg, 2),
            "jitter_deg": round(raw.jitter_deg, 2),
            "smoothed_rotation_deg": round(smooth.rotation_deg, 2),
            "smoothed_jitter_deg": round(smooth.jitter_deg, 2),
            "smoothed_flips": smooth.flips,
        }
    return rows


def _smoothed(smoother: Smoother) -> Callable[[SolvedPose], SmplxPose]:
    return lambda solved: smoother.smooth(solved.pose, solved.confidence)


def _still(rest_joints: np.ndarray) -> dict[str, float]:
    """Root mean square turn of the limbs and trunk about their mean while the person stands still."""
    still = relaxed_pose()
    times = np.arange(round(_STILL_S * _FPS)) / _FPS
    poses = [SmplxPose(still.rotvec, still.transl, still.expression, float(t)) for t in times]
    tracker = IdealTracker(rest_joints, noise=TrackerNoise(bone_length=0.0, depth_m=0.0))
    found = {}
    for name, smoother in (("unsmoothed_deg", None), ("smoothed_deg", Smoother())):
        solver = Solver(rest_joints)
        solved = [solver.solve(tracker.see(pose)) for pose in poses]
        out = [s.pose if smoother is None else smoother.smooth(s.pose, s.confidence) for s in solved]
        R = rotvec_to_matrix(np.stack([pose.rotvec[:22] for pose in out[len(out) // 3 :]]).astype(np.float64))
        from_first = matrix_to_rotvec(R[:1].swapaxes(-1, -2) @ R)
        off = from_first - from_first.mean(axis=0)
        found[name] = round(float(np.degrees(np.sqrt((off**2).sum(-1).mean()))), 3)
    return found


def _lag(rest_joints: np.ndarray) -> dict[str, float]:
    """Milliseconds by which smoothing delays the swing of a walk, by joint."""
    still = relaxed_pose()
    joints = {"left_hip": 0, "left_knee": 0, "left_shoulder": 1, "left_elbow": 1}
    times = np.arange(round(8 * _FPS)) / _FPS
    truth: dict[str, list[float]] = {name: [] for name in joints}
    smoothed: dict[str, list[float]] = {name: [] for name in joints}
    tracker, solver, smoother = IdealTracker(rest_joints), Solver(rest_joints, same_proportions=True), Smoother()
    for t in times:
        phase = 2 * np.pi * _STRIDE_HZ * t
        rotvec = still.rotvec.copy()
        for side, sign in (("left", 1.0), ("right", -1.0)):
            swing = sign * np.sin(phase)
            rotvec[JOINT_INDEX[f"{side}_hip"]] += [-_SWING_RAD * swing, 0, 0]
            rotvec[JOINT_INDEX[f"{side}_knee"]] += [_SWING_RAD * (1 + np.sin(phase + sign)), 0, 0]
            rotvec[JOINT_INDEX[f"{side}_shoulder"]] += [0.6 * _SWING_RAD * swing, 0, 0]
            rotvec[JOINT_INDEX[f"{side}_elbow"]] += [0, -sign * 0.3 * (1 + swing), 0]
        pose = SmplxPose(rotvec.astype(np.float32), still.transl, still.expression, float(t))
        solved = solver.solve(tracker.see(pose))
        calm = smoother.smooth(solved.pose, solved.confidence)
        for name, axis in joints.items():
            truth[name].append(float(solved.pose.rotvec[JOINT_INDEX[name], axis]))
            smoothed[name].append(float(calm.rotvec[JOINT_INDEX[name], axis]))
    return {name: round(_delay_ms(times, np.array(truth[name]), np.array(smoothed[name])), 1) for name in joints}


def _delay_ms(times: np.ndarray, signal: np.ndarray, later: np.ndarray) -> float:
    """Shift of ``signal`` that fits ``later`` best, after both have settled."""
    settled = times > 2.0
    shifts = np.arange(-20, 150) / 1000
    errors = [np.mean((np.interp(times[settled] - s, times, signal) - later[settled]) ** 2) for s in shifts]
    return 1000 * float(shifts[int(np.argmin(errors))])


def _speed(clip: Sequence[SmplxPose], rest_joints: np.ndarray) -> dict[str, float]:
    """Median CPU milliseconds a frame of solver and smoother, with body and both hands in view."""
    tracker, solver, smoother = IdealTracker(rest_joints, noise=TrackerNoise()), Solver(rest_joints), Smoother()
    solve_s, smooth_s = [], []
    for landmarks in [tracker.see(pose) for pose in clip]:
        start = time.thread_time()
        solved = solver.solve(landmarks)
        middle = time.thread_time()
        smoother.smooth(solved.pose, solved.confidence)
        solve_s.append(middle - start)
        smooth_s.append(time.thread_time() - middle)
    return {
        "solver": round(1e3 * float(np.median(solve_s)), 3),
        "smoother": round(1e3 * float(np.median(smooth_s)), 3),
        "both": round(1e3 * float(np.median(np.add(solve_s, smooth_s))), 3),
    }


def _video(path: Path, rest_joints: np.ndarray) -> dict[str, Any]:
    """Track, solve and smooth a video, and project the skeleton onto the points that were detected."""
    solver, smoother = Solver(rest_joints), Smoother()
    shares: dict[str, list[float]] = {"solved": [], "smoothed": []}
    seen, solve_s, track_s, frames = 0, [], [], 0
    with VideoInput(str(path)) as video, Tracker() as tracker:
        for frame in video:
            frames += 1
            start = time.perf_counter()
            landmarks = tracker.track(frame.rgb, frame.timestamp_s)
            track_s.append(time.perf_counter() - start)
            start = time.thread_time()
            solved = solver.solve(landmarks)
            pose = smoother.smooth(solved.pose, solved.confidence)
            solve_s.append(time.thread_time() - start)
            seen += landmarks.body_world is not None
            if landmarks.body_image is not None:
                shares["solved"].append(_reprojection(solver, solved.pose, landmarks, rest_joints))
                shares["smoothed"].append(_reprojection(solver, pose, landmarks, rest_joints))
    compared = {name: np.array(row)[np.isfinite(row)] for name, row in shares.items()}
    return {
        "frames": frames,
        "body_found": round(seen / frames, 3),
        "frames_compared": len(compared["solved"]),
        "reprojection_share_of_height": {
            name: {"mean": round(float(row.mean()), 4), "p95": round(float(np.quantile(row, 0.95)), 4)}
            for name, row in compared.items()
        },
        "tracker_ms": round(1e3 * float(np.median(track_s)), 1),
        "solver_and_smoother_cpu_ms": round(1e3 * float(np.median(solve_s)), 3),
    }


def _reprojection(solver: Solver, pose: SmplxPose, landmarks: Landmarks, rest_joints: np.ndarray) -> float:
    """Mean distance of projected joints from detected points inside the picture, as a share of the person's height.

    The height is that of the solved skeleton as the camera sees it, so that a person cut by the frame is measured by
    all of them. NaN when no such point was seen.
    """
    camera = solver.camera(landmarks.image_size)
    T_world_joint = forward_kinematics(pose.rotvec, rest_joints, pose.transl)
    in_camera = T_world_joint[:, :3, 3] @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]
    depth = np.maximum(in_camera[:, 2], 1e-3)
    pixels = in_camera[:, :2] / depth[:, None] * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    tall_m = np.ptp(rest_joints[:, 1]) + 0.2  # soles and the top of the head are beyond the joints
    height_px = camera.fy * tall_m / depth[0]
    errors = []
    detected, visibility = landmarks.body_image, landmarks.body_visibility
    if detected is None or visibility is None:
        return float("nan")
    for points, name in _PAIRS:
        for point, side in zip(points, ("left", "right"), strict=True):
            place = detected[point]
            inside = (place >= 0).all() and (place <= landmarks.image_size).all()
            if visibility[point] > _SEEN and inside:
                errors.append(np.linalg.norm(pixels[JOINT_INDEX[f"{side}_{name}"]] - place))
    return float(np.mean(errors) / height_px) if errors else float("nan")


def _print(report: dict[str, Any]) -> None:
    console = Console()
    geometry = Table("perfect landmarks", "frames", "position, mm", "direction, °", "twist, ° (largest)")
    for name, row in report["geometry"].items():
        worst = max(row["twist_deg"], key=lambda joint: np.nan_to_num(row["twist_deg"][joint]))
        cells = (row["frames"], row["position_mm"], row["direction_deg"])
        geometry.add_row(name, *(str(cell) for cell in cells), f"{row['twist_deg'][worst]} {worst}")
    noise = Table("noise level", "flips", "rotation, °", "direction, °", "jitter, °", "smoothed", "its jitter")
    for name, rows in report["noise"].items():
        for level, row in rows.items():
            keys = (
                "flips",
                "rotation_deg",
                "direction_deg",
                "jitter_deg",
                "smoothed_rotation_deg",
                "smoothed_jitter_deg",
            )
            noise.add_row(f"{name} x{level}", *(str(row[key]) for key in keys))
    console.print(geometry, noise)
    for key in ("still", "added_lag_ms", "cpu_ms", "video"):
        if key in report:
            console.print(f"{key}: {report[key]}")
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), style="dim")
