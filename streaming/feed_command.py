"""``lhm-live feed``: a motion file as if it were a live rig."""

from pathlib import Path
from typing import Annotated

import typer

# the transports take a second to import, which is not needed to say --help


def feed(
    motion: Annotated[
        Path,
        typer.Argument(
            metavar="MOTION",
            help="A take (.motion), a recording or AMASS .npz, a .bvh, or a folder of LHM's smplx_params.",
        ),
    ],
    to: Annotated[
        str, typer.Option(metavar="URL", help="ws://, wss://, mqtt://, mqtts:// or vmc://: see the examples.")
    ],
    *,
    speed: Annotated[float, typer.Option(min=0.05, max=20, help="2 is twice as fast.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Over and over, until Ctrl-C.")] = False,
    start: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Where in the motion to begin.")] = 0.0,
) -> None:
    """Play a motion file to a session, a broker or VTuber software, as if it were a live rig.

    docs/protocol.md says what is sent; clients/python does the same from a program.

    \b
    [bold]Examples[/bold]
      lhm-live feed dance.npz --to ws://localhost:8080/v1/pose/SESSION
      lhm-live feed walk.bvh --to mqtt://localhost/default/studio --loop
      lhm-live feed dance.npz --to vmc://localhost:39539 --speed 0.5
    """
    import asyncio  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from lhm_runtime.motion.sequences import load_motion  # noqa: PLC0415
    from streaming.feeding import feed as feed_motion  # noqa: PLC0415

    fed = asyncio.run(feed_motion(load_motion(motion), to, speed=speed, loop=loop, start_s=start))
    late = f", {fed.late} left out for being late" if fed.late else ""
    answer = f"; the server: {fed.answer}" if fed.answer else ""
    Console(soft_wrap=True, highlight=False).print(f"{fed.sent} frames sent{late}{answer}", markup=False)
