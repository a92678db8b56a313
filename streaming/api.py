"""REST: what there is, avatars of photos, sessions, recordings."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, get_args

from fastapi import APIRouter, Request, Response, UploadFile
from fastapi.responses import FileResponse, StreamingResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from lhm_runtime.errors import BackendError
from streaming.access import Grant, allows, require, sign
from streaming.avatar_store import AvatarStore, tidy_name
from streaming.config import Config, IceServer
from streaming.errors import RefusedError
from streaming.inputs import Inputs, describe_inputs, list_rigs
from streaming.jobs import UPLOADS, Job
from streaming.recording_store import RecordingFacts
from streaming.services import Given, Here, Services
from streaming.settings import NewSession, SessionChange, SessionState
from streaming.sources import SourceName
from streaming.sources.replay import list_replays
from streaming.turn import ice_servers

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
    jobs: list[Job]
    """Avatars in the making."""
    recordings: list[RecordingFacts]
    ice_servers: list[dict[str, Any]]
    inputs: Inputs
    """Where programs on the network have to send to."""


class LinkWish(BaseModel):
    """Body of ``POST /api/sessions/{id}/links``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minutes: int | None = Field(default=None, ge=1)
    """How long the link is good; at most, and where None, as long as access.minutes says."""


class ViewerLink(BaseModel):
    """By what others may watch; paths on this server, with a token where one is needed."""

    url: str
    obs_url: str
    expires_at: datetime | None
    """None: never."""


class Started(BaseModel):
    """A session or a recording that began."""

    id: str


class Refusal(BaseModel):
    """Why a request was not granted."""

    code: str
    """For programs."""
    message: str
    """For people."""


class Refused(BaseModel):
    """Body of every answer with a status of 400 and above."""

    error: Refusal


