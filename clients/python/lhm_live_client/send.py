"""Play a motion file to a session: ``python -m lhm_live_client.send dance.npz ws://localhost:8080/v1/pose/SESSION``."""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lhm_live_client.sender import PoseSender, Refused
from lhm_live_client.wire import JOINT_NAMES

_RECORDING = "lhm-live motion 1"


def read_motion(path: Path) -> dict[str, Any]:
    """Arrays of a motion: rotvec [t, 55, 3], transl [t, 3], expression [t, e], timestamps_s [t], expression_names [e].

    Recordings of lhm-live are read here; AMASS, BVH and LHM's folders by the ``lhm-live`` package, where there is one.
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


def moments(motion: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
    """When each frame is due, seconds from the first, and what ``PoseSender.send`` takes."""
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


async def send(path: Path, url: str, *, speed: float = 1.0, loop: bool = False) -> dict[str, Any]:
    """Play a file at ``speed``, once or over and over; the server's report. Late frames are left out."""
    motion = list(moments(read_motion(path)))
    async with PoseSender(url) as sender:
        while True:
            start = time.monotonic()
            for (due_s, moment), (next_s, _) in zip(motion, [*motion[1:], (float("inf"), {})], strict=True):
                now_s = (time.monotonic() - start) * speed
                if next_s <= now_s:
                    continue
                await asyncio.sleep(max(due_s - now_s, 0) / speed)
                await sender.send(**moment)
            if not loop:
                break
        await asyncio.sleep(1.2)  # for the last report
        return sender.report


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Play a motion file to a session of an lhm-live server.")
    parser.add_argument("motion", type=Path)
    parser.add_argument("url", help="ws://HOST:8080/v1/pose/SESSION")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--loop", action="store_true")
    given = parser.parse_args()
    if not given.speed > 0:
        parser.error(f"--speed is {given.speed}, expected a positive number")
    try:
        report = asyncio.run(send(given.motion, given.url, speed=given.speed, loop=given.loop))
    except (Refused, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(", ".join(f"{report.get(name, 0)} {name}" for name in ("received", "used", "overtaken", "refused")))  # noqa: T201


if __name__ == "__main__":
    main()
