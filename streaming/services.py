"""What the routes work with, made by the application's lifespan."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from streaming.access import Grant
from streaming.avatar_store import AvatarStore
from streaming.config import Config
from streaming.errors import RefusedError
from streaming.jobs import Jobs
from streaming.recording_store import RecordingStore
from streaming.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Services:
    """One server's parts."""

    config: Config
    avatars: AvatarStore
    jobs: Jobs
    sessions: Sessions
    recordings: RecordingStore
    secret: str | None = field(default=None, repr=False)
    """Signs tokens; None: nobody needs one."""


def get_services(connection: HTTPConnection) -> Services:
    """The services of the application a request came to; raises RefusedError outside its lifespan."""
    services = getattr(connection.app.state, "services", None)
    if not isinstance(services, Services):
        raise RefusedError(503, "not_running", "the server is starting or stopping")
    return services


Here = Annotated[Services, Depends(get_services)]
"""Parameter of a route that gets the services."""


def get_grant(connection: HTTPConnection) -> Grant:
    """What the caller may do, as the gate found; raises RefusedError where it did not look."""
    grant = getattr(connection.state, "grant", None)
    if not isinstance(grant, Grant):
        raise RefusedError(401, "no_token", "nobody looked at who this is")
    return grant


Given = Annotated[Grant, Depends(get_grant)]
"""Parameter of a route that gets what its caller may do."""
