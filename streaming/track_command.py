"""The command ``lhm-live track``: a video or a camera becomes a recorded motion."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lhm_runtime.errors import InvalidInputError, LhmLiveError
from lhm_runtime.motion.expression import map_face
from lhm_runtime.motion.sequences import MotionSequence, save_motion
from lhm_runtime.motion.smoothing import Smoother
from lhm_runtime.motion.solver import Solver
from lhm_runtime.motion.tracker import Mode
from lhm_runtime.motion.tracker_worker import TrackerProcess
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.types import Landmarks, SmplxPose
from streaming.arguments import require_writable
from streaming.tracking_preview import PreviewPainter, panel_size
from streaming.video_file import write_video
from streaming.video_input import VideoFrame, VideoInput

_MAX_PREVIEW_FPS = 120.0
_LONGEST_STILL_S = 5.0  # a gap between frames is shown for no longer


def track(
    source: Annotated[
        str, typer.Argument(metavar="VIDEO|CAMERA", help="A video file, or a camera: 0, 1, ... or /dev/video0.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.npz", help="The motion file to write.")],
    preview: Annotated[
        Path | None,
        typer.Option(metavar="OUT.mp4", help="Also a video: what was seen, beside the built-in person doing the same."),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="Head to toe, or head and shoulders; 'auto' goes by what is in view.")
    ] = "auto",
    mirror: Annotated[bool, typer.Option("--mirror", help="The picture is mirrored, as self-views are.")] = False,
    height_m: Annotated[
        float | None, typer.Option(help="The person's height in metres; the built-in person's when left out.")
    ] = None,
    fov: Annotated[
        float | None, typer.Option(help="The camera's vertical field of view in degrees; a phone's when left out.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this long.")] = None,
) -> None:
    """Follow a person in a video, or before a camera, and write the motion to a file.

    Ctrl-C ends a recording; what was seen until then is written.

    \b
    [bold]Examples[/bold]
      lhm-live track dance.mp4 -o dance.npz --preview look.mp4
      lhm-live track 0 -o me.npz --seconds 20           the first camera
      lhm-live render me.avatar --pose dance.npz -o me.mp4
    """
    require_writable(out, ".npz", "--out")
    if preview is not None:
        require_writable(preview, ".mp4", "--preview")
    with ExitStack() as stack:
        video = stack.enter_context(VideoInput(source))
        tracker = stack.enter_context(TrackerProcess(mode, mirror=mirror))
        with Console(stderr=True).status("making the built-in person"):  # while the models load
            avatar = build_person()
        face = map_face(avatar.expression_names)
        take = _Take(Solver(avatar.rest_joints, fov_y_deg=fov, person_height_m=height_m, face=face))
        stop = stack.enter_context(_interrupt_as_event())
        steps = take.record(_until(_shown(video), stop, seconds), tracker)
        if preview is not None:
            painter = stack.enter_context(closing(PreviewPainter(avatar)))
            _film(steps, painter, take.solver, video.fps, preview, mirror=mirror)
        for _ in steps:  # all, or what an empty preview has left
            pass
    take.save(out, avatar.expression_names)
    if preview is not None:
        _report(f"wrote {preview}: the preview")
    if take.failure is not None:
        raise take.failure
    if stop.is_set() and not video.is_camera:
        raise typer.Exit(130)


@dataclass(slots=True, eq=False)
class _Step:
    """One frame, followed."""

    frame: VideoFrame
    landmarks: Landmarks
    pose: SmplxPose | None
    """None until somebody is seen."""


@dataclass(slots=True, eq=False)
class _Take:
    """A recording in the making, and what there is to say about it."""

    solver: Solver
    smoother: Smoother = field(default_factory=Smoother)
    poses: list[SmplxPose] = field(default_factory=list)
    frames: int = 0
    seen: dict[str, int] = field(default_factory=lambda: {"body": 0, "face": 0, "left hand": 0, "right hand": 0})
    repeated: int = 0
    tracking_s: float = 0.0
    failure: LhmLiveError | None = None
    """What ended it early."""

    def record(self, frames: Iterator[VideoFrame], tracker: TrackerProcess) -> Iterator[_Step]:
        """Follow each frame; ends early, and keeps why, when the video or the tracker fails."""
        try:
            tracker.wait_until_ready()
            for frame in frames:
                yield self._follow(frame, tracker)
        except LhmLiveError as error:
            if not self.poses:
                raise
            self.failure = error

    def save(self, out: Path, expression_names: tuple[str, ...]) -> None:
        """Write the motion and say what is in it; raises InvalidInputError when nobody was seen."""
        if not self.poses:
            raise InvalidInputError(
                f"nobody was seen in {self.frames} frames: is there light, and is the person large enough?"
            )
        save_motion(
            out,
            MotionSequence(
                rotvec=np.stack([pose.rotvec for pose in self.poses]),
                transl=np.stack([pose.transl for pose in self.poses]),
                expression=np.stack([pose.expression for pose in self.poses]),
                timestamps_s=np.array([pose.timestamp_s for pose in self.poses]),
                expression_names=expression_names,
            ),
        )
        shares = ", ".join(f"{part} {count / self.frames:.0%}" for part, count in self.seen.items())
        length_s = self.poses[-1].timestamp_s - self.poses[0].timestamp_s
        early = "what was seen until it ended early: " if self.failure else ""
        _report(f"wrote {out}: {early}{len(self.poses)} frames, {length_s:.1f} s")
        _report(f"seen in {self.frames} frames: {shares}; {1000 * self.tracking_s / self.frames:.0f} ms a frame")
        if self.repeated:
            _report(f"left out: {self.repeated} frames whose time was not after the one before")

    def _follow(self, frame: VideoFrame, tracker: TrackerProcess) -> _Step:
        started = time.perf_counter()
        landmarks = tracker.track(frame.rgb, frame.timestamp_s)
        self.tracking_s += time.perf_counter() - started
        self.frames += 1
        parts = (landmarks.body_world, landmarks.face_image, landmarks.left_hand_world, landmarks.right_hand_world)
        for name, part in zip(self.seen, parts, strict=True):
            self.seen[name] += part is not None
        if not self.poses and landmarks.body_world is None:
            return _Step(frame, landmarks, None)
        if self.poses and frame.timestamp_s <= self.poses[-1].timestamp_s:
            self.repeated += 1
            return _Step(frame, landmarks, self.poses[-1])
        solved = self.solver.solve(landmarks)
        self.poses.append(self.smoother.smooth(solved.pose, solved.confidence))
        return _Step(frame, landmarks, self.poses[-1])


def _film(
    steps: Iterator[_Step], painter: PreviewPainter, solver: Solver, fps: float, path: Path, *, mirror: bool
) -> None:
    """Write the preview of ``steps``, if there are any."""
    pictures = _paint(steps, painter, solver, min(fps, _MAX_PREVIEW_FPS), mirror=mirror)
    first = next(pictures, None)
    if first is not None:
        write_video(path, chain([first], pictures), min(fps, _MAX_PREVIEW_FPS))


def _paint(
    steps: Iterator[_Step], painter: PreviewPainter, solver: Solver, fps: float, *, mirror: bool
) -> Iterator[np.ndarray]:
    """Pictures at a steady rate, whatever the frames' own is; all of the first one's size."""
    painted, shown_s, size = 0, 0.0, None
    for step in steps:
        image_size = step.landmarks.image_size
        size = size or image_size
        shown_s = min(max(shown_s, step.frame.timestamp_s), shown_s + _LONGEST_STILL_S)
        due = round(shown_s * fps) + 1
        if due <= painted or image_size != size:
            continue
        rgb = np.ascontiguousarray(step.frame.rgb[:, ::-1]) if mirror else step.frame.rgb
        picture = painter.paint(rgb, step.landmarks, step.pose, solver.camera(panel_size(image_size)))
        while painted < due:
            yield picture
            painted += 1


def _shown(video: VideoInput) -> Iterator[VideoFrame]:
    columns = (TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(video, total=video.length)


def _until(frames: Iterator[VideoFrame], stop: threading.Event, seconds: float | None) -> Iterator[VideoFrame]:
    for frame in frames:
        if stop.is_set() or (seconds is not None and frame.timestamp_s >= seconds):
            return
        yield frame


@contextmanager
def _interrupt_as_event() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that nothing is cut in half; the second one stops at once."""
    stop = threading.Event()

    def set_once(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()

    before = signal.signal(signal.SIGINT, set_once)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _report(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line, markup=False)
