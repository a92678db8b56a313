"""The wire format, the same over every transport: bytes or text in, samples or ProtocolError out. No socket here.

One sample is one moment of one person: what a tracker saw of them (wire/landmarks.py) or how a rig's bones are turned
(wire/rotations.py), with a sequence number and the time of capture. A binary sample is little endian, without padding,
and begins with the header:

    u16 magic "LL" | u8 version | u8 kind | u16 parts | u32 sequence | f64 capture time

then comes what its kind says. A text is the same content as JSON (wire/text.py). Capture time is in milliseconds on the
sender's clock; of what comes out of order only the newest counts (``is_newer``). docs/protocol.md is this for people
who write senders.
"""

from streaming.errors import ProtocolError
from streaming.wire.header import KIND_LANDMARKS, KIND_ROTATIONS, VERSION, Bytes, is_newer, read_header
from streaming.wire.landmarks import LandmarkSample, encode_landmarks, read_landmarks
from streaming.wire.limits import MAX_RATE_HZ, MAX_REACH_M, MAX_SAMPLE_BYTES, MAX_TEXT_BYTES, Allowance
from streaming.wire.rotations import BoneSample, Form, encode_bones, read_bones
from streaming.wire.text import format_sample, read_text

__all__ = [
    "MAX_RATE_HZ",
    "MAX_REACH_M",
    "MAX_SAMPLE_BYTES",
    "MAX_TEXT_BYTES",
    "VERSION",
    "Allowance",
    "BoneSample",
    "Form",
    "LandmarkSample",
    "PoseSample",
    "encode_bones",
    "encode_landmarks",
    "format_sample",
    "is_newer",
    "parse_sample",
]

PoseSample = LandmarkSample | BoneSample
"""What one message says."""


def parse_sample(message: Bytes | str) -> PoseSample:
    """The sample in one message from outside; bytes that begin with a brace are text.

    Raises:
        ProtocolError: anything but exactly one well-formed sample of finite numbers within the limits.
    """
    if isinstance(message, str):
        return read_text(message)
    if bytes(message[:1]) == b"{":  # MQTT knows no text
        if len(message) > MAX_TEXT_BYTES:
            raise ProtocolError(f"message of {len(message)} bytes, a sample in JSON has at most {MAX_TEXT_BYTES}")
        try:
            return read_text(bytes(message).decode())
        except UnicodeDecodeError as error:
            raise ProtocolError(f"message is no UTF-8: {error}") from error
    if len(message) > MAX_SAMPLE_BYTES:
        raise ProtocolError(f"message of {len(message)} bytes, a sample has at most {MAX_SAMPLE_BYTES}")
    header = read_header(message)
    if header.kind == KIND_LANDMARKS:
        return read_landmarks(header, message)
    if header.kind == KIND_ROTATIONS:
        return read_bones(header, message)
    raise ProtocolError(
        f"sample of kind {header.kind}, expected {KIND_LANDMARKS} (landmarks) or {KIND_ROTATIONS} (bones)"
    )