class Accepted(BaseModel):
    """A photo that is being worked on."""

    job: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may refuse with, for its documentation."""
    return {status: {"model": Refused, "description": _REFUSALS[status]} for status in statuses}


_REFUSALS: Final = {
    400: "What was sent cannot be understood",
    401: "No token, or one that is void: see WWW-Authenticate",
    403: "The token's role or session does not cover this",
    404: "There is no such thing, or no longer",
    406: "No codec in common",
    409: "Not in the state that things are in",
    412: "The ICE session is another one by now",
    413: "Too large",
    415: "Of the wrong type",
    422: "Well-formed, but not acceptable",
    428: "If-Match is missing",
    502: "A server that this one needs cannot be used",
    503: "Too much is going on; try again after Retry-After seconds",
    507: "No room on the disk, or none is allowed",
}

router = APIRouter(prefix="/api")


def _files(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {}}}, **refusals(404)}


@router.get("/state", tags=["server"])
async def state(here: Here, grant: Given) -> State:
    """Avatars, what can drive one, and of sessions, jobs and recordings those that the caller may see."""
    is_admin = allows(grant, "admin")
    return State(
        version=version("lhm-live"),
        sessions=[_summarise(session.state) for session in here.sessions.all if allows(grant, "view", session.id)],
        avatars=await asyncio.to_thread(_list_avatars, here.avatars),
        sources=list(get_args(SourceName)),
        replays=list_replays(here.config.storage.replays),
        jobs=here.jobs.running if is_admin else [],
        recordings=await asyncio.to_thread(here.recordings.listing) if is_admin else [],
        ice_servers=[for_browsers(server) for server in ice_servers(here.config.rtc)],
        inputs=describe_inputs(here.config),
    )


@router.get("/rigs", tags=["sessions"], responses=refusals(502))
async def rigs(here: Here) -> list[str]:
    """Motion capture rigs that the broker knows of now, for source ``mqtt``."""
    try:
        return await list_rigs(here.config)
    except BackendError as error:
        raise RefusedError(502, "no_broker", str(error)) from error


@router.post("/avatars", status_code=202, tags=["avatars"], responses=refusals(413, 415, 422, 503, 507))
async def create_avatar(photo: UploadFile, here: Here) -> Accepted:
    """Make an avatar of a photo; the job says how far it is."""
    limit = here.config.server.max_photo_mb * 1_000_000
    data = await photo.read(limit + 1)
    if len(data) > limit:
        raise RefusedError(413, "too_large", f"the photo is larger than {here.config.server.max_photo_mb} MB")
    keep = here.config.storage.keep_photos
    path = here.config.storage.data / ("photos" if keep else UPLOADS) / secrets.token_hex(8)
    await asyncio.to_thread(_keep, path, data)
    try:
        job = here.jobs.start(tidy_name(photo.filename or ""), path, delete_photo=not keep)
    except RefusedError:
        path.unlink(missing_ok=True)
        raise
    return Accepted(job=job.id)


@router.get("/jobs/{job}", tags=["avatars"], responses=refusals(404))
async def job_state(job: str, here: Here) -> Job:
    """How far an avatar is."""
    return here.jobs.get(job)


@router.get(
    "/jobs/{job}/events", tags=["avatars"], response_class=StreamingResponse, responses=_files("text/event-stream")
)
async def job_events(job: str, here: Here) -> StreamingResponse:
    """The same as server-sent events, to its end."""
    here.jobs.get(job)
    return StreamingResponse(_events(here.jobs.follow(job)), media_type="text/event-stream", headers=_CACHE)


@router.get(
    "/avatars/{avatar}/preview.png", tags=["avatars"], response_class=FileResponse, responses=_files("image/png")
)
async def preview(avatar: str, here: Here) -> FileResponse:
    """How the avatar looks, with transparent surroundings."""
    here.avatars.require(avatar)
    return _picture(here.avatars.preview_path(avatar))


@router.get(
    "/avatars/{avatar}/backdrop.jpg", tags=["avatars"], response_class=FileResponse, responses=_files("image/jpeg")
)
async def backdrop(avatar: str, here: Here) -> FileResponse:
    """The photo it was made of, blurred beyond recognition, to stand before."""
    here.avatars.require(avatar)
    return _picture(here.avatars.backdrop_path(avatar))


@router.delete("/avatars/{avatar}", status_code=204, tags=["avatars"], response_class=Response, responses=refusals(404))
async def delete_avatar(avatar: str, here: Here) -> Response:
    """Remove an avatar and everything made of its photo; sessions that show it go on."""
    here.avatars.delete(avatar)
    return Response(status_code=204)


@router.post("/sessions", status_code=201, tags=["sessions"], responses=refusals(404, 409, 422, 503))
async def start_session(wish: NewSession, here: Here, response: Response) -> Started:
    """Start a session; it ends by itself when nobody has been connected for a while."""
    session = await here.sessions.start(wish)
    response.headers["Location"] = f"/api/sessions/{session.id}"
    return Started(id=session.id)


@router.get("/sessions/{session}", tags=["sessions"], responses=refusals(404))
async def session_state(session: str, here: Here) -> SessionState:
    """What a session shows."""
    return here.sessions.get(session).state


@router.patch("/sessions/{session}", tags=["sessions"], responses=refusals(403, 404, 409, 422))
async def change_session(session: str, change: SessionChange, here: Here, grant: Given) -> SessionState:
    """Change what a session shows, who, or what moves them; what is left out stays, and so do its viewers."""
    if change.share_avatar or change.relay is not None:  # gives the avatar away, or goes public: drivers may not
        require(grant, "admin", session)
    return (await here.sessions.change(session, change)).state


@router.delete(
    "/sessions/{session}", status_code=204, tags=["sessions"], response_class=Response, responses=refusals(404)
)
async def end_session(session: str, here: Here) -> Response:
    """End a session; its viewers are told."""
    await here.sessions.end(session, "the session was ended")
    return Response(status_code=204)


@router.post("/sessions/{session}/links", status_code=201, tags=["sessions"], responses=refusals(401, 403, 404, 422))
async def make_link(session: str, here: Here, grant: Given, wish: LinkWish | None = None) -> ViewerLink:
    """Links by which others may watch a session, and do nothing else; they last no longer than what made them."""
    here.sessions.get(session)
    return sign_link(session, here, grant, wish)


def sign_link(session: str, here: Services, grant: Grant, wish: LinkWish | None) -> ViewerLink:
    """Links to a session, for viewers; raises RefusedError where tokens cannot be signed."""
    query, until_s = "", None
    if here.secret is not None:
        most = here.config.access.minutes
        until_s = time.time() + 60 * min((wish or LinkWish()).minutes or most, most)
        until_s = until_s if grant.expires_s is None else min(until_s, grant.expires_s)
        query = f"?token={sign(here.secret, Grant('view', session, until_s))}"
    return ViewerLink(
        url=f"/view/{session}{query}",
        obs_url=f"/obs/{session}{query}",
        expires_at=None if until_s is None else datetime.fromtimestamp(int(until_s), UTC),
    )


@router.post("/sessions/{session}/recording", status_code=201, tags=["recordings"], responses=refusals(404, 409, 507))
async def start_recording(session: str, here: Here, response: Response) -> Started:
    """Record what the session shows, on the server, as an MP4; whoever watches, or nobody."""
    recording = await here.sessions.start_recording(session)
    response.headers["Location"] = f"/api/recordings/{recording}"
    return Started(id=recording)


@router.delete("/sessions/{session}/recording", tags=["recordings"], responses=refusals(404, 409))
async def stop_recording(session: str, here: Here) -> RecordingFacts:
    """End the recording; it is then to be had."""
    return await here.sessions.stop_recording(session)


@router.get("/recordings", tags=["recordings"])
async def list_recordings(here: Here) -> list[RecordingFacts]:
    """All that are complete, the newest first."""
    return await asyncio.to_thread(here.recordings.listing)


@router.get("/recordings/{recording}", tags=["recordings"], response_class=FileResponse, responses=_files("video/mp4"))
async def download_recording(recording: str, here: Here) -> FileResponse:
    """The film; parts of it where Range asks for them."""
    path = here.recordings.path(recording)
    return FileResponse(path, filename=f"lhm-live {path.name}", content_disposition_type="inline", headers=_CACHE)


@router.get(
    "/recordings/{recording}/motion",
    tags=["recordings"],
    response_class=FileResponse,
    responses=_files("application/octet-stream"),
)
async def download_motion(recording: str, here: Here) -> FileResponse:
    """The film's poses (docs/takes.md), for ``lhm-live render --pose``: at another size, or with another avatar."""
    path = here.recordings.motion_path(recording)
    return FileResponse(path, media_type="application/octet-stream", filename=f"lhm-live {path.name}", headers=_CACHE)


