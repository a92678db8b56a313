"""OSC against the examples of its specification and against python-osc."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_message import OscMessage as TheirMessage
from pythonosc.osc_packet import OscPacket
from vmc_peer import AT_REST, as_one, bone, bundle, frame, message

from streaming.errors import ProtocolError
from streaming.osc import OscMessage, decode_packet, encode_bundles, encode_message

# OSC 1.0, "OSC Message Examples"
FREQUENCY = bytes.fromhex("2f6f7363696c6c61746f722f342f6672657175656e6379002c66000043dc0000")
FOO = bytes.fromhex("2f666f6f000000002c69697366660000000003e8ffffffff68656c6c6f0000003f9df3b640b5b22d")
HIPS = bytes.fromhex(
    "2f564d432f4578742f426f6e652f506f730000002c736666666666666600000048697073000000000000000"
    "03f80000000000000000000000000000000000000"
    "3f800000"
)

CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
NUMBERS = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(CHARACTERS),
)
ADDRESSES = st.text(CHARACTERS, max_size=20).map(lambda text: f"/{text}")


def test_the_examples_of_the_specification() -> None:
    assert decode_packet(FREQUENCY) == [OscMessage("/oscillator/4/frequency", (440.0,))]
    (foo,) = decode_packet(FOO)
    assert foo.address == "/foo"
    assert foo.arguments[:3] == (1000, -1, "hello")
    assert foo.arguments[3:] == pytest.approx((1.234, 5.678))
    assert encode_message("/oscillator/4/frequency", 440.0) == FREQUENCY
    assert encode_message("/foo", 1000, -1, "hello", 1.234, 5.678) == FOO


def test_a_bone_byte_by_byte() -> None:
    expected = OscMessage("/VMC/Ext/Bone/Pos", ("Hips", 0.0, 1.0, 0.0, *AT_REST))
    assert decode_packet(HIPS) == [expected]
    assert encode_message(expected.address, *expected.arguments) == HIPS  # type: ignore[arg-type]
    assert bone("Hips", position=(0, 1, 0)).dgram == HIPS


@given(ADDRESSES, st.lists(NUMBERS, max_size=8))
def test_messages_as_python_osc_writes_and_reads_them(address: str, arguments: list[int | float | str]) -> None:
    theirs = message(address, *arguments)
    (ours,) = decode_packet(theirs.dgram)
    assert (ours.address, ours.arguments) == (theirs.address, tuple(theirs.params))
    again = TheirMessage(encode_message(address, *arguments))
    assert (again.address, again.params) == (theirs.address, theirs.params)


def test_bundles_of_both() -> None:
    messages = frame({}, {"Joy": 0.5})
    for packet in (*as_one(messages), bundle([bundle(messages[:5]), *messages[5:]]).dgram):
        theirs = [(timed.message.address, tuple(timed.message.params)) for timed in OscPacket(packet).messages]
        assert [(ours.address, ours.arguments) for ours in decode_packet(packet)] == theirs
    packets = encode_bundles([content.dgram for content in messages])
    assert all(len(packet) <= 1400 for packet in packets)
    contents = [content for packet in packets for content in OscBundle(packet)]
    assert [content.dgram for content in contents] == [content.dgram for content in messages]


def test_other_types() -> None:
    tags = OscMessage("/x", (True, False, None, 2**40, 0.1, b"ab", 65))
    packet = b"/x\0\0" + b",TFNhdbc\0\0\0\0" + struct.pack(">qd", 2**40, 0.1) + b"\0\0\0\2ab\0\0" + b"\0\0\0A"
    assert decode_packet(packet) == [tags]
    assert decode_packet(b"/x\0\0") == [OscMessage("/x", ())]


@pytest.mark.parametrize(
    ("packet", "complaint"),
    [
        (b"", "starts with b''"),
        (b"hello\0\0\0", "starts with b'h'"),
        (b"/abc", "does not end"),
        (b"/abc\0", "does not end"),
        (b"/\xff\0\0,\0\0\0", "no UTF-8"),
        (b"/x\0\0f\0\0\0", "expected ','"),
        (b"/x\0\0,q\0\0", "'q' is none"),
        (b"/x\0\0,f\0\0\0\0\0", "ends within"),
        (b"/x\0\0,\0\0\0\0\0\0\0", "4 bytes more"),
        (b"/x\0\0,s\0\0abcd", "does not end"),
        (b"/x\0\0,b\0\0\0\0\0\x09abcd", "says that it has 9 bytes, 4 are there"),
        (b"/x\0\0,b\0\0\xff\xff\xff\xff", "says that it has -1 bytes"),
        (b"#bundle\0", "its head alone has 16"),
        (b"#bundle\0" + bytes(8) + b"\0\0", "2 bytes are left over"),
        (b"#bundle\0" + bytes(8) + b"\0\0\0\x08/x\0\0", "says that it has 8 bytes, 4 are there"),
        (b"#bundle\0" + bytes(8) + b"\0\0\0\0", "says that it has 0 bytes"),
        (b"#bundle\0" + bytes(8) + b"\xff\xff\xff\xf0" + bytes(16), "says that it has -16 bytes"),
        (bytes(70_000), "UDP carries"),
    ],
)
def test_what_is_no_packet(packet: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        decode_packet(packet)


def test_bundles_within_bundles_without_end() -> None:
    packet = encode_message("/x")
    for _ in range(2000):
        packet = b"#bundle\0" + bytes(8) + struct.pack(">i", len(packet)) + packet
    with pytest.raises(ProtocolError, match="8 deep"):
        decode_packet(packet)


@given(st.binary(max_size=200))
def test_any_bytes(packet: bytes) -> None:
    for data in (packet, b"/" + packet, b"/x\0\0," + packet, b"#bundle\0" + packet):
        with contextlib.suppress(ProtocolError):
            decode_packet(data)
