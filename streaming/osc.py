"""Open Sound Control 1.0 packets: bytes <-> messages, as far as VMC needs them. No socket here.

python-osc reads and writes the same and is what the tests compare with. It is not used live: it is five times slower,
recurses as deep as a packet says, and takes numbers that are cut off.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from streaming.errors import ProtocolError

Argument = int | float | str | bytes | bool | None

MAX_PACKET_BYTES: Final = 65_507
"""The most that UDP carries."""

_BUNDLE = b"#bundle\0"
_IMMEDIATELY = b"\0\0\0\0\0\0\0\1"
_MAX_DEPTH = 8
_SIZE = struct.Struct(">i")
_MTU_BYTES: Final = 1400
"""Packets up to here are not cut up on the way."""

_NUMBERS = {"i": "i", "f": "f", "h": "q", "d": "d", "t": "Q", "r": "I", "c": "I", "m": "I"}
_CONSTANTS: dict[str, Argument] = {"T": True, "F": False, "N": None, "I": True}
_Run = struct.Struct | str
"""How to read some arguments: numbers that follow each other, or the one tag of anything else."""


class OscMessage(NamedTuple):
    """An address and what is said to it."""

    address: str
    arguments: tuple[Argument, ...]


def decode_packet(packet: bytes) -> list[OscMessage]:
    """All messages of a packet in order, those of bundles in bundles too; time tags are not waited for.

    Raises:
        ProtocolError: anything but a well-formed packet.
    """
    if len(packet) > MAX_PACKET_BYTES:
        raise ProtocolError(f"OSC packet of {len(packet)} bytes, UDP carries {MAX_PACKET_BYTES}")
    messages: list[OscMessage] = []
    _read_element(packet, 0, len(packet), messages, 0)
    return messages


def encode_message(address: str, *arguments: float | str) -> bytes:
    """One message of strings, 32-bit integers and 32-bit floats."""
    tags = "".join("s" if isinstance(value, str) else "i" if isinstance(value, int) else "f" for value in arguments)
    values = b"".join(
        _string(value) if isinstance(value, str) else struct.pack(">i" if isinstance(value, int) else ">f", value)
        for value in arguments
    )
    return _string(address) + _string(f",{tags}") + values


def encode_bundles(messages: Iterable[bytes]) -> list[bytes]:
    """The messages in order, in as few packets as stay whole on a common network."""
    packets: list[bytearray] = []
    for message in messages:
        if not packets or len(packets[-1]) + 4 + len(message) > _MTU_BYTES:
            packets.append(bytearray(_BUNDLE + _IMMEDIATELY))
        packets[-1] += struct.pack(">i", len(message)) + message
    return [bytes(packet) for packet in packets]


def _read_element(packet: bytes, start: int, end: int, messages: list[OscMessage], depth: int) -> None:
    if packet[start : min(start + 8, end)] != _BUNDLE:
        messages.append(_read_message(packet, start, end))
        return
    if depth == _MAX_DEPTH:
        raise ProtocolError(f"OSC bundles lie {depth} deep in each other, at most {_MAX_DEPTH} are read")
    at = start + 16
    if at > end:
        raise ProtocolError(f"OSC bundle of {end - start} bytes, its head alone has 16")
    while at < end:
        if end - at < 4:
            raise ProtocolError(f"{end - at} bytes are left over at the end of an OSC bundle")
        (size,) = _SIZE.unpack_from(packet, at)
        at += 4
        if not 0 < size <= end - at or size % 4:
            raise ProtocolError(f"part of an OSC bundle says that it has {size} bytes, {end - at} are there")
        _read_element(packet, at, at + size, messages, depth + 1)
        at += size


def _read_message(packet: bytes, start: int, end: int) -> OscMessage:
    stop = packet.find(0, start, end)
    stop = packet.find(0, start + (stop - start) // 4 * 4 + 4, end)
    at = min(start + (stop - start) // 4 * 4 + 4, end) if stop >= 0 else end
    address, tags = _read_head(packet[start:at])
    arguments: list[Argument] = []
    for run in _runs(tags):
        if isinstance(run, struct.Struct):
            if at + run.size > end:
                raise ProtocolError(f"OSC message to {address[:64]} ends within its arguments {tags[:64]}")
            arguments.extend(run.unpack_from(packet, at))
            at += run.size
        elif run == "s":
            value, at = _read_string(packet, at, end)
            arguments.append(value)
        elif run == "b":
            blob, at = _read_blob(packet, at, end)
            arguments.append(blob)
        else:
            arguments.append(_CONSTANTS[run])
    if at != end:
        raise ProtocolError(f"OSC message to {address[:64]} has {end - at} bytes more than its arguments {tags[:64]}")
    return OscMessage(address, tuple(arguments))


@lru_cache(256)
def _read_head(head: bytes) -> tuple[str, str]:
    """Address and type tags; cached, since a stream has few of them."""
    if not head.startswith(b"/"):
        raise ProtocolError(f"OSC address starts with {head[:1]!r}, expected b'/'")
    address, at = _read_string(head, 0, len(head))
    if at == len(head):  # old senders leave out the tags of a message without arguments
        return address, ","
    tags, _ = _read_string(head, at, len(head))
    if not tags.startswith(","):
        raise ProtocolError(f"OSC type tags of {address[:64]} start with {tags[:1]!r}, expected ','")
    return address, tags


@lru_cache(256)
def _runs(tags: str) -> tuple[_Run, ...]:
    """How to read the arguments of these tags."""
    runs: list[_Run] = []
    numbers = ""
    for tag in tags[1:] + " ":
        if tag in _NUMBERS:
            numbers += _NUMBERS[tag]
            continue
        if numbers:
            runs.append(struct.Struct(f">{numbers}"))
            numbers = ""
        if tag in {"s", "S"}:
            runs.append("s")
        elif tag == "b" or tag in _CONSTANTS:
            runs.append(tag)
        elif tag not in " []":  # arrays are read flat
            raise ProtocolError(f"OSC type tag {tag!r} is none that is known here")
    return tuple(runs)


def _read_string(packet: bytes, at: int, end: int) -> tuple[str, int]:
    """The string, and where what comes after its padding begins."""
    stop = packet.find(0, at, end)
    after = at + (stop - at) // 4 * 4 + 4
    if stop < 0 or after > end:
        raise ProtocolError(f"OSC string at byte {at} does not end within its message")
    try:
        return packet[at:stop].decode(), after
    except UnicodeDecodeError as error:
        raise ProtocolError(f"OSC string at byte {at} is no UTF-8") from error


def _read_blob(packet: bytes, at: int, end: int) -> tuple[bytes, int]:
    if at + 4 > end:
        raise ProtocolError(f"OSC blob at byte {at} does not end within its message")
    (size,) = struct.unpack_from(">i", packet, at)
    after = at + 4 + (size + 3) // 4 * 4
    if size < 0 or after > end:
        raise ProtocolError(f"OSC blob at byte {at} says that it has {size} bytes, {end - at - 4} are there")
    return packet[at + 4 : at + 4 + size], after


def _string(text: str) -> bytes:
    data = text.encode()
    return data + b"\0" * (4 - len(data) % 4)