@router.delete(
    "/recordings/{recording}", status_code=204, tags=["recordings"], response_class=Response, responses=refusals(404)
)
async def delete_recording(recording: str, here: Here) -> Response:
    """Remove a recording and its poses."""
    here.recordings.delete(recording)
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
            name=facts.name,
            method=facts.method,
            created_at=facts.created_at,
            warnings=facts.warnings,
        )
        for avatar_id, facts in store.list().items()
    ]


def _keep(path: Path, data: bytes) -> None:
    """Write an upload for the worker, unless its first bytes say it is no picture: the worker looks at the rest."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise RefusedError(507, "no_room", f"the server cannot keep the photo: {error.strerror}") from error
    try:
        with Image.open(path):
            pass
    except Exception as error:
        if data[_HEIC_BRAND] == b"ftyp":
            return
        path.unlink()
        raise RefusedError(
            415,
            "not_a_picture",
            f"the file is no picture that can be read here ({len(data)} bytes): use a JPEG or a PNG",
        ) from error


def _picture(path: Path) -> FileResponse:
    if not path.is_file():
        raise RefusedError(404, "no_picture", "this avatar has no such picture")
    return FileResponse(path, headers=_CACHE)


def _summarise(state: SessionState) -> SessionSummary:
    return SessionSummary(id=state.id, avatar=state.avatar, source=state.source, viewers=state.viewers, fps=state.fps)


def for_browsers(server: IceServer) -> dict[str, Any]:
    """An ICE server as RTCPeerConnection takes it."""
    credential = None if server.credential is None else server.credential.get_secret_value()
    found = {"urls": list(server.urls), "username": server.username, "credential": credential}
    return {name: value for name, value in found.items() if value is not None}
