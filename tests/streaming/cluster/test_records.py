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


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of storage that machines share."""
    if request.param != "s3":
        yield str(tmp_path) if request.param == "folder" else f"memory://{tmp_path}"
        return
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint, "key": "key", "secret": "secret"})
        fsspec.filesystem("s3", skip_instance_cache=True).makedirs(tmp_path.name.replace("_", "-"))
        yield f"s3://{tmp_path.name.replace('_', '-')}/here"
    finally:
        server.stop()


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


def test_nothing_is_written_beside_a_mount_that_is_gone(tmp_path: Path) -> None:
    records = Records(tmp_path / "mount")
    with pytest.raises(OSError, match="mount"):
        records.write("0123abcd", RECORD)
    assert not (tmp_path / "mount").exists()
    assert records.sessions() == set()


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
