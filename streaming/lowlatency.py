"""What we change inside aiortc 1.16 so that pictures arrive when they are made, and nothing else about it.

aiortc is complete, but made for correctness: incoming frames wait for their successor, receivers may buffer, viewers'
wishes reach only its own encoders, and lost packets are repeated without limit. ``install`` changes that; each change
is one function, may be called twice, touches the internals named in it, and has a test that fails when they move.
"""

# ruff: noqa: SLF001 - changing private parts of one pinned version is what this module is for
import asyncio
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import aioice.ice
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCRtpSender, RTCRtpTransceiver
from aiortc.codecs import HEADER_EXTENSIONS, is_rtx
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    HeaderExtensions,
    HeaderExtensionsMap,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    pack_header_extensions,
    unpack_header_extensions,
    unpack_remb_fci,
)

from lhm_runtime.errors import BackendError
from streaming import metrics
from streaming.encoder import Codec
from streaming.errors import ConnectError
from streaming.hub import PacketTrack
from streaming.packet_sender import send_packets

AIORTC: Final = "1.16."
PLAYOUT_DELAY: Final = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"

_PLAYOUT_DELAY_ID: Final = 4
_AT_ONCE: Final = b"\x00\x00\x00"
"""Twelve bits each of least and most delay, in units of 10 ms."""
_ONE_BYTE_HEADER: Final = 0xBEDE
_GAP_MS: Final = 300

Loopback = Literal["never", "alone", "always", "only"]


def install(loopback: Loopback = "alone") -> None:
    """Make all changes to aiortc that serving needs; see gather_loopback for ``loopback``.

    Raises:
        BackendError: another aiortc than the one this was made for and tested with.
    """
    installed = version("aiortc")
    if not installed.startswith(AIORTC):
        raise BackendError(f"aiortc is {installed}, but lowlatency.py changes the insides of {AIORTC}x; install that")
    release_frames_on_marker()
    give_up_lost_frames()
    offer_playout_delay()
    listen_to_viewers()
    budget_retransmissions()
    share_packets()
    notice_silence_sooner()
    gather_loopback(loopback)


def release_frames_on_marker() -> None:
    """Hand an incoming video frame on with its last packet; aiortc waits for the first one of the next frame.

    Saves a frame's interval (33 ms of a webcam). Changes JitterBuffer._remove_frame; reads _packets, _origin,
    _is_video, capacity, and the packets' _data, which RTCRtpReceiver puts there.
    """

    def wrap(stock: Callable[[JitterBuffer, int], JitterFrame | None]) -> Callable[..., Any]:
        def remove_frame(buffer: JitterBuffer, sequence_number: int) -> JitterFrame | None:
            if not buffer._is_video or buffer._origin is None:
                return stock(buffer, sequence_number)
            while (padding := _head(buffer)) is not None and not padding._data:
                # sent to probe the path; an empty frame would tell the decoder that the stream has ended
                buffer.remove(1)
            payload: list[bytes] = []
            timestamp = None
            for count in range(buffer.capacity):
                packet: Any = buffer._packets[(buffer._origin + count) % buffer.capacity]
                if packet is None:
                    return None
                if timestamp is not None and packet.timestamp != timestamp:
                    # a frame whose sender set no marker
                    return stock(buffer, sequence_number)
                timestamp = packet.timestamp
                payload.append(packet._data)
                if packet.marker:
                    buffer.remove(count + 1)
                    return JitterFrame(data=b"".join(payload), timestamp=packet.timestamp)
            return None

        return remove_frame

    _replace(JitterBuffer, "_remove_frame", wrap)


