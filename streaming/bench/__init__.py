"""``lhm-live bench``: measurements anyone can repeat, as a table or as JSON with machine and commit."""

import typer

from streaming.bench import audio, avatar, capacity, fanout, latency, lhm, motion, rasterizer, session

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(rasterizer.rasterizer)
app.command()(motion.motion)
app.command()(avatar.avatar)
app.command()(lhm.lhm)
app.command()(session.session)
app.command()(latency.latency)
app.command()(fanout.fanout)
app.command()(audio.audio)
app.command()(capacity.capacity)


@app.callback()
def bench() -> None:
    """Measure this machine; every table in benchmarks/README.md names its command."""
