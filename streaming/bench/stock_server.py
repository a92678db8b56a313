"""What one would write with aiortc in an afternoon: the peer that ``bench latency`` measures ours against.

Same avatar, same renderer, same tracker and solver, newest frame first. But aiortc as it comes: a VideoStreamTrack at
its own pace, its encoders and their settings, its jitter buffer, one encoder a viewer. It runs in a process of its
own, because our server changes aiortc for its whole process.
"""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final

import aiortc.mediastreams
import av
import numpy as np
import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.errors import BackendError
from lhm_runtime.motion.procedural import relaxed_pose, wave
from lhm_runtime.motion.tracker_worker import TrackerWorker
from lhm_runtime.rasterizer import Renderer, frame_person, picture_shape
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.types import Landmarks, SmplxPose
from streaming.config import Motion
from streaming.encoder import Codec
from streaming.follower import Follower
from streaming.sources import Sample
from streaming.time_code import draw_time_code, pack_time_code, read_time_code

_START_S: Final = 60.0
_BACKGROUND: Final = (0.91, 0.92, 0.94)
_PAGE: Final = """<!doctype html><title>stock aiortc</title>
<video id="video" autoplay playsinline muted></video><video id="self-video" autoplay playsinline muted></video>
<script type="module">
const drive = new URL(location).searchParams.has('camera'), codec = new URL(location).searchParams.get('codec')
const connection = new RTCPeerConnection()
const avatar = connection.addTransceiver('video', { direction: 'recvonly' })
const codecs = RTCRtpReceiver.getCapabilities('video').codecs
const wanted = ({ mimeType }) => mimeType.toLowerCase() === `video/${codec}`
avatar.setCodecPreferences([...codecs.filter(wanted), ...codecs.filter((other) => !wanted(other))])
connection.ontrack = ({ track }) => { document.getElementById('video').srcObject = new MediaStream([track]) }
if (drive) {
  const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, frameRate: 30 } })
  document.getElementById('self-video').srcObject = camera
  connection.addTransceiver(camera.getVideoTracks()[0], { direction: 'sendonly' })
}
await connection.setLocalDescription()
while (connection.iceGatheringState !== 'complete') await new Promise((done) => setTimeout(done, 20))
const { sdp, type } = connection.localDescription
const headers = { 'content-type': 'application/json' }
const answer = await fetch('/offer', { method: 'POST', headers, body: JSON.stringify({ sdp, type, drive, codec }) })
await connection.setRemoteDescription(await answer.json())
</script>"""


@contextmanager
def stock_server(gaussians: int, size: tuple[int, int], fps: int) -> Iterator[str]:
    """Address of a running one; raises BackendError when it does not start.

    Args:
        gaussians: of the built-in person.
        size: width and height of the picture.
        fps: pictures a second.
    """
    context = get_context("spawn")
    link, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, gaussians, size, fps), name="stock aiortc server")
    process.start()
    theirs.close()
    try:
        if not link.poll(_START_S):
            raise BackendError(f"the stock server did not start within {_START_S:g} s")
        yield f"http://127.0.0.1:{link.recv()}"
    except EOFError as error:
        raise BackendError("the stock server ended; its error is above") from error
    finally:
        link.close()  # tells it to end
        process.join(10.0)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(link: Connection, gaussians: int, size: tuple[int, int], fps: int) -> None:
    aiortc.mediastreams.VIDEO_PTIME = 1 / fps
    asyncio.run(_serve_until_closed(link, gaussians, size, fps))


async def _serve_until_closed(link: Connection, gaussians: int, size: tuple[int, int], fps: int) -> None:
    stage = _Stage(gaussians, size)
    app = FastAPI()
    connections: list[RTCPeerConnection] = []

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE)

    @app.post("/offer")
    async def offer(body: dict[str, Any]) -> dict[str, str]:
        for old in connections:
            await old.close()
        connections[:] = [RTCPeerConnection(RTCConfiguration(iceServers=[]))]
        return await _answer(connections[0], stage, fps, body)

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    serving = asyncio.create_task(server.serve(), name="serve")
    while not server.started:
        await asyncio.sleep(0.02)
    link.send(server.servers[0].sockets[0].getsockname()[1])
    await asyncio.to_thread(link.poll, None)
    for connection in connections:
        await connection.close()
    server.should_exit = True
    await serving
    stage.close()


