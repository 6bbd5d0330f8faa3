"""Options told once: the fields of a model give a function its signature, its docstring and its command line.

A verb of the package takes its options as one model, and callers see keyword arguments::

    class Simulation(OptionsModel):
        snr: float = option(0.05, "Variance of the signal over that of the noise.", gt=0)

    @takes(Simulation)
    def simulate(map_path: str | Path, options: Simulation) -> SimulatedData: ...

    simulate("map.mrc", snr=0.1)

`hoarfrost.cli.command` makes the command's options of the same fields. This module loads pydantic and nothing else.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, get_args, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from hoarfrost.errors import UsageError

DeviceName = Literal["auto", "cpu", "cuda"]
"""Where to compute; auto takes the GPU if there is one."""
ContrastChoice = Literal["auto", "white", "black"]
"""How particles look in their images, or to be found out."""

UNITS = {"_A": "Å", "_s": "seconds", "_kV": "kV", "_mm": "mm"}
"""Ends of the names of Python's arguments, which the command line leaves out."""
OUT_OF_BOUNDS = ("finite_number", "greater_than", "greater_than_equal", "less_than", "less_than_equal")
# More choices than this are told as a list after "one of".
FEW_CHOICES = 4
DOC_WIDTH = 100

P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
M = TypeVar("M")
R = TypeVar("R")
Model = TypeVar("Model", bound="OptionsModel")


class OptionsModel(BaseModel):
    """Base of models of options: frozen, without further fields, with finite numbers."""

    # Built when first used: a help text needs none of them.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def option(
    default: Any, text: str, *, flags: Sequence[str] = (), refusal: str = "", source: str = "default", **bounds: Any
) -> Any:
    """The field of an option: what it is unless given, its help text, and pydantic's `bounds` (gt, ge, le, …).

    `flags` are its names on the command line, where these are not the field's name without its unit. `refusal` is the
    message for a value out of bounds, with {} for the value, where the usual one will not do. `source` tells where a
    value comes from that the user did not give: see `hoarfrost.reconstruction.settings.provenance`.
    """
    facts: dict[str, Any] = {"flags": list(flags), "refusal": refusal, "source": source}
    return Field(default, description=" ".join(text.split()), json_schema_extra=facts, **bounds)


def fact(field: FieldInfo, name: str) -> Any:
    """What `option` was told of a field; None for a field that it did not make."""
    extra = field.json_schema_extra
    return extra.get(name) if isinstance(extra, dict) else None


def flag_of(name: str) -> str:
    """The command line's name for an argument: --max-resolution for max_resolution_A."""
    unit = next((end for end in UNITS if name.endswith(end)), "")
    return f"--{name.removesuffix(unit).replace('_', '-')}"


def parameters_of(model: type[BaseModel]) -> list[inspect.Parameter]:
    """The keyword arguments that the fields of a model are."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else field.default,
            annotation=field.annotation,
        )
        for name, field in model.model_fields.items()
    ]


def documentation_of(model: type[BaseModel]) -> str:
    """The fields of a model as entries of a docstring's Parameters section."""
    wrapper = textwrap.TextWrapper(DOC_WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(f"{name}\n{wrapper.fill(field.description or '')}" for name, field in model.model_fields.items())


def made(model: Callable[..., Model], given: Mapping[str, Any]) -> Model:
    """The model of these values. Raises UsageError with one line about the first that is out of bounds."""
    try:
        return model(**given)
    except ValidationError as error:
        assert isinstance(model, type)
        raise UsageError(_refusal(model, given, error)) from None


def _refusal(model: type[Model], given: Mapping[str, Any], error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    field = model.model_fields.get(name)
    if field is None:
        return f"there is no option {name}"
    kind, limits, value = first["type"], first.get("ctx", {}), _shown(given[name])
    if refusal := fact(field, "refusal"):
        return str(refusal).format(value)
    if kind == "literal_error":
        choices = [str(choice) for choice in get_args(field.annotation)]
        few = f"{', '.join(choices[:-1])} or {choices[-1]}"
        return f"{name} must be {few if len(choices) <= FEW_CHOICES else 'one of ' + ', '.join(choices)}, found {value}"
    if kind not in OUT_OF_BOUNDS:
        return f"{flag_of(name)}: {first['msg'][0].lower()}{first['msg'][1:]}, found {value}"
    bounds = {key: getattr(part, key) for part in field.metadata for key in ("gt", "ge") if hasattr(part, key)} | limits
    unit = next((f", in {unit}" for end, unit in UNITS.items() if name.endswith(end)), "")
    must = "a finite number"
    if "le" in limits or "lt" in limits:
        must = f"at most {limits['le']:g}" if "le" in limits else f"less than {limits['lt']:g}"
    elif "gt" in bounds:
        must = f"more than {bounds['gt']:g}" if bounds["gt"] else "a positive number"
    elif "ge" in bounds:
        must = f"at least {bounds['ge']}" if bounds["ge"] else f"zero or positive{unit}"
    return f"{flag_of(name)} must be {must}, found {value}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(_shown, value)) if isinstance(value, list | tuple) else str(value)


class takes(Generic[P, M]):  # noqa: N801
    """Decorator of a function that is called with the fields of a model as keywords, and takes the model as its last.

    The function gets the signature that callers use, and in its docstring the entry of `options`, {options}, becomes
    theirs. Calls raise UsageError for a value out of bounds.
    """

    def __init__(self, model: Callable[P, M]) -> None:
        self._model = model

    @overload
    def __call__(self, verb: Callable[[A, M], R]) -> Callable[Concatenate[A, P], R]: ...
    @overload
    def __call__(self, verb: Callable[[A, B, M], R]) -> Callable[Concatenate[A, B, P], R]: ...

    @overload
    def __call__(self, verb: Callable[[A, B, C, M], R]) -> Callable[Concatenate[A, B, C, P], R]: ...
    def __call__(self, verb: Callable[..., R]) -> Callable[..., R]:
        """The function that callers see."""
        model: Any = self._model
        plain = inspect.signature(verb)
        *positional, _ = plain.parameters.values()
        signature = plain.replace(parameters=[*positional, *parameters_of(model)])

        @functools.wraps(verb)
        def wrapped(*args: Any, **given: Any) -> R:
            asked = dict(signature.bind(*args, **given).arguments)
            first = [asked.pop(parameter.name) for parameter in positional]
            return verb(*first, made(model, asked))

        doc = inspect.cleandoc(verb.__doc__ or "").replace("options\n    {options}", documentation_of(model))
        return dressed(wrapped, signature, doc)


def dressed(function: Callable[..., R], signature: inspect.Signature, doc: str | None) -> Callable[..., R]:
    """A function, with another signature and docstring for those who look at it."""
    vars(function).update(__signature__=signature)
    function.__doc__ = doc
    return function
