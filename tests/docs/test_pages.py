"""What pages of the documentation show does run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hoarfrost.cli import main
from hoarfrost.evaluation import search
from hoarfrost.optim.names import MethodName
from hoarfrost.optim.registry import METHODS

CodeBlocks = Callable[..., list[Any]]


def test_the_page_on_optimisers_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_blocks: CodeBlocks
) -> None:
    (module,) = code_blocks("optimisers.md", "python")
    (command,) = code_blocks("optimisers.md", "")
    monkeypatch.chdir(tmp_path)
    Path("my_module.py").write_text(module.content)
    words = shlex.split(command.content)
    assert words[0] == "hoarfrost"
    # Shorter than as it stands, in its images only.
    small = ["--n-images", "300", "--epochs", "1", "--band-limit", "0.1", "--no-sensitivity", "-q"]
    assert main([*words[1:], *small]) == 0
    page = Path("study/report.html").read_text()
    assert "SignDescent" in page
    assert "RMSprop" in page


def test_the_page_on_optimisers_lists_them_all(docs: Path) -> None:
    rows = re.findall(r"^\| `([a-z]+)` ", (docs / "optimisers.md").read_text(), flags=re.MULTILINE)
    assert rows == [*METHODS, "auto"]
    assert set(MethodName.__args__) == {*METHODS, "auto"}


def run_as_one_program(page: Path, blocks: list[Any]) -> dict[str, Any]:
    """Execute blocks of a page from top to bottom, and return its names; a failure shows the page and the line."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(compile("\n" * (block.line - 1) + block.content, str(page), "exec"), names)
    return names


def test_the_conventions_are_kept(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_blocks: CodeBlocks
) -> None:
    monkeypatch.chdir(tmp_path)
    run_as_one_program(docs / "conventions.md", code_blocks("conventions.md", "python"))


def test_every_row_of_the_conventions_leads_to_code_that_asserts_it(docs: Path) -> None:
    text = (docs / "conventions.md").read_text()
    sections = {
        re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-"): body
        for title, body in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    }
    things = re.findall(r"^\| \[[^\]]+\]\(#([a-z-]+)\)", text, flags=re.MULTILINE)
    assert len(things) == len(re.findall(r"^\| (?!thing)[^ |-]", text, flags=re.MULTILINE)) == 10
    for anchor in things:
        code = "".join(re.findall(r"^```python\n(.*?)^```$", sections[anchor], flags=re.DOTALL | re.MULTILINE))
        assert "assert" in code, anchor


@pytest.mark.parametrize("number", range(4))
def test_an_example_of_the_page_on_the_problem_runs_and_finds_the_object(
    number: int,
    docs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    code_blocks: CodeBlocks,
) -> None:
    monkeypatch.setattr(search, "N_KEPT", 4)
    _, *examples = code_blocks("problem.md", "python")
    assert len(examples) == 4
    block = examples[number]
    assert sum(bool(line) for line in block.content.splitlines()) <= 10
    if "import jax" in block.content:
        pytest.importorskip("jax")
    names = run_as_one_program(docs / "problem.md", [block])
    assert "HeldOutNLL" in capsys.readouterr().out
    x = names["found"].x if "found" in names else names["x"]
    problem = names["problem"]
    of_truth, of_start = (problem.held_out(point).mean for point in (problem.truth, problem.x0(0)))
    assert problem.held_out(x).mean < of_truth + 0.2 * (of_start - of_truth)


def test_the_page_on_the_problem_begins_with_code_that_runs(docs: Path, code_blocks: CodeBlocks) -> None:
    run_as_one_program(docs / "problem.md", code_blocks("problem.md", "python")[:1])


def test_the_code_of_a_page_can_fail(tmp_path: Path, code_blocks: CodeBlocks) -> None:
    (block, *_) = code_blocks("conventions.md", "python")
    wrong = type(block)("python", "assert 1 == 2\n", 17)
    with pytest.raises(AssertionError) as caught:
        run_as_one_program(tmp_path / "page.md", [wrong])
    assert caught.traceback[-1].lineno == 16  # counted from 0
