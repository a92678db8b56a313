"""Who may do what: grants, and the short-lived tokens that carry them.

A token is a JSON Web Token (RFC 7519) signed with HS256 by a secret that only this server has. It says a role, and
possibly the one session that it is for. Nothing is kept of tokens: another secret makes all of them worthless.
"""

import secrets
import stat
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal, get_args

import jwt

from lhm_runtime.errors import InvalidInputError
from streaming.config import Config
from streaming.errors import RefusedError

Role = Literal["view", "drive", "admin"]
"""view: watch, and see how it is; drive: also send poses and video, and change what is shown; admin: everything."""

MAX_TOKEN_CHARS: Final = 1024

_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "lhm-live"
_LEEWAY_S: Final = 5
_MOST_AHEAD_S: Final = 600
"""So far the clock of another server that signs by this secret may be ahead of this one's."""
_LEAST_SECRET_CHARS: Final = 32
_RANKS: Final = {role: rank for rank, role in enumerate(get_args(Role))}


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do."""

    role: Role
    session: str | None = None
    """The only session that it is for; None: any."""
    expires_s: float | None = None
    """Unix time; None: never."""

    @property
    def lasts_s(self) -> float | None:
        """Seconds that are left of it; None: it does not end."""
        return None if self.expires_s is None else max(self.expires_s - time.time(), 0.0)


EVERYTHING: Final = Grant("admin")
"""What everybody may where no access is required."""


def allows(grant: Grant, action: Role, session: str | None = None) -> bool:
    """Whether ``grant`` covers what needs the role ``action``, on a session or, with None, on none in particular."""
    is_enough = _RANKS[grant.role] >= _RANKS[action]
    return is_enough and (session is None or grant.session is None or grant.session == session)


def require(grant: Grant, action: Role, session: str | None = None) -> None:
    """Raises RefusedError (403) where ``grant`` does not cover ``action`` on ``session``."""
    if allows(grant, action, session):
        return
    if allows(grant, action):
        raise RefusedError(403, "forbidden", "this link is for another session; ask for one for this session")
    may = {"view": "watch", "drive": "watch and drive", "admin": "do everything"}[grant.role]
    raise RefusedError(403, "forbidden", f"with this link you may {may}; this needs one with the role {action}")


def sign(secret: str, grant: Grant) -> str:
    """The token of a grant; raises InvalidInputError for one without an end, or an admin's of one session only."""
    if grant.expires_s is None:
        raise InvalidInputError("a token needs a time at which it expires")
    if grant.role == "admin" and grant.session is not None:
        raise InvalidInputError("an admin's token is for all sessions; leave the session out, or grant drive")
    claims: dict[str, object] = {
        "aud": _AUDIENCE,
        "iat": int(time.time()),
        "exp": int(grant.expires_s),
        "role": grant.role,
    }
    if grant.session is not None:
        claims["session"] = grant.session
    return jwt.encode(claims, secret, _ALGORITHM)


def verify(secret: str, token: str) -> Grant:
    """The grant of a token; the signature is compared in constant time.

    Raises:
        RefusedError: 401, with the code ``token_expired`` or, for anything that this server did not sign,
            ``bad_token``.
    """
    void = RefusedError(401, "bad_token", "this link is not one of this server's; ask for a new one")
    if len(token) > MAX_TOKEN_CHARS:
        raise void
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            leeway=_LEEWAY_S,
            # verify_iat would refuse whatever a clock ahead of this one has signed
            options={"require": ["aud", "exp", "iat", "role"], "verify_iat": False},
        )
    except jwt.ExpiredSignatureError as error:
        raise RefusedError(401, "token_expired", "this link has expired; ask for a new one") from error
    except (jwt.InvalidTokenError, ValueError, TypeError) as error:
        raise void from error
    role, session, issued_s = claims["role"], claims.get("session"), claims["iat"]
    if role not in get_args(Role) or not (session is None or isinstance(session, str)):
        raise void
    if not isinstance(issued_s, int | float) or issued_s > time.time() + _MOST_AHEAD_S:
        raise void
    return Grant(role, session, float(claims["exp"]))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def secret_file(config: Config) -> Path:
    """Where the secret is kept that ``lhm-live token`` makes."""
    return config.access.secret_file or config.storage.data / "access.key"


def read_secret(config: Config) -> str | None:
    """The secret of the settings, or of its file; None where there is neither.

    Raises:
        InvalidInputError: it is short, or its file cannot be read, or can be by others.
    """
    path = secret_file(config)
    if config.access.secret is not None:
        return _require_long(config.access.secret.get_secret_value(), "access.secret")
    if not path.exists():
        if config.access.secret_file is not None:
            raise InvalidInputError(f"there is no secret in {path} (access.secret_file); lhm-live token makes one")
        return None
    try:
        others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        secret = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the secret in {path} cannot be read: {error}") from error
    if others:
        raise InvalidInputError(f"others may read the secret in {path}; do: chmod 600 {path}")
    return _require_long(secret, str(path))


def make_secret(config: Config) -> str:
    """The secret, made where there is none; raises InvalidInputError as ``read_secret``, and where it has no room."""
    path = secret_file(config)
    if config.access.secret is not None or path.exists():
        found = read_secret(config)
        if found is not None:
            return found
    secret = secrets.token_urlsafe(48)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600, exist_ok=False)
        path.write_text(secret + "\n", "utf-8")
    except OSError as error:
        raise InvalidInputError(f"no secret can be kept in {path}: {error}") from error
    return secret


def choose_secret(config: Config) -> str | None:
    """The secret by which tokens are checked; None where everybody may do everything.

    Raises:
        InvalidInputError: the network would get in and nothing says who may; the message says how to.
    """
    host, wanted = config.server.host, config.access.required
    is_open = not is_loopback(host)
    if wanted == "never":
        if is_open and config.access.open_to_everybody_on != host:
            raise InvalidInputError(
                f"with access.required: never anybody who reaches {host} may do everything here; to let them in "
                "without a token, leave access.required at auto and run lhm-live token, or, to really mean it, set "
                f"access.open_to_everybody_on: {host}"
            )
        return None
    if wanted == "auto" and not is_open:
        return None
    secret = read_secret(config)
    if secret is None:
        why = f"{host} lets the network in" if is_open else "access.required is always"
        raise InvalidInputError(
            f"{why}, and nothing says yet who may do what: run lhm-live token once (with the same --config); it makes "
            f"a secret in {secret_file(config)} and prints the link that lets you in. Then start again"
        )
    return secret


def _require_long(secret: str, where: str) -> str:
    if len(secret) < _LEAST_SECRET_CHARS:
        raise InvalidInputError(
            f"the secret in {where} has {len(secret)} characters, it needs {_LEAST_SECRET_CHARS}: lhm-live token "
            "makes a good one where there is none"
        )
    return secret
