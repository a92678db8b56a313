"""``lhm-live demo``: the server with avatars of the demo photos; with ``--check`` its own first viewer."""

import asyncio
import errno
import socket
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lhm_runtime.errors import BackendError
from streaming.access import Grant, sign
from streaming.config import Config
from streaming.demo_check import watch_demo
from streaming.jobs import Job
from streaming.sample_avatars import BUILTIN, DEMO, start_missing
from streaming.server import announce, run_with
from streaming.services import Services

_OTHER_PORTS: Final = 20
_CHECK_S: Final = 300.0


def run_demo(config: Config, *, browser: bool, find_port: bool, check_to: Path | None = None) -> None:
    """Serve until Ctrl-C, or until the check is done.

    Args:
        config: all settings.
        browser: open the page in one, where there is a screen.
        find_port: take another port where the one of ``config`` is taken.
        check_to: check and write the film (.mp4) there, and a sheet of pictures beside it.

    Raises:
        BackendError: the address is taken or not this machine's; or the check failed, and why.
    """
    if find_port:
        config = _with_free_port(config)
    if "level" not in config.log.model_fields_set:  # who tries it wants to read the link, not the log
        config = config.model_copy(update={"log": config.log.model_copy(update={"level": "warning"})})

    async def attend(services: Services, address: str) -> None:
        failed = await _show_progress(services, start_missing(services, DEMO))
        start_missing(services, [BUILTIN])
        if check_to is None:
            announce(services, address, browser=browser)
            await asyncio.Event().wait()
        elif failed:
            raise BackendError(f"no avatar of the demo photo {failed[0].name}: {failed[0].message}")
        else:
            until_s = time.time() + _CHECK_S
            token = None if services.secret is None else sign(services.secret, Grant("admin", expires_s=until_s))
            await watch_demo(address, DEMO[-1].id, check_to, token)

    run_with(config, attend)


async def _show_progress(services: Services, begun: list[Job]) -> list[Job]:
    """A bar for each avatar in the making; returns those that failed."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    if begun and not console.is_terminal:
        console.print(f"making avatars of the demo photos: {', '.join(job.name for job in begun)}")
    ended: list[Job] = []
    with Progress(*columns, console=console, transient=True) as progress:
        bars = [progress.add_task(f"avatar {job.name}", total=1.0) for job in begun]

        async def follow(job: Job, bar: TaskID) -> None:
            async for step in services.jobs.follow(job.id):
                progress.update(bar, completed=step.fraction, description=f"avatar {step.name}: {step.stage}")
                last = step
            ended.append(last)

        async with asyncio.TaskGroup() as tasks:
            for job, bar in zip(begun, bars, strict=True):
                tasks.create_task(follow(job, bar), name=f"follow {job.name}")
    failed = [job for job in ended if job.state == "failed"]
    for job in failed:
        console.print(f"note: no avatar of the demo photo {job.name}: {job.message}", style="yellow", markup=False)
    return failed


def _with_free_port(config: Config) -> Config:
    """``config`` with the first port from its own on that nobody listens on."""
    wanted = config.server.port
    for port in range(wanted, min(wanted + _OTHER_PORTS, 65536)) if wanted else ():
        if not _is_taken(config.server.host, port):
            if port != wanted:
                Console(stderr=True, highlight=False).print(f"port {wanted} is taken: using {port} instead")
                server = config.server.model_copy(update={"port": port})
                return config.model_copy(update={"server": server})
            break
    return config


def _is_taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