def give_up_lost_frames() -> None:
    """Hand on all frames that a repeated packet completed, and go on after 300 ms without one that stays lost.

    aiortc hands on one frame per packet received, so that each repaired loss leaves a lag, and waits for a lost packet
    until 512 others came: seconds. Then a keyframe is asked for. Changes RTCRtpReceiver._handle_rtp_packet; reads its
    __jitter_buffer, __codecs, __timestamp_mapper, __decoder_queue and _send_rtcp_pli.
    """
    handed_on_at: WeakKeyDictionary[JitterBuffer, int] = WeakKeyDictionary()

    def wrap(stock: Callable[..., Any]) -> Callable[..., Any]:
        async def handle_rtp_packet(receiver: RTCRtpReceiver, packet: RtpPacket, arrival_time_ms: int) -> None:
            buffer: JitterBuffer = _private(receiver, "jitter_buffer")
            before = buffer._origin
            await stock(receiver, packet, arrival_time_ms)
            codec = _private(receiver, "codecs").get(packet.payload_type)
            if not buffer._is_video or codec is None:
                return
            if before != buffer._origin or buffer not in handed_on_at:
                handed_on_at[buffer] = arrival_time_ms
            elif not is_rtx(codec) and arrival_time_ms - handed_on_at[buffer] > _GAP_MS and _skip_gap(buffer):
                handed_on_at[buffer] = arrival_time_ms
                metrics.SKIPPED_GAPS.inc()
                await receiver._send_rtcp_pli(packet.ssrc)
            media = _private(receiver, "codecs").get(codec.parameters["apt"]) if is_rtx(codec) else codec
            while media is not None and buffer._origin is not None:
                frame = buffer._remove_frame(buffer._origin)
                if frame is None:
                    break
                frame.timestamp = _private(receiver, "timestamp_mapper").map(frame.timestamp)
                _private(receiver, "decoder_queue").put((media, frame))

        return handle_rtp_packet

    _replace(RTCRtpReceiver, "_handle_rtp_packet", wrap)


def offer_playout_delay() -> None:
    """Tell viewers to show video at once: the header extension playout-delay, least and most 0, on every packet.

    Chrome's jitter buffer then holds frames 1 ms instead of 7. Changes HEADER_EXTENSIONS and
    HeaderExtensionsMap.configure and .set. Format: webrtc.org, rtp-hdrext/playout-delay.
    """
    offered = HEADER_EXTENSIONS["video"]
    if all(extension.uri != PLAYOUT_DELAY for extension in offered):
        offered.append(RTCRtpHeaderExtensionParameters(id=_PLAYOUT_DELAY_ID, uri=PLAYOUT_DELAY))
    ids: WeakKeyDictionary[HeaderExtensionsMap, int] = WeakKeyDictionary()

    def wrap_configure(stock: Callable[..., None]) -> Callable[..., None]:
        def configure(extensions: HeaderExtensionsMap, parameters: RTCRtpParameters) -> None:
            stock(extensions, parameters)
            for extension in parameters.headerExtensions:
                if extension.uri == PLAYOUT_DELAY:
                    ids[extensions] = extension.id

        return configure

    def wrap_set(stock: Callable[..., tuple[int, bytes]]) -> Callable[..., tuple[int, bytes]]:
        def set_values(extensions: HeaderExtensionsMap, values: HeaderExtensions) -> tuple[int, bytes]:
            profile, packed = stock(extensions, values)
            own_id = ids.get(extensions)
            if own_id is None:
                return profile, packed
            if profile == _ONE_BYTE_HEADER and own_id <= 14:
                # padding between elements is allowed (RFC 8285, 4.2), and four bytes keep the length
                return profile, packed + bytes((own_id << 4 | 2,)) + _AT_ONCE
            return pack_header_extensions([*unpack_header_extensions(profile, packed), (own_id, _AT_ONCE)])

        return set_values

    _replace(HeaderExtensionsMap, "configure", wrap_configure)
    _replace(HeaderExtensionsMap, "set", wrap_set)


def listen_to_viewers() -> None:
    """Bring a viewer's wishes to its PacketTrack: keyframes (PLI, FIR), bitrate (REMB) and loss (receiver reports).

    aiortc brings them to its own encoder, which a track of packets does not have. Changes
    RTCRtpSender._handle_rtcp_packet; reads _ssrc.
    """

    def wrap(stock: Callable[..., Any]) -> Callable[..., Any]:
        async def handle_rtcp_packet(sender: RTCRtpSender, packet: AnyRtcpPacket) -> None:
            if isinstance(sender.track, PacketTrack):
                _bring(packet, sender._ssrc, sender.track)
            await stock(sender, packet)

        return handle_rtcp_packet

    _replace(RTCRtpSender, "_handle_rtcp_packet", wrap)


