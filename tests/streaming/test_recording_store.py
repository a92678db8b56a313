"""Films on the disk: what is listed, what is refused, and how much room there is."""

from pathlib import Path

import pytest

from streaming.errors import RefusedError
from streaming.recording import part_of
from streaming.recording_store import RecordingStore


def test_films_are_listed_newest_first_and_deleted(tmp_path: Path) -> None:
    for name in ("20260102-030405-ada.mp4", "20260201-000000-grace.webm", "holiday.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"film")
    store = RecordingStore(tmp_path, 1000)
    assert [film.id for film in store.listing()] == ["20260201-000000-grace", "20260102-030405-ada"]
    ada = store.facts("20260102-030405-ada")
    assert (ada.started_at, ada.bytes) == ("2026-01-02T03:04:05+00:00", 4)
    assert ada.url == "/api/recordings/20260102-030405-ada"
    store.delete(ada.id)
    assert [film.id for film in store.listing()] == ["20260201-000000-grace"]
    assert (tmp_path / "holiday.mp4").exists()


@pytest.mark.parametrize("name", ["", "holiday", "../20260102-030405-ada", "20260102-030405-ada/..", "x" * 500])
def test_names_that_are_no_films(tmp_path: Path, name: str) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(RefusedError) as refusal:
        RecordingStore(tmp_path, 1000).path(name)
    assert refusal.value.status == 404


def test_room_is_counted(tmp_path: Path) -> None:
    (tmp_path / "20260102-030405-ada.mp4").write_bytes(bytes(600))
    store = RecordingStore(tmp_path, 1000)
    assert store.begin("Ada Lovelace").name.endswith("-ada-lovelace.mp4")
    assert store.take(300)
    assert not store.take(101)
    assert store.take(100)
    with pytest.raises(RefusedError, match="recordings_mb") as refusal:
        store.begin("ada")
    assert refusal.value.status == 507
    store.delete("20260102-030405-ada")
    store.begin("ada")


def test_a_crash_leaves_a_film(tmp_path: Path) -> None:
    begun, empty = tmp_path / "20260102-030405-ada.mp4", tmp_path / "20260102-030406-eve.mp4"
    part_of(begun).write_bytes(b"as far as it got")
    part_of(empty).write_bytes(b"")
    assert [film.bytes for film in RecordingStore(tmp_path, 1000).listing()] == [16]
    assert [path.name for path in tmp_path.iterdir()] == [begun.name]


def test_a_take_belongs_to_its_film(tmp_path: Path) -> None:
    for name in ("20260102-030405-ada.mp4", "20260102-030405-ada.motion", "20260201-000000-grace.mp4"):
        (tmp_path / name).write_bytes(bytes(100))
    store = RecordingStore(tmp_path, 1000)
    grace, ada = store.listing()
    assert (ada.motion_url, ada.motion_bytes) == ("/api/recordings/20260102-030405-ada/motion", 100)
    assert (grace.motion_url, grace.motion_bytes) == (None, 0)
    assert store.motion_path(ada.id).suffix == ".motion"
    with pytest.raises(RefusedError, match="only the film"):
        store.motion_path(grace.id)
    assert not store.take(701)  # both count
    store.delete(ada.id)
    assert store.take(900)
    assert [path.name for path in tmp_path.iterdir()] == ["20260201-000000-grace.mp4"]


def test_a_crash_leaves_the_take_of_what_was_filmed(tmp_path: Path) -> None:
    for stem, content in (("20260102-030405-ada", b"film"), ("20260102-030406-eve", b"")):
        part_of(tmp_path / f"{stem}.mp4").write_bytes(content)
        part_of(tmp_path / f"{stem}.motion").write_bytes(b"poses")
    (film,) = RecordingStore(tmp_path, 1000).listing()
    assert (film.id, film.motion_bytes) == ("20260102-030405-ada", 5)
    assert len([*tmp_path.iterdir()]) == 2


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError) as refusal:
        RecordingStore(tmp_path / "file" / "recordings", 1000).begin("ada")
    assert refusal.value.status == 507
