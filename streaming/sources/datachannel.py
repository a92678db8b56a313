"""Landmarks that a browser found in its own camera, as messages of protocol.py; pictures never come here."""

import time
from collections.abc import AsyncIterator
from types import TracebackType

from lhm_runtime.errors import LhmLiveError
from streaming import metrics
from streaming.errors import ProtocolError
from streaming.latest import Latest
from streaming.protocol import MAX_SAMPLE_BYTES, decode_landmarks, is_newer
from streaming.sources import Sample

_FORGET_S = 1.0  # a sender that starts again counts from 0: after this silence any number is new


class DataChannelSource:
    """A mailbox for messages; of those that come faster than they are used only the newest is even read."""

    def __init__(self) -> None:
        self._messages: Latest[bytes] = Latest()
        self._last: int | None = None
        self._last_at = 0.0
        self.refused = 0
        """Messages that were no samples."""
        self.complaint: str | None = None
        """What was wrong with the last one that was refused."""

    def receive(self, message: bytes | str) -> None:
        """Take in what came over a channel, whatever it is; for the event loop."""
        if isinstance(message, str) or len(message) > MAX_SAMPLE_BYTES:
            kind = "text" if isinstance(message, str) else "bytes"
            self._refuse(f"message of {len(message)} {kind}, a landmark sample has at most {MAX_SAMPLE_BYTES} bytes")
            return
        before = self._messages.replaced
        self._messages.put(message)
        if self._messages.replaced > before:
            metrics.FRAMES_DROPPED.labels("sample_overtaken").inc()

    async def __aenter__(self) -> "DataChannelSource":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._messages.take()

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """The newest sample, each time; malformed ones and those that were overtaken on the way are left out."""
        while True:
            message = await self._messages.get()
            try:
                sample = decode_landmarks(message)
            except (ProtocolError, LhmLiveError) as error:
                self._refuse(str(error))
                continue
            now = time.monotonic()
            if self._last is not None and now - self._last_at < _FORGET_S and not is_newer(sample.sequence, self._last):
                metrics.FRAMES_DROPPED.labels("sample_out_of_order").inc()
                continue
            self._last, self._last_at = sample.sequence, now
            yield Sample(sample.landmarks, sample.landmarks.timestamp_s * 1e3)

    def _refuse(self, complaint: str) -> None:
        self.refused += 1
        self.complaint = complaint
        metrics.FRAMES_DROPPED.labels("sample_malformed").inc()
