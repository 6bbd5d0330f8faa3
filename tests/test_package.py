"""The package as a whole: what importing it costs, what it offers, and that its metadata agree."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hoarfrost

ROOT = Path(__file__).parents[1]
VERBS = {
    "inspect": "inspection.inspect",
    "reconstruct": "reconstruction.run",
    "simulate": "simulation.simulate",
    "evaluate": "evaluation.evaluate",
}
HEAVY = {"torch", "numpy", "scipy", "matplotlib", "gemmi", "mrcfile", "cyclopts", "rich"}


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_does_no_work() -> None:
    assert not modules_after("import hoarfrost; hoarfrost.__version__; dir(hoarfrost)") & HEAVY


@pytest.mark.parametrize(("verb", "home"), VERBS.items())
def test_a_verb_is_the_function_of_its_module(verb: str, home: str) -> None:
    assert getattr(hoarfrost, verb) is getattr(importlib.import_module(f"hoarfrost.{home}"), verb)


def test_verbs_and_version_are_listed() -> None:
    assert {*VERBS, "__version__"} <= set(dir(hoarfrost))


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'resolve'"):
        hoarfrost.resolve  # noqa: B018


def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert f"\nversion: {hoarfrost.__version__}\n" in citation
    assert f"## {hoarfrost.__version__}" in changelog


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in wanted} - {"hoarfrost"}  # type: ignore[index]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))

    assert names <= set(pins)
    assert not any("+" in version for version in pins.values()), "a build tag ties the pin to one index"
