"""Matplotlib figures as PNG files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from hoarfrost.io.atomic import atomic_output

DOTS_PER_INCH = 130


def save_png(figure: Figure, picture: Path) -> None:
    """Write a figure. Raises UsageError where the file cannot be written."""
    with atomic_output(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
