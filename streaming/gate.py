"""In front of every route: who comes, by which name, from which page, how often, with how much, and what they may.

rules.py says what each route asks for.
"""

import json
import math
import re
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from ipaddress import IPv6Address, ip_address, ip_network
from socket import gethostname
from typing import Any, Final, get_args
from urllib.parse import unquote_plus, urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streaming.access import EVERYTHING, MAX_TOKEN_CHARS, Grant, allows, is_loopback, require, verify
from streaming.api import limit_for
from streaming.config import Config
from streaming.errors import RefusedError
from streaming.protocol import Allowance
from streaming.rules import Counted, find_rule

UNAUTHORIZED, FORBIDDEN, TOO_OFTEN = 4401, 4403, 4429
"""Close codes of websockets, which are told why: a browser shows its page no status."""

_CLOSE_CODES: Final = {401: UNAUTHORIZED, 403: FORBIDDEN, 404: 4404, 429: TOO_OFTEN}
_READ_ONLY: Final = {"GET", "HEAD", "OPTIONS"}
_TOKEN: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_TOKEN_CHARS}}}")
_MOST_ADDRESSES: Final = 4096
_RETRY_AFTER_S: Final = 5
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self' ws: wss:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Gate:
    """The middleware; it leaves the caller's grant in ``scope["state"]`` and the token nowhere."""

    def __init__(self, app: ASGIApp, config: Config, secret: str | None, names: frozenset[str]) -> None:
        """In front of ``app``.

        Args:
            app: gets what is let through.
            config: all settings.
            secret: by which tokens are signed; None: everybody may do everything.
            names: what the server is called, beside what ``known_names`` knows by itself.
        """
        self._app, self._config, self._secret = app, config, secret
        self._names = known_names(config) | names
        self._counts = Counts(config) if secret is not None or not is_loopback(config.server.host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        token = take_token(scope)
        caller = HTTPConnection(scope)
        try:
            self._require_own(caller, scope.get("method", "POST") in _READ_ONLY)
        except RefusedError as refusal:
            await _turn_away(scope, receive, send, refusal)
            return
        try:
            cookie = self._admit(scope, caller, token)
        except RefusedError as refusal:
            await _refuse(scope, receive, send, refusal)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        limit = limit_for(Request(scope), self._config)
        length = caller.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        await self._pass_on(scope, receive, send, limit, cookie)

    def _require_own(self, caller: HTTPConnection, reads: bool) -> None:
        """Whether the caller knows the server by a name of its own, and no other page sent it to change something.

        A page that has its own name resolve to this machine (DNS rebinding) is of the same origin as what it then
        reads here; its name gives it away.
        """
        host = caller.headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # brackets that do not match
            name = ""
        if not (name in self._names or name.endswith(".localhost") or _is_address(name)):
            raise RefusedError(
                403,
                "unknown_host",
                f"this server is not known as {name[:100]!r}: add it to server.names if it should be",
            )
        origin = caller.headers.get("origin")
        if reads or origin is None or origin in self._config.server.origins:
            return
        if urlsplit(origin).netloc != host:
            raise RefusedError(403, "foreign_page", "this page may not use the server (Origin)")

    def _admit(self, scope: Scope, caller: HTTPConnection, token: str | None) -> str | None:
        """Leave the caller's grant in the scope; the cookie to set, if any.

        Raises:
            RefusedError: 401, 403, 404 or 429.
        """
        method = "WS" if scope["type"] == "websocket" else scope["method"]
        rule, session = find_rule(method, scope["path"])
        address = scope["client"][0] if scope.get("client") else ""
        cookie = None
        grant = EVERYTHING
        if self._secret is not None:
            if rule is None:
                raise RefusedError(404, "http_404", f"there is nothing at {scope['path'][:64]}")
            name = f"lhm_live_{scope['server'][1]}"  # cookies do not keep to a port
            kept = _cookie(caller, name)
            if rule.needs is not None:
                grant = self._verify(_bearer(caller) or token or kept, address)
                require(grant, rule.needs, session)
            elif rule.enters and token is not None and self._is_better(token, kept, address):
                secure = "; Secure" if scope["scheme"] == "https" else ""
                cookie = f"{name}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000{secure}"
        if rule is not None and rule.counts is not None:
            self._count(rule.counts, address)
        scope.setdefault("state", {})["grant"] = grant
        return cookie

    def _verify(self, token: str | None, address: str) -> Grant:
        if token is None:
            raise RefusedError(
                401, "no_token", "this needs a link that lets you in; ask whoever runs the server for one"
            )
        try:
            return verify(self._secret or "", token)
        except RefusedError as refusal:
            if refusal.code == "bad_token":
                self._count("failures", address)
            raise

    def _is_better(self, token: str, kept: str | None, address: str) -> bool:
        """Whether a token is to take the place of the one that the browser keeps.

        One that allows less is not: who runs the server may try the links that they hand out. One that is void is
        only where there is no other, so that the page learns what is wrong with it.
        """
        try:
            before = None if kept is None else self._verify(kept, address)
        except RefusedError:
            before = None
        try:
            now = self._verify(token, address)
        except RefusedError:
            return before is None and _TOKEN.fullmatch(token) is not None
        return before is None or allows(now, before.role, before.session) or not allows(before, now.role, now.session)

    def _count(self, what: Counted, address: str) -> None:
        if self._counts is not None:
            self._counts.take(what, address)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, limit: int, cookie: str | None) -> None:
        read, overflowed = 0, False

        async def receive_some() -> Message:
            nonlocal read, overflowed
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                overflowed = True
                raise RefusedError(413, "too_large", f"the body is larger than {limit} bytes")
            return message

        async def send_with_headers(message: Message) -> None:
            if overflowed:  # whatever FastAPI makes of it; the answer is below
                return
            if message["type"] == "http.response.start":
                added = {} if scope["path"].startswith(("/docs", "/redoc")) else dict(_HEADERS)
                if cookie is not None:
                    added |= {"Set-Cookie": cookie, "Cache-Control": "no-store"}
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), value.encode()) for name, value in added.items()),
                ]
            await send(message)

        await self._app(scope, receive_some, send_with_headers)
        if overflowed:
            await _too_large(limit)(scope, receive, send)