async def _answer(connection: RTCPeerConnection, stage: "_Stage", fps: int, body: dict[str, Any]) -> dict[str, str]:
    codec: Codec = "vp8" if body["codec"] == "vp8" else "h264"
    reading: set[asyncio.Task[None]] = set()
    stage.drive(camera=bool(body["drive"]))

    def on_track(track: MediaStreamTrack) -> None:
        task = asyncio.create_task(stage.watch(track), name="read camera")
        reading.add(task)
        task.add_done_callback(reading.discard)

    connection.on("track", on_track)
    transceiver = connection.addTransceiver(_AvatarTrack(stage, fps), direction="sendonly")
    known = RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([one for one in known if one.name.lower() in {codec, "rtx"}])
    await connection.setRemoteDescription(RTCSessionDescription(body["sdp"], body["type"]))
    await connection.setLocalDescription(await connection.createAnswer())
    return {"sdp": connection.localDescription.sdp, "type": connection.localDescription.type}


class _Stage:
    """Avatar, driver and pencil; one thread draws, one turns camera frames into RGB."""

    def __init__(self, gaussians: int, size: tuple[int, int]) -> None:
        self._avatar = build_person(gaussians)
        self._renderer = Renderer(self._avatar)
        rest = relaxed_pose()
        joints = forward_kinematics(rest.rotvec, self._avatar.rest_joints, rest.transl)[:, :3, 3]
        self._camera = frame_person(joints, "full", *size)
        self._picture = np.empty(picture_shape(self._camera, "i420"), np.uint8)
        self._replay = wave(4.0, 60.0, self._avatar.expression_names)
        self._worker: TrackerWorker | None = None
        self._newest: tuple[SmplxPose, int | None] | None = None
        self._codes: dict[float, int | None] = {}
        self.pencil = ThreadPoolExecutor(1, "draw")
        self._converter = ThreadPoolExecutor(1, "convert")

    def drive(self, *, camera: bool) -> None:
        """Let the camera or the replay drive from now on."""
        self._stop_tracking()
        if camera:
            self._follower = Follower(self._avatar, Motion())
            self._worker = TrackerWorker("live", on_landmarks=self._follow)

    async def watch(self, track: MediaStreamTrack) -> None:
        """Track the newest frames of a camera until it ends."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, av.VideoFrame):
                rgb, code = await loop.run_in_executor(self._converter, _convert, frame)
                timestamp_s = float(frame.time or 0.0)
                self._codes = {time_s: old for time_s, old in self._codes.items() if time_s > timestamp_s - 2}
                self._codes[timestamp_s] = code
                if self._worker is not None:
                    self._worker.submit(rgb, timestamp_s)

    def draw(self) -> av.VideoFrame:
        """The avatar as it is now."""
        if self._worker is None:
            pose, code = self._replay.pose(int(time.monotonic() * 60) % len(self._replay)), None
        else:
            pose, code = self._newest or (relaxed_pose(), None)
        expression = pose.expression[: len(self._avatar.expression_names)]
        if len(expression) < len(self._avatar.expression_names):
            expression = np.zeros(len(self._avatar.expression_names), np.float32)
        matrices = joint_matrices(pose, self._avatar.rest_joints)
        self._renderer.render(
            matrices, expression, self._camera, pixel_format="i420", background=_BACKGROUND, out=self._picture
        )
        draw_time_code(self._picture, pack_time_code(time.time() * 1e3, code))
        return av.VideoFrame.from_ndarray(self._picture, format="yuv420p")

    def close(self) -> None:
        """Free everything."""
        self._stop_tracking()
        self.pencil.shutdown()
        self._converter.shutdown()
        self._renderer.close()

    def _follow(self, landmarks: Landmarks) -> None:
        pose = self._follower.follow(Sample(landmarks))
        if pose is not None:
            self._newest = (pose, self._codes.get(landmarks.timestamp_s))

    def _stop_tracking(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker, self._newest = None, None


class _AvatarTrack(VideoStreamTrack):
    """Draws whenever aiortc asks for the next frame."""

    def __init__(self, stage: _Stage, fps: int) -> None:
        super().__init__()
        self._stage, self._fps = stage, fps

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = await asyncio.get_running_loop().run_in_executor(self._stage.pencil, self._stage.draw)
        frame.pts, frame.time_base = pts, Fraction(time_base)
        return frame


def _convert(frame: av.VideoFrame) -> tuple[np.ndarray, int | None]:
    code = read_time_code(frame.to_ndarray(format="yuv420p")[: frame.height, : frame.width])
    return frame.to_ndarray(format="rgb24"), None if code is None else code.drawn_ms
