"""A network of a test's own: 127.0.0.1, and ADDRESS, for servers that will not have loopback. Nothing leaves it."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
from live import run

ADDRESS: Final = "198.18.0.1"
"""For tests of networks (RFC 2544)."""

_CLONE_NEWNET: Final = 0x40000000
_LINK: Final = (
    "link set lo up",
    "link add lhm0 type veth peer name lhm1",
    f"address add {ADDRESS}/32 dev lhm0",
    "link set lhm0 up",
    "link set lhm1 up",
)


def _may_be_apart() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    tried: list[bool] = []
    thread = threading.Thread(target=lambda: tried.append(_part()))
    thread.start()
    thread.join()
    return tried == [True]


def _part() -> bool:
    """Give the calling thread, and what it starts, a network of its own; False where that is not allowed."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        return False
    return all(subprocess.run(["ip", *link.split()], check=False).returncode == 0 for link in _LINK)


def run_apart(main: Coroutine[Any, Any, None]) -> None:
    """``live.run`` in a network of its own."""

    def work() -> None:
        assert _part()
        run(main)

    in_a_thread(work)


def in_a_thread(work: Callable[[], None]) -> None:
    """Do ``work`` in a thread, whose network may change without this one's, and raise what it raised."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - raised again below
            failures.append(failure)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


needs_own_network = pytest.mark.skipif(
    not _may_be_apart(), reason="a network of its own needs Linux, root, and ip (apt-get install iproute2)"
)
