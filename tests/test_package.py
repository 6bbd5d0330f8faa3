"""The package as a whole: what importing it costs, what it offers, and that its metadata agree."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import hoarfrost

ROOT = Path(__file__).parents[1]
VERBS = {"inspect": "run", "reconstruct": "run", "simulate": "dataset", "evaluate": "report"}
HEAVY = {"torch", "numpy", "scipy", "matplotlib", "gemmi", "mrcfile", "cyclopts", "rich"}


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_does_no_work() -> None:
    assert not modules_after("import hoarfrost; hoarfrost.__version__; dir(hoarfrost)") & HEAVY


def test_looking_at_a_verb_without_calling_it_does_no_work() -> None:
    touched = "; ".join(f"hoarfrost.{verb}" for verb in VERBS)
    assert not modules_after(f"import hoarfrost; {touched}") & {"torch", "scipy", "matplotlib"}


@pytest.mark.parametrize(("verb", "home"), VERBS.items())
def test_a_verb_calls_the_function_in_its_sub_package(verb: str, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(particles: str, *, seed: int = 0) -> tuple[str, int]:
        return particles, seed

    module = ModuleType(f"hoarfrost.{verb}.{home}")
    setattr(module, verb, fake)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    function = getattr(hoarfrost, verb)

    assert function("particles.star", seed=3) == ("particles.star", 3)
    assert inspect.signature(function) == inspect.signature(fake)
    assert function is importlib.import_module(f"hoarfrost.{verb}"), "a verb stays the sub-package"


def test_a_verb_can_be_called_after_its_sub_package_was_imported() -> None:
    imports = "\n".join(f"import hoarfrost.{verb}.{home}" for verb, home in VERBS.items())
    checks = "\n".join(
        f"assert callable(hoarfrost.{verb}); hoarfrost.{verb}.{home}.{verb}" for verb, home in VERBS.items()
    )
    modules_after(f"{imports}\n{checks}")


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
