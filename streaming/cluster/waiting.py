"""Asking what blocks, as Ray and the storage do, without waiting for ever."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from streaming.errors import RefusedError

STUCK_S: Final = 5.0
"""Neither is waited for any longer."""

_RETRY_AFTER_S: Final = 5
_Found = TypeVar("_Found")


async def in_time(ask: Callable[..., _Found], *given: object) -> _Found:
    """What ``ask`` says, called in a thread; raises RefusedError (503) where it says nothing in time."""
    try:
        async with asyncio.timeout(STUCK_S):
            return await asyncio.to_thread(ask, *given)
    except (TimeoutError, OSError) as error:
        raise RefusedError(
            503, "no_storage", f"Ray or the storage does not answer: {error!r}", retry_after_s=_RETRY_AFTER_S
        ) from error
