"""Pages and pictures of runs and studies, made from their folders alone."""

import contextlib
import importlib
import logging
import os
import sys

from hoarfrost.errors import HoarfrostError


def _load_matplotlib() -> None:
    """Import matplotlib, whatever backend the environment names: figures are drawn into files, which needs none.

    Jupyter passes its own to the commands that a cell starts. Raises HoarfrostError where matplotlib cannot be loaded.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)  # it has advice on its cache and on the lines of a matplotlibrc
    try:
        importlib.import_module("matplotlib.figure")
    except Exception as error:
        raise HoarfrostError(f"pictures cannot be drawn, as matplotlib does not load here: {error}") from error
    finally:
        log.setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:
        with contextlib.suppress(ValueError):
            sys.modules["matplotlib"].rcParams["backend"] = backend  # for the user's own plots in this process


# Here, as matplotlib reads its environment when it is first imported, which modules of this package do.
_load_matplotlib()
