"""The package as a whole: what importing it costs, what it offers, and that its metadata agree."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hoarfrost

ROOT = Path(__file__).parents[1]
# Each verb, the module of the function that it calls, and what to call it with.
VERBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "example": ("examples.example", ("example",)),
    "inspect": ("inspection.inspect", ("particles.star",)),
    "reconstruct": ("reconstruction.run", ("particles.star", "run")),
    "refine": ("reconstruction.run", ("particles.star", "run")),
    "resume": ("reconstruction.resume", ("run",)),
    "simulate": ("simulation.simulate", ("map.mrc", "out")),
    "evaluate": ("evaluation.evaluate", ("map.mrc", "truth.mrc")),
    "report": ("reporting.report", ("run",)),
    "compare": ("evaluation.compare", ("a.mrc", "b.mrc")),
    "flip": ("evaluation.flip", ("map.mrc", "other.mrc")),
    "symmetrise": ("evaluation.symmetrise", ("map.mrc", "D7", "out.mrc")),
    "select": ("selection.select", ("run", "out.star")),
    "convert": ("io.convert", ("a.cs", "a.star")),
    "benchmark": ("study.benchmark", ("study",)),
}
HEAVY = {"torch", "numpy", "scipy", "numba", "matplotlib", "plotly", "gemmi", "mrcfile", "cyclopts", "rich"}


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_the_package_does_no_work() -> None:
    assert not modules_after("import hoarfrost; hoarfrost.__version__; dir(hoarfrost)") & HEAVY


def test_looking_at_a_verb_without_calling_it_does_no_work() -> None:
    looks = "".join(
        f"; help(hoarfrost.{verb}); inspect.signature(hoarfrost.{verb})" for verb in [*VERBS, "problem", "bench"]
    )
    loaded = modules_after(f"import inspect, hoarfrost{looks}")
    assert "hoarfrost" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_calls_the_function_of_its_module(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home, arguments = VERBS[verb]
    importlib.import_module(f"hoarfrost.{home}")
    calls = []
    monkeypatch.setattr(f"hoarfrost.{home}.{verb}", lambda *args, **options: calls.append(args) or "done")

    assert getattr(hoarfrost, verb)(*arguments) == "done"

    [(first, *_)] = calls
    assert str(arguments[0]) in str(first)


def test_every_command_is_a_verb_whose_docstring_tells_every_argument_once() -> None:
    from hoarfrost.cli.app import SUMMARIES, app

    commands = [name for name in app if not name.startswith("-")]
    assert {*commands} == {*VERBS, "bench"} == {*hoarfrost.__all__} - {"__version__", "problem"}
    # `problem` is for programs alone: it has no command.
    for name in [*commands, "problem"]:
        verb = getattr(hoarfrost, name)
        assert verb.__name__ == name
        if name in commands:
            assert " ".join(inspect.cleandoc(verb.__doc__).split("\n\n")[0].split()) == SUMMARIES[name]
        entries = re.findall(r"^(\w+)\n    \S", inspect.cleandoc(verb.__doc__), re.M)
        assert entries[: len(inspect.signature(verb).parameters)] == [*inspect.signature(verb).parameters], name


def test_misspelt_arguments_are_refused_as_by_any_function() -> None:
    with pytest.raises(TypeError, match="sede"):
        hoarfrost.reconstruct("particles.star", "run", sede=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="output"):
        hoarfrost.reconstruct("particles.star")  # type: ignore[call-arg]


def test_a_new_option_touches_one_file(tmp_path: Path) -> None:
    source = Path(hoarfrost.__file__).parent
    copy = tmp_path / "hoarfrost"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    options = copy / "reconstruction" / "settings" / "options.py"
    text = options.read_text(encoding="utf-8")
    before = "    rotate_grid: bool = option("
    assert text.count(before) == 1
    new = '    frost_depth_A: float = option(2.5, "The depth of frost, in Å.", flags=("--frost-depth", "-f"), gt=0)\n'
    options.write_text(text.replace(before, new + before), encoding="utf-8")
    code = """if True:
    import inspect, tomllib, types
    from pathlib import Path
    import hoarfrost
    from hoarfrost.cli import main
    from hoarfrost.errors import StoppedError
    from hoarfrost.reconstruction import run
    from hoarfrost.reconstruction.settings.plan import resolve
    from hoarfrost.reconstruction.settings.settings import Settings

    import torch
    blank = lambda rows: torch.zeros(len(rows), 64, 64)
    assert inspect.signature(hoarfrost.reconstruct).parameters["frost_depth_A"].default == 2.5
    assert "frost_depth_A\\n    The depth of frost, in Å." in hoarfrost.reconstruct.__doc__
    star = types.SimpleNamespace(star=types.SimpleNamespace(path=Path("particles.star")))
    stack = types.SimpleNamespace(table=star, n_images=1000, box=64, pixel_size_A=5.0, read_unchecked=blank)

    def reconstruct(particles, output, options):
        settings = resolve(stack, options, output=output)
        Path("config.toml").write_text(settings.to_toml())
        assert Settings.of_toml(Path("config.toml")) == settings, "resume reads what the run wrote"
        read = tomllib.loads(settings.to_toml())
        print(read["frost_depth_A"], read["sources"]["frost_depth_A"])
        raise StoppedError("that is enough")

    run.reconstruct = reconstruct
    arguments = ["reconstruct", "particles.star", "-o", "run"]
    assert [main([*arguments, *more]) for more in ([], ["-f", "4"], ["--frost-depth", "0"])] == [5, 5, 2]
    main(["reconstruct", "--help"])
    """
    # The coverage of a copy is no one's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment |= {"PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2.5 default\n4.0 user\n")
    assert "--frost-depth must be a positive number, found 0" in done.stderr
    assert re.search(r"--frost-depth -f FLOAT +The depth of frost, in Å. \[default: 2.5\]", done.stdout)


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
