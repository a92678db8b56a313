import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, typer
from streaming.native_noise import native_noise_apart
app = typer.Typer()
@app.callback()
def main(debug: bool = False): ...
@app.command()
def work(context: typer.Context):
    with native_noise_apart(context):
        os.write(2, b"noise")
        print("ours", file=sys.stderr)
    os.write(2, b"afterwards")
app()
"""


@pytest.mark.parametrize(("option", "printed"), [((), "ours\nafterwards"), (("--debug",), "noiseours\nafterwards")])
def test_only_native_noise_is_dropped_and_only_meanwhile(option: tuple[str, ...], printed: str) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *option, "work"], capture_output=True, text=True, check=True)
    assert ended.stderr == printed
