"""A session as a camera of this computer, for programs that know no WebRTC (pyvirtualcam, the extra ``camera``)."""

import asyncio
import platform
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import av
import numpy as np

from lhm_runtime.errors import BackendError, InvalidInputError
from streaming.errors import ConnectError
from streaming.latest import Latest
from streaming.watching import call_server, next_picture, watch

_PAGES: Final = ("view", "obs", "whep")
_AGAIN_S: Final = 2.0
_REPEAT_S: Final = 0.25
"""After so long without a new picture the last one is sent again: who opens the camera then sees it, too."""
_RATE_SPAN_S: Final = 2.0
_SAY_EVERY_S: Final = 0.5
_INSTALL: Final = {
    "Linux": (
        "install v4l2loopback (Debian, Ubuntu: apt-get install v4l2loopback-dkms) and load it: "
        "modprobe v4l2loopback exclusive_caps=1 card_label=lhm-live"
    ),
    "Windows": "install OBS Studio, start its virtual camera once and stop it again",
    "Darwin": "install OBS Studio, start its virtual camera once and stop it again",
}


class Device(Protocol):
    """What is used of pyvirtualcam.Camera."""

    @property
    def width(self) -> int:
        """Of pictures sent to it."""

    @property
    def height(self) -> int:
        """Of pictures sent to it."""

    @property
    def device(self) -> str:
        """What other programs call it."""

    def send(self, frame: np.ndarray) -> None:
        """Take a picture, uint8 I420: [height * 3 / 2, width]."""


OpenDevice = Callable[[int, int, float], AbstractContextManager[Device]]
"""Opens a camera of this width, height and rate."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Where a session is."""

    address: str
    """Of its server."""
    session: str
    token: str | None = None

    @classmethod
    def parse(cls, text: str, server: str) -> "Watched":
        """Read a viewer's, OBS' or the studio's link, or the id of a session on ``server``.

        Raises:
            InvalidInputError: it is none of them.
        """
        if "/" not in text and "?" not in text and text:
            return cls(server.rstrip("/"), text)
        url = urlsplit(text)
        page, _, session = url.path.strip("/").partition("/")
        session = unquote(session) if page in _PAGES else parse_qs(url.fragment).get("session", [""])[0]
        if url.scheme not in {"http", "https"} or not url.netloc or not session or "/" in session:
            raise InvalidInputError(
                f"{text!r} names no session: give its id or a link as http://localhost:8080/view/SESSION"
            )
        return cls(f"{url.scheme}://{url.netloc}", session, parse_qs(url.query).get("token", [None])[0])


async def show_on_camera(watched: Watched, open_device: OpenDevice, fps: float, say: Callable[[str], None]) -> None:
    """Show a session on a camera until cancelled; comes back after a break, with the last picture meanwhile.

    Args:
        watched: whose pictures.
        open_device: see ``open_virtual_camera``.
        fps: what the camera claims; pictures are sent as they come.
        say: told how it goes, about twice a second.

    Raises:
        RefusedError: the server does not let us, or the session has ended.
        ConnectError: no server answers to begin with.
        BackendError: there is no camera.
    """
    state = await call_server(watched.address, "GET", f"/api/sessions/{watched.session}", token=watched.token)
    newest: Latest[av.VideoFrame] = Latest()
    with open_device(state["width"], state["height"], fps) as device:
        watching = asyncio.create_task(_keep_watching(watched, newest, say), name="watch")
        sending = asyncio.create_task(_keep_sending(newest, device, say), name="send to the camera")
        try:
            await asyncio.wait([watching, sending], return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in (watching, sending):
                task.cancel()
            ends = await asyncio.gather(watching, sending, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _keep_watching(watched: Watched, newest: Latest[av.VideoFrame], say: Callable[[str], None]) -> None:
    while True:
        try:
            async with watch(watched.address, watched.session, watched.token) as track:
                while True:
                    newest.put(await next_picture(track))
        except ConnectError as error:
            say(f"{error}; trying again")
            await asyncio.sleep(_AGAIN_S)


async def _keep_sending(newest: Latest[av.VideoFrame], device: Device, say: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    frame, said_at = await newest.get(), -_SAY_EVERY_S
    came: deque[float] = deque()
    while True:
        await asyncio.to_thread(_send, device, frame)
        fresh = await newest.get_until(loop.time() + _REPEAT_S)
        if fresh is None:
            continue
        frame, now = fresh, time.monotonic()
        came.append(now)
        while came[0] < now - _RATE_SPAN_S:
            came.popleft()
        if now - said_at >= _SAY_EVERY_S:
            said_at = now
            rate = len(came) / _RATE_SPAN_S
            say(f"{rate:.0f} pictures a second of {frame.width}x{frame.height} on {device.device}")


def _send(device: Device, frame: av.VideoFrame) -> None:
    """A smaller quality is enlarged."""
    whole = frame.reformat(device.width, device.height, "yuv420p")
    device.send(np.ascontiguousarray(whole.to_ndarray(), np.uint8))


def open_virtual_camera(device: str | None) -> OpenDevice:
    """Opens this computer's virtual camera, the first one where ``device`` is None.

    Raises:
        BackendError: pyvirtualcam is not installed; when opening, there is no such camera. It says what to install.
    """
    try:
        pyvirtualcam = import_module("pyvirtualcam")
    except ImportError as error:
        raise BackendError(f"there is no pyvirtualcam here ({error}): pip install 'lhm-live[camera]'") from error

    def open_device(width: int, height: int, fps: float) -> AbstractContextManager[Device]:
        try:
            camera: AbstractContextManager[Device] = pyvirtualcam.Camera(
                width, height, fps, fmt=pyvirtualcam.PixelFormat.I420, device=device
            )
        except RuntimeError as error:  # what pyvirtualcam raises for all of them
            known = _INSTALL.get(platform.system(), "see pyvirtualcam's documentation")
            raise BackendError(f"no virtual camera of {width}x{height}: {error}; {known}") from error
        return camera

    return open_device
