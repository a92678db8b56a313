from pathlib import Path

import pytest

from lhm_runtime.errors import InvalidInputError
from streaming.config import Config, load_config

DEFAULT = Path(__file__).resolve().parents[2] / "configs" / "default.yaml"


@pytest.fixture(autouse=True)
def _data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_the_default_file_says_the_defaults() -> None:
    assert load_config(DEFAULT).model_dump() == load_config().model_dump()


def test_the_default_file_names_every_setting() -> None:
    text = DEFAULT.read_text()
    for section in Config().model_dump().values():
        for name in section:
            assert f" {name}:" in text, name


def test_arguments_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "server: {port: 1, host: 10.0.0.1}\nvideo: {fps: 24}\n")
    assert load_config(path).server.port == 1
    monkeypatch.setenv("LHM_LIVE_SERVER__PORT", "2")
    assert load_config(path).server.port == 2
    assert load_config(path, server={"port": 3}).server.port == 3
    loaded = load_config(path)
    assert (loaded.server.host, loaded.video.fps, loaded.video.width) == ("10.0.0.1", 24, 720)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")).model_dump() == load_config().model_dump()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("server: {prot: 9}", "server.prot: no such setting; did you mean server.port?"),
        ("sever: {port: 9}", "sever: no such setting; did you mean server?"),
        ("server: {port: 99999}", "server.port: .*65535.*99999"),
        ("video: {width: 333}", "video.width: .*333 is odd"),
        ("video: {width: 4000}", "video.width: .*2048"),
        ("video: {codecs: [av1]}", "video.codecs"),
        ("log: {level: loud}", "log.level"),
        ("motion: {silence_s: 0}", "motion.silence_s"),
        ("server: [1, 2", "is no YAML"),
        ("- a\n- b", "no mapping"),
        ("just words", "no mapping"),
        ("server: 8080", "server should have settings below it.*8080"),
        ("server: {port: 1, port: 2}", "port is given twice"),
        ("server: {names: ['http://a.org']}", "server.names.0: is no host name.*http://a.org"),
        ("server: {origins: [a.org]}", "server.origins.0: is no origin.*'a.org'"),
        ("rtc: {turn: {urls: [a.org], secret: s}}", "rtc.turn.urls.0: is no STUN or TURN server"),
        ("video: {codecs: []}", "video.codecs: needs at least one"),
        ("vmc: {senders: [192.168.1.300]}", "^[^;]*vmc.senders.0: .*IPv4 or IPv6 network .got '192.168.1.300'.$"),
        ("vmc: {port: 5000}\nfacemocap: {port: 5000}", "vmc.port and facemocap.port are both 5000"),
        ("vmc: {port: 5000, send_port: 5000}", "it would hear itself"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize("name", ["LHM_LIVE_PORT", "LHM_LIVE_SERVER__PROT", "LHM_LIVE_SEVER__PORT"])
def test_unknown_variables(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "9000")
    with pytest.raises(InvalidInputError, match=r"(?i)port|prot"):
        load_config()


def test_the_variable_of_the_models_folder_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHM_LIVE_MODELS", "/somewhere")
    load_config()


@pytest.mark.parametrize(
    "text",
    [
        "access: {secret: hunter2, secret_file: /x}",
        "mqtt: {password: [hunter2]}",
        "relay: {tube: {kind: whip, url: 'rtmp://a.org/hunter2'}}",
        "rtc: {turn: {secret: hunter2}}",
        "access: {secret: hunter2, port: ]",
    ],
)
def test_complaints_repeat_no_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_config(write(tmp_path, text))
    assert "hunter2" not in str(caught.value)


def test_sections_whose_settings_are_commented_out(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "video:\n  # fps: 60\nserver: {port: 1}")).server.port == 1


def test_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(write(tmp_path, "storage: {data: ~/avatars}")).storage.data == tmp_path / "avatars"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no file"):
        load_config(tmp_path / "none.yaml")


def test_credentials_are_not_shown(tmp_path: Path) -> None:
    path = write(tmp_path, "rtc: {ice_servers: [{urls: ['turn:t'], username: me, credential: hunter2}]}")
    loaded = load_config(path)
    assert "hunter2" not in repr(loaded)
    assert loaded.rtc.ice_servers[0].credential is not None
    assert loaded.rtc.ice_servers[0].credential.get_secret_value() == "hunter2"
