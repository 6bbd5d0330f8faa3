"""Any torch optimiser by name: `torch.optim.Adam:lr=auto,betas=(0.5,0.9)` or `my_module:MyOptimiser`."""

import ast
import importlib
import inspect
from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from hoarfrost.optim.registry import METHODS, Facts, MethodSpec


def find_method(text: str, known: Collection[str] = tuple(METHODS)) -> MethodSpec:
    """The method that `text` names: one of the table, or `path.to.Class` or `module:Class` of a torch optimiser.

    Options follow after a colon, separated by commas outside brackets: `name=value`, values in Python's notation.
    `lr=auto`, the default, takes the rate from the curvature. A class is called as Class(parameters, lr=…, options).

    Raises ValueError, with one line that says what is wrong; `known` are the names that it then tells.
    """
    path, options = _parse(text)
    rate = options.pop("lr", "auto")
    if rate != "auto" and not (isinstance(rate, int | float) and rate > 0):
        raise ValueError(f"{text}: lr must be auto or a positive number, found {rate}")
    fixed = None if rate == "auto" else float(rate)
    if path in METHODS:
        if options:
            raise ValueError(f"{text}: the options of {path} are the published ones; only lr can be given")
        spec = METHODS[path]
        if fixed is None:
            return spec
        return MethodSpec(text, f"{spec.title}, lr {fixed:g}", _fixed(spec, fixed), "unit", batch_size=spec.batch_size)
    optimiser = _load(path, text, known)
    takes_rate = "lr" in inspect.signature(optimiser).parameters
    if not takes_rate and fixed is not None:
        raise ValueError(f"{text}: {optimiser.__name__} has no lr")

    def build(parameters: list[Tensor], rate: float, _: Facts) -> Optimizer:
        chosen: dict[str, Any] = {"lr": rate if fixed is None else fixed} if takes_rate else {}
        made: Optimizer = optimiser(parameters, **chosen, **options)
        return made

    searched = takes_rate and fixed is None
    return MethodSpec(text, optimiser.__name__, build, "line" if searched else "unit", search=searched)


def _fixed(spec: MethodSpec, fixed: float) -> Any:
    return lambda parameters, rate, facts: spec.build(parameters, fixed, facts)


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """Path (module:Class or a dotted one) and options of a method's text."""
    parts = text.split(":")
    has_options = "=" in parts[-1]
    path = ":".join(parts[:-1] if has_options else parts)
    if not path or path.count(":") > 1:
        raise ValueError(f"{text}: expected a method's name, path.to.Class or module:Class, and :option=value,…")
    return path, _options(parts[-1], text) if has_options else {}


def _options(words: str, text: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({words})", mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text}: options must read name=value,name=value") from error
    if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError(f"{text}: options must read name=value,name=value")
    found = {}
    for keyword in call.keywords:
        try:
            value = keyword.value.id if isinstance(keyword.value, ast.Name) else ast.literal_eval(keyword.value)
        except ValueError as error:
            raise ValueError(f"{text}: {keyword.arg} must be a number, a word or a tuple of these") from error
        found[str(keyword.arg)] = value
    return found


def _load(path: str, text: str, known: Collection[str]) -> type[Optimizer]:
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module:
        raise ValueError(f"{text} is no method; known are {', '.join(known)}, path.to.Class and module:Class")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ValueError(f"{text}: cannot import {module}: {error}") from error
    except AttributeError as error:
        raise ValueError(f"{text}: {module} has no {name}") from error
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise ValueError(f"{text}: {name} is not a torch.optim.Optimizer")
    return found
