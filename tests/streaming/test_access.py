"""Grants, the tokens that carry them, and where their secret comes from."""

# ruff: noqa: S104, S105 - addresses and secrets are what this is about

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import small_config
from typer.testing import CliRunner

from lhm_runtime.errors import InvalidInputError
from streaming.access import Grant, Role, allows, choose_secret, is_loopback, make_secret, secret_file, sign, verify
from streaming.cli import app
from streaming.config import load_config
from streaming.errors import RefusedError

SECRET = "a secret that only this server's tests have"
ROLES: tuple[Role, ...] = ("view", "drive", "admin")


def grant(role: Role, session: str | None = None, lasts_s: float = 60) -> Grant:
    return Grant(role, session, time.time() + lasts_s)


@given(st.sampled_from(ROLES), st.sampled_from(ROLES), st.sampled_from([None, "a"]), st.sampled_from([None, "a", "b"]))
def test_a_grant_allows_its_role_and_less_on_its_session_alone(
    role: Role, action: Role, own: str | None, session: str | None
) -> None:
    is_enough = ROLES.index(role) >= ROLES.index(action)
    is_own = own is None or session is None or own == session
    assert allows(Grant(role, own), action, session) is (is_enough and is_own)


@given(st.sampled_from(ROLES), st.none() | st.text(min_size=1, max_size=40), st.integers(60, 10**6))
def test_a_token_says_what_it_was_made_for(role: Role, session: str | None, lasts_s: int) -> None:
    session = None if role == "admin" else session
    wanted = Grant(role, session, float(int(time.time()) + lasts_s))
    assert verify(SECRET, sign(SECRET, wanted)) == wanted


def test_a_server_whose_clock_is_five_minutes_ahead_signs_for_this_one() -> None:
    now = int(time.time())
    assert verify(SECRET, forge(iat=now + 300, exp=now + 360, role="view")) == Grant("view", None, now + 360.0)


def forge(**claims: Any) -> str:
    now = int(time.time())
    usual = {"aud": "lhm-live", "iat": now, "exp": 2**31, "role": "admin", **claims}
    return jwt.encode({name: value for name, value in usual.items() if value is not None}, SECRET, "HS256")


def unsigned() -> str:
    head, body, _ = forge().split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).decode().rstrip("=")
    assert head != none
    return f"{none}.{body}."


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "a.b.c",
        "x" * 100_000,
        "\udcff\u2603.e30.x",
        forge()[:-2],
        sign(SECRET[::-1], grant("admin")),
        unsigned(),
        jwt.encode({"aud": "lhm-live", "iat": 1, "exp": 2**31, "role": "admin"}, SECRET.ljust(64), "HS512"),
        forge(aud="another-program"),
        forge(aud=None),
        forge(exp=None),
        forge(iat=None),
        forge(iat=int(time.time()) + 3600),
        forge(role=None),
        forge(role="root"),
        forge(role=["admin"]),
        forge(session=7),
        forge(exp="soon"),
    ],
)
def test_what_this_server_did_not_sign_is_nothing(token: str) -> None:
    with pytest.raises(RefusedError) as refused:
        verify(SECRET, token)
    assert (refused.value.status, refused.value.code) == (401, "bad_token")
    assert not token or token not in str(refused.value)


def test_an_expired_token_says_so() -> None:
    with pytest.raises(RefusedError) as refused:
        verify(SECRET, sign(SECRET, grant("view", lasts_s=-60)))
    assert (refused.value.status, refused.value.code) == (401, "token_expired")


def test_what_is_not_signed() -> None:
    with pytest.raises(InvalidInputError, match="expires"):
        sign(SECRET, Grant("view"))
    with pytest.raises(InvalidInputError, match="admin"):
        sign(SECRET, grant("admin", "one"))


def test_the_secret_is_made_once_and_read_by_nobody_else(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    made = make_secret(config)
    path = secret_file(config)
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_secret(config) == made
    assert made not in repr(config)
    path.chmod(0o644)
    with pytest.raises(InvalidInputError, match=f"chmod 600 {path}"):
        make_secret(config)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(InvalidInputError, match="5 characters"):
        make_secret(config)


@pytest.mark.parametrize(
    ("server", "access", "outcome"),
    [
        ({}, {}, None),
        ({"host": "::1"}, {}, None),
        ({"host": "localhost"}, {"required": "never"}, None),
        ({}, {"required": "always", "secret": SECRET}, SECRET),
        ({"host": "0.0.0.0"}, {"secret": SECRET}, SECRET),
        ({"host": "192.168.1.7"}, {"secret": SECRET}, SECRET),
        ({"host": "avatars.example.org"}, {"secret": SECRET}, SECRET),
        ({"host": "0.0.0.0"}, {"required": "never", "open_to_everybody_on": "0.0.0.0"}, None),
        ({"host": "0.0.0.0"}, {}, "run lhm-live token once"),
        ({"host": "::"}, {}, "run lhm-live token once"),
        ({}, {"required": "always"}, "run lhm-live token once"),
        ({"host": "0.0.0.0"}, {"required": "never"}, "open_to_everybody_on: 0.0.0.0"),
        ({"host": "0.0.0.0"}, {"required": "never", "open_to_everybody_on": "::"}, "open_to_everybody_on"),
        ({"host": "0.0.0.0"}, {"secret": "short"}, "5 characters"),
        ({"host": "0.0.0.0"}, {"secret_file": "/nowhere/key"}, "no secret in /nowhere/key"),
    ],
)
def test_who_listens_to_the_network_knows_who_may(
    tmp_path: Path, server: dict[str, Any], access: dict[str, Any], outcome: str | None
) -> None:
    config = small_config(tmp_path, server=server, access=access)
    if outcome in {None, SECRET}:
        assert choose_secret(config) == outcome
    else:
        with pytest.raises(InvalidInputError, match=outcome):
            choose_secret(config)


def test_which_addresses_are_this_machine_alone() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost", "a.localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "localhost.example.org", "")))


def test_two_secrets_are_one_too_many() -> None:
    with pytest.raises(InvalidInputError, match="exclude each other"):
        load_config(access={"secret": SECRET, "secret_file": "key"})


def links(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["token", *arguments], env={"COLUMNS": "400"})
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_the_command_makes_the_secret_and_links(tmp_path: Path) -> None:
    settings = tmp_path / "mine.yaml"
    settings.write_text(
        f"storage: {{data: {tmp_path / 'data'}}}\nserver: {{port: 9000, names: [avatars.example.org]}}\n"
    )
    printed = links("-c", str(settings), "--role", "drive", "--session", "1f2e", "--minutes", "5")
    secret = (tmp_path / "data" / "access.key").read_text().strip()
    named = dict(line.split(maxsplit=1) for line in printed[:-1])
    assert named["studio"] == f"http://avatars.example.org:9000/?token={named['token']}#session=1f2e"
    made = verify(secret, named["token"])
    assert (made.role, made.session) == ("drive", "1f2e")
    assert made.lasts_s is not None
    assert 200 < made.lasts_s <= 300
    for page in ("view", "obs"):  # given away: it must not let others drive
        address, _, token = named[page].partition("?token=")
        assert address == f"http://avatars.example.org:9000/{page}/1f2e"
        assert verify(secret, token).role == "view"
    (alone,) = links("-c", str(settings), "-q")
    assert verify(secret, alone).role == "admin"
