"""A thread that lives and dies with a task, and what many of them cost."""

import asyncio
import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Final

_M_ARENA_MAX: Final = -8
"""mallopt(3)."""


def share_arenas(most: int = 2) -> None:
    """Let threads share pools of memory; call it before there are many.

    glibc gives each new thread a pool of its own, whose holes no other thread fills: with sessions, each of several
    threads, that come and go, memory creeps up by tens of megabytes. Elsewhere this does nothing.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, most)


async def attend_thread(name: str, work: Callable[[], None], dismiss: Callable[[], None]) -> None:
    """Run ``work`` in a thread of its own until it returns; raise what it raised.

    When cancelled, call ``dismiss``, which must let ``work`` return soon, and wait for the end: no thread is left.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            loop.call_soon_threadsafe(ended.set_exception, error)
        else:
            loop.call_soon_threadsafe(ended.set_result, None)

    # a daemon: should the loop be torn down without cancelling, the process can still end
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        await asyncio.shield(ended)
    finally:
        dismiss()
        while not ended.done():
            await asyncio.wait([ended])
        thread.join()
