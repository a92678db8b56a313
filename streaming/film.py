"""An avatar, a motion and a camera, drawn frame by frame for a file: a live session's offline counterpart."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.procedural import breathing, wave
from lhm_runtime.motion.sequences import MotionSequence, load_motion, motion_of_take
from lhm_runtime.motion.takes import Take
from lhm_runtime.rasterizer import Framing, PixelFormat, Renderer, frame_person
from lhm_runtime.types import Camera
from streaming.stage import DEFAULT_BACKGROUND, background_rgb, place_camera, standing_joints

DEFAULT_FPS = 30.0

TURNTABLE_S = 6.0
"""One turn of the camera, unless asked otherwise."""

WAVE_S = 4.0
"""One wave of the hand, unless asked otherwise."""

_SAME_TIME_S = 1e-6
_BEYOND_JOINT_M = 0.12  # the person around the outermost joints: from eyes to crown, from foot to toes


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """What is needed to draw each of t frames."""

    avatar: Avatar
    """Who moves."""
    joint_matrices: np.ndarray
    """[t, 55, 3, 4] float32, of each frame."""
    expression: np.ndarray
    """[t, e] float32, in the avatar's order."""
    cameras: tuple[Camera, ...]
    """One a frame, all of one size."""
    backgrounds: np.ndarray
    """[t, 3], colour behind each frame, in [0, 1]."""
    fps: float

    def __len__(self) -> int:
        return len(self.cameras)


def plan_film(
    avatar: Avatar,
    pose: str,
    *,
    size: tuple[int, int],
    framing: Framing | None = None,
    fps: float = DEFAULT_FPS,
    seconds: float | None = None,
) -> Film:
    """Put an avatar before a camera that fits it.

    Args:
        avatar: who is shown.
        pose: ``wave``, ``turntable`` (the camera goes round once) or the path of a recorded motion.
        size: width and height in pixels.
        framing: how much of the person is seen at first; the camera stays, far enough for what follows. As much as
            the avatar's sources showed where None.
        fps: frames a second; recordings are resampled.
        seconds: length; the default is the motion's own. Recordings are cut, never stretched.

    Raises:
        InvalidInputError: an argument outside these bounds, or no such motion.
        MotionFileError: the recording is unusable.
    """
    names = avatar.expression_names
    framing = avatar.metadata.shown if framing is None else framing
    if pose == "turntable":
        motion = breathing(TURNTABLE_S if seconds is None else seconds, fps, names)
        return _place(avatar, motion, np.arange(len(motion)) * 2 * np.pi / len(motion), size, framing, fps)
    if pose == "wave":
        motion = wave(WAVE_S if seconds is None else seconds, fps, names)
    elif Path(pose).exists():
        motion = _cut(load_motion(Path(pose)).resample(fps), seconds).with_expressions(names)
    else:
        raise InvalidInputError(f"pose {pose!r} is neither wave nor turntable nor a file or folder that exists")
    return _place(avatar, motion, np.zeros(len(motion)), size, framing, fps)


def plan_take(
    avatar: Avatar,
    take: Take,
    *,
    size: tuple[int, int] | None = None,
    framing: Framing | None = None,
    fps: float | None = None,
    seconds: float | None = None,
) -> Film:
    """Film a take again: what is None is as in the film it was made beside, and time 0 is that film's first picture.

    Args:
        avatar: who is shown; need not be who was.
        take: camera, mirror and background are its own, of each moment.
        size: width and height in pixels.
        framing: how much of the person is seen, all the time.
        fps: frames a second.
        seconds: length.

    Raises:
        InvalidInputError: an argument outside these bounds.
    """
    first = take.scenes[0]
    fps = float(first.fps) if fps is None else fps
    motion = _cut(motion_of_take(take).resample(fps), seconds).with_expressions(avatar.expression_names)
    matrices = _matrices(avatar, motion)
    joints = standing_joints(avatar.rest_joints)
    seen = [scene if framing is None else replace(scene, framing=framing) for scene in take.scenes]
    cameras = [place_camera(joints, scene, size or (first.width, first.height)) for scene in seen]
    colours = np.array([background_rgb(scene.background) for scene in take.scenes])
    # the pose that was there last, but for rounding of the times
    poses = np.searchsorted(take.timestamps_s, motion.timestamps_s + _SAME_TIME_S, side="right") - 1
    scenes = take.scene_index[np.maximum(poses, 0)]
    return Film(avatar, matrices, motion.expression, tuple(cameras[i] for i in scenes), colours[scenes], fps)


