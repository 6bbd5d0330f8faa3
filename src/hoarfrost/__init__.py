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

if TYPE_CHECKING:
    from hoarfrost.evaluation.evaluate import evaluate as evaluate
    from hoarfrost.inspection.inspect import inspect as inspect
    from hoarfrost.reconstruction.resume import resume as resume
    from hoarfrost.reconstruction.run import reconstruct as reconstruct
    from hoarfrost.reporting.report import report as report
    from hoarfrost.simulation.simulate import simulate as simulate
    from hoarfrost.study.benchmark import benchmark as benchmark

# Each verb and the module that defines it.
_HOMES = {
    "benchmark": "study.benchmark",
    "evaluate": "evaluation.evaluate",
    "inspect": "inspection.inspect",
    "reconstruct": "reconstruction.run",
    "report": "reporting.report",
    "resume": "reconstruction.resume",
    "simulate": "simulation.simulate",
}

__all__ = ["__version__", "benchmark", "evaluate", "inspect", "reconstruct", "report", "resume", "simulate"]


def __getattr__(name: str) -> Any:
    """Load a verb's module when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the verbs, loaded or not."""
    return sorted({*globals(), *__all__})
