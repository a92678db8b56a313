"""REST, pages, health and metrics: status codes and what stands in the answers."""

import asyncio
import io
import json
import zlib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from live import add_avatar, hear, live_server, run
from people import picture_of_person
from PIL import Image

from lhm_runtime.avatar import Avatar
from streaming.app import WEB

MB = 1_000_000


def png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def code_of(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


async def upload(http: httpx.AsyncClient, data: bytes, name: str = "photo.png") -> httpx.Response:
    return await http.post("/api/avatars", files={"photo": (name, data)})


async def finish(http: httpx.AsyncClient, job: str) -> dict[str, Any]:
    for _ in range(1000):
        state = (await http.get(f"/api/jobs/{job}")).json()
        if state["state"] != "running":
            return dict(state)
        await asyncio.sleep(0.1)
    raise AssertionError(f"still {state}")


def test_state_health_metrics_and_docs(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session(framing="half", width=64, height=96, fps=20)
            state = (await server.http.get("/api/state")).json()
            assert {avatar["id"] for avatar in state["avatars"]} == {"someone", "builtin"}
            assert [summary["id"] for summary in state["sessions"]] == [session]
            network = ["socket", "mqtt", "vmc", "facemocap", "merged"]
            assert state["sources"] == ["browser", "webcam", *network, "replay", "idle"]
            assert state["replays"] == ["wave"]
            shown = (await server.http.get(f"/api/sessions/{session}")).json()
            assert (shown["framing"], shown["width"], shown["height"]) == ("half", 64, 96)
            assert (await server.http.get("/healthz")).text == "ok\n"
            ready = await server.http.get("/readyz")
            assert (ready.status_code, ready.json()["ready"], ready.json()["encoder"]) == (200, True, "libx264")
            assert "lhm_live_sessions 1.0" in (await server.http.get("/metrics")).text
            paths = (await server.http.get("/openapi.json")).json()["paths"]
            assert {"/whep/{session}", "/whip/{session}", "/api/sessions/{session}"} <= set(paths)

    run(main())


def test_not_ready_without_avatars(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            for avatar_id in ("someone", "builtin"):
                assert (await server.http.delete(f"/api/avatars/{avatar_id}")).status_code == 204
            assert (await server.http.get("/readyz")).status_code == 503

    run(main())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/api/nothing", None, 404, "http_404"),
        ("GET", "/nothing.txt", None, 404, "http_404"),
        ("GET", "/..%2fapp.py", None, 404, "http_404"),
        ("GET", "/models/passwd", None, 404, "unknown_model"),
        ("GET", "/api/jobs/none", None, 404, "unknown_job"),
        ("GET", "/api/jobs/none/events", None, 404, "unknown_job"),
        ("GET", "/api/avatars/none/preview.png", None, 404, "unknown_avatar"),
        ("GET", "/api/avatars/someone/preview.png", None, 404, "no_picture"),
        ("GET", "/api/avatars/..%2f..%2fsomeone/preview.png", None, 404, "http_404"),
        ("DELETE", "/api/avatars/none", None, 404, "unknown_avatar"),
        ("DELETE", "/api/avatars/Some.One", None, 404, "unknown_avatar"),
        ("GET", "/api/sessions/none", None, 404, "unknown_session"),
        ("PATCH", "/api/sessions/none", {}, 404, "unknown_session"),
        ("DELETE", "/api/sessions/none", None, 404, "unknown_session"),
        ("POST", "/api/sessions", {"avatar": "none"}, 404, "unknown_avatar"),
        ("POST", "/api/sessions", {}, 422, "invalid"),
        ("POST", "/api/sessions", {"avatar": "someone", "source": "mind"}, 422, "invalid"),
        ("POST", "/api/sessions", {"avatar": "someone", "colour": "red"}, 422, "invalid"),
        ("POST", "/api/sessions", {"avatar": "someone", "width": 333}, 422, "invalid"),
        ("POST", "/api/sessions", {"avatar": "someone", "height": 100_000}, 422, "invalid"),
        ("POST", "/api/sessions", {"avatar": "someone", "fps": 0}, 422, "invalid"),
        ("POST", "/api/sessions", {"avatar": "someone", "source": "replay"}, 422, "unknown_replay"),
        ("POST", "/api/sessions", {"avatar": "someone", "source": "replay", "replay": "../x"}, 422, "unknown_replay"),
        ("PUT", "/api/sessions", {}, 405, "http_405"),
        ("POST", "/api/sessions/none/recording", None, 404, "unknown_session"),
        ("DELETE", "/api/sessions/none/recording", None, 404, "unknown_session"),
        ("GET", "/api/recordings/none", None, 404, "unknown_recording"),
        ("DELETE", "/api/recordings/..%2fx", None, 404, "http_404"),
    ],
)
def test_refusals(avatar: Avatar, tmp_path: Path, method: str, path: str, body: Any, status: int, code: str) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            answer = await server.http.request(method, path, json=body)
            assert (answer.status_code, code_of(answer)) == (status, code)
            assert answer.json()["error"]["message"]

    run(main())


@pytest.mark.parametrize(
    "change",
    [{"framing": "feet"}, {"background": "red"}, {"yaw": "NaN"}, {"yaw": 100}, {"quality": "best"}, {"source": "mind"}],
)
def test_changes_that_make_no_sense(avatar: Avatar, tmp_path: Path, change: dict[str, Any]) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session()
            answer = await server.http.patch(f"/api/sessions/{session}", json=change)
            assert (answer.status_code, code_of(answer)) == (422, "invalid")

    run(main())


def test_no_more_sessions_than_allowed(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar, server={"max_sessions": 1}) as server:
            session = await server.start_session()
            refused = await server.http.post("/api/sessions", json={"avatar": "someone"})
            assert (refused.status_code, code_of(refused)) == (503, "full")
            assert (await server.http.delete(f"/api/sessions/{session}")).status_code == 204
            await server.start_session()

    run(main())


def test_a_damaged_avatar_is_a_conflict(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            server.services.avatars.avatar_path("someone").write_bytes(b"rubbish")
            refused = await server.http.post("/api/sessions", json={"avatar": "someone"})
            assert (refused.status_code, code_of(refused)) == (409, "unusable_avatar")
            assert "the avatar 'someone'" in refused.text
            assert str(tmp_path) not in refused.text

    run(main())


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 black pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (30_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(MB))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 415, "not_a_picture"),
        (b"\x7fELF" + bytes(5000), 415, "not_a_picture"),
        (b"PK\x03\x04" + bytes(5000), 415, "not_a_picture"),
        (b"\x89PNG\r\n\x1a\n half a picture", 415, "not_a_picture"),
        (bomb(), 415, "not_a_picture"),
        (bytes(2 * MB), 413, "too_large"),
        (bytes(20 * MB), 413, "too_large"),
    ],
)
def test_uploads_of_junk(avatar: Avatar, tmp_path: Path, data: bytes, status: int, code: str) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar, server={"max_photo_mb": 1}) as server:
            refused = await upload(server.http, data)
            assert (refused.status_code, code_of(refused)) == (status, code)
            assert not list((tmp_path / "uploads").glob("*"))

    run(main())


