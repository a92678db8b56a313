"""How a microphone's packets come in: RTCRtpReceiver without its jitter buffer, which holds them 80 ms, and decoder."""

# ruff: noqa: SLF001 - like lowlatency.py, this is made for the insides of one pinned version of aiortc
from typing import Any

from aiortc import clock
from aiortc.rtcrtpreceiver import RTCRtpReceiver, StreamStatistics
from aiortc.rtp import RtpPacket

from streaming import metrics
from streaming.audio import Microphone


def receive_packets(receiver: RTCRtpReceiver, microphone: Microphone) -> None:
    """Hand ``receiver``'s Opus packets to ``microphone`` from now on; its track then brings nothing but its end.

    Changes the receiver's _handle_rtp_packet, which RTCDtlsTransport calls; keeps the books that it keeps
    (__active_ssrc, and __remote_streams for the sender's reports) and reads _enabled and __codecs.
    """
    inside: Any = receiver
    streams, codecs = inside._RTCRtpReceiver__remote_streams, inside._RTCRtpReceiver__codecs

    async def handle_rtp_packet(packet: RtpPacket, arrival_time_ms: int) -> None:  # noqa: ARG001 - aiortc's call
        codec = codecs.get(packet.payload_type)
        if not inside._enabled or codec is None:
            return
        inside._RTCRtpReceiver__active_ssrc[packet.ssrc] = clock.current_datetime()
        streams.setdefault(packet.ssrc, StreamStatistics(codec.clockRate)).add(packet)
        if codec.name.lower() == "opus":
            microphone.receive(packet.payload, packet.timestamp)
        else:
            metrics.FRAMES_DROPPED.labels("sound_not_opus").inc()

    inside._handle_rtp_packet  # noqa: B018 - AttributeError where aiortc has it no more
    inside._handle_rtp_packet = handle_rtp_packet
