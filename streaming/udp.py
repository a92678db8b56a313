"""UDP ports that several sessions listen to at once: opened for the first, closed after the last."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from lhm_runtime.errors import BackendError
from streaming import metrics

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Hear = Callable[[bytes], None]
"""Takes one packet, on the event loop; raises nothing."""
Send = Callable[[bytes, tuple[str, int]], None]
"""Sends a packet from the port to an address; what cannot go out now is left out."""

_AT_ONCE: Final = 256
"""Packets read before the event loop has its turn again."""
_LONGEST: Final = 65_536


class UdpPorts:
    """All open ports of a server; for one event loop."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], _Port] = {}

    @asynccontextmanager
    async def listen(self, host: str, port: int, senders: Iterable[Network], hear: Hear) -> AsyncIterator[Send]:
        """Have ``hear`` called with every packet from one of ``senders``; others are dropped and counted.

        Raises:
            BackendError: the port is another program's, or the address not this machine's.
        """
        ear = (tuple(senders), hear)
        opened = self._open.get((host, port))
        if opened is None:
            opened = self._open[host, port] = _Port(host, port)
        opened.ears.append(ear)
        try:
            yield opened.send
        finally:
            opened.ears.remove(ear)
            if not opened.ears:
                del self._open[host, port]
                opened.close()


class _Port:
    """A socket read without asyncio's transport, which takes a turn of the loop for each packet of a frame."""

    def __init__(self, host: str, port: int) -> None:
        self.ears: list[tuple[tuple[Network, ...], Hear]] = []
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise BackendError(
                f"cannot listen on UDP {host}:{port}: {error.strerror or error}; end the program that does, or choose "
                "another address or port in the settings"
            ) from error
        self._loop.add_reader(self._socket, self._read)

    def send(self, packet: bytes, address: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(packet, address)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                packet, address = self._socket.recvfrom(_LONGEST)
            except BlockingIOError:
                return
            except OSError:  # somebody we wrote to is not there; they may come yet
                continue
            sender = ipaddress.ip_address(address[0].partition("%")[0])
            for senders, hear in self.ears:
                if any(sender in network for network in senders):
                    hear(packet)
                else:
                    metrics.FRAMES_DROPPED.labels("sender_not_allowed").inc()