class Counts:
    """How often each address did what it may do only so often; of the addresses, those heard last."""

    def __init__(self, config: Config) -> None:
        self._per_minute: dict[Counted, int] = {
            what: getattr(config.access, f"{what}_per_minute") for what in get_args(Counted)
        }
        self._allowances: OrderedDict[tuple[Counted, str], Allowance] = OrderedDict()

    def take(self, what: Counted, address: str) -> None:
        """Count one; raises RefusedError (429) when it is one too many."""
        key = (what, _network(address))
        most = self._per_minute[what]
        allowance = self._allowances.setdefault(key, Allowance(most / 60, burst=most))
        self._allowances.move_to_end(key)
        if len(self._allowances) > _MOST_ADDRESSES:
            self._allowances.popitem(last=False)
        if not allowance.take(time.monotonic()):
            raise RefusedError(
                429,
                "too_often",
                f"too many {what} from this address: {most} a minute (access.{what}_per_minute)",
                retry_after_s=math.ceil(60 / most),
            )


def take_token(scope: Scope) -> str | None:
    """The ``?token=`` of a request's address, which is then without it: nothing can log it or hand it on."""
    parts = scope["query_string"].split(b"&")
    found = [part for part in parts if unquote_plus(part.partition(b"=")[0].decode("latin-1")) == "token"]
    if not found:
        return None
    scope["query_string"] = b"&".join(part for part in parts if part not in found)
    return unquote_plus(found[-1].partition(b"=")[2].decode("latin-1")) or None


def known_names(config: Config) -> frozenset[str]:
    """What the server may be called, in lower case: localhost, its own name, and those of the settings."""
    machine = gethostname().lower()
    named = (name.lower() for name in (config.server.host, *config.server.names))
    return frozenset({"localhost", machine, f"{machine}.local", *named})


def error_answer(refusal: RefusedError) -> JSONResponse:
    """A refusal as the API writes it, with the headers that its status asks for (RFC 6750 for 401 and 403)."""
    headers: dict[str, str] = {}
    if refusal.retry_after_s is not None or refusal.status == 503:
        headers["Retry-After"] = str(refusal.retry_after_s or _RETRY_AFTER_S)
    if refusal.status == 401:
        fault = "" if refusal.code == "no_token" else ', error="invalid_token"'
        headers["WWW-Authenticate"] = f'Bearer realm="lhm-live"{fault}'
    elif refusal.code == "forbidden":
        headers["WWW-Authenticate"] = 'Bearer realm="lhm-live", error="insufficient_scope"'
    return JSONResponse(_as_json(refusal), refusal.status, headers)


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: RefusedError) -> None:
    if scope["type"] == "http":
        await error_answer(refusal)(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps({"type": "error", **_as_json(refusal)["error"]})})
    await send({"type": "websocket.close", "code": _CLOSE_CODES[refusal.status], "reason": refusal.code})


async def _turn_away(scope: Scope, receive: Receive, send: Send, refusal: RefusedError) -> None:
    """Refuse a page that is not ours: its websocket does not even open."""
    if scope["type"] == "http":
        await error_answer(refusal)(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})


def _as_json(refusal: RefusedError) -> dict[str, Any]:
    return {"error": {"code": refusal.code, "message": str(refusal)}}


def _too_large(limit: int) -> JSONResponse:
    return error_answer(RefusedError(413, "too_large", f"the body is larger than {limit} bytes"))


def _bearer(caller: HTTPConnection) -> str | None:
    kind, _, token = caller.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _cookie(caller: HTTPConnection, name: str) -> str | None:
    try:
        found = SimpleCookie(caller.headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return found.value if found else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _network(address: str) -> str:
    """Whom an address stands for: of IPv6 everybody has a /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
