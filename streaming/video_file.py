"""Pictures into an .mp4 file."""

import secrets
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from lhm_runtime.errors import BackendError, InvalidInputError

H264_ENCODERS = ("libx264", "libopenh264", "h264_nvenc", "h264_qsv", "h264_videotoolbox")
"""FFmpeg's encoders of the format every player knows, best first."""

_MAX_FPS = 1000


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float, *, crf: int = 18) -> str:
    """Encode ``frames`` as H.264 into the .mp4 file ``path``, whole or not at all.

    Args:
        path: the file; an older one stays until the new one is complete.
        frames: I420 pictures, uint8 [height * 3 / 2, width], BT.709 limited range, width and height even, all
            of one size. They are copied, so one buffer may be handed in again and again.
        fps: pictures a second.
        crf: constant quality of libx264, 0 (lossless) to 51; 18 looks like the original.

    Returns:
        the encoder used, the first of H264_ENCODERS that opens here.

    Raises:
        InvalidInputError: no frame, or one of another shape or dtype; its index is in the message.
        BackendError: no encoder opens, encoding fails, or the file cannot be written.
    """
    if not 0 < fps <= _MAX_FPS:
        raise InvalidInputError(f"fps is {fps}, expected more than 0 and at most {_MAX_FPS}")
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise InvalidInputError("a video needs at least one frame, got none")
    width, height = _picture_size(first)
    encoder = _encoder_that_opens(width, height)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        _encode(part, encoder, chain([first], pictures), Fraction(fps).limit_denominator(1001), crf)
        part.replace(path)
    except (av.FFmpegError, OSError) as error:
        raise BackendError(f"{path} cannot be written with {encoder}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return encoder


def try_encoder(name: str, width: int = 256, height: int = 256) -> str:
    """Encode one grey picture with FFmpeg's encoder ``name``; "" when that works, else the reason.

    Many encoders are built into every FFmpeg and fail only when opened, for want of a card or a driver.
    """
    try:
        context = av.CodecContext.create(name, "w")
        if not isinstance(context, VideoCodecContext):
            return "not a video encoder"
        _describe(context, width, height, Fraction(30))
        grey = np.full((height * 3 // 2, width), 128, np.uint8)
        packets = context.encode(_frame(grey, 0, Fraction(1, 30))) + context.encode(None)
    except UnknownCodecError:
        return "not built into this FFmpeg"
    except av.FFmpegError as error:
        return error.strerror or type(error).__name__
    return "" if packets else "opens but gives no packet"


def _encode(part: Path, encoder: str, frames: Iterable[np.ndarray], rate: Fraction, crf: int) -> None:
    # faststart: the index goes to the front, so that a browser can play while it loads
    with av.open(part, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(encoder, rate=rate, options={"crf": str(crf)} if encoder == "libx264" else {})
        if not isinstance(stream, av.VideoStream):
            raise BackendError(f"FFmpeg's {encoder} is not a video encoder")
        shape: tuple[int, ...] = ()
        for index, picture in enumerate(frames):
            if index == 0:
                shape = picture.shape
                width, height = _picture_size(picture)
                _describe(stream.codec_context, width, height, rate)
                if encoder != "libx264":  # only libx264 knows crf
                    stream.codec_context.bit_rate = width * height * 8
            if picture.shape != shape or picture.dtype != np.uint8:
                raise InvalidInputError(
                    f"frame {index} is {picture.dtype} {picture.shape}, expected uint8 {shape} like the first"
                )
            container.mux(stream.encode(_frame(picture, index, 1 / rate)))
        container.mux(stream.encode(None))


def _encoder_that_opens(width: int, height: int) -> str:
    reasons = []
    for name in H264_ENCODERS:
        reason = try_encoder(name, width, height)
        if not reason:
            return name
        reasons.append(f"{name}: {reason}")
    raise BackendError(
        f"no H.264 encoder opens for {width}x{height} ({'; '.join(reasons)}); PyPI's av wheels bring libx264"
    )


def _picture_size(picture: np.ndarray) -> tuple[int, int]:
    """(width, height) of an I420 picture."""
    if picture.dtype != np.uint8 or picture.ndim != 2 or picture.shape[0] % 3 or 0 in picture.shape:
        raise InvalidInputError(
            f"frame 0 is {picture.dtype} {picture.shape}, expected I420: uint8 (height * 3 / 2, width)"
        )
    width, height = picture.shape[1], picture.shape[0] // 3 * 2
    if width % 2:
        raise InvalidInputError(f"pictures are {width}x{height}; H.264 needs an even width and height")
    return width, height


def _describe(context: VideoCodecContext, width: int, height: int, rate: Fraction) -> None:
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.framerate, context.time_base = rate, 1 / rate
    # without these players guess, and most guess BT.601 below 720 lines
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709


def _frame(picture: np.ndarray, index: int, time_base: Fraction) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
    frame.pts, frame.time_base = index, time_base
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
    return frame
