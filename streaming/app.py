"""The web application: page, REST, signalling, health, metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles
from structlog.stdlib import get_logger

from lhm_runtime.errors import InvalidInputError, LhmLiveError
from lhm_runtime.models import MODELS, find_model
from streaming import api, lowlatency, metrics, pose_socket, pose_view, signaling
from streaming.access import choose_secret
from streaming.avatar_store import AvatarStore
from streaming.config import Config, Storage
from streaming.encoder import PictureEncoder
from streaming.errors import RefusedError
from streaming.gate import Gate, error_answer
from streaming.jobs import UPLOADS, Jobs, forget_uploads
from streaming.recording_store import RecordingStore
from streaming.relay import routes as relay_routes
from streaming.services import Here, Services
from streaming.sessions import Sessions
from streaming.threads import share_arenas
from streaming.tls import certificate_names

WEB: Final = Path(__file__).parent / "web"
"""The page, as clients/web builds it."""

_log = get_logger(__name__)


def create_app(config: Config, *, avatars: AvatarStore | None = None, front: APIRouter | None = None) -> FastAPI:
    """The application; everything begins and ends with its lifespan.

    Args:
        config: all settings.
        avatars: kept somewhere else than in storage.data.
        front: routes that come before all others; each has a rule in rules.py.

    Raises:
        InvalidInputError: the network would get in and nothing says who may (access), the certificate is unusable, or
            a folder of the settings is (storage).
    """
    secret = choose_secret(config)
    _require_folders(config.storage)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        share_arenas()
        lowlatency.install(config.rtc.loopback)
        forget_uploads(config.storage.data / UPLOADS)
        store = avatars or AvatarStore(config.storage.data / "avatars")
        async with AsyncExitStack() as stack:
            jobs = await stack.enter_async_context(Jobs(store))
            recordings = RecordingStore(config.storage.data / "recordings", config.storage.recordings_mb * 1_000_000)
            sessions = await stack.enter_async_context(Sessions(config, store, recordings))
            app.state.services = Services(config, store, jobs, sessions, recordings, secret)
            lag = asyncio.create_task(metrics.watch_loop_lag(), name="watch loop lag")
            try:
                yield
            finally:
                lag.cancel()
                app.state.services = None

    app = FastAPI(
        title="lhm-live",
        version=version("lhm-live"),
        summary="A photo becomes an avatar, a camera moves it, browsers watch it.",
        lifespan=lifespan,
    )
    app.add_middleware(Gate, config=config, secret=secret, names=certificate_names(config))
    if config.server.origins:  # in front of the gate: a browser asks beforehand, without a token, and reads refusals
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.server.origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match"],
            expose_headers=["Location", "ETag", "Link", "Accept-Patch", "Retry-After", "WWW-Authenticate"],
        )
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal)
    if front is not None:
        app.include_router(front)
    app.include_router(api.router)
    app.include_router(signaling.router)
    app.include_router(pose_socket.router)
    app.include_router(pose_view.router)
    app.include_router(relay_routes.router)
    _add_health(app)
    _add_pages(app)
    return app


def _require_folders(storage: Storage) -> None:
    """Better now than with the first avatar, or where nobody looks."""
    try:
        storage.data.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=storage.data):
            pass
    except OSError as error:
        reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise InvalidInputError(
            f"nothing can be kept in {storage.data} (storage.data): {reason}; name a folder that this user may write to"
        ) from error
    if storage.replays is not None and not storage.replays.is_dir():
        raise InvalidInputError(f"{storage.replays} is no folder (storage.replays); make it, or leave the setting out")


def _add_health(app: FastAPI) -> None:
    @app.get("/healthz", tags=["server"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """The event loop is alive."""
        return "ok\n"

    @app.get("/readyz", tags=["server"])
    async def readyz(services: Here) -> JSONResponse:
        """Whether a session could start now: an encoder opens, there is an avatar, and the server stays."""
        checks: dict[str, str] = {}
        if services.sessions.draining:
            checks["draining_error"] = "the server is about to stop"
        try:
            encoder = await asyncio.to_thread(
                PictureEncoder, 64, 64, 30.0, codec=services.config.video.codecs[0], hardware=False
            )
            checks["encoder"] = encoder.name
        except LhmLiveError as error:
            checks["encoder_error"] = str(error)
        avatars = services.avatars.list()
        checks["avatars" if avatars else "avatars_error"] = str(len(avatars))
        ready = not any(name.endswith("_error") for name in checks)
        return JSONResponse({"ready": ready, **checks}, 200 if ready else 503)

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def show_metrics() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI) -> None:
    names = {model.name for model in MODELS}

    @app.get("/models/{name}", tags=["pages"], response_class=FileResponse)
    async def model(name: str) -> FileResponse:
        """MediaPipe's models, for the page's own tracking."""
        if name not in names:
            raise RefusedError(404, "unknown_model", f"no model is called {name[:64]!r}")
        path = await asyncio.to_thread(find_model, name)
        return FileResponse(path, media_type="application/octet-stream", headers={"Cache-Control": "max-age=604800"})

    @app.get("/", tags=["pages"], response_class=FileResponse)
    async def studio() -> Response:
        """The studio."""
        return _page("index.html")

    @app.get("/view/{session}", tags=["pages"], response_class=FileResponse)
    async def view(session: str) -> Response:  # noqa: ARG001 - the page reads it off its address
        """One session and nothing else, for guests."""
        return _page("view.html")

    @app.get("/obs/{session}", tags=["pages"], response_class=FileResponse)
    async def obs(session: str) -> Response:  # noqa: ARG001
        """One session on nothing, for OBS' browser source."""
        return _page("obs.html")

    @app.get("/check", tags=["pages"], response_class=FileResponse)
    async def check() -> Response:
        """The self-test: what this browser and its way to the server can do."""
        return _page("check.html")

    if (WEB / "assets").is_dir():
        app.mount("/assets", StaticFiles(directory=WEB / "assets"), name="assets")

    @app.get("/{file}", include_in_schema=False)
    async def file(file: str) -> Response:
        """What else the build puts beside its pages (icons, manifest)."""
        path = WEB / file
        if file.startswith(".") or path.parent != WEB or not path.is_file():
            raise HTTPException(404, f"there is nothing at /{file[:64]}")
        return FileResponse(path)


def _page(name: str) -> Response:
    path = WEB / name
    if not path.is_file():
        return PlainTextResponse(
            "The page is not built on this machine: run make web. The server itself works; see /docs.\n", 503
        )
    return FileResponse(path, headers={"Cache-Control": "no-cache"})


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the signature is Starlette's
    if not isinstance(error, RefusedError):
        raise error
    return error_answer(error)


async def _invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if not isinstance(error, RequestValidationError):
        raise error
    faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return error_answer(RefusedError(422, "invalid", "; ".join(faults)))


async def _http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if not isinstance(error, HTTPException):
        raise error
    return error_answer(RefusedError(error.status_code, f"http_{error.status_code}", str(error.detail)))


async def _internal(request: Request, error: Exception) -> Response:
    _log.error("request failed", path=request.url.path, exc_info=error)
    failure = f"the server failed ({type(error).__name__}); its log says more"
    return error_answer(RefusedError(500, "internal", failure))
