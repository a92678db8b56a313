"""``lhm-live cluster``: look after the machines that sessions run on."""

from typing import Annotated

import typer

from streaming.serve_command import ConfigOption

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

AddressOption = Annotated[str, typer.Option("--cluster", metavar="ADDRESS", help="Of the Ray cluster.")]


@app.callback()
def cluster() -> None:
    """Look after the machines that sessions run on (serve --cluster).

    \b
    [bold]Examples[/bold]
      lhm-live cluster nodes --config cluster.yaml
      lhm-live cluster drain 10.0.0.7 --config cluster.yaml
    """


@app.command()
def nodes(*, config: ConfigOption = None, address: AddressOption = "auto") -> None:
    """List the machines, how many sessions each has room for, and how many processes are there."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from streaming.cluster.placement import Placement, node_of  # noqa: PLC0415
    from streaming.cluster.records import Records  # noqa: PLC0415
    from streaming.config import load_config  # noqa: PLC0415

    settings = load_config(config)
    placement = Placement(settings, address)
    placement.connect()
    draining = Records(settings.cluster.storage or settings.storage.data).draining()
    seats = [node_of(seat) for seat in placement.seats()]
    table = Table("node", "address", "room for", "processes", "")
    for node in placement.nodes().values():
        empty = "being emptied" if node.id in draining else ""
        table.add_row(node.id, node.address, str(node.seats), str(seats.count(node.id)), empty)
    Console().print(table)


@app.command()
def drain(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its id, or the beginning of it, or its address.")],
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Let it have sessions again.")] = False,
    config: ConfigOption = None,
    address: AddressOption = "auto",
) -> None:
    """Empty a machine: its sessions begin elsewhere first, and viewers follow by themselves. Gateways do the work.

    \b
    [bold]Examples[/bold]
      lhm-live cluster drain 10.0.0.7 --config cluster.yaml
      lhm-live cluster drain 10.0.0.7 --config cluster.yaml --undo
    """
    from lhm_runtime.errors import InvalidInputError  # noqa: PLC0415
    from streaming.cluster.placement import Placement  # noqa: PLC0415
    from streaming.cluster.records import Records  # noqa: PLC0415
    from streaming.config import load_config  # noqa: PLC0415

    settings = load_config(config)
    placement = Placement(settings, address)
    placement.connect()
    known = placement.nodes().values()
    meant = [each.id for each in known if each.id.startswith(node) or each.address == node]
    if len(meant) != 1:
        names = ", ".join(f"{each.id[:12]} ({each.address})" for each in known)
        raise InvalidInputError(f"{len(meant)} nodes are meant by {node!r}; there are {names}")
    records = Records(settings.cluster.storage or settings.storage.data)
    records.prepare()
    records.drain(meant[0], begin=not undo)
