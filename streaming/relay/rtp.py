"""One medium as plain RTP to a server that we trust, and its RTCP back (RFC 3550, 5 and 6)."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, cast

from aiortc import clock
from aiortc.rtcrtpsender import random_sequence_number
from aiortc.rtp import (
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
)
from aiortc.utils import random32

_HEADER: Final = Struct("!BBHLL")
_VERSION_2: Final = 0x80
_MARKER: Final = 0x80
_BUFFER_BYTES: Final = 1 << 20
"""A keyframe at once, and more."""


class RtpStream(asyncio.DatagramProtocol):
    """One medium on its way; ``open_stream`` makes it."""

    def __init__(
        self, host: str, ports: tuple[int, int], payload_type: int, on_keyframe_request: Callable[[str], None]
    ) -> None:
        self._rtp, self._rtcp = (host, ports[0]), (host, ports[1])
        self._payload_type, self._on_keyframe_request = payload_type, on_keyframe_request
        self._ssrc, self._sequence_number, self._origin = random32(), random_sequence_number(), random32()
        self._timestamp: int | None = None
        self._packets = self._octets = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)

    def send(self, payloads: Sequence[bytes], pts: int, *, marked: bool) -> None:
        """Send what belongs to one timestamp; the last packet is ``marked`` where that ends a picture."""
        self._timestamp = (self._origin + pts) & 0xFFFFFFFF
        for number, payload in enumerate(payloads, 1):
            marker = _MARKER if marked and number == len(payloads) else 0
            header = _HEADER.pack(
                _VERSION_2, marker | self._payload_type, self._sequence_number, self._timestamp, self._ssrc
            )
            self._transport.sendto(header + payload, self._rtp)
            self._sequence_number = (self._sequence_number + 1) & 0xFFFF
            self._packets += 1
            self._octets += len(payload)

    def report(self) -> None:
        """Tell what was sent so far, by which the server also learns where to send feedback."""
        if self._timestamp is None:
            return
        info = RtcpSenderInfo(
            ntp_timestamp=clock.current_ntp_time(),
            rtp_timestamp=self._timestamp,
            packet_count=self._packets & 0xFFFFFFFF,
            octet_count=self._octets & 0xFFFFFFFF,
        )
        self._transport.sendto(bytes(RtcpSrPacket(self._ssrc, info)), self._rtcp)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """RTCP; asyncio calls this."""
        if addr[:2] != self._rtcp:
            return
        try:
            packets = RtcpPacket.parse(data)
        except ValueError:
            return
        for packet in packets:
            if isinstance(packet, RtcpPsfbPacket) and packet.fmt in {RTCP_PSFB_PLI, RTCP_PSFB_FIR}:
                self._on_keyframe_request("pli" if packet.fmt == RTCP_PSFB_PLI else "fir")

    def close(self) -> None:
        """Let go of the socket."""
        self._transport.close()


async def open_stream(
    host: str, ports: tuple[int, int], payload_type: int, on_keyframe_request: Callable[[str], None] = lambda _: None
) -> RtpStream:
    """A stream to ``ports`` (RTP, RTCP) of ``host``, an IP address; what is asked there of us is handed on.

    Raises:
        OSError: no socket is to be had.
    """
    anywhere = "::" if ":" in host else "0.0.0.0"  # noqa: S104 - listens to that host alone
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_datagram_endpoint(
        lambda: RtpStream(host, ports, payload_type, on_keyframe_request), local_addr=(anywhere, 0)
    )
    return stream
