"""Which session is in which seat, and what is done when that has to change.

Every gateway keeps watch for itself and holds nothing that it could not find out again: seats are found through Ray,
what they hold they say, and what is to run is in the records. Two gateways that act on the same loss do no harm: a seat
takes one session, and of two seats with one session the one that is not in its record lets go of it.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable
from typing import Final

import httpx
from structlog.stdlib import get_logger

from streaming import metrics
from streaming.api import SessionSummary
from streaming.cluster.placement import Node, Placement, node_of
from streaming.cluster.records import SESSION_ID, Record, Records
from streaming.cluster.seat import Order, Seat
from streaming.cluster.waiting import STUCK_S, in_time
from streaming.config import Config
from streaming.errors import RefusedError
from streaming.settings import NewSession

_LOOK_S: Final = 0.5
_SURVEY_S: Final = 1.0
_GRACE_S: Final = 3.0
"""So long a session may be in no seat that is known here, before it is put into one: another gateway may be at it."""
_FIND_S: Final = 10.0
"""So long a request waits for its session, while that begins again."""
_RETRY_AFTER_S: Final = 5
_TRIES: Final = 4

_log = get_logger(__name__)


class Keeper:
    """Puts sessions into seats and keeps them there; use it in ``async with``."""

    def __init__(self, config: Config, placement: Placement, records: Records) -> None:
        self._config, self._placement, self._records = config, placement, records
        self._http = httpx.AsyncClient(trust_env=False)
        self._seats: dict[str, Seat] = {}
        self._starting: dict[str, float] = {}
        """Seats of which nothing is known yet, and since when."""
        self._names: set[str] = set()
        """Of all seats that Ray has given room, or is to; also of those that it starts again."""
        self._nodes: dict[str, Node] = {}
        self._draining: set[str] = set()
        self._known: dict[str, Record] = {}
        """As last read: the storage may be away when they are needed."""
        self._reserved: set[str] = set()
        self._missing: dict[str, float] = {}
        self._moving: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._surveyed = asyncio.Event()
        self._fair_from = 0.0
        """From then on silence is a seat's, and not for want of listening."""

    async def __aenter__(self) -> "Keeper":
        """Raises BackendError where there is no cluster, OSError where the storage cannot be used."""
        await asyncio.to_thread(self._records.prepare)
        await asyncio.to_thread(self._placement.connect)
        self._watching = [
            asyncio.create_task(self._survey(), name="survey the cluster"),
            asyncio.create_task(self._watch(), name="watch seats"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        ending = [*self._watching, *self._moving.values(), *self._tasks]
        for task in ending:
            task.cancel()
        await asyncio.wait(ending)
        await self._http.aclose()
        await asyncio.to_thread(self._placement.disconnect)

    @property
    def sessions(self) -> list[SessionSummary]:
        """Those that run."""
        held = (self._holder(session) for session in {s.state.session.id for s in self._all if s.state.session})
        return [seat.state.session for seat in held if seat is not None and seat.state.session is not None]

    async def start(self, wish: NewSession) -> str:
        """Begin a session somewhere; its id.

        Raises:
            RefusedError: it cannot be, or every seat is taken.
        """
        session = secrets.token_hex(4)
        await self._put(session, wish, 1)
        return session

    async def find(self, session: str) -> Seat:
        """Where a session is; while it begins again it is waited for.

        Raises:
            RefusedError: no such session, or it is not back yet.
        """
        if not SESSION_ID.fullmatch(session):
            raise _unknown(session)
        until = time.monotonic() + _FIND_S
        while (seat := self._holder(session)) is None:
            is_expected = session in self._moving or session in self._missing
            if not is_expected and self._surveyed.is_set():
                if await in_time(self._records.read, session) is None and self._holder(session) is None:
                    raise _unknown(session)
                self._missing.setdefault(session, time.monotonic())
            if time.monotonic() > until:
                raise RefusedError(
                    503,
                    "moving",
                    f"session {session} begins again on another machine; try again",
                    retry_after_s=_RETRY_AFTER_S,
                )
            await asyncio.sleep(0.05)
        return seat

    async def forget(self, session: str, seat: Seat) -> None:
        """A session was ended in ``seat`` because somebody wanted so: it is not to begin again, whatever comes next."""
        self._known.pop(session, None)
        self._missing.pop(session, None)
        seat.state = seat.state.model_copy(update={"session": None, "generation": 0})
        with contextlib.suppress(RefusedError):  # the seat tries for longer
            await in_time(self._records.remove, session)

    def report(self, seat: Seat) -> None:
        """A request got no answer from ``seat``: look at once."""
        self._spawn(self._probe(seat), f"probe {seat.name}")

    def is_expected(self, session: str, seat: Seat) -> bool:
        """Whether a session that ``seat`` does not have, or no longer, is or will be in another one."""
        holder = self._holder(session)
        return session in self._moving or session in self._missing or (holder is not None and holder is not seat)

    @property
    def _all(self) -> list[Seat]:
        return list(self._seats.values())

    def _holder(self, session: str) -> Seat | None:
        holders = [seat for seat in self._all if seat.state.session is not None and seat.state.session.id == session]
        return max(holders, key=lambda seat: seat.state.generation, default=None)

    async def _survey(self) -> None:
        """Learn which nodes, seats and records there are, and see to it that there are spares."""
        while True:
            try:
                await self._survey_once()
            except (OSError, RefusedError) as error:  # Ray's head or the storage is away; what runs goes on
                _log.warning("no survey", reason=str(error))
            except Exception as error:  # noqa: BLE001 - Ray raises what it likes; the watch must not end by it
                _log.error("survey failed", exc_info=error)
            await asyncio.sleep(_SURVEY_S)

    async def _survey_once(self) -> None:
        await self._survey_seats()
        if not self._surveyed.is_set():  # who is there already is met before anybody is called missing
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    while self._starting:
                        await asyncio.sleep(0.02)
        await self._provide()
        self._surveyed.set()
        self._draining = await in_time(self._records.draining)
        for session in await in_time(self._records.sessions):
            record = await in_time(self._records.read, session)
            if record is not None:
                self._known[session] = record
                if self._holder(session) is None:
                    self._missing.setdefault(session, time.monotonic())
        self._count()

    async def _survey_seats(self) -> None:
        self._nodes = await in_time(self._placement.nodes)
        names = self._names = await in_time(self._placement.seats)
        for name in names - set(self._seats) - set(self._starting):
            self._starting[name] = time.monotonic()
            self._spawn(self._meet(name), f"meet {name}")
        for name, since in list(self._starting.items()):
            if name not in names and time.monotonic() - since > STUCK_S:
                del self._starting[name]
            elif time.monotonic() - since > self._config.cluster.start_timeout_s:  # others have what it waits for
                self._spawn(asyncio.to_thread(self._placement.kill, name, restart=False), f"kill {name}")
        for name in set(self._seats) - names:
            self._lose(self._seats[name], "it has ended")

    async def _meet(self, name: str) -> None:
        """Learn where a seat listens, which takes until it does."""
        address = await self._placement.address(name)
        if address is not None and name in self._starting:
            seat = Seat(name, node_of(name), address, self._http)
            if await seat.probe(self._config.cluster.silence_s) == "heard":
                self._seats[name] = seat
        self._starting.pop(name, None)

    async def _watch(self) -> None:
        """Ask every seat how it is, each for itself: one that hangs delays no other."""
        while True:
            for seat in self._all:
                if not seat.asked:
                    self._spawn(self._probe(seat), f"probe {seat.name}")
            self._mend()
            before = time.monotonic()
            await asyncio.sleep(_LOOK_S)
            if time.monotonic() - before > 2 * _LOOK_S:  # it is this gateway that hangs
                self._fair_from = time.monotonic() + self._config.cluster.silence_s

    async def _probe(self, seat: Seat) -> None:
        held, seat.asked = seat.state.session, True
        found = await seat.probe(self._config.cluster.silence_s)
        seat.asked = False
        if found == "gone":
            self._lose(seat, "nobody is there")
        elif found == "silent" and time.monotonic() > self._fair_from:
            self._lose(seat, "it is silent")
            self._spawn(asyncio.to_thread(self._placement.kill, seat.name, restart=True), f"kill {seat.name}")
        elif held is not None and seat.state.session is None and not self.is_expected(held.id, seat):
            self._known.pop(held.id, None)  # it has ended

    def _lose(self, seat: Seat, why: str) -> None:
        if self._seats.get(seat.name) is not seat:
            return
        del self._seats[seat.name]
        seat.lost.set()
        held = seat.state.session
        _log.warning("seat lost", seat=seat.name, session=None if held is None else held.id, reason=why)
        if held is not None and self._holder(held.id) is None and held.id in self._known:
            self._missing[held.id] = float("-inf")
            self._mend()

    def _mend(self) -> None:
        """Put what is missing into a seat, and what is in a seat that has to go into another one."""
        now = time.monotonic()
        for session in list(self._missing):
            if self._holder(session) is not None:
                del self._missing[session]
            elif now - self._missing[session] > _GRACE_S and session not in self._moving:
                self._moving[session] = self._spawn(self._restart(session), f"restart {session}")
        for seat in self._all:
            if seat.state.session is None or seat.state.session.id in self._moving or not self._leaves(seat):
                continue
            session = seat.state.session.id
            if self._holder(session) is seat:
                self._moving[session] = self._spawn(self._move(session, seat), f"move {session}")
            else:
                self._spawn(seat.retire(), f"retire {seat.name}")

    def _leaves(self, seat: Seat) -> bool:
        return seat.state.leaving or seat.node in self._draining

    async def _restart(self, session: str) -> None:
        """Begin again what was lost."""
        try:
            record = await self._record(session)
            if record is not None:
                await self._put(session, record.wish, record.generation + 1)
                metrics.CLUSTER_RESTARTS.inc()
                _log.info("session begun again", session=session, generation=record.generation + 1)
            self._missing.pop(session, None)
        except RefusedError as refusal:
            _log.warning("session not begun again", session=session, reason=str(refusal))
            if refusal.status in {503, 409}:  # later, perhaps; or another gateway was first
                self._missing[session] = time.monotonic() - _GRACE_S + 1
            else:
                self._missing.pop(session, None)
                self._known.pop(session, None)
                with contextlib.suppress(RefusedError):
                    await in_time(self._records.remove, session)
        finally:
            self._moving.pop(session, None)

    async def _move(self, session: str, seat: Seat) -> None:
        """Begin a session elsewhere, and only then end it here."""
        try:
            record = await self._record(session)
            if record is not None:
                await self._put(session, record.wish, max(record.generation, seat.state.generation) + 1)
                metrics.CLUSTER_MOVES.inc()
                _log.info("session moved", session=session, away_from=seat.node)
                await seat.retire()
        except RefusedError as refusal:
            _log.warning("session not moved", session=session, reason=str(refusal))
            await asyncio.sleep(1.0)
        finally:
            self._moving.pop(session, None)

    async def _record(self, session: str) -> Record | None:
        try:
            return await in_time(self._records.read, session)
        except RefusedError:
            if session not in self._known:
                raise
            return self._known[session]

    async def _put(self, session: str, wish: NewSession, generation: int) -> None:
        """Begin a session in any seat; raises RefusedError where none takes it."""
        order = Order(session=session, generation=generation, wish=wish)
        for _ in range(_TRIES):
            seat = await self._take_seat()
            try:
                await seat.begin(order)
            except RefusedError as refusal:
                if refusal.code not in {"occupied", "no_seat"}:
                    raise
                _log.info("another seat", session=session, seat=seat.name, reason=str(refusal))
                self.report(seat)
            else:
                self._known[session] = Record(wish=wish, generation=generation, seat=seat.name)
                return
            finally:
                self._reserved.discard(seat.name)
        raise _full()

    async def _take_seat(self) -> Seat:
        """A free seat, on the node with the fewest sessions; a new one, if there is room for it."""
        until = time.monotonic() + self._config.cluster.start_timeout_s
        asked = ""
        while time.monotonic() < until:
            now = time.monotonic()
            busy = [seat.node for seat in self._all if seat.state.session is not None or seat.name in self._reserved]
            hung = {seat.node for seat in self._all if now - seat.heard_s > 2 * _LOOK_S}
            free = [
                seat
                for seat in self._all
                if seat.state.session is None and not (seat.name in self._reserved or self._leaves(seat))
            ]
            lively = [seat for seat in free if seat.node not in hung]
            if lively:
                seat = min(lively, key=lambda seat: busy.count(seat.node))
                self._reserved.add(seat.name)
                return seat
            if not asked or asked not in {*self._starting, *self._seats}:
                roomy = [node for node in self._roomy() if node.id not in hung]
                if not (roomy or free or self._names - set(self._seats)):  # also those that start again
                    raise _full()
                if roomy:
                    asked = await self._ask_for_seat(min(roomy, key=lambda node: busy.count(node.id)))
            await asyncio.sleep(0.05)
        raise _full()

    async def _provide(self) -> None:
        """See to it that each node has its spares."""
        for node in self._roomy():
            idle = sum(
                seat.node == node.id and seat.state.session is None and seat.name not in self._reserved
                for seat in self._all
            )
            starting = any(node_of(name) == node.id for name in self._starting)
            if idle < self._config.cluster.spares and not starting:  # one by one: each takes a core for seconds
                await self._ask_for_seat(node)

    def _roomy(self) -> list[Node]:
        """Nodes with room for another seat."""
        return [
            node
            for node in self._nodes.values()
            if node.id not in self._draining and sum(node_of(name) == node.id for name in self._names) < node.seats
        ]

    async def _ask_for_seat(self, node: Node) -> str:
        name = await in_time(self._placement.create, node)
        self._names.add(name)
        self._starting[name] = time.monotonic()
        self._spawn(self._meet(name), f"meet {name}")
        return name

    def _count(self) -> None:
        held = [seat.node for seat in self._all if seat.state.session is not None]
        metrics.CLUSTER_SESSIONS.clear()
        for node in self._nodes.values():
            metrics.CLUSTER_SESSIONS.labels(node.id[:12], node.address).set(held.count(node.id))
        metrics.CLUSTER_FREE_SEATS.set(len(self._seats) - len(held))

    def _spawn(self, work: Awaitable[None], name: str) -> asyncio.Task[None]:
        async def watched() -> None:
            await work

        task = asyncio.create_task(watched(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task failed", task=task.get_name(), exc_info=error)


def _full() -> RefusedError:
    return RefusedError(
        503, "full", "every seat of the cluster is taken: add a node, or end a session", retry_after_s=_RETRY_AFTER_S
    )


def _unknown(session: str) -> RefusedError:
    return RefusedError(404, "unknown_session", f"there is no session {session[:64]!r}; it may have ended")