def test_uploads_that_are_no_form(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            for answer in (
                await server.http.post("/api/avatars", json={"photo": "me"}),
                await server.http.post("/api/avatars", data={"photo": "text"}),
                await server.http.post("/api/avatars", files={"picture": ("a.png", b"x")}),
            ):
                assert (answer.status_code, code_of(answer)) == (422, "invalid")

    run(main())


def test_a_photo_of_nobody_fails_with_a_reason(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            accepted = await upload(server.http, png(np.full((200, 200, 3), 90, np.uint8)), "wall of_mine.png")
            assert accepted.status_code == 202
            state = await finish(server.http, accepted.json()["job"])
            assert state["state"] == "failed"
            assert "wall of mine" in state["message"]
            assert not list((tmp_path / "uploads").glob("*"))

    run(main())


def test_a_photo_becomes_an_avatar(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server, AsyncExitStack() as stack:
            accepted = await upload(server.http, png(picture_of_person(0, "full", 480, 720)), "../../Me & you.png")
            job = accepted.json()["job"]
            async with server.http.stream("GET", f"/api/jobs/{job}/events", timeout=50.0) as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                events = [json.loads(line[6:]) async for line in stream.aiter_lines() if line.startswith("data: ")]
            assert len({event["stage"] for event in events}) > 3
            fractions = [event["fraction"] for event in events]
            assert fractions == sorted(fractions)
            assert fractions[-1] == 1
            assert events[-1]["state"] == "done", events[-1]
            avatar_id = events[-1]["avatar"]
            known = {entry["id"]: entry for entry in (await server.http.get("/api/state")).json()["avatars"]}
            assert known[avatar_id]["name"] == "Me & you"
            for picture in ("preview", "backdrop"):
                answer = await server.http.get(known[avatar_id][picture])
                assert answer.status_code == 200
                Image.open(io.BytesIO(answer.content)).load()
            session = await server.http.post("/api/sessions", json={"avatar": avatar_id})
            await (await server.watch(session.json()["id"], stack)).see(3)
            assert (await server.http.delete(f"/api/avatars/{avatar_id}")).status_code == 204
            assert not list((tmp_path / "avatars").glob(f"{avatar_id}*"))

    run(main())


def test_pages(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            for path in ("/", "/view/anything"):
                page = await server.http.get(path)
                assert page.status_code == (200 if (WEB / "index.html").is_file() else 503)
                assert "default-src 'self'" in page.headers["content-security-policy"]
            model = await server.http.head("/models/face_landmarker.task")
            assert model.status_code in {200, 405}
            model = await server.http.get("/models/face_landmarker.task")
            assert len(model.content) == 3_758_596

    run(main())


def test_facts_that_are_damaged_hide_only_their_avatar(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        add_avatar(tmp_path, avatar, "broken")
        (tmp_path / "avatars" / "broken.json").write_text("[")
        async with live_server(tmp_path, avatar) as server:
            state = (await server.http.get("/api/state")).json()
            assert {entry["id"] for entry in state["avatars"]} == {"someone", "builtin"}

    run(main())


def test_recording_over_rest(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session(source="replay", replay="wave")
            own = f"/api/sessions/{session}/recording"
            refused = await server.http.delete(own)
            assert (refused.status_code, code_of(refused)) == (409, "not_recording")
            begun = await server.http.post(own)
            assert begun.status_code == 201
            assert (await server.http.get(f"/api/sessions/{session}")).json()["recording"] == begun.json()["id"]
            refused = await server.http.post(own)
            assert (refused.status_code, code_of(refused)) == (409, "recording")
            await asyncio.sleep(2.0)  # nobody watches: the recording alone has it drawn
            film = (await server.http.delete(own)).json()
            assert film["url"] == begun.headers["location"]
            assert (await server.http.get("/api/recordings")).json() == [film]
            assert (await server.http.get("/api/state")).json()["recordings"] == [film]
            answer = await server.http.get(film["url"])
            assert (answer.headers["content-type"], len(answer.content)) == ("video/mp4", film["bytes"])
            with av.open(io.BytesIO(answer.content)) as container:
                assert len(list(container.decode(video=0))) > 20
            part = await server.http.get(film["url"], headers={"range": "bytes=0-99"})
            assert (part.status_code, len(part.content)) == (206, 100)
            assert (await server.http.delete(film["url"])).status_code == 204
            assert (await server.http.get(film["url"])).status_code == 404

    run(main())


def test_a_recording_is_whole_when_its_session_ends(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session(source="replay", replay="wave")
            await server.http.post(f"/api/sessions/{session}/recording")
            await asyncio.sleep(1.5)
            assert (await server.http.delete(f"/api/sessions/{session}")).status_code == 204
            (film,) = (await server.http.get("/api/recordings")).json()
            with av.open(io.BytesIO((await server.http.get(film["url"])).content)) as container:
                assert list(container.decode(video=0))

    run(main())


def test_a_recording_ends_in_time_and_says_so(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar, storage={"data": tmp_path, "recording_minutes": 0.02}) as server:
            session = await server.start_session()
            async with server.signal(session) as socket:
                await server.http.post(f"/api/sessions/{session}/recording")
                error = await hear(socket, "error")
                assert error["code"] == "recording_ended"
                assert "recording_minutes" in error["message"]
            assert len((await server.http.get("/api/recordings")).json()) == 1
            assert (await server.http.get(f"/api/sessions/{session}")).json()["recording"] is None

    run(main())


def test_the_documentation_knows_types_and_refusals(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            paths = (await server.http.get("/openapi.json")).json()["paths"]
            whep = paths["/whep/{session}"]["post"]
            assert list(whep["requestBody"]["content"]) == ["application/sdp"]
            assert {"Location", "ETag", "Link", "Accept-Patch"} <= set(whep["responses"]["201"]["headers"])
            assert {"400", "404", "406", "413", "415", "503"} <= set(whep["responses"])
            assert "428" in paths["/whep/{session}/{peer}"]["patch"]["responses"]
            assert {"post", "delete"} <= set(paths["/api/sessions/{session}/recording"])
            assert "video/mp4" in paths["/api/recordings/{recording}"]["get"]["responses"]["200"]["content"]

    run(main())


def test_other_origins_get_cors_where_they_are_allowed(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        origin = "https://example.org"
        async with live_server(tmp_path, avatar, server={"origins": [origin]}) as server:
            session = await server.start_session()
            asked = await server.http.options(
                f"/whep/{session}", headers={"origin": origin, "access-control-request-method": "POST"}
            )
            assert asked.headers["access-control-allow-origin"] == origin
            state = await server.http.get("/api/state", headers={"origin": "https://example.com"})
            assert "access-control-allow-origin" not in state.headers

    run(main())
