"""What the documentation shows does run."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import pytest
import torch

from hoarfrost.cli import main
from hoarfrost.geometry import rotations_from_vectors
from hoarfrost.model.symmetry import PointGroup
from hoarfrost.optim.names import MethodName
from hoarfrost.optim.registry import METHODS

DOCS = Path(__file__).parents[1] / "docs"


def code_blocks(page: str, language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [content for found, content in blocks if found == language]


def test_the_page_on_optimisers_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (module,) = code_blocks("optimisers.md", "python")
    (command,) = code_blocks("optimisers.md", "")
    monkeypatch.chdir(tmp_path)
    Path("my_module.py").write_text(module)
    words = shlex.split(command)
    assert words[0] == "hoarfrost"
    # Shorter than as it stands, in its images only.
    small = ["--n-images", "300", "--epochs", "1", "--band-limit", "0.1", "--no-sensitivity", "-q"]
    assert main([*words[1:], *small]) == 0
    page = Path("study/report.html").read_text()
    assert "SignDescent" in page
    assert "RMSprop" in page


def test_the_page_on_optimisers_lists_them_all() -> None:
    rows = re.findall(r"^\| `([a-z]+)` ", (DOCS / "optimisers.md").read_text(), flags=re.MULTILINE)
    assert rows == [*METHODS, "auto"]
    assert set(MethodName.__args__) == {*METHODS, "auto"}


def test_the_axes_of_symmetry_are_where_the_conventions_say() -> None:
    rows = re.findall(r"^(C7|D7|T|O|I)  +(\d along .*)$", (DOCS / "conventions.md").read_text(), flags=re.MULTILINE)
    assert [name for name, _ in rows] == ["C7", "D7", "T", "O", "I"]
    for name, axes in rows:
        group = PointGroup(name).rotations
        for fold, *numbers in re.findall(r"(\d) along (\S+) (\S+) (\S+)", axes):
            axis = torch.nn.functional.normalize(torch.tensor([float(n) for n in numbers], dtype=torch.float64), dim=0)
            turn = rotations_from_vectors(2 * math.pi / int(fold) * axis[None])
            assert float((group - turn).abs().amax(dim=(1, 2)).min()) < 1e-5, (name, fold, numbers)
            # No finer turn about it belongs to the group.
            finer = rotations_from_vectors(math.pi / int(fold) * axis[None])
            assert float((group - finer).abs().amax(dim=(1, 2)).min()) > 1e-2
