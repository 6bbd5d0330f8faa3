"""``hoarfrost inspect``: what particles look like, before any long work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import AsJSON, Flag, command
from hoarfrost.errors import DataError
from hoarfrost.reconstruction.settings.options import InspectOptions

if TYPE_CHECKING:
    from rich.console import Console

    from hoarfrost.inspection.result import Inspection

LOG_WIDTH = 120
OUTPUT_HELP = "Folder to make for montage.png, noise.png, ctf.png and inspect.json. Nothing is written unless given."


@command(verbs.inspect, InspectOptions, without=("forecast",))
def inspect(
    particles: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help=OUTPUT_HELP)] = None,
    as_json: AsJSON = False,
    overwrite: Annotated[Flag, Parameter(help="Replace the pictures if they exist.")] = False,
    **options: Any,
) -> None:
    """Inspect, show the findings, and draw the pictures that were asked for."""
    from rich.console import Console

    if output is not None:
        from hoarfrost.io.folders import check_files
        from hoarfrost.reporting.inspection import FILES

        check_files(output, FILES, overwrite=overwrite)
    found = verbs.inspect(particles, **options)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        # A log is wide enough for the table, whatever the width of the window it is read in.
        _show(Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH), found)
    if output is not None:
        from hoarfrost.reporting.inspection import write_inspection

        write_inspection(found, output)
        if not as_json:
            print(f"Pictures: {output}")
    fatal = [flag.message for flag in found.flags if flag.fatal]
    if fatal:
        told = fatal[0][0].lower() + fatal[0][1:]
        raise DataError(particles, expected="particles that a reconstruction can use", found=f"others: {told}")


def _show(console: Console, found: Inspection) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "value", "from", box=None, pad_edge=False, header_style="bold")
    section = ""
    for parameter in found.parameters:
        if parameter.section != section:
            section = parameter.section
            table.add_row(f"[bold]{section}[/bold]", "", "")
        table.add_row(f"  {parameter.name}", escape(parameter.value), f"[dim]{escape(parameter.source)}[/dim]")
    console.print(table)
    console.print()
    if not found.flags:
        console.print("Nothing looks wrong.")
    for flag in found.flags:
        mark = "[bold red]✗[/bold red]" if flag.fatal else "[bold yellow]![/bold yellow]"
        console.print(f"{mark} {escape(flag.message)}.", soft_wrap=True)
    if found.is_usable:
        console.print(f"Next: hoarfrost reconstruct {found.path} -o run/", markup=False, soft_wrap=True)
