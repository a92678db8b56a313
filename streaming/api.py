"""REST: what there is, avatars of photos, sessions."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, get_args

from fastapi import APIRouter, Request, Response, UploadFile
from fastapi.responses import FileResponse, StreamingResponse
from PIL import Image
from pydantic import BaseModel

from lhm_runtime.errors import LhmLiveError
from streaming.avatar_store import AvatarStore, tidy_name
from streaming.config import Config
from streaming.errors import RefusedError
from streaming.jobs import Job
from streaming.services import Here
from streaming.settings import NewSession, SessionState, SettingsChange
from streaming.sources import SourceName
from streaming.sources.replay import list_replays

_HEIC_BRAND: Final = slice(4, 8)
_CACHE: Final = {"Cache-Control": "no-cache"}


class AvatarSummary(BaseModel):
    """One avatar in a list."""

    id: str
    name: str
    preview: str | None
    backdrop: str | None
    method: str
    created_at: str
    warnings: tuple[str, ...]


class SessionSummary(BaseModel):
    """One session in a list."""

    id: str
    avatar: str
    source: SourceName
    viewers: int
    fps: float


class State(BaseModel):
    """Everything a page needs to begin."""

    version: str
    sessions: list[SessionSummary]
    avatars: list[AvatarSummary]
    sources: list[str]
    replays: list[str]
    ice_servers: list[dict[str, Any]]


class Started(BaseModel):
    """A session that began."""

    id: str


class Accepted(BaseModel):
    """A photo that is being worked on."""

    job: str


router = APIRouter(prefix="/api")


@router.get("/state", tags=["server"])
async def state(here: Here) -> State:
    """Avatars, sessions, and what can drive one."""
    return State(
        version=version("lhm-live"),
        sessions=[_summarise(session.state) for session in here.sessions.all],
        avatars=await asyncio.to_thread(_list_avatars, here.avatars),
        sources=list(get_args(SourceName)),
        replays=list_replays(here.config.storage.replays),
        ice_servers=[_for_browsers(server) for server in here.config.rtc.ice_servers],
    )


@router.post("/avatars", status_code=202, tags=["avatars"])
async def create_avatar(photo: UploadFile, here: Here) -> Accepted:
    """Make an avatar of a photo; the job says how far it is."""
    limit = here.config.server.max_photo_mb * 1_000_000
    data = await photo.read(limit + 1)
    if len(data) > limit:
        raise RefusedError(413, "too_large", f"the photo is larger than {here.config.server.max_photo_mb} MB")
    folder = here.config.storage.data / "photos"
    path = folder / secrets.token_hex(8)
    await asyncio.to_thread(_keep, path, data)
    try:
        job = here.jobs.start(tidy_name(photo.filename or ""), path, delete_photo=not here.config.storage.keep_photos)
    except RefusedError:
        path.unlink(missing_ok=True)
        raise
    return Accepted(job=job.id)


@router.get("/jobs/{job}", tags=["avatars"])
async def job_state(job: str, here: Here) -> Job:
    """How far an avatar is."""
    return here.jobs.get(job)


@router.get("/jobs/{job}/events", tags=["avatars"], response_class=StreamingResponse)
async def job_events(job: str, here: Here) -> StreamingResponse:
    """The same as server-sent events, to its end."""
    here.jobs.get(job)
    return StreamingResponse(_events(here.jobs.follow(job)), media_type="text/event-stream", headers=_CACHE)


@router.get("/avatars/{avatar}/preview.png", tags=["avatars"], response_class=FileResponse)
async def preview(avatar: str, here: Here) -> FileResponse:
    """How the avatar looks, with transparent surroundings."""
    here.avatars.require(avatar)
    return _picture(here.avatars.preview_path(avatar))


@router.get("/avatars/{avatar}/backdrop.jpg", tags=["avatars"], response_class=FileResponse)
async def backdrop(avatar: str, here: Here) -> FileResponse:
    """The photo it was made of, blurred beyond recognition, to stand before."""
    here.avatars.require(avatar)
    return _picture(here.avatars.backdrop_path(avatar))


@router.delete("/avatars/{avatar}", status_code=204, tags=["avatars"], response_class=Response)
async def delete_avatar(avatar: str, here: Here) -> Response:
    """Remove an avatar and everything made of its photo; sessions that show it go on."""
    here.avatars.delete(avatar)
    return Response(status_code=204)


@router.post("/sessions", status_code=201, tags=["sessions"])
async def start_session(wish: NewSession, here: Here) -> Started:
    """Start a session; it ends by itself when nobody has been connected for a while."""
    try:
        session = await here.sessions.start(wish)
    except RefusedError:
        raise
    except LhmLiveError as error:
        raise RefusedError(409, "unusable_avatar", str(error)) from error
    return Started(id=session.id)


@router.get("/sessions/{session}", tags=["sessions"])
async def session_state(session: str, here: Here) -> SessionState:
    """What a session shows."""
    return here.sessions.get(session).state


@router.patch("/sessions/{session}", tags=["sessions"])
async def change_session(session: str, change: SettingsChange, here: Here) -> SessionState:
    """Change what a session shows; what is left out stays."""
    found = here.sessions.get(session)
    found.change(change)
    return found.state


@router.delete("/sessions/{session}", status_code=204, tags=["sessions"], response_class=Response)
async def end_session(session: str, here: Here) -> Response:
    """End a session; its viewers are told."""
    await here.sessions.end(session, "the session was ended")
    return Response(status_code=204)


def limit_for(request: Request, config: Config) -> int:
    """Most bytes a request's body may have."""
    is_photo = request.url.path.rstrip("/") == "/api/avatars"
    return (config.server.max_photo_mb + 1) * 1_000_000 if is_photo else 128 * 1024


async def _events(jobs: AsyncIterator[Job]) -> AsyncIterator[str]:
    async for job in jobs:
        yield f"data: {json.dumps(asdict(job))}\n\n"


def _list_avatars(store: AvatarStore) -> list[AvatarSummary]:
    return [
        AvatarSummary(
            id=avatar_id,
            preview=f"/api/avatars/{avatar_id}/preview.png" if store.preview_path(avatar_id).is_file() else None,
            backdrop=f"/api/avatars/{avatar_id}/backdrop.jpg" if store.backdrop_path(avatar_id).is_file() else None,
            **asdict(facts),
        )
        for avatar_id, facts in store.list().items()
    ]


def _keep(path: Path, data: bytes) -> None:
    """Write an upload for the worker, unless its first bytes say it is no picture: the worker looks at the rest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        with Image.open(path):
            pass
    except Exception as error:
        if data[_HEIC_BRAND] == b"ftyp":
            return
        path.unlink()
        raise RefusedError(
            415, "not_a_picture", f"the file is no picture that can be read ({len(data)} bytes)"
        ) from error


def _picture(path: Path) -> FileResponse:
    if not path.is_file():
        raise RefusedError(404, "no_picture", "this avatar has no such picture")
    return FileResponse(path, headers=_CACHE)


def _summarise(state: SessionState) -> SessionSummary:
    return SessionSummary(id=state.id, avatar=state.avatar, source=state.source, viewers=state.viewers, fps=state.fps)


def _for_browsers(server: Any) -> dict[str, Any]:
    credential = None if server.credential is None else server.credential.get_secret_value()
    found = {"urls": list(server.urls), "username": server.username, "credential": credential}
    return {name: value for name, value in found.items() if value is not None}
