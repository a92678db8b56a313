"""Options of every command that may run LHM."""

from pathlib import Path
from typing import Annotated, Literal

import typer

WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", exists=True, help="For LHM: a folder with its files, where they are not among the models."
    ),
]
DeviceOption = Annotated[
    Literal["cpu", "cuda"] | None, typer.Option(help="For LHM: where it runs; a card where there is one.")
]
DtypeOption = Annotated[
    Literal["bf16", "fp32"] | None,
    typer.Option("--dtype", help="For LHM: precision of the large weights; what the device is fast at if left out."),
]
