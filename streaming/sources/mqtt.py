"""A motion capture rig behind an MQTT broker, which may drive any number of sessions.

lhm-live/{tenant}/{rig}/pose   samples of protocol.py, binary or JSON; QoS 0, not retained
lhm-live/{tenant}/{rig}/meta   what the rig is (rigs.py), retained; an empty one, its last will, says that it is gone
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from aiomqtt import Client, Message, MqttCodeError, MqttError, ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from structlog.stdlib import get_logger

from lhm_runtime.errors import BackendError
from streaming import metrics
from streaming.errors import ProtocolError
from streaming.jitter import JitterBuffer
from streaming.latest import Latest
from streaming.protocol import MAX_TEXT_BYTES, BoneSample, parse_sample
from streaming.rigs import RigMeta, read_meta
from streaming.sources import Sample
from streaming.sources.messages import Sender

ROOT_TOPIC: Final = "lhm-live"

_CONNECT_S = 5.0
_KEEPALIVE_S = 5
_SOONEST_S, _LATEST_S = 0.1, 1.5
"""Pause before a broker is tried again: at first, and at most."""
_UNREAD = 256
_STOP_S = 1.0
_RETAINED_S = 0.3
"""So soon after subscribing a broker has handed over what it keeps."""
_MOST_RIGS = 100

_log = get_logger(__name__)


class _Client(Client):
    """Fails at once where the broker hangs up before it has let us in; aiomqtt 2.5 waits for the whole timeout."""

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        if not self._connected.done():  # as one does that is stopping, or what forwards the port of one not yet there
            self._connected.set_exception(MqttCodeError(reason_code, "hung up"))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is, and how to be let in."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    """Who vouches for the broker; None: whom the system trusts."""
    cert_file: Path | None = None
    """Our certificate and key, where the broker asks for one."""
    key_file: Path | None = None

    def client(self, tls: ssl.SSLContext | None) -> Client:
        """A connection to it, not yet open."""
        limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        limits.MaximumPacketSize = 2 * MAX_TEXT_BYTES  # larger ones the broker keeps to itself
        return _Client(
            self.host,
            self.port,
            username=self.username,
            password=self.password,
            protocol=ProtocolVersion.V5,
            properties=limits,
            timeout=_CONNECT_S,
            keepalive=_KEEPALIVE_S,
            max_queued_incoming_messages=_UNREAD,
            tls_context=tls,
        )

    def failure(self, error: Exception) -> BackendError:
        """What to say when it cannot be used."""
        return BackendError(
            f"the MQTT broker at {self.host}:{self.port} cannot be used: {error}; see mqtt in the settings"
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """What TLS needs; raises BackendError for a file that is none; reads files."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise BackendError(f"the certificates for MQTT cannot be used: {error}") from error
        return context