def plan_demo(avatar: Avatar, *, size: tuple[int, int], fps: float = DEFAULT_FPS) -> Film:
    """A turntable that slows down to a wave, in one shot."""
    names = avatar.expression_names
    standing, waving = breathing(TURNTABLE_S, fps, names), wave(WAVE_S, fps, names)
    turn = np.arange(len(standing)) / len(standing)
    eased = turn**2 * (3 - 2 * turn)
    motion = MotionSequence(
        rotvec=np.concatenate([standing.rotvec, waving.rotvec]),
        transl=np.concatenate([standing.transl, waving.transl]),
        expression=np.concatenate([standing.expression, waving.expression]),
        timestamps_s=np.arange(len(standing) + len(waving)) / fps,
        expression_names=names,
    )
    yaws = np.concatenate([2 * np.pi * eased, np.zeros(len(waving))])
    return _place(avatar, motion, yaws, size, avatar.metadata.shown, fps)


def draw(
    film: Film,
    renderer: Renderer,
    pixel_format: PixelFormat,
    *,
    background: Sequence[float] | None = None,
    frames: Iterable[int] | None = None,
) -> Iterator[np.ndarray]:
    """Draw ``frames`` (all by default), before ``background`` (the film's own where None).

    Each is the same buffer, valid until the next is asked for.
    """
    picture: np.ndarray | None = None
    for i in range(len(film)) if frames is None else frames:
        picture = renderer.render(
            film.joint_matrices[i],
            film.expression[i],
            film.cameras[i],
            pixel_format=pixel_format,
            background=film.backgrounds[i].tolist() if background is None else background,
            out=picture,
        )
        yield picture


def sample_frames(length: int, count: int) -> list[int]:
    """``count`` evenly spread of ``length`` frames, the first among them; all where there are fewer."""
    return [i * length // count for i in range(count)] if length > count else list(range(length))


def _place(
    avatar: Avatar, motion: MotionSequence, yaws: np.ndarray, size: tuple[int, int], framing: Framing, fps: float
) -> Film:
    matrices = _matrices(avatar, motion)
    joints = np.einsum("tjab,jb->tja", matrices[..., :3], avatar.rest_joints) + matrices[..., 3]
    cameras = [frame_person(joints[0], framing, *size, yaw=float(yaw)) for yaw in yaws]
    if framing != "head":  # a head may turn out of a close-up, but a hand that waves should be seen
        lowest = joints[0, 0, 1] if framing == "half" else -np.inf
        back_m = max(
            _missing_distance(camera, seen[seen[:, 1] >= lowest]) for camera, seen in zip(cameras, joints, strict=True)
        )
        cameras = [_step_back(camera, back_m) for camera in cameras]
    backgrounds = np.tile(background_rgb(DEFAULT_BACKGROUND), (len(motion), 1))
    return Film(avatar, matrices, motion.expression, tuple(cameras), backgrounds, fps)


def _matrices(avatar: Avatar, motion: MotionSequence) -> np.ndarray:
    return np.stack([joint_matrices(motion.pose(i), avatar.rest_joints) for i in range(len(motion))])


def _missing_distance(camera: Camera, points: np.ndarray) -> float:
    """How far to step back until all ``points`` [n, 3] (world, metres) are seen; 0 when they are."""
    x, y, z = camera.T_camera_world[:3, :3] @ points.T + camera.T_camera_world[:3, 3:]
    across = 2 * camera.fx * (np.abs(x) + _BEYOND_JOINT_M) / camera.width
    along = 2 * camera.fy * (np.abs(y) + _BEYOND_JOINT_M) / camera.height
    return float(np.max(np.maximum(across, along) - z, initial=0.0))


def _step_back(camera: Camera, metres: float) -> Camera:
    T_camera_world = camera.T_camera_world.copy()
    T_camera_world[2, 3] += metres
    return replace(camera, T_camera_world=T_camera_world)


def _cut(motion: MotionSequence, seconds: float | None) -> MotionSequence:
    if seconds is None:
        return motion
    if not seconds > 0:
        raise InvalidInputError(f"seconds is {seconds}, expected a positive number")
    kept = motion.timestamps_s < motion.timestamps_s[0] + seconds
    return MotionSequence(
        motion.rotvec[kept],
        motion.transl[kept],
        motion.expression[kept],
        motion.timestamps_s[kept],
        motion.expression_names,
    )
