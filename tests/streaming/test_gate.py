"""Who gets in, and who does not: requests to a real server that asks for tokens."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import TRUSTS_NOBODY, LiveServer, hear, live_server, run
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lhm_runtime.avatar import Avatar
from streaming.access import Grant, Role, sign
from streaming.app import create_app
from streaming.config import load_config
from streaming.gate import Counts, take_token
from streaming.rules import RULES, find_rule

SECRET = "a secret that only this server's tests have"  # noqa: S105


def token(role: Role, session: str | None = None, lasts_s: float = 60) -> str:
    return sign(SECRET, Grant(role, session, time.time() + lasts_s))


def bearer(role: Role, session: str | None = None, lasts_s: float = 60) -> dict[str, str]:
    return {"authorization": f"Bearer {token(role, session, lasts_s)}"}


@asynccontextmanager
async def guarded(folder: Path, avatar: Avatar, **access: Any) -> AsyncIterator[LiveServer]:
    """A server that asks for tokens, with an admin's client."""
    async with live_server(folder, avatar, access={"required": "always", "secret": SECRET, **access}) as server:
        server.http.headers.update(bearer("admin"))
        yield server


def stranger(server: LiveServer, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=server.address, timeout=20.0, trust_env=False, verify=TRUSTS_NOBODY, headers=headers
    )


