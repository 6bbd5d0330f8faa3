"""Figures and images as bytes, or as PNG files that are whole or not there."""

import base64
import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.image import imsave

from hoarfrost.io.atomic import atomic_output

DOTS_PER_INCH = 130
PAGE_DOTS_PER_INCH = 110
# The user's matplotlibrc and styles are theirs: LaTeX or fonts that it names need not be on this machine.
_OWN_STYLE: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
_SVG: Any = {"svg.hashsalt": "hoarfrost"}  # the same figure gives the same bytes


@contextlib.contextmanager
def own_style(changes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draw with matplotlib's defaults and `changes` to them, whatever the user has set; a decorator too."""
    with matplotlib.rc_context(_OWN_STYLE | dict(changes or {})):
        yield


def save_png(figure: Figure, picture: Path) -> None:
    """Write a figure. Raises UsageError where the file cannot be written."""
    with atomic_output(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


def png_bytes(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PAGE_DOTS_PER_INCH)
    return buffer.getvalue()


def svg_bytes(figure: Figure) -> bytes:
    """A figure as the bytes of an SVG file, its text as outlines, so that it needs no font."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SVG):
        figure.savefig(buffer, format="svg", dpi=PAGE_DOTS_PER_INCH, metadata={"Date": None})
    return buffer.getvalue()


def grey_png(image: npt.NDArray[np.floating[Any]]) -> bytes:
    """An image (y, x) as the bytes of a PNG file, a pixel each, from its least value, black, to its greatest; y up."""
    buffer = io.BytesIO()
    imsave(buffer, image, cmap="gray", origin="lower", format="png")
    return buffer.getvalue()


def data_uri(content: bytes, media_type: str) -> str:
    """The bytes as an address that holds them."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
