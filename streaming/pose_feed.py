"""The poses of one session for those who draw its avatar themselves: who they are, and what each is to be sent next.

Nothing is drawn for them. Newest wins here too: nothing queues for a viewer, and one that does not say what it has
received is sent nothing more.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from lhm_runtime.avatar import Avatar
from lhm_runtime.types import SmplxPose
from streaming.browser_avatar import pack_avatar
from streaming.pose_packet import encode_pose
from streaming.renderer import Moment, Performer, RenderThread
from streaming.settings import Settings
from streaming.stage import place_camera

ACK_EVERY: Final = 8
"""Viewers say so often how many packets they have had; docs/client_rendering.md."""
_UNHEARD: Final = 48
"""Packets on the way to a viewer at most: a network holds many more, and they would come late."""

Scene = dict[str, Any]
"""What a viewer is told in JSON: which avatar, seen how."""


class PoseViewer:
    """One who draws the avatar; belongs to one event loop."""

    def __init__(self) -> None:
        self.dismissed = asyncio.Event()
        """Set when the avatar is shared no longer."""
        self._scene: Scene | None = None
        self._packet: bytes | None = None
        self._news = asyncio.Event()
        self._sent = self._heard = 0
        self.replaced = 0
        """Packets that were not sent, for newer ones came."""

    async def next(self) -> tuple[Scene | None, bytes | None]:
        """What is to be sent now: a scene, a packet, or both in this order."""
        while True:
            await self._news.wait()
            self._news.clear()
            scene, self._scene = self._scene, None
            packet = None
            if self._packet is not None and self._sent - self._heard < _UNHEARD:
                packet, self._packet = self._packet, None
                self._sent += 1
            if scene is not None or packet is not None:
                return scene, packet

    def acknowledge(self, received: int) -> None:
        """The viewer has had so many packets altogether."""
        self._heard = min(max(received, self._heard), self._sent)
        self._news.set()

    def show(self, scene: Scene) -> None:
        """Tell it of a scene; one not yet sent is gone."""
        self._scene = scene
        self._news.set()

    def put(self, packet: bytes) -> None:
        """Leave a packet; one not yet sent is gone."""
        if self._packet is not None:
            self.replaced += 1
        self._packet = packet
        self._news.set()


class PoseFeed:
    """Everybody who draws a session's avatar; belongs to one event loop."""

    def __init__(self, renderer: RenderThread, on_audience: Callable[[], None]) -> None:
        """Pass on what ``renderer`` is to show, and call ``on_audience`` when somebody has come or gone."""
        self.viewers: set[PoseViewer] = set()
        self._size, self._on_audience = renderer.size, on_audience
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scene: Scene | None = None
        self._seen: tuple[Performer, Settings] | None = None
        self._cast = self._sequence = 0
        self._packed: tuple[Avatar, asyncio.Task[bytes]] | None = None
        renderer.tell(self._tell)

    def join(self) -> PoseViewer:
        """A viewer more, who is told the scene first."""
        self._loop = asyncio.get_running_loop()
        if not self.viewers:  # nobody looked, so it may have changed
            self._scene = self._seen = None
        viewer = PoseViewer()
        if self._scene is not None:
            viewer.show(self._scene)
        self.viewers.add(viewer)
        self._on_audience()
        return viewer

    def leave(self, viewer: PoseViewer) -> None:
        """Forget a viewer."""
        self.viewers.discard(viewer)
        self._on_audience()

    def dismiss(self) -> None:
        """Send everybody away: the avatar is not to be had any more."""
        self._packed = None
        for viewer in self.viewers:
            viewer.dismissed.set()

    async def pack(self, avatar: Avatar) -> bytes:
        """The file of ``avatar`` for browsers, made once for all that ask."""
        if self._packed is None or self._packed[0] is not avatar:
            self._packed = (avatar, asyncio.create_task(asyncio.to_thread(pack_avatar, avatar), name="pack avatar"))
        return await asyncio.shield(self._packed[1])

    def _tell(self, moment: Moment, pose: SmplxPose) -> None:
        """Take what is shown, in the thread that draws."""
        if self._loop is None or not self.viewers:
            return
        scene = None
        seen = (moment.performer, moment.settings)
        if self._seen is None or self._seen[0] is not seen[0] or self._seen[1] is not seen[1]:
            if self._seen is not None and self._seen[0] is not seen[0]:
                self._cast += 1
            self._seen = seen
            scene = _describe(self._cast, *seen, self._size)
        self._sequence += 1
        known = replace(pose, expression=pose.expression[: len(moment.performer.avatar.expression_names)])
        packet = encode_pose(known, self._cast, self._sequence, moment.time_s * 1e3)
        with contextlib.suppress(RuntimeError):  # the loop is closed, the session over
            self._loop.call_soon_threadsafe(self._publish, scene, packet)

    def _publish(self, scene: Scene | None, packet: bytes) -> None:
        if scene is not None:
            self._scene = scene
        for viewer in self.viewers:
            if scene is not None:
                viewer.show(scene)
            viewer.put(packet)


def _describe(cast: int, performer: Performer, settings: Settings, size: tuple[int, int]) -> Scene:
    camera = place_camera(performer.joints, settings.model_copy(update={"mirror": False}), size)
    return {
        "type": "scene",
        "cast": cast % 256,
        "width": camera.width,
        "height": camera.height,
        "focal_px": [camera.fx, camera.fy],
        "centre_px": [camera.cx, camera.cy],
        "T_camera_world": camera.T_camera_world.tolist(),
        "mirror": settings.mirror,
        "background": settings.background,
        "framing": settings.framing,
    }
