"""Options told once: what the fields of a model give a function, and how a value out of bounds is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from cyclopts import Parameter

from hoarfrost.cli.command import command
from hoarfrost.errors import UsageError
from hoarfrost.options import OptionsModel, flag_of, made, option, takes


class Frost(OptionsModel):
    """A model with an option of each kind."""

    depth_A: float = option(2.0, "How deep it is.", flags=("--depth", "-d"), gt=0)
    crystals: int | None = option(None, "How many there are.", ge=1, le=9)
    part: float = option(0.5, "Part of the leaf.", lt=1)
    width_A: float | None = option(None, "How wide it is.", gt=1.5)
    wait_s: float = option(0.0, "How long to wait.", ge=0)
    shape: Literal["star", "plate", "needle"] = option("star", "Of what shape.")
    seen_from: str | Path | None = option(None, "Where it was seen.")
    shades: Sequence[float] | None = option(None, "How white.", refusal="the shades must be numbers, not {}")
    size: int = option(4, "An even number.", refusal="the size must be even, not {}", multiple_of=2)
    melt: bool = option(False, "Whether it melts.")
    tell: Callable[[str], None] | None = option(None, "Called as it grows.")


@takes(Frost)
def grow(leaf: str, options: Frost) -> tuple[str, Frost]:
    """Grow frost.

    Parameters
    ----------
    leaf
        What it grows on.
    options
        {options}
    """
    return leaf, options


def test_a_function_has_the_fields_of_its_model_as_keywords() -> None:
    assert grow("oak") == ("oak", Frost())
    assert grow(leaf="oak", crystals=3, shades=[1, 0.5]) == ("oak", Frost(crystals=3, shades=[1.0, 0.5]))
    parameters = inspect.signature(grow).parameters
    assert list(parameters) == ["leaf", *Frost.model_fields]
    assert parameters["depth_A"].default == 2.0
    assert parameters["depth_A"].kind is inspect.Parameter.KEYWORD_ONLY
    assert grow.__name__ == "grow"
    assert (grow.__doc__ or "").endswith("melt\n    Whether it melts.\ntell\n    Called as it grows.")
    for arguments in [{"leaf": "oak", "dept_A": 1.0}, {}, {"leaf": "oak", "options": Frost()}]:
        with pytest.raises(TypeError):
            grow(**arguments)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth_A": 0}, "--depth must be a positive number, found 0"),
        ({"depth_A": float("nan")}, "--depth must be a positive number, found nan"),
        ({"crystals": 0}, "--crystals must be at least 1, found 0"),
        ({"crystals": 10}, "--crystals must be at most 9, found 10"),
        (
            {"crystals": 1.5},
            "--crystals: input should be a valid integer, got a number with a fractional part, found 1.5",
        ),
        ({"part": 1.0}, "--part must be less than 1, found 1"),
        ({"part": float("-inf")}, "--part must be a finite number, found -inf"),
        ({"width_A": 1.5}, "--width must be more than 1.5, found 1.5"),
        ({"wait_s": -0.5}, "--wait must be zero or positive, in seconds, found -0.5"),
        ({"shape": "ball"}, "shape must be star, plate or needle, found ball"),
        ({"shades": [0.5, float("inf")]}, "the shades must be numbers, not 0.5 inf"),
        ({"size": 5}, "the size must be even, not 5"),
        ({"dept_A": 1.0}, "there is no option dept_A"),
    ],
)
def test_a_value_out_of_bounds_is_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        made(Frost, given)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("max_resolution_A", "--max-resolution"),
        ("cs_mm", "--cs"),
        ("voltage_kV", "--voltage"),
        ("held_out", "--held-out"),
    ],
)
def test_flags_leave_out_units(name: str, flag: str) -> None:
    assert flag_of(name) == flag


def test_a_command_has_the_options_of_its_verb_but_for_functions_and_its_own() -> None:
    @command(grow, Frost, without=("part",))
    def grown(leaf: str, /, *, size: Annotated[int, Parameter(name="--big")] = 2, **options: Any) -> None:
        """Another text."""

    parameters = inspect.signature(grown).parameters
    assert list(parameters) == [
        "leaf",
        "size",
        "depth_A",
        "crystals",
        "width_A",
        "wait_s",
        "shape",
        "seen_from",
        "shades",
        "melt",
    ]
    assert grown.__doc__ == grow.__doc__
    kind, told = get_args(parameters["depth_A"].annotation)
    assert (kind, tuple(told.name)) == (float, ("--depth", "-d"))
    assert get_args(parameters["seen_from"].annotation)[0] == Path | None
    assert get_args(parameters["shades"].annotation)[1].consume_multiple
    assert not get_args(parameters["crystals"].annotation)[1].consume_multiple