def budget_retransmissions() -> None:
    """Repeat a lost packet of a PacketTrack only within that track's budget. Changes RTCRtpSender._retransmit."""

    def wrap(stock: Callable[..., Any]) -> Callable[..., Any]:
        async def retransmit(sender: RTCRtpSender, sequence_number: int) -> None:
            track = sender.track
            if isinstance(track, PacketTrack) and not track.may_repeat(sequence_number):
                metrics.RETRANSMISSIONS.labels("refused").inc()
                return
            metrics.RETRANSMISSIONS.labels("sent").inc()
            await stock(sender, sequence_number)

        return retransmit

    _replace(RTCRtpSender, "_retransmit", wrap)


def share_packets() -> None:
    """Send a PacketTrack by packet_sender.py, at well under half the cost a viewer. Changes RTCRtpSender._run_rtp.

    packet_sender.py names what else it touches: of RTCRtpSender the events, counters and history that _run_rtp keeps,
    of RTCDtlsTransport _tx_srtp, _state and counters, of aioice's Connection _nominated, of asyncio's datagram
    transport _sock.
    """

    def wrap(stock: Callable[..., Any]) -> Callable[..., Any]:
        async def run_rtp(sender: RTCRtpSender, codec: RTCRtpCodecParameters) -> None:
            if isinstance(sender.track, PacketTrack):
                await send_packets(sender, sender.track, codec)
            else:
                await stock(sender, codec)

        return run_rtp

    _replace(RTCRtpSender, "_run_rtp", wrap)


def notice_silence_sooner(interval_s: float = 3.0, failures: int = 5) -> None:
    """Ask a peer more often whether it is still there, so that one that vanished is closed after 15 s, not 30.

    Changes aioice.ice.CONSENT_INTERVAL and CONSENT_FAILURES (RFC 7675).
    """
    _replace(aioice.ice, "CONSENT_INTERVAL", lambda _: interval_s)
    _replace(aioice.ice, "CONSENT_FAILURES", lambda _: failures)


def gather_loopback(when: Loopback) -> None:
    """Say when 127.0.0.1 is offered to peers; aioice never does, so a computer without network reaches nobody.

    "alone": where the machine has no other address. "always": beside the others. "only": for tests and benchmarks.
    Changes aioice.ice.get_host_addresses.
    """
    stock = _stock.setdefault((aioice.ice, "get_host_addresses"), aioice.ice.get_host_addresses)

    def get_host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        addresses = [] if when == "only" else stock(use_ipv4, use_ipv6)
        alone = when == "alone" and not addresses
        return [*addresses, "127.0.0.1"] if use_ipv4 and (alone or when in {"always", "only"}) else addresses

    aioice.ice.get_host_addresses = get_host_addresses


def make_peer_connection(ice_servers: Sequence[RTCIceServer] = ()) -> RTCPeerConnection:
    """A peer connection that asks these STUN and TURN servers and no other; aiortc's default is a public one."""
    return RTCPeerConnection(RTCConfiguration(iceServers=list(ice_servers), bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))


def prefer_codec(transceiver: RTCRtpTransceiver, codec: Codec) -> None:
    """Send and take only ``codec``, with retransmission. Call it before setRemoteDescription: afterwards it is void."""
    capabilities = RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([c for c in capabilities if c.name.lower() in {codec, "rtx"}])


def prefer_opus(transceiver: RTCRtpTransceiver) -> None:
    """Send only Opus, in a stream apart from the pictures: browsers hold back one of two that belong together.

    Call it before setRemoteDescription. Changes RTCRtpSender._stream_id, which goes into the answer's msid.
    """
    capabilities = RTCRtpSender.getCapabilities("audio").codecs
    transceiver.setCodecPreferences([c for c in capabilities if c.name.lower() == "opus"])
    sender: Any = transceiver.sender
    sender._stream_id = f"sound-{sender._stream_id}"


async def connected(connection: RTCPeerConnection, timeout_s: float = 10.0) -> None:
    """Wait until the connection stands.

    Raises:
        ConnectError: it failed, was closed, or took longer than ``timeout_s``; the message says where it stopped.
    """
    changed = asyncio.Event()
    connection.on("connectionstatechange", changed.set)
    try:
        async with asyncio.timeout(timeout_s):
            while connection.connectionState in {"new", "connecting"}:
                changed.clear()
                await changed.wait()
    except TimeoutError as error:
        raise ConnectError(f"no connection after {timeout_s:g} s: {_obstacle(connection)}") from error
    finally:
        if changed.set in connection.listeners("connectionstatechange"):
            connection.remove_listener("connectionstatechange", changed.set)
    if connection.connectionState != "connected":
        raise ConnectError(f"connection {connection.connectionState}: {_obstacle(connection)}")


