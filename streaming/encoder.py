"""Pictures into H.264 or VP8 packets, in a thread of its own, for people who watch live.

Nothing is buffered: one picture in, one packet out, and of two waiting pictures the newer is encoded. H.264's bitrate
changes while it runs, without a keyframe. Keyframes come only on demand and hold a quarter of a second's bits at
most, so that the first one gets through a narrow path (VP8's may be larger where the picture is mere noise).
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.types import MAX_IMAGE_SIDE
from streaming import metrics
from streaming.latest import LatestForThread
from streaming.threads import attend_thread

Codec = Literal["h264", "vp8"]
Preset = Literal["superfast", "veryfast"]

CLOCK_HZ: Final = 90_000
"""The RTP clock of all video: one tick of ``pts``."""

START_BPS: Final = 800_000
CEILING_BPS: Final = 6_000_000
FLOOR_BPS: Final = 100_000

_BUFFER_S: Final = 0.25
"""The rate control's buffer in seconds of the starting rate: an upper bound of a keyframe, and small enough for a
lower bitrate to be obeyed within a few frames."""
_FINEST_QUANTISER: Final = 18
"""About 51 dB on rendered people; finer steps cost five times the bits and nobody sees them."""
_NEVER: Final = 1 << 20
"""Frames between keyframes that nobody asked for."""
_VP8_STEP: Final = 0.2
_VP8_REST: Final = 3 * CLOCK_HZ


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFrame:
    """One picture as it goes to every viewer and into recordings."""

    packet: "av.Packet[Any]"
    """Annex B (H.264, with parameter sets before a keyframe) or one VP8 frame; its pts is in ticks of CLOCK_HZ."""
    keyframe: bool
    encode_ms: float
    stamp: float
    """What the caller said of the picture: when it was drawn, on the caller's clock in seconds."""


