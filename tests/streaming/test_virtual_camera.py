"""A real server, a real peer and pyvirtualcam's own front; only the device behind it is of this file."""

import asyncio
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import SIZE, live_server, run

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import BackendError, InvalidInputError
from streaming.errors import ConnectError, RefusedError
from streaming.virtual_camera import Watched, open_virtual_camera, show_on_camera

pyvirtualcam = pytest.importorskip("pyvirtualcam", reason="pyvirtualcam is not installed (lhm-live[camera])")


class Film:
    """A device as pyvirtualcam's Backend describes it, which keeps what it gets."""

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None) -> None:
        self.size, self.fps, self.fourcc, self.name = (width, height), fps, fourcc, device or "film"
        self.pictures: list[np.ndarray] = []
        self.closed = False
        films.append(self)

    def send(self, frame: np.ndarray) -> None:
        assert not self.closed
        assert frame.shape == (self.size[0] * self.size[1] * 3 // 2,)
        self.pictures.append(frame[: self.size[0] * self.size[1]].reshape(self.size[::-1]).astype(int))

    def close(self) -> None:
        self.closed = True

    def device(self) -> str:
        return self.name

    def native_fourcc(self) -> int:
        return self.fourcc


films: list[Film] = []


@pytest.fixture
def film_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This computer has one virtual camera: ``Film``."""
    from pyvirtualcam import camera  # noqa: PLC0415

    films.clear()
    monkeypatch.setattr(camera, "BACKENDS", {"film": Film})
    yield
    films.clear()


async def until(true: Any, limit_s: float = 15.0) -> None:
    async with asyncio.timeout(limit_s):
        while not true():
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("film_backend")
def test_a_session_is_a_camera_until_it_ends(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session(source="replay", replay="wave")
            said: list[str] = []
            watched = Watched.parse(f"{server.address}/view/{session}", "http://elsewhere")
            showing = asyncio.create_task(show_on_camera(watched, open_virtual_camera("booth"), 30.0, said.append))
            await until(lambda: films and len(films[0].pictures) > 60)
            (film,) = films
            assert (film.size, film.fps, film.name) == (SIZE, 30.0, "booth")
            first, *rest = film.pictures
            assert first.std() > 10  # somebody stands there
            assert max(np.abs(picture - first).mean() for picture in rest) > 0.5  # and waves
            assert "booth" in said[-1]
            assert f"{SIZE[0]}x{SIZE[1]}" in said[-1]

            await server.http.patch(f"/api/sessions/{session}", json={"speed": 0})
            await server.http.delete(f"/api/sessions/{session}")
            with pytest.raises(RefusedError, match="refused"):
                await asyncio.wait_for(showing, 15.0)
            assert "trying again" in said[-1]
            assert film.closed

    run(main())


@pytest.mark.usefixtures("film_backend")
def test_stopping_lets_go_of_the_camera(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(tmp_path, avatar) as server:
            session = await server.start_session()
            watched = Watched(server.address, session)
            showing = asyncio.create_task(show_on_camera(watched, open_virtual_camera(None), 30.0, print))
            await until(lambda: films and films[0].pictures)
            showing.cancel()
            await asyncio.wait([showing])
            assert showing.cancelled()
            assert films[0].closed

            with pytest.raises(RefusedError, match="nobody"):
                await show_on_camera(Watched(server.address, "nobody"), open_virtual_camera(None), 30.0, print)
            assert len(films) == 1

    run(main())


def test_without_a_server_there_is_nothing_to_show() -> None:
    watched = Watched("http://127.0.0.1:9", "someone")
    with pytest.raises(ConnectError, match=r"127\.0\.0\.1:9 does not answer"):
        asyncio.run(show_on_camera(watched, open_virtual_camera(None), 30.0, print))


def test_without_a_device_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyvirtualcam import camera  # noqa: PLC0415

    def absent(**_: Any) -> Any:
        raise RuntimeError("no device")

    monkeypatch.setattr(camera, "BACKENDS", {"film": absent})
    for system, wanted in (("Linux", "modprobe v4l2loopback"), ("Windows", "OBS Studio"), ("Darwin", "OBS Studio")):
        monkeypatch.setattr(platform, "system", lambda system=system: system)
        with pytest.raises(BackendError, match=f"128x160.*no device.*{wanted}"):
            open_virtual_camera(None)(128, 160, 30.0)


@pytest.mark.parametrize(
    ("text", "watched"),
    [
        ("1f2e", Watched("http://here:1", "1f2e")),
        ("http://there:8080/view/1f2e", Watched("http://there:8080", "1f2e")),
        ("https://there/obs/1f2e?bg=00ff00&token=a.b.c", Watched("https://there", "1f2e", "a.b.c")),
        ("http://there:8080/?token=t#session=1f2e", Watched("http://there:8080", "1f2e", "t")),
    ],
)
def test_links_and_ids_name_a_session(text: str, watched: Watched) -> None:
    assert Watched.parse(text, "http://here:1/") == watched


@pytest.mark.parametrize("text", ["", "http://there:8080/", "ftp://there/view/x", "http://there/view/a/b", "/view/x"])
def test_what_names_no_session_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="names no session"):
        Watched.parse(text, "http://here:1")
