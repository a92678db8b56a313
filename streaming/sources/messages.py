"""Samples that come as messages of protocol.py: from a page over its data channel, from anybody over a websocket."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from streaming import metrics
from streaming.errors import ProtocolError
from streaming.latest import Latest
from streaming.protocol import BoneSample, is_newer, parse_sample
from streaming.sources import Sample

_PINGS = 20
_OLDEST_S = 1.0
_FORGET_S = 1.0  # a sender that starts again counts from 0: after this silence any number is new


class Sender:
    """One of those whose messages come to a source, and what became of them."""

    def __init__(self, complain: Callable[[str], None] = lambda _: None) -> None:
        """A sender who is told by ``complain`` what was wrong with a message."""
        self.complain = complain
        self.received = 0
        self.used = 0
        self.refused = 0
        """Messages that were no samples."""
        self.last: int | None = None
        """Sequence number of the newest sample that was used."""
        self.replaced = asyncio.Event()
        """Set when another sender has taken its place."""
        self._last_at = 0.0
        self._offsets: deque[float] = deque(maxlen=_PINGS)

    def hear_clock(self, their_ms: float) -> None:
        """It is ``their_ms`` on the sender's clock, or a little later: the message was under way."""
        self._offsets.append(time.monotonic() - their_ms / 1e3)

    def seen_at(self, captured_ms: float, received_at: float) -> float:
        """``captured_ms`` of the sender's clock on ours; as received where its clock is unknown or leads nowhere."""
        if not self._offsets:
            return received_at
        seen_at = captured_ms / 1e3 + min(self._offsets)
        return seen_at if 0 <= received_at - seen_at <= _OLDEST_S else received_at

    def advance(self, sequence: int) -> bool:
        """Count a sample as used, unless a newer one was."""
        now = time.monotonic()
        if self.last is not None and now - self._last_at < _FORGET_S and not is_newer(sequence, self.last):
            metrics.FRAMES_DROPPED.labels("sample_out_of_order").inc()
            return False
        self.last, self._last_at = sequence, now
        self.used += 1
        return True

    def refuse(self, complaint: str) -> None:
        """Count a message as refused, and tell."""
        self.refused += 1
        metrics.FRAMES_DROPPED.labels("sample_malformed").inc()
        self.complain(complaint)


class MessageSource:
    """A mailbox for messages; of those that come faster than they are used only the newest is even read."""

    def __init__(self) -> None:
        self._messages: Latest[tuple[bytes | str, Sender, float]] = Latest()
        self.used = 0
        """Samples of all senders."""
        self.refused = 0
        """Their messages that were no samples."""

    def receive(self, message: bytes | str, sender: Sender) -> None:
        """Take in what came from a sender, whatever it is; for the event loop."""
        sender.received += 1
        before = self._messages.replaced
        self._messages.put((message, sender, time.monotonic()))
        if self._messages.replaced > before:
            metrics.FRAMES_DROPPED.labels("sample_overtaken").inc()

    async def __aenter__(self) -> "MessageSource":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._messages.take()

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """The newest sample, each time; malformed ones and those that were overtaken on the way are left out."""
        while True:
            message, sender, received_at = await self._messages.get()
            try:
                sample = parse_sample(message)
            except ProtocolError as error:
                self.refused += 1
                sender.refuse(str(error))
                continue
            if sender.advance(sample.sequence):
                self.used += 1
                motion = sample.bones if isinstance(sample, BoneSample) else sample.landmarks
                captured_ms = motion.timestamp_s * 1e3
                yield Sample(motion, captured_ms, sender.seen_at(captured_ms, received_at))
