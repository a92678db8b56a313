"""How far a job is: one share of the whole that only grows, whatever its parts."""

from collections.abc import Callable, Sequence

Progress = Callable[[str, float], None]
"""Told the name of what is being done, and the share of all work that is done, 0 to 1."""


def split(tell: Progress | None, seconds: Sequence[float]) -> list[Progress]:
    """A progress function for each part of the work, which is told shares of that part.

    Args:
        tell: told shares of the whole; nobody listens where None.
        seconds: how long each part takes, in any unit.
    """
    total = sum(seconds)
    parts, start = [], 0.0
    for length in seconds:
        parts.append(_part(tell, start / total, length / total))
        start += length
    return parts


def _part(tell: Progress | None, start: float, length: float) -> Progress:
    def tell_part(stage: str, done: float) -> None:
        if tell is not None:
            tell(stage, start + length * min(max(done, 0.0), 1.0))

    return tell_part
