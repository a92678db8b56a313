"""The thread that draws one session, and hands I420 straight to the encoders."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.rasterizer import PixelFormat, Renderer, picture_shape
from lhm_runtime.types import Camera, SmplxPose
from streaming import metrics
from streaming.encoder import CLOCK_HZ
from streaming.latest import LatestForThread
from streaming.settings import Settings
from streaming.sources.idle import IdleMotion, blend_poses, ease
from streaming.stage import place_camera, standing_joints
from streaming.threads import attend_thread
from streaming.time_code import draw_time_code, pack_time_code

FORMATS: Final[dict[bool, PixelFormat]] = {False: "i420", True: "i420_alpha"}
"""By whether colour and alpha are stacked."""

BLEND_S: Final = 0.6
"""From one motion to another."""
_DISSOLVE_S: Final = 0.35
"""From one avatar to another."""

_FPS_SPAN_S = 2.0

Submit = Callable[[np.ndarray, int, float], None]
"""Takes a picture (copies it), its pts in ticks of CLOCK_HZ, and when it was drawn."""


class Performer:
    """An avatar ready to be drawn: making one takes a tenth of a second."""

    def __init__(self, avatar: Avatar, avatar_id: str) -> None:
        self.avatar, self.avatar_id = avatar, avatar_id
        self.renderer = Renderer(avatar)
        self.idle = IdleMotion(avatar.expression_names)
        self.joints = standing_joints(avatar.rest_joints)
        """[55, 3] metres: what the camera is set up for."""


OnPose = Callable[["Moment", SmplxPose], None]
"""Takes what was to be drawn, and the pose it came to."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """What is to be drawn next."""

    performer: Performer
    time_s: float
    """On the session's steady clock, growing."""
    began_s: float
    """When this performer and driver took over: from then on the pose goes over from the last one drawn before."""
    driven: SmplxPose | None
    """What the driver does."""
    share: float
    """Of the driver's pose against idle motion, 0 to 1."""
    captured_ms: float | None
    """When the driver was seen, for the time code."""
    settings: Settings
    takers: tuple[tuple[bool, Submit], ...]
    """Who gets the picture, and whether stacked."""

    @property
    def pts(self) -> int:
        """``time_s`` in ticks of CLOCK_HZ."""
        return int(self.time_s * CLOCK_HZ)


class RenderThread:
    """Draws moments; of two that wait the newer."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Draw pictures of ``size`` (width and height, even)."""
        self.size = size
        self._listeners: tuple[OnPose, ...] = ()
        self._moments: LatestForThread[Moment] = LatestForThread()
        self._drawn: deque[float] = deque(maxlen=240)

    @property
    def fps(self) -> float:
        """Pictures a second, lately."""
        since = time.monotonic() - _FPS_SPAN_S
        return sum(1 for at in tuple(self._drawn) if at > since) / _FPS_SPAN_S

    def tell(self, listener: OnPose) -> Callable[[], None]:
        """Tell ``listener`` every pose before its picture is handed on, in the thread that draws; returns the end."""
        self._listeners = (*self._listeners, listener)

        def end() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

        return end

    def submit(self, moment: Moment) -> None:
        """Ask for a picture, or for nothing but its pose where nobody takes it; one that waits is overtaken."""
        before = self._moments.replaced
        self._moments.put(moment)
        if self._moments.replaced > before:
            metrics.FRAMES_DROPPED.labels("renderer_busy").inc()

    async def run(self) -> None:
        """Draw until cancelled; raises what drawing raises."""
        await attend_thread("render", self._work, self._moments.close)

    def _work(self) -> None:
        pictures: dict[bool, np.ndarray] = {}
        handover = _Handover()
        view: tuple[Settings, Performer, Camera] | None = None
        while (moment := self._moments.get()) is not None:
            start = time.perf_counter()
            performer, settings = moment.performer, moment.settings
            handover.note(moment, pictures)
            pose = handover.pose(moment)
            if not moment.takers:
                self._tell(moment, pose)
                continue
            if view is None or view[0] is not settings or view[1] is not performer:
                view = (settings, performer, place_camera(performer.joints, settings, self.size))
            camera = view[2]
            matrices = joint_matrices(pose, performer.avatar.rest_joints)
            expression = pose.expression[: len(performer.avatar.expression_names)]
            for stacked in {stacked for stacked, _ in moment.takers}:
                if stacked not in pictures:
                    pictures[stacked] = np.empty(picture_shape(camera, FORMATS[stacked]), np.uint8)
                picture = pictures[stacked]
                performer.renderer.render(
                    matrices,
                    expression,
                    camera,
                    pixel_format=FORMATS[stacked],
                    background=settings.rgb,
                    out=picture,
                )
                handover.dissolve(moment, stacked, picture)
                if settings.probe:
                    draw_time_code(picture, pack_time_code(time.time() * 1e3, moment.captured_ms))
            metrics.STAGE_SECONDS.labels("render").observe(time.perf_counter() - start)
            self._tell(moment, pose)
            for stacked, submit in moment.takers:
                submit(pictures[stacked], moment.pts, start)
            self._drawn.append(time.monotonic())

    def _tell(self, moment: Moment, pose: SmplxPose) -> None:
        for listener in self._listeners:
            listener(moment, pose)


class _Handover:
    """From one driver to the next along the pose, from one avatar to the next by a short dissolve."""

    def __init__(self) -> None:
        self._last: Moment | None = None
        self._shown: SmplxPose | None = None
        self._left: SmplxPose | None = None
        self._faded: dict[bool, np.ndarray] = {}

    def note(self, moment: Moment, pictures: dict[bool, np.ndarray]) -> None:
        """Keep what is being left when ``moment`` is the first of another driver or avatar."""
        last, self._last = self._last, moment
        if last is None or last.began_s == moment.began_s:
            return
        self._left, self._faded = self._shown, {}
        if last.performer is not moment.performer:
            self._faded = {stacked: picture.astype(np.uint16) for stacked, picture in pictures.items()}

    def pose(self, moment: Moment) -> SmplxPose:
        """What is to be shown now."""
        pose = self._driven(moment)
        share = (moment.time_s - moment.began_s) / BLEND_S
        if share >= 1:
            self._left = None
        elif self._left is not None:
            left = self._left
            if len(left.expression) != len(pose.expression):  # another face: its muscles are others
                left = replace(left, expression=pose.expression)
            pose = blend_poses(left, pose, ease(share))
        self._shown = pose
        return pose

    def dissolve(self, moment: Moment, stacked: bool, picture: np.ndarray) -> None:
        """Mix the last picture of the avatar that leaves into ``picture``."""
        share = int(256 * ease((moment.time_s - moment.began_s) / _DISSOLVE_S))
        faded = self._faded.get(stacked)
        if share >= 256 or faded is None:
            self._faded.pop(stacked, None)
            return
        mixed = (256 - share) * faded.astype(np.uint16) + share * picture.astype(np.uint16)
        picture[...] = mixed // 256

    def _driven(self, moment: Moment) -> SmplxPose:
        if moment.driven is not None and moment.share >= 1:
            return moment.driven
        standing = moment.performer.idle.pose(moment.time_s)
        return standing if moment.driven is None else blend_poses(standing, moment.driven, moment.share)
