"""Ab-initio cryo-EM reconstruction: from noisy particle images to a 3D map, with no starting model.

The verbs of the command line are functions of this package::

    import hoarfrost

    result = hoarfrost.reconstruct("particles.star", "run/")
    print(result.map_path, result.resolution_A)

Neither importing this package nor looking at a verb loads torch, numpy or scipy: a verb loads them when it is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hoarfrost._version import __version__

if TYPE_CHECKING:
    from hoarfrost.verbs import (
        bench,
        benchmark,
        compare,
        convert,
        evaluate,
        example,
        flip,
        inspect,
        problem,
        reconstruct,
        refine,
        report,
        resume,
        select,
        simulate,
        symmetrise,
    )

__all__ = [
    "__version__",
    "bench",
    "benchmark",
    "compare",
    "convert",
    "evaluate",
    "example",
    "flip",
    "inspect",
    "problem",
    "reconstruct",
    "refine",
    "report",
    "resume",
    "select",
    "simulate",
    "symmetrise",
]


def __getattr__(name: str) -> Any:
    """Load the verbs when one is first looked at."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.verbs"), name)


def __dir__() -> list[str]:
    """List the verbs, loaded or not."""
    return sorted({*globals(), *__all__})
