"""One-slot mailboxes in which the newest value wins: what stands between two real-time tasks instead of a queue.

Values are anything but None.
"""

import asyncio
import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """A mailbox for one reader on an event loop; a value nobody took in time is replaced and counted."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._filled = asyncio.Event()
        self.replaced = 0
        """Values that were put and never read."""

    def put(self, value: T) -> None:
        """Leave ``value``, on the loop of the reader; an unread one is gone."""
        if self._filled.is_set():
            self.replaced += 1
        self._value = value
        self._filled.set()

    def put_threadsafe(self, value: T, loop: asyncio.AbstractEventLoop) -> None:
        """Leave ``value`` from another thread than that of ``loop``, the reader's."""
        loop.call_soon_threadsafe(self.put, value)

    def take(self) -> T | None:
        """The unread value, or None."""
        value, self._value = self._value, None
        self._filled.clear()
        return value

    async def get(self) -> T:
        """Wait for the next unread value and take it."""
        while True:
            await self._filled.wait()
            value = self.take()
            # another reader may have been quicker between the event and this task's turn
            if value is not None:
                return value

    async def get_until(self, deadline: float) -> T | None:
        """The same, or None when the loop's clock says ``deadline`` first."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self.get()
        except TimeoutError:
            return None


class LatestForThread(Generic[T]):
    """The same mailbox for a reader that is a thread; any thread may put."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._closed = False
        self._changed = threading.Condition()
        self.replaced = 0
        """Values that were put and never read."""

    def put(self, value: T) -> None:
        """Leave ``value``; an unread one is gone."""
        with self._changed:
            if self._value is not None:
                self.replaced += 1
            self._value = value
            self._changed.notify()

    def get(self, timeout_s: float | None = None) -> T | None:
        """Wait for the next unread value and take it; None once closed, or when ``timeout_s`` has passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._value is not None, timeout_s)
            if self._closed:
                return None
            value, self._value = self._value, None
            return value

    def close(self) -> None:
        """Let the reader go home: ``get`` returns None from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
