"""Sub-packages that can be called: ``hoarfrost.reconstruct(...)`` runs ``hoarfrost.reconstruct.run.reconstruct``.

A verb and the sub-package behind it share a name, and Python binds ``hoarfrost.reconstruct`` to the sub-package
whenever anything inside it is imported. A function put there instead would last until then, and would hide
``hoarfrost.reconstruct.run``. A sub-package that is callable works whatever was imported first, and loads the
code of the verb only when it is called.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

_HOMES = {
    "benchmark": "run",
    "evaluate": "report",
    "inspect": "run",
    "reconstruct": "run",
    "report": "run",
    "simulate": "dataset",
}
"""Each verb and the module of its sub-package that defines it."""


class VerbModule(ModuleType):
    """A sub-package of hoarfrost that calls the function it is named after."""

    @property
    def __signature__(self) -> inspect.Signature:
        """The verb's own signature, for `help` and completion."""
        return inspect.signature(_load(self))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _load(self)(*args, **kwargs)


def make_callable(package: str) -> None:
    """Make the sub-package `package` (its ``__name__``) callable as its verb; called by its ``__init__``."""
    sys.modules[package].__class__ = VerbModule


def _load(module: ModuleType) -> Callable[..., Any]:
    verb = module.__name__.rpartition(".")[2]
    home = importlib.import_module(f"{module.__name__}.{_HOMES[verb]}")
    return cast("Callable[..., Any]", getattr(home, verb))
