"""How well poses come back: pose -> forward kinematics -> landmarks -> solver -> pose."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES, PARENTS
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.motion.directions import dot, twist, unit
from lhm_runtime.motion.ideal_landmarks import IdealTracker, TrackerNoise
from lhm_runtime.motion.joint_limits import LOWER_LIMITS, UPPER_LIMITS
from lhm_runtime.motion.solver import SolvedPose, Solver
from lhm_runtime.types import SmplxPose

_LIMB_JOINTS = ("hip", "knee", "ankle", "foot", "shoulder", "elbow", "wrist")
DEFINED_JOINTS = (*(f"{side}_{part}" for part in _LIMB_JOINTS for side in ("left", "right")), "head", *JOINT_NAMES[25:])
"""Joints whose place the landmarks define; pelvis, spine, neck, collars, jaw and eyes are inferred."""

_Degrees = float | int
_LIMBS = ("shoulder", "elbow", "hip", "knee")
_TYPICAL = 0.5
"""Share of the limits, which have some slack, that random trunks, heads and hands use."""
_BENT = np.radians(20.0)


@dataclass(frozen=True, slots=True, eq=False)
class GeometryAccuracy:
    """Errors over many poses, of perfect landmarks."""

    frames: int
    position_mm: Mapping[str, float]
    """Mean distance of each defined joint from where it was, both measured from the middle of the hips."""
    direction_deg: Mapping[str, float]
    """Mean error of each bone's direction, named by the joint it starts from."""
    twist_deg: Mapping[str, float]
    """Mean error of turn about the bone, for shoulders, elbows, hips and knees in frames in which the elbow or knee is
    bent by more than 20 degrees; NaN without such a frame."""
    rotation_deg: Mapping[str, float]
    """Mean error of each joint's world rotation."""
    solve_ms: float
    """Median time of the solver for a frame."""

    @property
    def mean_position_mm(self) -> float:
        """Over all defined joints."""
        return float(np.mean(list(self.position_mm.values())))

    @property
    def mean_direction_deg(self) -> float:
        """Over all bones."""
        return float(np.mean(list(self.direction_deg.values())))


@dataclass(frozen=True, slots=True, eq=False)
class NoiseAccuracy:
    """Errors on one motion seen by a noisy tracker."""

    noise: TrackerNoise
    rotation_deg: float
    """Mean error of the joints' world rotations."""
    direction_deg: float
    """Mean error of the limbs' directions."""
    flips: int
    """Frames in which a joint turns by more than 60 degrees while in truth it turns by less than 15."""
    largest_turn_deg: float
    """Of any joint from one frame to the next."""
    jitter_deg: float
    """Root mean square turn from frame to frame that is not in the motion, over limbs and trunk."""


def random_poses(count: int, seed: int = 0) -> list[SmplxPose]:
    """Poses within the joint limits: upper arms and thighs swing and twist as far as people can, hinges only flex,
    toes, jaw and eyes stay; the root faces anywhere."""
    rng = np.random.default_rng(seed)
    poses = []
    for index in range(count):
        rotvec = _TYPICAL * rng.uniform(np.maximum(LOWER_LIMITS, -np.pi), np.minimum(UPPER_LIMITS, np.pi))
        rotvec[0] = _combine([0, rng.uniform(-180, 180), 0], [rng.uniform(-25, 25), 0, rng.uniform(-20, 20)])
        rotvec[[10, 11, 22, 23, 24]] = 0
        for side, sign in (("left", 1), ("right", -1)):
            shoulder = [0.0, sign * rng.uniform(-100, 20), sign * rng.uniform(-75, 75)]
            hip = [rng.uniform(-100, 15), 0.0, sign * rng.uniform(-15, 35)]
            forearm = rng.uniform(-75, 5)  # shared by elbow and wrist, for no landmark tells how
            wrist = [0.0, sign * rng.uniform(-15, 25), sign * rng.uniform(-50, 50)]
            turns: dict[str, tuple[Sequence[_Degrees], Sequence[_Degrees]]] = {
                "shoulder": (shoulder, [rng.uniform(-80, 55), 0, 0]),
                "elbow": ([0, -sign * rng.uniform(0, 135), 0], [forearm, 0, 0]),
                "wrist": ([forearm, 0, 0], wrist),
                "hip": (hip, [0, rng.uniform(-35, 35), 0]),
                "knee": ([rng.uniform(0, 130), 0, 0], [0, 0, 0]),
            }
            for name, (first, second) in turns.items():
                rotvec[JOINT_INDEX[f"{side}_{name}"]] = _combine(first, second)
            for finger in ("index", "middle", "ring", "pinky"):
                for k in (2, 3):
                    rotvec[JOINT_INDEX[f"{side}_{finger}{k}"], :2] = 0
        transl = rng.uniform(-0.5, 0.5, 3)
        poses.append(
            SmplxPose(rotvec.astype(np.float32), transl.astype(np.float32), np.zeros(0, np.float32), index / 30)
        )
    return poses


def measure_geometry(
    poses: Iterable[SmplxPose], rest_joints: Float[np.ndarray, "55 3"], *, separate: bool = False
) -> GeometryAccuracy:
    """Solve perfect landmarks of ``poses``; ``separate`` poses are not frames of one motion."""
    tracker, solver = IdealTracker(rest_joints), Solver(rest_joints, same_proportions=True)
    truth, solved, times = [], [], []
    for pose in poses:
        landmarks = tracker.see(pose)
        if separate:
            solver.reset()
        start = time.perf_counter()
        result = solver.solve(landmarks)
        times.append(time.perf_counter() - start)
        truth.append(_world(pose, rest_joints))
        solved.append(_world(result.pose, rest_joints))
    return _compare(np.stack(truth), np.stack(solved), rest_joints, 1e3 * float(np.median(times)))


