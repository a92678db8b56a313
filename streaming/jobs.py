"""Avatars in the making: each by a worker process, one at a time, with progress for whoever asks."""

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from structlog.stdlib import get_logger

from streaming.avatar_store import AvatarStore
from streaming.errors import RefusedError
from streaming.reconstruction_worker import Order

UPLOADS: Final = "uploads"
"""Folder in storage.data of photos that are deleted once their avatar is made."""
MOST_WAITING: Final = 4
"""More photos than this are asked to come back later."""
LIMIT_S: Final = 300.0
"""A worker that takes longer is ended."""

_KEPT: Final = 100
_TAIL_LINES: Final = 5

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """How far an avatar is."""

    id: str
    name: str
    state: Literal["running", "done", "failed"] = "running"
    stage: str = "waiting for its turn"
    fraction: float = 0.0
    """Of the whole; never falls."""
    message: str = ""
    """Why it failed."""
    warnings: tuple[str, ...] = ()
    avatar: str | None = None
    """Id of the finished avatar."""


class Jobs:
    """Makes avatars for a store; use it in ``async with``, which ends what is unfinished."""

    def __init__(self, store: AvatarStore) -> None:
        self._store = store
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._turn = asyncio.Semaphore(1)

    async def __aenter__(self) -> "Jobs":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def running(self) -> list[Job]:
        """Those that are not over, in the order in which they will be."""
        return [job for job in self._jobs.values() if job.state == "running"]

    def start(
        self,
        name: str,
        photo: Path | None,
        *,
        avatar_id: str | None = None,
        delete_photo: bool = False,
        made_of: str = "",
    ) -> Job:
        """Begin an avatar of ``photo``, or the built-in person where it is None.

        Args:
            name: for people.
            photo: its file.
            avatar_id: takes the place of one of this id; a new one where None.
            delete_photo: for uploads: the file is removed once the avatar is made, or cannot be.
            made_of: see AvatarFacts.

        Raises:
            RefusedError: too many are waiting.
        """
        if len(self._tasks) > MOST_WAITING:
            raise RefusedError(503, "busy", f"{len(self._tasks)} avatars are being made; try again in a minute")
        job = Job(secrets.token_urlsafe(9), name)
        self._jobs[job.id] = job
        for old in list(self._jobs)[:-_KEPT]:
            if self._jobs[old].state != "running":
                del self._jobs[old]
        work = self._work(job, photo, avatar_id or self._store.new_id(name), delete_photo, made_of)
        task = asyncio.create_task(work, name=f"make {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def get(self, job_id: str) -> Job:
        """The job as it stands; raises RefusedError when there is none."""
        if job_id not in self._jobs:
            raise RefusedError(404, "unknown_job", f"there is no job {job_id[:64]!r}; jobs end with the server")
        return self._jobs[job_id]

    async def follow(self, job_id: str) -> AsyncIterator[Job]:
        """The job now, and whenever it has changed, to its end."""
        job = self.get(job_id)
        yield job
        while job.state == "running":
            async with self._changed:
                while self._jobs.get(job_id) is job:
                    await self._changed.wait()
            job = self.get(job_id)
            yield job

    async def _work(self, job: Job, photo: Path | None, avatar_id: str, delete_photo: bool, made_of: str) -> None:
        try:
            async with self._turn:
                await self._change(job.id, stage="starting")
                await self._make(job, photo, avatar_id, made_of)
        except Exception as error:  # noqa: BLE001 - whoever follows the job waits for its end
            _log.exception("no avatar", job=job.id, name=job.name)
            await self._change(job.id, state="failed", message=f"the server could not make it: {error}")
        finally:
            self._store.discard_unfinished(avatar_id)
            if photo is not None and delete_photo:
                photo.unlink(missing_ok=True)

    async def _make(self, job: Job, photo: Path | None, avatar_id: str, made_of: str) -> None:
        order = Order(
            name=job.name,
            made_of=made_of,
            photo=None if photo is None else str(photo),
            avatar=str(self._store.avatar_path(avatar_id)),
            facts=str(self._store.facts_path(avatar_id)),
            preview=str(self._store.preview_path(avatar_id)),
            backdrop=str(self._store.backdrop_path(avatar_id)),
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streaming.reconstruction_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the server, which then ends it
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                complaint = await self._converse(job.id, process, order)
        except TimeoutError:
            complaint = f"it took longer than {LIMIT_S:g} s and was ended; a smaller photo may help"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if complaint:
            _log.warning("no avatar", job=job.id, name=job.name, reason=complaint)
            await self._change(job.id, state="failed", message=complaint)
        else:
            await asyncio.to_thread(self._store.publish, avatar_id)
            facts = self._store.list()[avatar_id]
            _log.info("avatar made", job=job.id, avatar=avatar_id)
            await self._change(
                job.id, state="done", stage="done", fraction=1.0, avatar=avatar_id, warnings=facts.warnings
            )

    async def _converse(self, job_id: str, process: asyncio.subprocess.Process, order: Order) -> str:
        """Give the order and pass its progress on; returns why it failed, or nothing."""
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise RuntimeError("the worker was started without pipes")
        tail = asyncio.create_task(_read_tail(process.stderr))
        process.stdin.write(json.dumps(asdict(order)).encode())
        process.stdin.close()
        complaint = ""
        async for line in process.stdout:
            answer = json.loads(line)
            if "error" in answer:
                complaint = str(answer["error"])
            else:
                fraction = max(self._jobs[job_id].fraction, min(float(answer["fraction"]), 1.0))
                await self._change(job_id, stage=answer["stage"], fraction=fraction)
        code = await process.wait()
        last = await tail
        if code and not complaint:
            _log.error("the worker ended", code=code, stderr=last)
            complaint = f"the worker ended with code {code}: {last[-1] if last else 'it said nothing'}"
        return complaint

    async def _change(self, job_id: str, **changes: object) -> None:
        async with self._changed:
            self._jobs[job_id] = replace(self._jobs[job_id], **changes)  # type: ignore[arg-type]
            self._changed.notify_all()


def forget_uploads(folder: Path) -> None:
    """Delete the photos that a server which was killed has left; others may be at work on newer ones."""
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - (MOST_WAITING + 2) * LIMIT_S:
                path.unlink()


async def _read_tail(stream: asyncio.StreamReader) -> list[str]:
    """The last lines of what a process printed."""
    lines: deque[str] = deque(maxlen=_TAIL_LINES)
    while chunk := await stream.read(4096):
        lines.extend(line for line in chunk.decode(errors="replace").splitlines() if line.strip())
    return list(lines)