class PictureEncoder:
    """One codec, opened for live use; for one thread."""

    def __init__(
        self,
        width: int,
        height: int,
        fps: float,
        *,
        codec: Codec = "h264",
        bitrate_bps: int = START_BPS,
        ceiling_bps: int = CEILING_BPS,
        preset: Preset = "superfast",
        hardware: bool = True,
    ) -> None:
        """Open the first encoder that works: for H.264 the graphics card's (NVENC), then x264; for VP8 libvpx.

        Args:
            width, height: of the packets, even; pictures of another size are scaled.
            fps: pictures a second that will come; x264's rate control counts pictures, not seconds.
            codec: what the viewers understand.
            bitrate_bps: to start with.
            ceiling_bps: the highest bitrate ``set_bitrate`` will be asked for.
            preset: of x264; veryfast is half again the CPU for slightly fewer bits.
            hardware: False leaves NVENC untried.

        Raises:
            InvalidInputError: a size, rate or fps out of range.
            BackendError: none opens; every reason is in the message.
        """
        check_picture_size(width, height)
        if not 1 <= fps <= 240:
            raise InvalidInputError(f"fps is {fps}, expected 1 to 240")
        if not FLOOR_BPS <= bitrate_bps <= ceiling_bps:
            raise InvalidInputError(f"bitrate is {bitrate_bps} bit/s, expected {FLOOR_BPS} to {ceiling_bps}")
        self._width, self._height, self._fps = width, height, fps
        self._start_bps, self._ceiling_bps, self._preset = bitrate_bps, ceiling_bps, preset
        self._bitrate_bps = self._opened_bps = bitrate_bps
        self._opened_at: int | None = None
        # NVENC is in every FFmpeg and fails only when opened, so opening is the question and the answer
        names = ["libvpx"] if codec == "vp8" else [*(["h264_nvenc"] if hardware else []), "libx264"]
        self._names: list[str] = names
        self._context = self._open_first()

    @property
    def name(self) -> str:
        """FFmpeg's name of the encoder in use."""
        return self._names[0]

    def set_bitrate(self, bps: int) -> None:
        """Aim at ``bps`` from the next picture on, within FLOOR_BPS and the ceiling.

        H.264 obeys at once and without a keyframe. VP8 has to be opened anew: that costs a keyframe, so it happens
        only for a change of a fifth, at most every three seconds upwards and every second downwards.
        """
        self._bitrate_bps = max(FLOOR_BPS, min(int(bps), self._ceiling_bps))
        if self.name != "libvpx":
            self._context.bit_rate = self._bitrate_bps

    def encode(self, frame: av.VideoFrame, *, keyframe: bool = False) -> "av.Packet[Any]":
        """Encode one picture (pts in ticks of CLOCK_HZ, growing), as a keyframe if asked.

        Raises:
            BackendError: the last encoder that could be opened failed.
        """
        if (frame.width, frame.height) != (self._width, self._height):
            frame, pts = frame.reformat(self._width, self._height, interpolation="AREA"), frame.pts
            frame.pts, frame.time_base = pts, Fraction(1, CLOCK_HZ)
        pts = frame.pts or 0
        if self.name == "libvpx" and self._vp8_should_reopen(pts):
            self._context = self._open("libvpx", self._bitrate_bps)
            self._opened_at = pts
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        while True:
            try:
                packets = self._context.encode(frame)
            except av.FFmpegError as error:
                failed = self._names.pop(0)
                if not self._names:
                    raise BackendError(f"{failed} failed while encoding: {error.strerror}") from error
                self._context = self._open_first()
            else:
                break
        if len(packets) != 1:
            raise BackendError(f"{self.name} gave {len(packets)} packets for one picture; live video needs one")
        return packets[0]

    def _vp8_should_reopen(self, pts: int) -> bool:
        if self._opened_at is None:
            self._opened_at = pts
        change = self._bitrate_bps / self._opened_bps - 1
        rest = _VP8_REST if change > 0 else _VP8_REST // 3
        return abs(change) > _VP8_STEP and pts - self._opened_at >= rest

    def _open_first(self) -> VideoCodecContext:
        reasons = []
        while self._names:
            try:
                return self._open(self._names[0], self._bitrate_bps)
            except UnknownCodecError:
                reasons.append(f"{self._names.pop(0)}: not built into this FFmpeg")
            except av.FFmpegError as error:
                reasons.append(f"{self._names.pop(0)}: {error.strerror}")
        raise BackendError(
            f"no encoder opens for {self._width}x{self._height} ({'; '.join(reasons)}); PyPI's av wheels bring libx264"
        )

    def _open(self, name: str, bitrate_bps: int) -> VideoCodecContext:
        context = av.CodecContext.create(name, "w")
        if not isinstance(context, VideoCodecContext):
            raise BackendError(f"FFmpeg's {name} is not a video encoder")
        context.width, context.height, context.pix_fmt = self._width, self._height, "yuv420p"
        context.framerate = Fraction(self._fps).limit_denominator(1001)
        context.time_base = Fraction(1, CLOCK_HZ)
        context.gop_size, context.thread_count = _NEVER, 1
        # the renderer draws BT.709; without these a player guesses
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        if name == "libvpx":
            context.bit_rate = self._opened_bps = bitrate_bps
            context.qmin, context.qmax = 4, 63
            context.options = self._vp8_options(bitrate_bps)
            context.open()
            return context
        # opened as constant bitrate at the ceiling, x264 and NVENC follow bit_rate afterwards, up to that ceiling
        context.bit_rate = self._ceiling_bps
        context.options = self._h264_options(name)
        if name == "libx264":
            context.profile = "Baseline"
        context.open()
        context.bit_rate = bitrate_bps
        return context

    def _h264_options(self, name: str) -> dict[str, str]:
        shared = {
            "maxrate": str(self._ceiling_bps),
            "bufsize": str(int(self._start_bps * _BUFFER_S)),
            "qmin": str(_FINEST_QUANTISER),
            "forced-idr": "1",
        }
        if name == "h264_nvenc":
            live = {"preset": "p3", "tune": "ull", "rc": "cbr", "zerolatency": "1", "delay": "0", "bf": "0"}
            return shared | live | {"profile": "baseline"}
        return shared | {"preset": self._preset, "tune": "zerolatency", "sc_threshold": "0"}

    def _vp8_options(self, bitrate_bps: int) -> dict[str, str]:
        rate = str(bitrate_bps)
        # the denoiser blurs rendered pictures; a second thread spins when the cores are busy
        return {
            "deadline": "realtime",
            "cpu-used": "-6",
            "lag-in-frames": "0",
            "keyint_min": str(_NEVER),
            "noise-sensitivity": "0",
            "static-thresh": "1",
            "minrate": rate,
            "maxrate": rate,
            "bufsize": str(bitrate_bps // 2),
            "undershoot-pct": "100",
            "overshoot-pct": "15",
            "max-intra-rate": str(int(100 * self._fps * _BUFFER_S * self._start_bps / bitrate_bps)),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    frame: av.VideoFrame
    stamp: float


class EncoderThread:
    """A PictureEncoder behind a mailbox: pictures from any thread, packets onto the event loop."""

    def __init__(
        self,
        width: int,
        height: int,
        fps: float,
        *,
        codec: Codec = "h264",
        bitrate_bps: int = START_BPS,
        ceiling_bps: int = CEILING_BPS,
        preset: Preset = "superfast",
        hardware: bool = True,
    ) -> None:
        """Arguments as for PictureEncoder; it is opened for the first picture."""
        self._open: Callable[[], PictureEncoder] = lambda: PictureEncoder(
            width,
            height,
            fps,
            codec=codec,
            bitrate_bps=bitrate_bps,
            ceiling_bps=ceiling_bps,
            preset=preset,
            hardware=hardware,
        )
        self.codec: Final = codec
        self.size: Final = (width, height)
        self.fps: Final = fps
        self.bitrate_bps = bitrate_bps
        """What it aims at; ``set_bitrate`` changes it."""
        self._pictures: LatestForThread[_Picture] = LatestForThread()
        self._keyframe_wanted = threading.Event()
        self._last_pts = -1
        self.stale = 0
        """Pictures refused because their pts did not grow: a clock that jumped back."""

    @property
    def replaced(self) -> int:
        """Pictures that a newer one overtook before they were encoded."""
        return self._pictures.replaced

    def submit(self, i420: np.ndarray, pts: int, *, stamp: float) -> None:
        """Hand in a picture, from one thread; it is copied, so the array may be drawn into again at once.

        Args:
            i420: uint8 [height * 3 / 2, width], BT.709 limited range, even sides; scaled if it is of another size.
            pts: time of the picture in ticks of CLOCK_HZ, more than the last one's, else it is dropped and counted.
            stamp: travels along to EncodedFrame.stamp.

        Raises:
            InvalidInputError: an array that is no I420 picture.
        """
        if i420.dtype != np.uint8 or i420.ndim != 2 or i420.shape[0] % 3:
            raise InvalidInputError(
                f"picture is {i420.dtype} {i420.shape}, expected I420: uint8 (height * 3 / 2, width)"
            )
        check_picture_size(i420.shape[1], i420.shape[0] // 3 * 2)
        if pts <= self._last_pts:
            self.stale += 1
            metrics.FRAMES_DROPPED.labels("stale").inc()
            return
        self._last_pts = pts
        frame = av.VideoFrame.from_ndarray(i420, format="yuv420p")
        frame.pts, frame.time_base = pts, Fraction(1, CLOCK_HZ)
        frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
        before = self._pictures.replaced
        self._pictures.put(_Picture(frame, stamp))
        if self._pictures.replaced > before:
            metrics.FRAMES_DROPPED.labels("encoder_busy").inc()

    def request_keyframe(self) -> None:
        """Make the next picture a keyframe."""
        self._keyframe_wanted.set()

    def set_bitrate(self, bps: int) -> None:
        """Aim at ``bps`` from the next picture on; see PictureEncoder.set_bitrate."""
        self.bitrate_bps = int(bps)

    async def run(self, on_frame: Callable[[EncodedFrame], None]) -> None:
        """Encode what is submitted and call ``on_frame`` on this loop, until cancelled; run it once.

        Raises:
            BackendError: no encoder opens, or the last one that did has failed.
        """
        loop = asyncio.get_running_loop()
        await attend_thread(
            f"encode-{self.codec}-{self.size[0]}x{self.size[1]}",
            lambda: self._encode_all(lambda frame: loop.call_soon_threadsafe(on_frame, frame)),
            self._pictures.close,
        )

    def _encode_all(self, deliver: Callable[[EncodedFrame], object]) -> None:
        encoder: PictureEncoder | None = None
        bitrate_bps = 0
        while (picture := self._pictures.get()) is not None:
            # not before: a quality that nobody watches costs no memory and no NVENC session
            encoder = encoder or self._open()
            if self.bitrate_bps != bitrate_bps:
                bitrate_bps = self.bitrate_bps
                encoder.set_bitrate(bitrate_bps)
            keyframe = self._keyframe_wanted.is_set()
            if keyframe:
                self._keyframe_wanted.clear()
            start = time.perf_counter()
            packet = encoder.encode(picture.frame, keyframe=keyframe)
            seconds = time.perf_counter() - start
            metrics.STAGE_SECONDS.labels("encode").observe(seconds)
            metrics.FRAMES_ENCODED.labels(encoder.name).inc()
            if packet.is_keyframe:
                metrics.KEYFRAME_BYTES.observe(packet.size)
            deliver(EncodedFrame(packet, packet.is_keyframe, seconds * 1e3, picture.stamp))


def check_picture_size(width: int, height: int) -> None:
    """Raise InvalidInputError unless a picture of this size can be encoded: even sides, 16 to MAX_IMAGE_SIDE."""
    sides: Sequence[int] = (width, height)
    if any(side % 2 or not 16 <= side <= MAX_IMAGE_SIDE for side in sides):
        raise InvalidInputError(f"picture is {width}x{height}, expected even sides from 16 to {MAX_IMAGE_SIDE}")
