"""Evens out what the network made uneven, at the price of a fixed delay. Time is passed in; no clock here."""

from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST_HELD: Final = 256
"""Items that wait at once; of more the oldest go."""
_WINDOW_S = 5.0
"""How far back the quickest way through the network is looked for: clocks drift."""
_RESTART_S = 1.0
"""A sender whose clock jumps further, either way, has started again."""


class JitterBuffer(Generic[T]):
    """Gives each item out ``delay_s`` after it would have come by the quickest way of the last seconds.

    The sender's clock need not agree with ours: what counts is by how much more than the least an item's journey
    took. An item that took longer than ``delay_s`` more is late and comes at once.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._held: deque[tuple[float, T]] = deque(maxlen=MOST_HELD)
        self._journeys: deque[tuple[float, float]] = deque()
        self._captured_s: float | None = None

    def put(self, item: T, captured_s: float, arrived_s: float) -> None:
        """Hold an item seen at ``captured_s`` of its sender's clock; one that a newer item overtook is dropped."""
        if self._captured_s is not None:
            if abs(captured_s - self._captured_s) > max(_RESTART_S, 2 * self._delay_s):
                self.clear()
            elif captured_s <= self._captured_s:
                return
        self._captured_s = captured_s
        journey = arrived_s - captured_s
        while self._journeys and self._journeys[0][0] < arrived_s - _WINDOW_S:
            self._journeys.popleft()
        while self._journeys and self._journeys[-1][1] >= journey:
            self._journeys.pop()
        self._journeys.append((arrived_s, journey))  # growing from left to right: the first is the quickest
        self._held.append((captured_s + self._journeys[0][1] + self._delay_s, item))

    def next_s(self) -> float | None:
        """When the next item is due, on the clock of arrivals; None when nothing is held."""
        return self._held[0][0] if self._held else None

    def take(self, now_s: float) -> T | None:
        """The newest item that is due; older ones go with it."""
        found = None
        while self._held and self._held[0][0] <= now_s:
            found = self._held.popleft()[1]
        return found

    def clear(self) -> None:
        """Forget everything, the sender's clock too."""
        self._held.clear()
        self._journeys.clear()
        self._captured_s = None
