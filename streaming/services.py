"""What the routes work with, made by the application's lifespan."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

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


def get_services(connection: HTTPConnection) -> Services:
    """The services of the application a request came to; raises RefusedError outside its lifespan."""
    services = getattr(connection.app.state, "services", None)
    if not isinstance(services, Services):
        raise RefusedError(503, "not_running", "the server is starting or stopping")
    return services


Here = Annotated[Services, Depends(get_services)]
"""Parameter of a route that gets the services."""
