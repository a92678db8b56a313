import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="the extra scale is not installed")

import fsspec

from lhm_runtime.avatar import Avatar, save_avatar
from lhm_runtime.errors import InvalidInputError
from streaming.avatar_store import AvatarFacts, AvatarStore, write_facts
from streaming.cluster.mirror import Mirror
from streaming.cluster.records import Record, Records
from streaming.errors import RefusedError
from streaming.settings import NewSession

RECORD = Record(wish=NewSession(avatar="someone", yaw=0.5), generation=3, seat="seat.a.b")


def test_one_machine_does_not_import_ray() -> None:
    program = (
        "import sys, streaming.server, streaming.cli; print(sorted({'ray', 'fsspec', 'httpx'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of storage that machines share."""
    if request.param != "s3":
        return str(tmp_path) if request.param == "folder" else f"memory://{tmp_path}"
    monkeypatch.setitem(fsspec.config.conf, "s3", s3_settings(request.getfixturevalue("s3")))
    bucket = tmp_path.name.replace("_", "-")
    fsspec.filesystem("s3", skip_instance_cache=True).makedirs(bucket)
    return f"s3://{bucket}/here"


def s3_settings(endpoint: str) -> dict[str, object]:
    quick = {"connect_timeout": 1, "retries": {"max_attempts": 1}}
    return {"endpoint_url": endpoint, "key": "key", "secret": "secret", "config_kwargs": quick}


def test_a_record_comes_back_as_it_was(url: str) -> None:
    records, others = Records(url), Records(url)
    records.prepare()
    assert records.sessions() == set()
    records.write("0123abcd", RECORD)
    assert others.read("0123abcd") == RECORD
    assert others.sessions() == {"0123abcd"}
    others.remove("0123abcd")
    others.remove("0123abcd")
    assert records.read("0123abcd") is None
    records.drain("aa", begin=True)
    assert others.draining() == {"aa"}
    records.drain("aa", begin=False)
    assert others.draining() == set()


def test_what_is_no_record_is_none_and_what_is_no_session_is_not_listed(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.prepare()
    (tmp_path / "sessions" / "0123abcd.json").write_text('{"wish":')
    (tmp_path / "sessions" / "notes.json").write_text("{}")
    assert records.read("0123abcd") is None
    assert records.sessions() == {"0123abcd"}


def test_a_storage_that_is_gone_is_not_an_empty_one(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    records = Records(mount)
    records.prepare()
    records.write("0123abcd", RECORD)
    mount.rename(tmp_path / "away")
    for is_there in (False, True):  # a folder that is away, and one that nothing is mounted to
        if is_there:
            mount.mkdir()
        for ask in (records.sessions, records.draining, lambda: records.read("0123abcd")):
            with pytest.raises(OSError, match="mount"):
                ask()
        for change in (lambda: records.write("0123abcd", RECORD), lambda: records.remove("0123abcd")):
            with pytest.raises(OSError, match="mount"):
                change()
        assert mount.exists() is is_there
    assert not list(mount.iterdir())
    mount.rmdir()
    (tmp_path / "away").rename(mount)
    assert records.sessions() == {"0123abcd"}


def test_an_s3_that_does_not_answer_is_an_error_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setitem(fsspec.config.conf, "s3", s3_settings(nobody))
    records, mirror = Records("s3://bucket/here"), Mirror("s3://bucket/here", tmp_path)
    (tmp_path / "someone.json").write_text("{}")
    for ask in (
        records.sessions,
        lambda: records.read("0123abcd"),
        lambda: records.write("0123abcd", RECORD),
        lambda: mirror.send("someone.json"),
    ):
        with pytest.raises(OSError, match="storage fails"):
            ask()
    assert mirror.names() == set()


def test_a_url_that_nothing_opens_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"cluster\.storage nowhere://"):
        Records("nowhere://bucket")


def test_machines_share_avatars(url: str, tmp_path: Path, avatar: Avatar) -> None:
    here, there = AvatarStore(tmp_path / "here", url), AvatarStore(tmp_path / "there", url)
    save_avatar(avatar, here.avatar_path("someone"))
    write_facts(here.facts_path("someone"), AvatarFacts("Someone", "test", "2026-01-01T00:00:00Z"))
    here.preview_path("someone").write_bytes(b"a picture")
    assert there.list() == {}
    here.publish("someone")
    assert list(there.list()) == ["someone"]
    assert there.preview_path("someone").read_bytes() == b"a picture"
    assert not there.avatar_path("someone").exists()  # until somebody wants it
    assert there.load("someone").metadata == avatar.metadata
    here.preview_path("someone").write_bytes(b"another picture")
    here.publish("someone")
    there.list()
    assert there.preview_path("someone").read_bytes() == b"another picture"
    here.delete("someone")
    assert there.list() == {}
    with pytest.raises(RefusedError, match="no avatar"):
        there.load("someone")
