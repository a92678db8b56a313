"""How a gateway talks to a seat: over HTTP, by the seat's own secret, which it tells whoever may ask it through Ray."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx
from pydantic import BaseModel, ConfigDict

from streaming.access import Grant, sign
from streaming.api import SessionSummary
from streaming.errors import RefusedError
from streaming.settings import NewSession

PATH: Final = "/seat"
"""Of the route that only gateways use."""

_YEARS_S: Final = 10 * 365 * 86_400.0
_BEGIN_S: Final = 20.0
_RETIRE_S: Final = 5.0

Probed = Literal["heard", "silent", "gone"]
"""Of a seat that was asked how it is; silent: not in time; gone: nobody is there any more."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a seat listens, from its start to its end; after a restart it is another one."""

    url: str
    secret: str = field(repr=False)
    process: int
    """Its id on its node."""


class SeatState(BaseModel):
    """What a seat says of itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    session: SessionSummary | None
    """None: it is free."""
    generation: int
    leaving: bool
    """Whether it was told to end, and waits for its session to begin elsewhere."""
    clock_s: float
    """Unix time on its node."""


class Order(BaseModel):
    """A session that is to begin in a seat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    session: str
    generation: int
    wish: NewSession


class Seat:
    """A seat as a gateway sees it."""

    def __init__(self, name: str, node: str, address: Address, http: httpx.AsyncClient) -> None:
        self.name, self.node, self.address = name, node, address
        self.state = SeatState(session=None, generation=0, leaving=False, clock_s=time.time())
        self.heard_s = time.monotonic()
        """When it last answered."""
        self.asked = False
        """Whether an answer is waited for."""
        self.lost = asyncio.Event()
        """Set when nothing is passed on to it any more."""
        self._http = http
        self._ahead_s = 0.0
        """Of this machine's clock; nothing says that the clocks of machines agree."""

    def token(self, grant: Grant) -> str:
        """What lets the holder of ``grant`` into this seat, to do the same there for as long."""
        until_s = time.time() + _YEARS_S if grant.expires_s is None else grant.expires_s
        return sign(self.address.secret, Grant(grant.role, grant.session, until_s + self._ahead_s))

    async def probe(self, within_s: float) -> Probed:
        """Ask how it is."""
        asked_s = time.time()
        try:
            answer = await self._http.get(self.address.url + PATH, headers=self._headers, timeout=within_s)
            self.state = SeatState.model_validate_json(answer.raise_for_status().content)
        except httpx.TimeoutException:
            return "silent"
        except (httpx.HTTPError, ValueError):  # ValueError: another program has its port by now
            return "gone"
        self.heard_s = time.monotonic()
        self._ahead_s = self.state.clock_s - (asked_s + time.time()) / 2
        return "heard"

    async def begin(self, order: Order) -> None:
        """Begin a session in it.

        Raises:
            RefusedError: the session cannot be, as Sessions.start says; 409 ``occupied`` or ``taken``: not in this
                seat, or not any more; 503 ``no_seat``: it does not answer.
        """
        try:
            answer = await self._http.put(
                self.address.url + PATH, headers=self._headers, json=order.model_dump(mode="json"), timeout=_BEGIN_S
            )
        except httpx.HTTPError as error:
            raise RefusedError(503, "no_seat", f"seat {self.name} does not answer: {error!r}") from error
        if answer.is_error:
            raise _refusal(answer)
        self.state = SeatState.model_validate_json(answer.content)

    async def retire(self) -> None:
        """Tell its viewers that the session has moved, and end it there; quietly nothing where it does not answer."""
        try:
            await self._http.delete(self.address.url + PATH, headers=self._headers, timeout=_RETIRE_S)
        except httpx.HTTPError:
            return

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.address.secret}"}


def _refusal(answer: httpx.Response) -> RefusedError:
    try:
        said: dict[str, Any] = answer.json()["error"]
        after = answer.headers.get("retry-after", "")
        return RefusedError(
            answer.status_code,
            str(said["code"]),
            str(said["message"]),
            retry_after_s=int(after) if after.isdecimal() else None,
        )
    except (ValueError, KeyError, TypeError):
        return RefusedError(503, "no_seat", f"a seat answered {answer.status_code} {answer.text[:100]!r}")
