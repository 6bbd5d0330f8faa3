"""``hoarfrost inspect``: what particles look like, before any long work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hoarfrost.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from hoarfrost.inspection.result import Inspection

LOG_WIDTH = 120


def inspect(
    particles: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    datadir: Path | None = None,
    diameter_A: Annotated[float | None, Parameter(name="--diameter")] = None,
    max_resolution_A: Annotated[float | None, Parameter(name="--max-resolution")] = None,
    symmetry: str = "C1",
    classes: Annotated[int, Parameter(name=["--classes", "-k"])] = 1,
    memory: str | None = None,
    threads: int | None = None,
    contrast: Literal["auto", "white", "black"] = "auto",
    as_json: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Look at particles before a reconstruction: every parameter and its source, what looks wrong, time and memory.

    Takes seconds. Of more than 5,000 images, 5,000 are looked at. Options from --diameter to --contrast are those of
    reconstruct, for its forecast.

    Parameters
    ----------
    particles
        RELION STAR file of the particles (3.0, 3.1, 4 or 5), or cryoSPARC's .cs file.
    output
        Folder to make for montage.png, noise.png, ctf.png and inspect.json. Nothing is written unless given.
    datadir
        Folder that the image names are relative to. By default, that of the file, or one above it.
    diameter_A
        Diameter of the particle, in Å. 85 % of the box unless given.
    max_resolution_A
        Finest detail to use, in Å.
    symmetry
        Point group of the molecule.
    classes
        Number of structures among the particles.
    memory
        Memory that a reconstruction may use, like 2GB or 800MB.
    threads
        CPU threads to use. All cores unless given.
    contrast
        How particles look in the images: white on dark, or black on light; auto finds out.
    as_json
        Print one JSON object in place of the table.
    overwrite
        Replace the pictures if they exist.
    """
    from rich.console import Console

    from hoarfrost.inspection.inspect import inspect as run

    if output is not None:
        from hoarfrost.reporting.folder import check_folder
        from hoarfrost.reporting.inspection import FILES

        check_folder(output, FILES, overwrite=overwrite)
    found = run(
        particles,
        datadir=datadir,
        diameter_A=diameter_A,
        max_resolution_A=max_resolution_A,
        symmetry=symmetry,
        classes=classes,
        memory=memory,
        threads=threads,
        contrast=contrast,
    )
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
