"""Play a motion file: ``python -m lhm_live_client.send dance.npz ws://localhost:8080/v1/pose/SESSION``.

To a session's websocket, or as a rig to ``mqtt://HOST/TENANT/RIG``.
"""

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lhm_live_client.sender import PoseSender, Refused
from lhm_live_client.wire import JOINT_NAMES

_RECORDING = "lhm-live motion 1"

Moment = tuple[float, dict[str, Any]]
"""When a frame is due, seconds from the first, and what ``PoseSender.send`` and ``RigSender.send`` take."""


def read_motion(path: Path) -> dict[str, Any]:
    """Arrays of a motion: rotvec [t, 55, 3], transl [t, 3], expression [t, e], timestamps_s [t], expression_names [e].

    Recordings of lhm-live are read here; takes, AMASS, BVH and LHM's folders by the ``lhm-live`` package.
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            if "format" in archive and str(archive["format"]) == _RECORDING:
                return {name: archive[name] for name in archive.files}
    try:
        from lhm_runtime.motion.sequences import load_motion  # noqa: PLC0415
    except ImportError as error:
        raise SystemExit(f"{path} is no recording of lhm-live; other motions need: pip install lhm-live") from error
    motion = load_motion(path)
    names = ("rotvec", "transl", "expression", "timestamps_s", "expression_names")
    return {name: np.asarray(getattr(motion, name)) for name in names}


def moments(motion: dict[str, Any]) -> Iterator[Moment]:
    """The frames of a motion that ``read_motion`` read."""
    shapes = [str(name) for name in motion["expression_names"]]
    times = motion["timestamps_s"] - motion["timestamps_s"][0]
    for time_s, rotvec, transl, scores in zip(
        times.tolist(), motion["rotvec"], motion["transl"], motion["expression"], strict=True
    ):
        face = dict(zip(shapes, np.clip(scores, 0, 1).tolist(), strict=True))
        yield (
            time_s,
            {
                "rotvec": dict(zip(JOINT_NAMES, rotvec.tolist(), strict=True)),
                "root": transl.tolist(),
                "expression": {name: score for name, score in face.items() if score > 0},
            },
        )


async def send(path: Path, url: str, *, speed: float = 1.0, loop: bool = False) -> str:
    """Play a file at ``speed``, once or over and over; what became of it. Late frames are left out."""
    motion = list(moments(read_motion(path)))
    if not url.startswith(("mqtt:", "mqtts:")):
        async with PoseSender(url) as sender:
            sent = await _play(motion, sender.send, speed=speed, loop=loop)
            await asyncio.sleep(1.2)  # for the last report
            counts = (f"{sender.report.get(name, 0)} {name}" for name in ("received", "used", "overtaken", "refused"))
            return f"{sent} sent; {', '.join(counts)}"
    try:
        from lhm_live_client.rig import RigSender  # noqa: PLC0415
    except ImportError as error:
        raise SystemExit("MQTT needs aiomqtt: pip install './clients/python[mqtt]'") from error
    async with RigSender(url) as rig:
        return f"{await _play(motion, rig.send, speed=speed, loop=loop)} sent"


async def _play(motion: list[Moment], send_one: Callable[..., Awaitable[None]], *, speed: float, loop: bool) -> int:
    """Each frame when it is due, late ones left out, a round one frame after the one before; how many were sent."""
    due = [due_s for due_s, _ in motion]
    length_s = due[-1] + (float(np.median(np.diff(due))) if len(due) > 1 else 1.0)
    sent, start = 0, time.monotonic()
    while True:
        for (due_s, moment), next_s in zip(motion, [*due[1:], math.inf], strict=True):
            now_s = (time.monotonic() - start) * speed
            if next_s <= now_s:
                continue
            await asyncio.sleep(max(due_s - now_s, 0) / speed)
            await send_one(**moment)
            sent += 1
        if not loop:
            return sent
        start += length_s / speed
        await asyncio.sleep(max(start - time.monotonic(), 0))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Play a motion file to a session of an lhm-live server.")
    parser.add_argument("motion", type=Path)
    parser.add_argument("url", help="ws://HOST:8080/v1/pose/SESSION or mqtt://HOST/TENANT/RIG")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--loop", action="store_true")
    given = parser.parse_args()
    if not given.speed > 0:
        parser.error(f"--speed is {given.speed}, expected a positive number")
    try:
        told = asyncio.run(send(given.motion, given.url, speed=given.speed, loop=given.loop))
    except (Refused, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(told)  # noqa: T201


if __name__ == "__main__":
    main()
