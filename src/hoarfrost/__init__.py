"""Ab-initio cryo-EM reconstruction: from noisy particle images to a 3D map, with no starting model.

The verbs are `inspect`, `reconstruct`, `resume`, `report`, `simulate`, `evaluate` and `benchmark`::

    import hoarfrost

    result = hoarfrost.reconstruct("particles.star", "run/")
    print(result.map_path, result.resolution_A)

Importing this package does no work: torch, numpy and scipy load when a verb is first called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hoarfrost._version import __version__

# Each verb shares its name with the sub-package it lives in, and Python binds `hoarfrost.reconstruct` to that
# sub-package as soon as anything imports it. So at run time the name always is the sub-package, made callable by
# `hoarfrost._verbs`; type checkers and editors read the function itself, with its signature and docstring.
if TYPE_CHECKING:
    from hoarfrost.benchmark.run import benchmark as benchmark
    from hoarfrost.evaluate.report import evaluate as evaluate
    from hoarfrost.inspect.run import inspect as inspect
    from hoarfrost.reconstruct.resume import resume as resume
    from hoarfrost.reconstruct.run import reconstruct as reconstruct
    from hoarfrost.report.run import report as report
    from hoarfrost.simulate.dataset import simulate as simulate


__all__ = ["__version__", "benchmark", "evaluate", "inspect", "reconstruct", "report", "resume", "simulate"]


def __getattr__(name: str) -> Any:
    """Load the sub-package of a verb when it is first used; `resume` is a part of that of `reconstruct`."""
    if name == "resume":
        return importlib.import_module(f"{__name__}.reconstruct.resume").resume
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the verbs, loaded or not."""
    return sorted({*globals(), *__all__})
