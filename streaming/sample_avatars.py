"""Avatars that come with lhm-live: made on this machine when they are missing, or would be better by now."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

import lhm_runtime
from streaming.jobs import Job
from streaming.services import Services

_PACKAGE: Final = Path(lhm_runtime.__file__).parent


@dataclass(frozen=True, slots=True)
class SampleAvatar:
    """An avatar to be made without being asked for."""

    id: str
    name: str
    photo: Path | None
    """None: the built-in person."""

    @property
    def made_of(self) -> str:
        """Changes with the photo and with what makes avatars of photos."""
        photo = b"" if self.photo is None else self.photo.read_bytes()
        return hashlib.sha256(photo + _recipe().encode()).hexdigest()[:16]


BUILTIN: Final = SampleAvatar("builtin", "Sample person", None)
DEMO: Final = (
    SampleAvatar("demo-person", "Standing", _PACKAGE / "assets" / "demo_person.png"),
    SampleAvatar("demo-portrait", "Astronaut", _PACKAGE / "assets" / "demo_portrait.png"),
)


def start_missing(services: Services, samples: Sequence[SampleAvatar]) -> list[Job]:
    """Begin those that are missing or were made of something else; returns the jobs of those that are missing."""
    known = services.avatars.list()
    missing: list[Job] = []
    for sample in samples:
        if sample.id in known and known[sample.id].made_of == sample.made_of:
            continue
        job = services.jobs.start(sample.name, sample.photo, avatar_id=sample.id, made_of=sample.made_of)
        if sample.id not in known:
            missing.append(job)
    return missing


@cache
def _recipe() -> str:
    """A digest of the code that makes avatars: an upgrade, or a change by a developer, makes another one."""
    digest = hashlib.sha256(version("lhm-live").encode())
    for path in sorted((_PACKAGE / "reconstruction").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
