"""Averaging over a group about axes that have to be found first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hoarfrost import symmetrise
from hoarfrost.cli import main
from hoarfrost.evaluation.symmetrise import average_about
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.fourier import fourier_resize, radius_grid, soft_sphere
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.symmetry.axes import Axes, in_frame
from hoarfrost.symmetry.point_group import PointGroup

PIXEL_A = 5.0


def test_the_average_is_that_of_the_point_group() -> None:
    # Without detail near Nyquist, where the two ways cut off differently.
    volume = fourier_resize(make_phantom(24, seed=1, n_blobs=6), 24, 8.0) * soft_sphere(24, 14, 3).float()
    axes = Axes(random_rotations(1, torch.Generator().manual_seed(0))[0], torch.tensor([1.0, -2.0, 0.5]).double(), 0.0)
    inside = radius_grid(24, 3) < 9
    for name in ("C3", "D2", "O"):
        group = PointGroup(name)
        ours, theirs = average_about(volume, group, axes), group(in_frame(volume, axes))
        assert float(((ours - theirs) * inside).norm() / (theirs * inside).norm()) < 0.01, name


def test_axes_are_found_wherever_they_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = PointGroup("C2")
    symmetric = group(make_phantom(32, seed=4, n_blobs=6) * soft_sphere(32, 22, 3).float())
    moved = Axes(random_rotations(1, torch.Generator().manual_seed(5))[0], torch.tensor([1.5, -1.0, 2.0]).double(), 0.0)
    lying = in_frame(symmetric, moved)
    noise = 0.2 * float(symmetric.std()) * torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(1))
    write_volume(tmp_path / "lying.mrc", (lying + noise).numpy(), PIXEL_A)
    output = tmp_path / "out.mrc"
    assert main(["symmetrise", str(tmp_path / "lying.mrc"), "C2", "-o", str(output), "--max-resolution", "27"]) == 0
    shown = capsys.readouterr().out
    assert "axes of C2 correlates with itself by 0.9" in shown
    assert "That is low" not in shown
    result, pixel_A = read_volume(output)
    volume = torch.from_numpy(result)
    assert pixel_A == pytest.approx(PIXEL_A)
    inside = radius_grid(32, 3) < 12
    assert float(((group(volume) - volume) * inside).norm() / (volume * inside).norm()) < 0.02
    # An average about the wrong axes would have lost what does not agree.
    assert float((volume * inside).norm() / symmetric.norm()) > 0.95
    # A map that lies right already stays where it is.
    again = symmetrise(output, "c2", tmp_path / "again.mrc", aligned=True)
    assert again.correlation > 0.99
    still = torch.from_numpy(read_volume(tmp_path / "again.mrc")[0])
    assert float(((still - volume) * inside).norm() / (volume * inside).norm()) < 0.02


def test_a_group_that_the_map_has_not_is_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_volume(tmp_path / "map.mrc", make_phantom(24, seed=6, n_blobs=7).numpy(), PIXEL_A)
    assert main(["symmetrise", str(tmp_path / "map.mrc"), "C7", "-o", str(tmp_path / "out.mrc"), "--aligned"]) == 0
    assert "the molecule may not have C7" in capsys.readouterr().out


def test_wrong_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "map.mrc")
    write_volume(path, make_phantom(24, seed=6, n_blobs=7).numpy(), PIXEL_A)
    out = str(tmp_path / "out.mrc")
    for arguments, words in (
        (["C1", "-o", out], "no symmetry"),
        (["X2", "-o", out], "symmetry must be Cn"),
        (["C2", "-o", path], "is an input"),
        (["C2", "-o", out, "--max-resolution", "9"], "between 10.0 and 60.0"),
    ):
        assert main(["symmetrise", path, *arguments]) == 2
        assert words in capsys.readouterr().err
    write_volume(out, make_phantom(24, seed=6, n_blobs=7).numpy(), PIXEL_A)
    assert main(["symmetrise", path, "C2", "-o", out]) == 2
    assert "give --overwrite" in capsys.readouterr().err
