"""The web application: page, REST, signalling, health, metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage
from structlog.stdlib import get_logger

from lhm_runtime.errors import LhmLiveError
from lhm_runtime.models import MODELS, find_model
from streaming import api, lowlatency, metrics, pose_socket, signaling
from streaming.avatar_store import AvatarStore
from streaming.config import Config
from streaming.encoder import PictureEncoder
from streaming.errors import RefusedError
from streaming.jobs import Jobs
from streaming.recording_store import RecordingStore
from streaming.services import Here, Services
from streaming.sessions import Sessions
from streaming.threads import share_arenas

WEB: Final = Path(__file__).parent / "web"
"""The page, as clients/web builds it."""

_READ_ONLY: Final = {"GET", "HEAD", "OPTIONS"}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self' ws: wss:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_RETRY_AFTER_S: Final = "5"

_log = get_logger(__name__)


def create_app(config: Config) -> FastAPI:
    """The application; everything begins and ends with its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        share_arenas()
        lowlatency.install(config.rtc.loopback)
        avatars = AvatarStore(config.storage.data / "avatars")
        async with AsyncExitStack() as stack:
            jobs = await stack.enter_async_context(Jobs(avatars))
            recordings = RecordingStore(config.storage.data / "recordings", config.storage.recordings_mb * 1_000_000)
            sessions = await stack.enter_async_context(Sessions(config, avatars, recordings))
            app.state.services = Services(config, avatars, jobs, sessions, recordings)
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
    if config.server.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.server.origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Content-Type", "If-Match"],
            expose_headers=["Location", "ETag", "Link", "Accept-Patch"],
        )
    app.add_middleware(_Gate, config=config)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal)
    app.include_router(api.router)
    app.include_router(signaling.router)
    app.include_router(pose_socket.router)
    _add_health(app)
    _add_pages(app)
    return app


def _add_health(app: FastAPI) -> None:
    @app.get("/healthz", tags=["server"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """The event loop is alive."""
        return "ok\n"

    @app.get("/readyz", tags=["server"])
    async def readyz(services: Here) -> JSONResponse:
        """Whether a session could start now: an encoder opens and there is an avatar."""
        checks: dict[str, str] = {}
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
        """One session and nothing else, for OBS and guests."""
        return _page("view.html")

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


class _Gate:
    """In front of everything: own pages only, no endless bodies, headers that keep the page to itself."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app, self._config = app, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        reads = scope.get("method", "POST") in _READ_ONLY
        if not reads and not self._is_own(headers):
            await self._refuse(scope, receive, send, 403, "forbidden", "this page may not use the server (Origin)")
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        limit = api.limit_for(Request(scope), self._config)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            await self._refuse(scope, receive, send, 413, "too_large", f"the body is larger than {limit} bytes")
            return
        await self._pass_on(scope, receive, send, limit)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        read, overflowed = 0, False

        async def receive_some() -> AsgiMessage:
            nonlocal read, overflowed
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                overflowed = True
                raise RefusedError(413, "too_large", f"the body is larger than {limit} bytes")
            return message

        async def send_with_headers(message: AsgiMessage) -> None:
            if overflowed:  # whatever FastAPI makes of it; the answer is below
                return
            if message["type"] == "http.response.start" and not scope["path"].startswith(("/docs", "/redoc")):
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        await self._app(scope, receive_some, send_with_headers)
        if overflowed:
            await self._refuse(scope, receive, send, 413, "too_large", f"the body is larger than {limit} bytes")

    def _is_own(self, headers: dict[str, str]) -> bool:
        """Whether a request that changes something comes from our page, or from no page at all."""
        origin = headers.get("origin")
        if origin is None or origin in self._config.server.origins:
            return True
        return urlsplit(origin).netloc == headers.get("host")

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, status: int, code: str, message: str) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": code})
            return
        await _error(status, code, message)(scope, receive, send)


def _error(status: int, code: str, message: str) -> JSONResponse:
    headers = {"Retry-After": _RETRY_AFTER_S} if status == 503 else None
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the signature is Starlette's
    if not isinstance(error, RefusedError):
        raise error
    return _error(error.status, error.code, str(error))


async def _invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if not isinstance(error, RequestValidationError):
        raise error
    faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return _error(422, "invalid", "; ".join(faults))


async def _http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if not isinstance(error, HTTPException):
        raise error
    return _error(error.status_code, f"http_{error.status_code}", str(error.detail))


async def _internal(request: Request, error: Exception) -> Response:
    _log.error("request failed", path=request.url.path, exc_info=error)
    return _error(500, "internal", f"the server failed ({type(error).__name__}); its log says more")