async def watch_peer(connection: RTCPeerConnection, silence_s: float = 10.0) -> str:
    """Wait until a connection that stood is of no more use, and say why.

    Beside failed and closed connections these are senders whose task died (aiortc leaves such a connection
    "connected" and the viewer frozen), and peers that send nothing, not even reports, for ``silence_s``.
    """
    tracks = [sender.track for sender in connection.getSenders() if sender.track is not None]
    heard, silent_s, step_s = -1, 0.0, min(1.0, silence_s / 4)
    while connection.connectionState == "connected":
        if any(track.readyState == "ended" for track in tracks):
            return "the server stopped sending"
        received = [s.packetsReceived for s in (await connection.getStats()).values() if s.type == "transport"]
        silent_s = silent_s + step_s if received and sum(received) == heard else 0.0
        heard = sum(received)
        if silent_s >= silence_s:
            return f"nothing was heard from the peer for {silence_s:g} s"
        await asyncio.sleep(step_s)
    return f"the connection is {connection.connectionState}"


def _bring(packet: AnyRtcpPacket, ssrc: int, track: PacketTrack) -> None:
    if isinstance(packet, (RtcpRrPacket, RtcpSrPacket)):
        for report in packet.reports:
            if report.ssrc == ssrc:
                track.on_loss(report.fraction_lost / 256)
    elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
        metrics.NACKS.inc(len(packet.lost))
    elif isinstance(packet, RtcpPsfbPacket) and packet.fmt in {RTCP_PSFB_PLI, RTCP_PSFB_FIR}:
        track.on_keyframe_request("pli" if packet.fmt == RTCP_PSFB_PLI else "fir")
    elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
        try:
            bps, ssrcs = unpack_remb_fci(packet.fci)
        except ValueError:  # another application's message
            return
        if ssrc in ssrcs:
            track.on_bitrate_estimate(bps)


def _head(buffer: JitterBuffer) -> Any:
    return None if buffer._origin is None else buffer._packets[buffer._origin % buffer.capacity]


def _skip_gap(buffer: JitterBuffer) -> bool:
    """Forget everything before the first frame that begins after a missing packet; False where there is none."""
    if buffer._origin is None:
        return False
    packets: list[Any] = [buffer._packets[(buffer._origin + i) % buffer.capacity] for i in range(buffer.capacity)]
    gap = packets.index(None) if None in packets else len(packets)
    for i in range(gap + 1, len(packets)):
        before, packet = packets[i - 1], packets[i]
        if before is not None and packet is not None and (before.marker or before.timestamp != packet.timestamp):
            buffer.remove(i)
            return True
    return False


def _obstacle(connection: RTCPeerConnection) -> str:
    transports = [t.receiver.transport for t in connection.getTransceivers()]
    if connection.sctp is not None:
        transports.append(connection.sctp.transport)
    if not transports:
        return "nothing was negotiated"
    dtls = transports[0]
    ice = dtls.transport
    if not ice.iceGatherer.getLocalCandidates():
        return "this machine has no network address to offer"
    if ice.state == "completed":
        return f"UDP works, but the encryption handshake (DTLS) is {dtls.state}"
    if not ice.getRemoteCandidates():
        return "the other side named no address that can be reached"
    return "no UDP packet gets through in either direction; a firewall may block UDP, then a TURN server is needed"


def _private(receiver: RTCRtpReceiver, name: str) -> Any:
    return getattr(receiver, f"_RTCRtpReceiver__{name}")


def _replace(owner: object, name: str, wrap: Callable[[Any], Any]) -> None:
    """Replace ``owner.name`` by ``wrap`` of it, once; AttributeError where it does not exist."""
    if (owner, name) not in _stock:
        _stock[owner, name] = getattr(owner, name)
        setattr(owner, name, wrap(_stock[owner, name]))


_stock: dict[tuple[object, str], Any] = {}
"""What was replaced, by owner and name."""