def measure_noise(
    poses: Iterable[SmplxPose],
    rest_joints: Float[np.ndarray, "55 3"],
    noise: TrackerNoise,
    smooth: Callable[[SolvedPose], SmplxPose] | None = None,
) -> NoiseAccuracy:
    """Solve noisy landmarks of a motion, and ``smooth`` what comes out if given."""
    tracker, solver = IdealTracker(rest_joints, noise=noise), Solver(rest_joints)
    truth, solved = [], []
    for pose in poses:
        result = solver.solve(tracker.see(pose))
        truth.append(_world(pose, rest_joints))
        solved.append(_world(result.pose if smooth is None else smooth(result), rest_joints))
    T, S = np.stack(truth), np.stack(solved)
    accuracy = _compare(T, S, rest_joints, 0.0)
    true_turn, turn = (_turns(_local(world)) for world in (T, S))
    true_world, world = (_turns(world[:, :22, :3, :3]) for world in (T, S))
    jitter = np.linalg.norm(world - true_world, axis=-1)
    turn_deg, true_turn_deg = (np.degrees(np.linalg.norm(t, axis=-1)) for t in (turn, true_turn))
    return NoiseAccuracy(
        noise=noise,
        rotation_deg=float(np.mean([accuracy.rotation_deg[name] for name in JOINT_NAMES[:22]])),
        direction_deg=accuracy.mean_direction_deg,
        flips=int(((turn_deg > 60) & (true_turn_deg < 15)).any(1).sum()),
        largest_turn_deg=float(turn_deg.max()),
        jitter_deg=float(np.degrees(np.sqrt((jitter**2).mean()))),
    )


def _compare(T: np.ndarray, S: np.ndarray, rest_joints: np.ndarray, solve_ms: float) -> GeometryAccuracy:
    """Errors of world transforms S [t, 55, 4, 4] against the true T."""
    hips = [JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]]
    true_places, places = (p - p[:, hips].mean(1, keepdims=True) for p in (T[..., :3, 3], S[..., :3, 3]))
    off = np.linalg.norm(true_places - places, axis=-1).mean(0)

    children = _bones()
    starts, ends = np.array([JOINT_INDEX[name] for name in children]), np.array(list(children.values()))
    true_bones, bones = (unit(p[:, ends] - p[:, starts]) for p in (true_places, places))
    directions = np.degrees(_angle(true_bones, bones)).mean(0)

    error = S[:, :, :3, :3].swapaxes(-1, -2) @ T[:, :, :3, :3]
    rotations = np.degrees(np.linalg.norm(matrix_to_rotvec(error), axis=-1)).mean(0)
    twists = {}
    for part in _LIMBS:
        for side in ("left", "right"):
            joint, hinge = (
                JOINT_INDEX[f"{side}_{part}"],
                f"{side}_{'elbow' if part in {'shoulder', 'elbow'} else 'knee'}",
            )
            middle = JOINT_INDEX[hinge]
            upper, lower = true_bones[:, starts == PARENTS[middle]], true_bones[:, starts == middle]
            bent = _angle(upper, lower)[:, 0] > _BENT
            bone = unit((rest_joints[children[f"{side}_{part}"]] - rest_joints[joint]).astype(np.float64))
            turned = np.abs(twist(error[bent, joint], np.broadcast_to(bone, (int(bent.sum()), 3))))
            twists[f"{side}_{part}"] = float(np.degrees(turned.mean())) if bent.any() else float("nan")
    return GeometryAccuracy(
        frames=len(T),
        position_mm={name: 1e3 * float(off[JOINT_INDEX[name]]) for name in DEFINED_JOINTS},
        direction_deg=dict(zip(children, directions.tolist(), strict=True)),
        twist_deg=twists,
        rotation_deg=dict(zip(JOINT_NAMES, rotations.tolist(), strict=True)),
        solve_ms=solve_ms,
    )


def _bones() -> dict[str, int]:
    """Start of each bone between defined joints -> joint at its end."""
    bones = {
        f"{side}_{start}": JOINT_INDEX[f"{side}_{end}"]
        for start, end in (
            *(("hip", "knee"), ("knee", "ankle"), ("ankle", "foot")),
            *(("shoulder", "elbow"), ("elbow", "wrist"), ("wrist", "middle1")),
        )
        for side in ("left", "right")
    }
    for name in JOINT_NAMES[25:]:
        if not name.endswith("3"):
            bones[name] = JOINT_INDEX[name] + 1
    return bones


def _world(pose: SmplxPose, rest_joints: np.ndarray) -> np.ndarray:
    return forward_kinematics(pose.rotvec, rest_joints, pose.transl)


def _local(world: np.ndarray) -> np.ndarray:
    """Rotations [t, 55, 3, 3] relative to the parents."""
    R = world[:, :, :3, :3]
    local = R.copy()
    local[:, 1:] = R[:, PARENTS[1:]].swapaxes(-1, -2) @ R[:, 1:]
    return local


def _turns(R: np.ndarray) -> np.ndarray:
    """Rotvecs [t - 1, j, 3] from each frame to the next."""
    return matrix_to_rotvec(R[:-1].swapaxes(-1, -2) @ R[1:])


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    angle: np.ndarray = 2 * np.arcsin(np.clip(0.5 * np.sqrt(dot(a - b, a - b)), 0, 1))
    return angle


def _combine(first_deg: Sequence[_Degrees], second_deg: Sequence[_Degrees]) -> Float64[np.ndarray, " 3"]:
    """Rotvec of two rotvecs in degrees, the second applied first."""
    first, second = rotvec_to_matrix(np.radians(np.array([first_deg, second_deg], np.float64)))
    return matrix_to_rotvec(first @ second)
