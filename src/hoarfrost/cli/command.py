"""A command from a verb: its help is the verb's docstring, its options are the fields of the verb's model."""

import inspect
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from cyclopts import Parameter
from pydantic.fields import FieldInfo

from hoarfrost.options import OptionsModel, dressed, fact, flag_of, parameters_of

R = TypeVar("R")

Flag = Annotated[bool, Parameter(show_default=False)]
Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], show_default=False, help="Show no progress.")]
AsJSON = Annotated[
    bool, Parameter(name="--json", show_default=False, help="Print one JSON object in place of the table.")
]


def command(
    verb: Callable[..., Any], model: type[OptionsModel] | None = None, *, without: Collection[str] = ()
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorator of a command: gives it the docstring of `verb`, and the options of `model` for its `**options`.

    Options that the command names itself, those in `without`, and functions are left out.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        plain = inspect.signature(function, eval_str=True)
        own = [p for p in plain.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        skipped = {*without, *(p.name for p in own)}
        asked = [] if model is None else [_option(p, model.model_fields[p.name]) for p in parameters_of(model)]
        added = [p for p in asked if p.name not in skipped and not _is_function(p)]
        # What says nothing about the particles or the result comes last.
        last = [p for p in own if p.name == "quiet"]
        first = [p for p in own if p.name != "quiet"]
        return dressed(function, plain.replace(parameters=[*first, *added, *last]), verb.__doc__)

    return decorate


def _option(parameter: inspect.Parameter, field: FieldInfo) -> inspect.Parameter:
    """The keyword argument of a field, as cyclopts reads it."""
    kind, default = _type(parameter.annotation), parameter.default
    told = Parameter(
        name=fact(field, "flags") or [flag_of(parameter.name)],
        # Others are off unless given.
        negative=[f"--no-{flag_of(parameter.name).removeprefix('--')}"] if default is True else (),
        show_default=_numbers if isinstance(default, tuple) else not isinstance(default, bool | None),
        consume_multiple=True if Sequence in _origins(kind) else None,
    )
    return parameter.replace(annotation=Annotated[kind, told])


def _origins(kind: Any) -> set[Any]:
    """The generic types of an annotation: Sequence of Sequence[str] | None."""
    return {get_origin(part) for part in (kind, *get_args(kind))}


def _is_function(parameter: inspect.Parameter) -> bool:
    """Whether a function is asked for, which nobody can give on the command line."""
    return Callable in _origins(get_args(parameter.annotation)[0])


def _type(annotation: Any) -> Any:
    """What the command line makes of a word: a path where Python takes a text too."""
    parts = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType) and Path in parts:
        return Union[tuple(part for part in parts if part is not str)]  # noqa: UP007
    return annotation


def _numbers(value: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in value)
