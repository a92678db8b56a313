"""Avatars in the making: what becomes of the photo, and of a worker that fails."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from live import run

from streaming.avatar_store import AvatarStore
from streaming.errors import RefusedError
from streaming.jobs import MOST_WAITING, Job, Jobs, forget_uploads


async def finish(jobs: Jobs, job: Job) -> Job:
    async for step in jobs.follow(job.id):
        job = step
    return job


@pytest.mark.parametrize("delete", [False, True])
def test_only_photos_given_away_are_deleted(tmp_path: Path, delete: bool) -> None:
    """The demo photo belongs to the package."""
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"no picture")

    async def main() -> None:
        async with Jobs(AvatarStore(tmp_path / "avatars")) as jobs:
            job = await finish(jobs, jobs.start("Someone", photo, delete_photo=delete))
            assert job.state == "failed"
            assert str(tmp_path) not in job.message
        assert photo.exists() != delete

    run(main())


def test_too_many_are_refused_and_none_outlives_the_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with Jobs(AvatarStore(tmp_path / "avatars")) as jobs:
            for _ in range(MOST_WAITING + 1):
                jobs.start("Someone", None)
            with pytest.raises(RefusedError, match="try again"):
                jobs.start("Someone", None)
            await asyncio.sleep(0.2)

    run(main())


def test_a_worker_that_dies_is_a_failure_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.jobs.sys.executable", "/bin/false")

    async def main() -> None:
        async with Jobs(AvatarStore(tmp_path / "avatars")) as jobs:
            job = await asyncio.wait_for(finish(jobs, jobs.start("Someone", None)), 10)
            assert (job.state, "code 1" in job.message) == ("failed", True)

    run(main())


def test_a_worker_that_cannot_be_started_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.jobs.sys.executable", str(tmp_path / "none"))

    async def main() -> None:
        async with Jobs(AvatarStore(tmp_path / "avatars")) as jobs:
            job = await asyncio.wait_for(finish(jobs, jobs.start("Someone", None)), 10)
            assert (job.state, "No such file" in job.message) == ("failed", True)

    run(main())


def test_of_an_avatar_that_fails_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker"
    worker.write_text("""#!/bin/sh\nsed 's/.*"avatar": "\\([^"]*\\)".*/\\1/' | xargs touch\nexit 1\n""")
    worker.chmod(0o755)
    monkeypatch.setattr("streaming.jobs.sys.executable", str(worker))
    kept = tmp_path / "avatars" / "old.json"

    async def main() -> None:
        async with Jobs(AvatarStore(tmp_path / "avatars")) as jobs:
            kept.touch()
            for avatar_id in ("new", "old"):
                assert (await finish(jobs, jobs.start("Someone", None, avatar_id=avatar_id))).state == "failed"
        assert sorted(path.name for path in kept.parent.iterdir()) == ["old.avatar", "old.json"]

    run(main())


def test_uploads_of_a_server_that_was_killed_are_forgotten(tmp_path: Path) -> None:
    for name, age_s in (("old", 3600), ("new", 60)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    forget_uploads(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    forget_uploads(tmp_path / "none")


WORKER = """#!/bin/sh
cat >/dev/null
for f in 0.1 0.6 0.3 7 0.9; do echo '{"stage": "at '$f'", "fraction": '$f'}'; done
echo '{"error": "that was all"}'
exit 1
"""


def test_progress_never_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker"
    worker.write_text(WORKER)
    worker.chmod(0o755)
    monkeypatch.setattr("streaming.jobs.sys.executable", str(worker))

    async def main() -> None:
        async with Jobs(AvatarStore(tmp_path / "avatars")) as jobs:
            job = jobs.start("Someone", None)
            assert [running.name for running in jobs.running] == ["Someone"]
            seen = [step.fraction async for step in jobs.follow(job.id)]
            assert seen == sorted(seen)
            assert seen[-1] == 1
            assert jobs.get(job.id).message == "that was all"
            assert jobs.running == []

    run(main())
