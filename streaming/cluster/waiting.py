"""Asking what blocks, as Ray and the storage do, without waiting for ever."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from streaming.errors import RefusedError

STUCK_S: Final = 5.0
"""Neither is waited for any longer."""

_RETRY_AFTER_S: Final = 5
_Found = TypeVar("_Found")
_asked: dict[tuple[Any, ...], asyncio.Task[Any]] = {}
"""Questions without an answer yet: who asks the same waits for the same, or a thread would be stuck for each."""


async def in_time(ask: Callable[..., _Found], *given: object) -> _Found:
    """What ``ask`` says, called in a thread; raises RefusedError (503) where it says nothing in time."""
    question = (asyncio.get_running_loop(), ask, *given)
    answering = _asked.get(question)
    if answering is None:
        answering = _asked[question] = asyncio.create_task(asyncio.to_thread(ask, *given), name="ask what blocks")
        answering.add_done_callback(lambda answered: _forget(question, answered))
    try:
        async with asyncio.timeout(STUCK_S):
            found: _Found = await asyncio.shield(answering)
    except (TimeoutError, OSError) as error:
        raise RefusedError(
            503, "no_storage", f"Ray or the storage does not answer: {error!r}", retry_after_s=_RETRY_AFTER_S
        ) from error
    return found


def _forget(question: tuple[Any, ...], answered: asyncio.Task[Any]) -> None:
    del _asked[question]
    if not answered.cancelled():
        answered.exception()  # also where nobody waits for it any more
