"""The example particles come with the package, and land whole in a folder of the user's."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.errors import UsageError
from hoarfrost.examples.example import FOLDER, N_PARTICLES
from hoarfrost.particles.stack import ParticleStack


def test_the_particles_are_those_of_the_package_to_the_last_byte(tmp_path: Path) -> None:
    particles = hoarfrost.example(tmp_path / "new" / "example")
    assert particles == tmp_path / "new" / "example" / "particles.star"
    there = {path.name: path.read_bytes() for path in particles.parent.iterdir()}
    assert there == {path.name: path.read_bytes() for path in files("hoarfrost.examples").joinpath(FOLDER).iterdir()}
    assert len(there) == 4
    stack = ParticleStack.open(particles)
    assert stack.n_images == N_PARTICLES
    assert {path.parent for path in stack.table.stack_paths} == {particles.parent}
    stack.check_images()


def test_a_folder_of_the_users_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "example"
    assert main(["example", "-o", str(folder)]) == 0
    told = capsys.readouterr().out
    assert f"Next: hoarfrost reconstruct {folder / 'particles.star'} -o run/" in told
    assert main(["example", "-o", str(folder)]) == UsageError.exit_code
    assert "exists; choose another folder or give --overwrite" in capsys.readouterr().err
    (folder / "particles.star").write_text("changed")
    assert main(["example", "-o", str(folder), "--overwrite"]) == 0
    assert ParticleStack.open(folder / "particles.star").n_images == N_PARTICLES
    (folder / "mine.txt").write_text("mine")
    assert main(["example", "-o", str(folder), "--overwrite"]) == UsageError.exit_code
    assert "mine.txt, which example did not write" in capsys.readouterr().err
    assert (folder / "mine.txt").read_text() == "mine"
