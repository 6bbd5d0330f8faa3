"""How the code of the package is written: what a reader may count on, checked in its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "hoarfrost"
MOST_MODULE_LINES = 400
MOST_LINES, MOST_LONG = 60, 0.002
MOST_PARAMETERS, MOST_WIDE = 6, 0.010
# Standard streams can be replaced in `sys` alone.
REPLACES_STREAMS = ("cli/terminal.py",)
# What objects of other libraries are told only by setting an attribute.
THEIR_ATTRIBUTES = {
    "__doc__": "Python: the documentation of a function that is made",
    "align": "llvmlite: the alignment of a load or store",
    "cutoff": "gemmi.DensityCalculatorE",
    "d_min": "gemmi.DensityCalculatorE",
    "data": "torch: the values of a parameter, without a gradient of their own",
    "rate": "gemmi.DensityCalculatorE",
    "spacegroup": "gemmi.FloatGrid",
}
# torch.autograd.Function keeps on this object what `backward` needs.
THEIR_OBJECTS = {"ctx"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of each module by its path in the package."""
    return {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def functions() -> Iterator[tuple[str, Function]]:
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{path}:{node.lineno} {node.name}", node


def n_parameters(function: Function) -> int:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def attributes_set(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The places where an attribute of anything but `self` or `cls` is set or deleted: line and code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            owner = node.value
            if isinstance(owner, ast.Name) and owner.id in ("self", "cls", *THEIR_OBJECTS):
                continue
            if node.attr not in THEIR_ATTRIBUTES:
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr", "object.__setattr__"):
            yield node.lineno, ast.unparse(node)


def test_the_check_sees_attributes_that_are_set() -> None:
    seen = ["a.b = 1", "a.b += 1", "del a.b", "self.a.b = 1", "a.b, c = 1, 2", "setattr(a, 'b', 1)", "for a.b in c: 0"]
    for code in seen:
        assert list(attributes_set(ast.parse(code))), code
    for code in ("self.a = 1", "a['b'] = 1", "self.a['b'] = 1", "a = b.c", "p.data = x", "ctx.n = 1"):
        assert not list(attributes_set(ast.parse(code))), code


def test_no_object_sets_an_attribute_of_another() -> None:
    found = [f"{path}:{line}: {code}" for path, tree in trees().items() for line, code in attributes_set(tree)]
    assert [place for place in found if not place.startswith(REPLACES_STREAMS)] == []


def test_modules_are_short() -> None:
    lines = {path.relative_to(SOURCE): len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    assert {str(path): n for path, n in lines.items() if n > MOST_MODULE_LINES} == {}


def test_few_functions_are_long() -> None:
    every = dict(functions())
    found = [name for name, node in every.items() if node.end_lineno - node.lineno >= MOST_LINES]  # type: ignore[operator]
    assert len(found) <= MOST_LONG * len(every), f"{len(found)} of {len(every)}: {found}"


def test_few_functions_take_many_parameters() -> None:
    every = dict(functions())
    found = [name for name, node in every.items() if n_parameters(node) > MOST_PARAMETERS]
    assert len(found) <= MOST_WIDE * len(every), f"{len(found)} of {len(every)}: {found}"


def imported(tree: ast.Module, modules: set[str]) -> set[str]:
    """The modules of the package that one imports, also within functions and for type checks alone."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found.update(names or {node.module})
    return found & modules


def test_no_module_imports_itself_through_others() -> None:
    def name(path: str) -> str:
        return ".".join(("hoarfrost", *Path(path).with_suffix("").parts)).removesuffix(".__init__")

    modules = {name(path) for path in trees()}
    graph = {name(path): imported(tree, modules) - {name(path)} for path, tree in trees().items()}
    assert sum(map(len, graph.values())) > len(graph), "the imports were not found"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))
