"""A rig behind an MQTT broker, which may drive any number of sessions whose source is ``mqtt``."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from urllib.parse import unquote, urlsplit

from aiomqtt import Client, MqttError, TLSParameters, Will

from lhm_live_client.wire import pack_bones


class RigSender:
    """Publishes moments of an SMPL-X skeleton as the rig ``mqtt://[USER:PASSWORD@]HOST[:PORT]/TENANT/RIG``.

    ``mqtts`` is with TLS. Use it in ``async with``. The broker is told what the rig is when it comes, and that it is
    gone when it leaves; should it die, the broker says so in its place (its last will).
    """

    def __init__(self, url: str, rate_hz: float | None = None) -> None:
        """Raises ValueError for an address that is none; ``rate_hz`` is told as what it means to send."""
        address = urlsplit(url)
        parts = address.path.split("/")
        if address.scheme not in {"mqtt", "mqtts"} or len(parts) != 3 or not all(parts[1:]) or set(url) & set("+#"):
            raise ValueError(f"{url} is no address of a rig: mqtt://HOST[:PORT]/TENANT/RIG")
        self._topic = f"lhm-live{address.path}"
        self._meta = {"version": 1, "skeleton": "smplx", "units": "m"} | (
            {} if rate_hz is None else {"rate_hz": rate_hz}
        )
        secure = address.scheme == "mqtts"
        self._client = Client(
            address.hostname or "127.0.0.1",
            address.port or (8883 if secure else 1883),
            username=unquote(address.username) if address.username else None,
            password=unquote(address.password) if address.password else None,
            will=Will(f"{self._topic}/meta", b"", retain=True),
            tls_params=TLSParameters() if secure else None,
        )
        self._sequence = 0
        self._leaving = AsyncExitStack()

    async def __aenter__(self) -> "RigSender":
        """Raises ConnectionError: no broker, or it does not let us in."""
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._client)
                await self._client.publish(f"{self._topic}/meta", json.dumps(self._meta), qos=1, retain=True)
                self._leaving = stack.pop_all()
        except MqttError as error:
            raise ConnectionError(f"the broker: {error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._leaving:
            if kind is None or not issubclass(kind, ConnectionError):
                await self._client.publish(f"{self._topic}/meta", b"", qos=1, retain=True)

    async def send(
        self,
        rotvec: Mapping[str, Sequence[float]],
        root: Sequence[float] | None = None,
        expression: Mapping[str, float] | None = None,
        captured_ms: float | None = None,
    ) -> None:
        """Send one moment, taken now unless ``captured_ms`` says when; the rest is as for ``pack_bones``.

        Raises:
            ConnectionError: the broker is gone.
        """
        when_ms = time.time() * 1e3 if captured_ms is None else captured_ms
        message = pack_bones(self._sequence, when_ms, rotvec, root, expression)
        try:
            await self._client.publish(f"{self._topic}/pose", message, qos=0)
        except MqttError as error:
            raise ConnectionError(f"the broker: {error}") from error
        self._sequence += 1
