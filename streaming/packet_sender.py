"""How a hub's packets leave for one viewer: RTCRtpSender's loop, written anew for packets that many viewers share.

aiortc packs, serialises, encrypts and sends packet by packet through three layers of coroutines, and all of it again
for every viewer. Here a picture is cut into RTP payloads once for all viewers (hub.py); what remains for each of them
is twelve bytes of header a packet, the encryption, which is theirs alone, and on Linux one system call a picture
instead of one a packet. lowlatency.py puts this in place.
"""

# ruff: noqa: SLF001 - like lowlatency.py, this is made for the insides of one pinned version of aiortc
import socket
import sys
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, Final

from aiortc import RTCRtpSender, clock
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcdtlstransport import RTCDtlsTransport, State
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpsender import random_sequence_number
from aiortc.rtp import RTP_HISTORY_SIZE, HeaderExtensions, RtpPacket
from aiortc.utils import random32
from structlog.stdlib import get_logger

from streaming import metrics
from streaming.hub import PacketTrack

_HEADER: Final = Struct("!BBHLL")
"""RFC 3550, 5.1; the version, and whether extensions follow, are in the first byte."""
_EXTENSIONS: Final = Struct("!HH")
_VERSION_2: Final = 0x80
_EXTENDED: Final = 0x10
_MARKER: Final = 0x80

_UDP_SEGMENT: Final = 103
"""Linux' option that makes one buffer many datagrams (udp(7))."""
_SEGMENT: Final = Struct("=H")
_MOST_SEGMENTS: Final = 40
"""Linux takes 64, and 64 KiB."""

_log = get_logger(__name__)


async def send_packets(sender: RTCRtpSender, track: PacketTrack, codec: RTCRtpCodecParameters) -> None:
    """Send what ``track`` brings until it ends, and keep the books that RTCRtpSender._run_rtp keeps."""
    inside: Any = sender
    inside._RTCRtpSender__rtp_started.set()
    # receivers join a VP8 stream by its picture numbers, which therefore grow with the viewer, not with the hub
    own_packing = Vp8Encoder() if codec.mimeType.lower() == "video/vp8" else None
    outlet = Outlet(sender.transport)
    sequence_number, timestamp_origin, payload_type = random_sequence_number(), random32(), codec.payloadType or 0
    try:
        while True:
            shared, pts = await track.next_packet()
            if not sender._enabled:
                continue
            payloads = shared.payloads if own_packing is None else own_packing.pack(shared.frame.packet)[0]
            timestamp = (timestamp_origin + pts) & 0xFFFFFFFF
            first, extensions = _extension_block(inside)
            packets = []
            for number, payload in enumerate(payloads, 1):
                marker = _MARKER if number == len(payloads) else 0
                header = _HEADER.pack(first, marker | payload_type, sequence_number, timestamp, sender._ssrc)
                packets.append(header + extensions + payload)
                inside._RTCRtpSender__rtp_history[sequence_number % RTP_HISTORY_SIZE] = RtpPacket(
                    payload_type, marker >> 7, sequence_number, timestamp, sender._ssrc, payload
                )
                sequence_number = (sequence_number + 1) & 0xFFFF
                inside._RTCRtpSender__octet_count += len(payload)
            outlet.send(packets)
            inside._RTCRtpSender__ntp_timestamp = clock.current_ntp_time()
            inside._RTCRtpSender__rtp_timestamp = timestamp
            inside._RTCRtpSender__packet_count += len(packets)
    except (ConnectionError, MediaStreamError):
        pass
    except Exception:  # noqa: BLE001 - the track ends, by which watch_peer knows
        _log.exception("sending to a viewer failed")
    finally:
        track.stop()
        inside._RTCRtpSender__track = None
        inside._RTCRtpSender__rtp_exited.set()


class Outlet:
    """Encrypts packets for one peer and hands them to the network, in bursts where it can."""

    def __init__(self, transport: RTCDtlsTransport) -> None:
        self._dtls: Any = transport
        self._in_bursts = sys.platform == "linux"

    def send(self, packets: Sequence[bytes]) -> None:
        """Send RTP packets; those for which the system has no room now are dropped, not queued.

        Raises:
            ConnectionError: the connection does not stand.
        """
        dtls = self._dtls
        pair = dtls.transport._connection._nominated.get(1)
        if dtls._state is not State.CONNECTED or pair is None:
            raise ConnectionError("cannot send packets, not connected")
        protect = dtls._tx_srtp.protect
        datagrams = [protect(packet) for packet in packets]
        dtls._RTCDtlsTransport__tx_packets += len(datagrams)
        dtls._RTCDtlsTransport__tx_bytes += sum(map(len, datagrams))
        # none where a TURN server is in between
        sock: socket.socket | None = getattr(pair.protocol.transport, "_sock", None)
        sent = 0
        if sock is not None and self._in_bursts:
            sent = self._burst(sock, datagrams, pair.remote_addr)
        for datagram in datagrams[sent:]:
            pair.protocol.transport.sendto(datagram, pair.remote_addr)

    def _burst(self, sock: socket.socket, datagrams: Sequence[bytes], address: tuple[str, int]) -> int:
        """How many were dealt with."""
        done = 0
        for burst in in_bursts(datagrams):
            option = [(socket.SOL_UDP, _UDP_SEGMENT, _SEGMENT.pack(len(burst[0])))] if len(burst) > 1 else []
            try:
                sock.sendmsg(burst, option, 0, address)
            except (BlockingIOError, InterruptedError):
                metrics.UNSENT_PACKETS.inc(len(datagrams) - done)
                return len(datagrams)
            except OSError as error:
                # an old kernel, or a path too narrow for packets of this size in bursts
                _log.info("packets are sent one by one", reason=str(error))
                self._in_bursts = False
                return done
            done += len(burst)
        return done


def in_bursts(datagrams: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Runs of datagrams that one system call can send: of one length, but the last may be shorter."""
    start = 0
    while start < len(datagrams):
        length, end = len(datagrams[start]), start + 1
        while end < len(datagrams) and len(datagrams[end]) == length and end - start < _MOST_SEGMENTS - 1:
            end += 1
        if end < len(datagrams) and len(datagrams[end]) < length:
            end += 1
        yield datagrams[start:end]
        start = end


def _extension_block(inside: Any) -> tuple[int, bytes]:
    """The header's first byte, and its extensions: the same for all packets of a picture, sent at once."""
    values = HeaderExtensions(
        abs_send_time=(clock.current_ntp_time() >> 14) & 0x00FFFFFF, mid=inside._RTCRtpSender__mid
    )
    profile, packed = inside._RTCRtpSender__rtp_header_extensions_map.set(values)
    if not packed:
        return _VERSION_2, b""
    return _VERSION_2 | _EXTENDED, _EXTENSIONS.pack(profile, len(packed) >> 2) + packed