class MqttSource:
    """Subscribes to one rig; connects again, ever more slowly, when the broker goes away."""

    def __init__(self, broker: Broker, tenant: str, rig: str, jitter_s: float = 0.0) -> None:
        """Listen to ``rig`` once entered; ``jitter_s`` > 0 holds samples back so that they come evenly."""
        self._broker, self._name = broker, f"{tenant}/{rig}"
        self._topics = {kind: f"{ROOT_TOPIC}/{tenant}/{rig}/{kind}" for kind in ("pose", "meta")}
        self._samples: Latest[Sample] = Latest()
        self._held: JitterBuffer[Sample] | None = JitterBuffer(jitter_s) if jitter_s > 0 else None
        self.sender = Sender()
        """What became of its messages since it was last lost."""
        self._arrived = asyncio.Event()
        self.meta = RigMeta()
        """What the rig says of itself."""
        self.lost = False
        """Whether its last will has come, and nothing since."""
        self.connections = 0
        """How often a broker was found."""

    async def __aenter__(self) -> "MqttSource":
        """Raises BackendError when there is no broker, or it does not let us in; later losses are made good."""
        tls = await asyncio.to_thread(self._broker.tls_context)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen(tls, ready), name=f"listen to rig {self._name}")
        try:
            await ready
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """The newest sample, each time; with a jitter buffer, each when it is due."""
        held = self._held
        if held is None:
            while True:
                yield await self._samples.get()
        while True:
            due_s = held.next_s()
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due_s is None else max(due_s - time.monotonic(), 0)):
                    await self._arrived.wait()
            sample = held.take(time.monotonic())
            if sample is not None:
                yield sample

    async def _stop(self) -> None:
        while not self._listening.done():  # Python 3.11's wait_for, which aiomqtt uses, may swallow a cancellation
            self._listening.cancel()
            await asyncio.wait([self._listening], timeout=_STOP_S)

    async def _listen(self, tls: ssl.SSLContext | None, ready: "asyncio.Future[None]") -> None:
        pause_s = _SOONEST_S
        while True:
            try:
                async with self._broker.client(tls) as client:
                    await client.subscribe([(self._topics["meta"], 1), (self._topics["pose"], 0)])
                    self.connections += 1
                    pause_s = _SOONEST_S
                    if not ready.done():
                        ready.set_result(None)
                    async for message in client.messages:
                        self._take(message)
            except (MqttError, OSError) as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from error  # the goodbye failed, in the cancellation's place
                if not ready.done():
                    ready.set_exception(self._broker.failure(error))
                    return
                _log.warning("MQTT broker lost", rig=self._name, reason=str(error), again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LATEST_S)

    def _take(self, message: Message) -> None:
        payload = message.payload if isinstance(message.payload, bytes) else b""
        if message.topic.value == self._topics["meta"]:
            self._describe(payload)
            return
        self.sender.received += 1
        try:
            sample = parse_sample(payload)
        except ProtocolError as error:
            self.sender.refuse(str(error))
            return
        if not self.sender.advance(sample.sequence):
            return
        self.lost = False
        motion = self.meta.correct(sample.bones) if isinstance(sample, BoneSample) else sample.landmarks
        self._hand_on(Sample(motion, motion.timestamp_s * 1e3))

    def _hand_on(self, sample: Sample) -> None:
        if self._held is None:
            before = self._samples.replaced
            self._samples.put(sample)
            if self._samples.replaced > before:
                metrics.FRAMES_DROPPED.labels("sample_overtaken").inc()
            return
        self._held.put(sample, sample.motion.timestamp_s, time.monotonic())
        self._arrived.set()

    def _describe(self, payload: bytes) -> None:
        if not payload:
            self.lost, self.meta = True, RigMeta()
            self.sender = Sender()  # whoever comes back counts anew
            if self._held is not None:
                self._held.clear()
            metrics.RIGS_LOST.inc()
            _log.info("rig lost", rig=self._name)
            return
        try:
            self.meta = read_meta(payload)
        except ProtocolError as error:
            _log.warning("rig with an unusable meta", rig=self._name, reason=str(error))
            return
        self.lost = False
        _log.info("rig found", rig=self._name, skeleton=self.meta.skeleton, rate_hz=self.meta.rate_hz)


async def find_rigs(broker: Broker, tenant: str) -> list[str]:
    """Names of a tenant's rigs that have said what they are and are not lost.

    Raises:
        BackendError: the broker cannot be used.
    """
    tls = await asyncio.to_thread(broker.tls_context)
    rigs: set[str] = set()
    try:
        async with broker.client(tls) as client:
            await client.subscribe(f"{ROOT_TOPIC}/{tenant}/+/meta", 1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETAINED_S):
                    async for message in client.messages:
                        if message.payload and len(rigs) < _MOST_RIGS:
                            rigs.add(message.topic.value.split("/")[2])
    except (MqttError, OSError) as error:
        raise broker.failure(error) from error
    return sorted(rigs)
