"""REST: where a session is relayed to, and watching it there.

Whoever watches a Janus asks here: an offer comes back, Janus' own, and the answer goes there by way of this server. The
pictures come from Janus.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from lhm_runtime.errors import BackendError
from streaming.api import for_browsers, refusals
from streaming.errors import RefusedError
from streaming.peer import MAX_SDP_BYTES
from streaming.relay.janus import Mountpoint
from streaming.relay.relaying import State
from streaming.services import Given, Here, Services
from streaming.turn import ice_servers


class RelayState(BaseModel):
    """How a session's relay is doing."""

    name: str
    kind: Literal["janus", "whip"]
    state: State
    problem: str | None
    """Why it was not live the last time."""
    viewers: int | None
    """Who watch a Janus by way of this server; of other servers that is not known."""


class RelayOffer(BaseModel):
    """An invitation to watch."""

    id: str
    """The viewer's."""
    sdp: str
    """The relay's offer."""
    ice_servers: list[dict[str, Any]]


class RelayAnswer(BaseModel):
    """The answer to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sdp: Annotated[str, StringConstraints(min_length=1, max_length=MAX_SDP_BYTES)]


router = APIRouter(prefix="/api/sessions/{session}/relay", tags=["relay"])


@router.get("", responses=refusals(404))
async def relay_state(session: str, here: Here) -> RelayState:
    """Whereto a session is relayed, and whether that works."""
    relaying = here.sessions.relays.get(here.sessions.get(session))
    mountpoint = relaying.mountpoint
    return RelayState(
        name=relaying.name,
        kind=relaying.relay.kind,
        state=relaying.state,
        problem=relaying.problem,
        viewers=None if mountpoint is None else mountpoint.viewers,
    )


@router.post("/viewers", status_code=201, responses=refusals(404, 409, 502, 503))
async def watch_relay(session: str, here: Here, grant: Given, response: Response) -> RelayOffer:
    """Watch by way of the session's Janus: its offer; answer within 15 s, with all ICE candidates in it."""
    try:
        viewer, sdp = await _mountpoint(here, session).invite(grant.lasts_s)
    except BackendError as error:
        raise RefusedError(502, "relay_failed", str(error)) from error
    response.headers["Location"] = f"/api/sessions/{session}/relay/viewers/{viewer}"
    servers = [for_browsers(server) for server in ice_servers(here.config.rtc)]
    return RelayOffer(id=viewer, sdp=sdp, ice_servers=servers)


@router.put("/viewers/{viewer}", status_code=204, response_class=Response, responses=refusals(404, 409, 422, 502, 503))
async def answer_relay(session: str, viewer: str, answer: RelayAnswer, here: Here, grant: Given) -> Response:
    """Answer the offer; pictures come then."""
    try:
        await _mountpoint(here, session).accept(viewer, answer.sdp, grant.lasts_s)
    except BackendError as error:
        raise RefusedError(502, "relay_failed", str(error)) from error
    return Response(status_code=204)


@router.delete("/viewers/{viewer}", status_code=204, response_class=Response, responses=refusals(404, 409, 503))
async def leave_relay(session: str, viewer: str, here: Here) -> Response:
    """Watch no more."""
    await _mountpoint(here, session).dismiss(viewer)
    return Response(status_code=204)


def _mountpoint(here: Services, session: str) -> Mountpoint:
    relaying = here.sessions.relays.get(here.sessions.get(session))
    if relaying.relay.kind != "janus":
        raise RefusedError(409, "other_relay", "this relay has its own way of watching; only a Janus is asked here")
    if relaying.mountpoint is None:
        raise RefusedError(503, "relay_waiting", "the relay cannot be reached at the moment", retry_after_s=1)
    return relaying.mountpoint
