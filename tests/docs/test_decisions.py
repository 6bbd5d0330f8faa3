"""The page of decisions names constants that are there, with the values that they have."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "hoarfrost"
ROW = re.compile(r"^\| `([a-z_.]+)\.([A-Z_0-9]+)` \| (?:`([^`]+)`)?", flags=re.MULTILINE)


def constants(module: str) -> dict[str, str]:
    """The constants that a module assigns, by name, as Python writes their values."""
    found: dict[str, str] = {}
    for statement in ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8")).body:
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            found[ast.unparse(statement.target)] = ast.unparse(statement.value)
        if isinstance(statement, ast.Assign):
            target, value = statement.targets[0], statement.value
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                found |= dict(zip(map(ast.unparse, target.elts), map(ast.unparse, value.elts), strict=True))
            else:
                found[ast.unparse(target)] = ast.unparse(value)
    return found


def test_every_constant_has_the_value_that_the_page_tells(docs: Path) -> None:
    rows = ROW.findall((docs / "decisions.md").read_text("utf-8"))
    assert len(rows) > 50
    for module, name, told in rows:
        value = constants(module)[name]
        if told:
            assert ast.unparse(ast.parse(told)) == value, f"{module}.{name}"