def all_routes(routes: list[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of each route of an application, also of the routers in it."""
    for route in routes:
        if (router := getattr(route, "original_router", None)) is not None:
            yield from all_routes(router.routes, prefix + route.include_context.prefix)
        elif isinstance(route, Mount):
            yield "GET", f"{prefix}{route.path}/{{path:path}}"
        else:
            methods = getattr(route, "methods", None) or {"WS"}
            yield from ((method, prefix + route.path) for method in methods - {"HEAD"})


def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    routes = list(all_routes(create_app(load_config()).routes))
    rules = [(rule.method, rule.path) for rule in RULES]
    assert {("WS", "/v1/signal/{session}"), ("GET", "/api/state"), ("PATCH", "/whip/{session}/{peer}")} <= set(routes)
    assert sorted(set(routes) - set(rules)) == []
    built_elsewhere = {("GET", "/assets/{path:path}")}  # where the page is not built
    assert sorted(set(rules) - set(routes) - built_elsewhere) == []
    assert len(rules) == len(set(rules))


@pytest.mark.parametrize(
    "path", ["/metrics\n", "/metrics\x00", "/metrics/", "//metrics", "/api/State", "/secrets", "/é"]
)
def test_a_path_that_is_nearly_one_has_no_rule(path: str) -> None:
    assert find_rule("GET", path) == (None, None)


def test_rules_are_about_the_session_of_the_path() -> None:
    rule, session = find_rule("PATCH", "/whep/one/two")
    assert rule is not None
    assert (rule.needs, session) == ("view", "one")
    rule, _ = find_rule("HEAD", "/metrics")
    assert rule is not None
    assert rule.needs == "admin"


def test_the_token_leaves_the_address() -> None:
    scope: Any = {"query_string": b"role=view&token=a%2Eb&alpha=1&to%6ben=c"}
    assert take_token(scope) == "c"
    assert scope["query_string"] == b"role=view&alpha=1"
    assert take_token(scope) is None


def test_nobody_gets_anything_without_a_token(avatar: Avatar, tmp_path: Path) -> None:
    """Each rule but the public ones: 401 without a token, 403 with a smaller role or another session's."""

    async def main() -> None:
        async with guarded(tmp_path, avatar, failures_per_minute=1000) as server, stranger(server) as http:
            session = await server.start_session()
            for rule in RULES:
                if rule.method == "WS" or rule.needs is None:
                    continue
                path = rule.path.replace("{session}", session).replace("{avatar}", "someone").replace("{", "")
                path = path.replace("}", "")
                answer = await http.request(rule.method, path)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_token"), rule
                assert answer.headers["www-authenticate"] == 'Bearer realm="lhm-live"'
                smaller: dict[str, Role] = {"drive": "view", "admin": "drive"}
                if rule.needs in smaller:
                    answer = await http.request(rule.method, path, headers=bearer(smaller[rule.needs]))
                    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden"), rule
                    assert "insufficient_scope" in answer.headers["www-authenticate"]
                    assert rule.needs in answer.json()["error"]["message"]
                if "{session}" in rule.path:
                    answer = await http.request(rule.method, path, headers=bearer("drive", "another"))
                    assert answer.status_code == 403, rule
            assert [s["id"] for s in (await server.http.get("/api/state")).json()["sessions"]] == [session]

            for path in ("/", "/view/x", "/obs/x", "/healthz", "/models/face_landmarker.task"):
                assert (await http.get(path)).status_code in {200, 503}, path
            assert (await http.get("/nothing")).status_code == 404
            for void, code in ((token("admin", lasts_s=-60), "token_expired"), (token("admin")[:-3], "bad_token")):
                for answer in (
                    await http.get("/api/state", headers={"authorization": f"Bearer {void}"}),
                    await http.get("/api/state", params={"token": void}),
                    await http.get(
                        "/api/state", headers={"cookie": f"lhm_live_{httpx.URL(server.address).port}={void}"}
                    ),
                ):
                    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
                    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
                    assert void not in answer.text

    run(main())


def test_who_may_do_what(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(guarded(tmp_path, avatar))
            http = await stack.enter_async_context(stranger(server))
            one, two = await server.start_session(), await server.start_session()
            await server.http.post(f"/api/sessions/{one}/recording")

            async def status(method: str, path: str, headers: dict[str, str], **body: Any) -> int:
                return (await http.request(method, path, headers=headers, **body)).status_code

            viewer, driver = bearer("view", one), bearer("drive", one)
            assert await status("GET", f"/api/sessions/{one}", viewer) == 200
            assert await status("PATCH", f"/api/sessions/{one}", driver, json={"mirror": True}) == 200
            assert await status("PATCH", f"/api/sessions/{two}", driver, json={"mirror": True}) == 403
            assert await status("PATCH", f"/api/sessions/{two}", bearer("drive"), json={"mirror": True}) == 200
            state = (await http.get("/api/state", headers=driver)).json()
            assert [session["id"] for session in state["sessions"]] == [one]
            assert (state["recordings"], state["jobs"]) == ([], [])
            assert await status("DELETE", f"/api/sessions/{two}", bearer("admin")) == 204

    run(main())


def test_those_who_only_watch_change_nothing(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(guarded(tmp_path, avatar))
            session = await server.start_session()
            async with server.signal(session, role="drive", token=token("view", session)) as socket:
                assert (await hear(socket, "error"))["code"] == "forbidden"
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                assert socket.close_code == 4403
            viewer = await server.join(session, stack, role="view", token=token("view", session))
            assert viewer.socket is not None
            await viewer.socket.send(json.dumps({"type": "control", "mirror": True}))
            assert (await hear(viewer.socket, "error"))["code"] == "watching_only"
            assert viewer.control is not None
            viewer.control.send(json.dumps({"type": "control", "mirror": True}))
            await asyncio.sleep(0.3)
            assert not server.services.sessions.get(session).state.mirror
            driver = await server.join(session, stack, role="drive", token=token("drive", session))
            assert driver.socket is not None
            await driver.socket.send(json.dumps({"type": "control", "mirror": True}))
            while not server.services.sessions.get(session).state.mirror:
                await asyncio.sleep(0.02)

    run(main())


def test_websockets_are_told_why(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with guarded(tmp_path, avatar) as server:
            session = await server.start_session(source="socket")
            for kind, query, code, number in (
                ("pose", "", "no_token", 4401),
                ("pose", f"?token={token('drive', session, -60)}", "token_expired", 4401),
                ("pose", f"?token={token('view', session)}", "forbidden", 4403),
                ("signal", f"?role=view&token={token('view', 'another')}", "forbidden", 4403),
            ):
                url = f"{server.address.replace('http', 'ws')}/v1/{kind}/{session}{query}"
                async with connect(url, proxy=None) as socket:
                    assert (await hear(socket, "error"))["code"] == code
                    with pytest.raises(ConnectionClosed):
                        await socket.recv()
                    assert socket.close_code == number
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}?token={token('drive', session)}"
            async with connect(url, proxy=None) as socket:
                assert (await hear(socket, "welcome"))["version"] == 1
            with pytest.raises(InvalidStatus, match="403"):
                async with connect(url, proxy=None, origin="https://elsewhere.example"):
                    pass

    run(main())


def test_a_connection_ends_with_its_token(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(guarded(tmp_path, avatar))
            session = await server.start_session(source="socket")
            soon = int(time.time()) + 4 - time.time()
            viewer = await server.join(session, stack, role="view", token=token("view", session, soon))
            assert viewer.socket is not None
            url = f"{server.address.replace('http', 'ws')}/v1/pose/{session}?token={token('drive', session, soon)}"
            sender = await stack.enter_async_context(connect(url, proxy=None))
            await viewer.see()
            assert (await hear(viewer.socket, "error"))["code"] == "token_expired"
            assert (await hear(sender, "error"))["code"] == "token_expired"
            while server.services.sessions.get(session).state.viewers:
                await asyncio.sleep(0.02)

    run(main())


def test_a_link_for_viewers(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(guarded(tmp_path, avatar))
            http = await stack.enter_async_context(stranger(server))
            session = await server.start_session()
            made = await http.post(f"/api/sessions/{session}/links", headers=bearer("drive", session, 120))
            assert made.status_code == 201, made.text
            link = httpx.URL(made.json()["url"])
            assert link.path == f"/view/{session}"
            assert made.json()["obs_url"].startswith(f"/obs/{session}?token=")
            given = link.params["token"]
            shown = await http.get(f"/api/sessions/{session}", params={"token": given})
            assert shown.status_code == 200
            refused = await http.patch(f"/api/sessions/{session}", params={"token": given}, json={"mirror": True})
            assert refused.status_code == 403
            made = await http.post(f"/api/sessions/{session}/links", headers=bearer("view", session))
            assert made.status_code == 403  # who watches hands on their own link, which ends when it ends
            made = await server.http.post(f"/api/sessions/{session}/links", json={"minutes": 0})
            assert made.status_code == 422
            assert (await server.http.post("/api/sessions/none/links")).status_code == 404
            await (await server.watch(session, stack, token=given)).see(2)

    run(main())


def test_a_link_needs_no_token_where_nobody_does(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session()
            made = (await server.http.post(f"/api/sessions/{session}/links")).json()
            assert made == {"url": f"/view/{session}", "obs_url": f"/obs/{session}", "expires_at": None}

    run(main())


def test_the_studio_keeps_a_cookie(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with guarded(tmp_path, avatar) as server, stranger(server) as browser:
            assert (await browser.get("/api/state")).status_code == 401
            entered = await browser.get("/", params={"token": token("admin")})
            cookie = entered.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert "Secure" not in cookie  # it is not https here
            assert (await browser.get("/api/state")).status_code == 200
            assert (await browser.post("/api/sessions", json={"avatar": "someone"})).status_code == 201
            # another page of the browser's may send the cookie, but not its own origin's name
            theirs = await browser.delete("/api/avatars/someone", headers={"origin": "http://127.0.0.1:1"})
            assert (theirs.status_code, theirs.json()["error"]["code"]) == (403, "foreign_page")
            # who runs it tries the links that they hand out, and stays who they are
            assert "set-cookie" not in (await browser.get("/", params={"token": token("drive")})).headers
            assert "set-cookie" not in (await browser.get("/view/x", params={"token": token("view")})).headers
            assert (await browser.get("/", params={"token": "a.b.c"})).status_code in {200, 503}
            assert (await browser.get("/api/recordings")).status_code == 200
            # what is asked for by name counts more than the cookie
            watching = await browser.get("/api/recordings", params={"token": token("view")})
            assert watching.status_code == 403
        async with guarded(tmp_path, avatar) as server, stranger(server) as browser:
            await browser.get("/", params={"token": token("admin", lasts_s=-60)})
            assert (await browser.get("/api/state")).json()["error"]["code"] == "token_expired"

    run(main())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:{port}", 200),
        ("127.0.0.1", 200),
        ("[::1]:{port}", 200),
        ("studio.localhost", 200),
        ("192.168.1.5:8080", 200),
        ("Avatars.Example.org", 200),
        ("rebound.example.com:{port}", 403),
        ("localhost.example.com", 403),
        ("127.0.0.1.example.com", 403),
        ("user@localhost.example.com", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_a_name_that_is_not_its_own_is_refused(avatar: Avatar, tmp_path: Path, host: str, status: int) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar, server={"names": ["avatars.example.org"]}) as server:
            port = str(httpx.URL(server.address).port)
            answer = await server.http.get("/api/state", headers={"host": host.replace("{port}", port)})
            assert answer.status_code == status
            if status == 403:
                assert answer.json()["error"]["code"] == "unknown_host"
                assert "server.names" in answer.json()["error"]["message"]

    run(main())


def test_nobody_asks_too_often(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        rates = {f"{what}_per_minute": 2 for what in ("starts", "uploads", "offers", "failures")}
        async with guarded(tmp_path, avatar, **rates) as server, stranger(server) as http:
            session = await server.start_session()
            await server.start_session()
            upload = {"files": {"photo": ("a.png", b"no picture")}}
            for path, body, before in (
                ("/api/sessions", {"json": {"avatar": "someone"}}, 0),
                ("/api/avatars", upload, 2),
                (f"/whep/{session}", {"content": b"no offer"}, 2),
            ):
                for _ in range(before):
                    assert (await server.http.post(path, **body)).status_code == 415
                answer = await server.http.post(path, **body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_often"), path
                assert answer.headers["retry-after"] == "30"
            async with server.signal(session, token=token("admin")) as socket:
                assert (await hear(socket, "error"))["code"] == "too_often"
            guess = {"authorization": "Bearer a.b.c"}
            codes = [(await http.get("/api/state", headers=guess)).status_code for _ in range(3)]
            assert codes == [401, 401, 429]
            assert (await server.http.get("/api/state")).status_code == 200  # whoever has one is not kept out

    run(main())


def test_addresses_are_forgotten() -> None:
    counts = Counts(load_config())
    for number in range(10_000):
        counts.take("offers", f"10.0.{number // 256}.{number % 256}")
    assert len(counts._allowances) <= 4096
    for number in range(60):
        counts.take("offers", f"2001:db8::{number:x}")
    with pytest.raises(Exception, match="too many offers"):  # a /64 is one address
        counts.take("offers", "2001:db8::ffff")
