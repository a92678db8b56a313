"""Kinds of values that several settings take."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field


def _from_home(path: Path) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises where nobody has that name


def _host_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("is no host name; give it without scheme, port and path, as avatars.example.org")
    return name


def _origin(origin: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+", origin):
        raise ValueError("is no origin; give scheme and host, as https://example.org")
    return origin


def _ice_url(url: str) -> str:
    if not re.fullmatch(r"(stun|turn)s?:[^/\s]+", url):
        raise ValueError("is no STUN or TURN server; write it as turn:turn.example.org:3478")
    return url


LocalPath = Annotated[Path, AfterValidator(_from_home)]
"""A file or folder; ``~`` is the user's home."""

HostName = Annotated[str, AfterValidator(_host_name)]
"""As avatars.example.org."""

Origin = Annotated[str, AfterValidator(_origin)]
"""Of pages, as browsers say it: https://example.org, or with a port behind."""

IceUrls = Annotated[tuple[Annotated[str, AfterValidator(_ice_url)], ...], Field(min_length=1)]
"""As turn:turn.example.org:3478."""
