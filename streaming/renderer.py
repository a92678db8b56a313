"""The thread that draws one session: it owns the avatar's Renderer and hands I420 straight to the encoders."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import PixelFormat, Renderer, frame_person, picture_shape
from lhm_runtime.types import Camera, SmplxPose
from streaming import metrics
from streaming.encoder import CLOCK_HZ
from streaming.latest import LatestForThread
from streaming.settings import Settings
from streaming.sources.idle import IdleMotion, blend_poses
from streaming.threads import attend_thread
from streaming.time_code import draw_time_code, pack_time_code

FORMATS: Final[dict[bool, PixelFormat]] = {False: "i420", True: "i420_alpha"}
"""By whether colour and alpha are stacked."""

_FPS_SPAN_S = 2.0

Submit = Callable[[np.ndarray, int, float], None]
"""Takes a picture (copies it), its pts in ticks of CLOCK_HZ, and when it was drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """What is to be drawn next."""

    time_s: float
    """On the session's steady clock, growing."""
    driven: SmplxPose | None
    """What the driver does."""
    share: float
    """Of the driver's pose against idle motion, 0 to 1."""
    captured_ms: float | None
    """When the driver was seen, for the time code."""
    settings: Settings
    takers: tuple[tuple[bool, Submit], ...]
    """Who gets the picture, and whether stacked."""


class RenderThread:
    """Draws moments; of two that wait the newer."""

    def __init__(self, avatar: Avatar, size: tuple[int, int]) -> None:
        """Draw ``avatar`` in pictures of ``size`` (width and height, even)."""
        self._avatar, self._size = avatar, size
        self._moments: LatestForThread[Moment] = LatestForThread()
        self._drawn: deque[float] = deque(maxlen=240)
        rest = relaxed_pose()
        self._joints = forward_kinematics(rest.rotvec, avatar.rest_joints, rest.transl)[:, :3, 3]

    @property
    def fps(self) -> float:
        """Pictures a second, lately."""
        since = time.monotonic() - _FPS_SPAN_S
        return sum(1 for at in tuple(self._drawn) if at > since) / _FPS_SPAN_S

    def submit(self, moment: Moment) -> None:
        """Ask for a picture; one that waits is overtaken."""
        before = self._moments.replaced
        self._moments.put(moment)
        if self._moments.replaced > before:
            metrics.FRAMES_DROPPED.labels("renderer_busy").inc()

    async def run(self) -> None:
        """Draw until cancelled; raises what drawing raises."""
        await attend_thread("render", self._work, self._moments.close)

    def _work(self) -> None:
        idle = IdleMotion(self._avatar.expression_names)
        pictures: dict[bool, np.ndarray] = {}
        view: tuple[Settings, Camera] | None = None
        with Renderer(self._avatar) as renderer:
            while (moment := self._moments.get()) is not None:
                start = time.perf_counter()
                if view is None or view[0] is not moment.settings:
                    view = (moment.settings, self._camera(moment.settings))
                pose = self._pose(moment, idle)
                matrices = joint_matrices(pose, self._avatar.rest_joints)
                expression = pose.expression[: len(self._avatar.expression_names)]
                for stacked in {stacked for stacked, _ in moment.takers}:
                    if stacked not in pictures:
                        pictures[stacked] = np.empty(picture_shape(view[1], FORMATS[stacked]), np.uint8)
                    picture = pictures[stacked]
                    renderer.render(
                        matrices,
                        expression,
                        view[1],
                        pixel_format=FORMATS[stacked],
                        background=moment.settings.rgb,
                        out=picture,
                    )
                    if moment.settings.probe:
                        draw_time_code(picture, pack_time_code(time.time() * 1e3, moment.captured_ms))
                metrics.STAGE_SECONDS.labels("render").observe(time.perf_counter() - start)
                for stacked, submit in moment.takers:
                    submit(pictures[stacked], int(moment.time_s * CLOCK_HZ), start)
                self._drawn.append(time.monotonic())

    def _pose(self, moment: Moment, idle: IdleMotion) -> SmplxPose:
        if moment.driven is not None and moment.share >= 1:
            return moment.driven
        standing = idle.pose(moment.time_s)
        return standing if moment.driven is None else blend_poses(standing, moment.driven, moment.share)

    def _camera(self, settings: Settings) -> Camera:
        camera = frame_person(self._joints, settings.framing, *self._size, yaw=settings.yaw, pitch=settings.pitch)
        if not settings.mirror:
            return camera
        # a camera whose x axis is turned round sees the mirror image
        return replace(camera, T_camera_world=np.diag([-1.0, 1.0, 1.0, 1.0]) @ camera.T_camera_world)
