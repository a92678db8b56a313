"""``lhm-live bench``: measurements anyone can repeat, as a table or as JSON with machine and commit."""

import typer

from streaming.bench.avatar import avatar
from streaming.bench.fanout import fanout
from streaming.bench.latency import latency
from streaming.bench.motion import motion
from streaming.bench.rasterizer import rasterizer
from streaming.bench.session import session

app = typer.Typer(no_args_is_help=True)
app.command()(rasterizer)
app.command()(avatar)
app.command()(motion)
app.command()(session)
app.command()(latency)
app.command()(fanout)


@app.callback()
def bench() -> None:
    """Measure this machine; every table in benchmarks/README.md names its command."""
