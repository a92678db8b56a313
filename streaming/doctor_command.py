"""``lhm-live doctor``: what streaming/doctor.py finds, for people."""

import typer
from rich.console import Console
from rich.table import Table

from streaming.doctor import examine, works


def doctor() -> None:
    """Say what works on this machine, what does not, and how to get it.

    The exit code is 0 when avatars can be drawn and recorded.

    \b
    [bold]Example[/bold]
      lhm-live doctor
    """
    findings = examine()
    marks = {"ok": "[green]ok[/green]", "absent": "[yellow]--[/yellow]", "broken": "[red]!![/red]"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(marks[finding.verdict], finding.subject, finding.detail.replace("[", r"\["))
    console = Console(highlight=False)
    console.print(table)
    if not works(findings):
        console.print("\n[red]Something the default path needs is broken: see the lines marked !!.[/red]")
        raise typer.Exit(1)
    console.print("\nAvatars can be drawn and recorded here. Try [bold]lhm-live demo[/bold].")
