"""Which avatars are made unasked, and when again."""

import asyncio
from pathlib import Path
from typing import cast

import pytest
from live import add_avatar, run, small_config

from lhm_runtime.avatar import Avatar
from streaming import sample_avatars
from streaming.avatar_store import AvatarStore
from streaming.jobs import Jobs
from streaming.recording_store import RecordingStore
from streaming.sample_avatars import BUILTIN, DEMO, SampleAvatar, start_missing
from streaming.services import Services
from streaming.sessions import Sessions


def test_what_is_missing_or_outdated_is_made(avatar: Avatar, tmp_path: Path) -> None:
    add_avatar(tmp_path, avatar, DEMO[0].id, made_of=DEMO[0].made_of)
    add_avatar(tmp_path, avatar, DEMO[1].id, made_of="an older recipe")

    async def main() -> None:
        avatars = AvatarStore(tmp_path / "avatars")
        async with Jobs(avatars) as jobs:
            services = Services(
                small_config(tmp_path), avatars, jobs, cast(Sessions, None), RecordingStore(tmp_path, 1000)
            )
            missing = start_missing(services, [*DEMO, BUILTIN])
            assert [job.name for job in missing] == [BUILTIN.name]  # an outdated one can be shown meanwhile
            assert [job.name for job in jobs.running] == [DEMO[1].name, BUILTIN.name]
            await asyncio.sleep(0)

    run(main())


def test_another_photo_or_another_recipe_is_another_avatar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"one")
    sample = SampleAvatar("x", "X", photo)
    first = sample.made_of
    assert sample.made_of == first
    photo.write_bytes(b"two")
    second = sample.made_of
    monkeypatch.setattr(sample_avatars, "_recipe", lambda: "better")
    assert len({first, second, sample.made_of, BUILTIN.made_of}) == 4


def test_the_demo_photos_are_there() -> None:
    assert all(sample.photo is not None and sample.photo.is_file() for sample in DEMO)
