"""The ChimeraX script opens what is there, at a level that parts the molecule from the solvent."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.fourier import radius_grid
from hoarfrost.reporting.chimerax import write_chimerax_script


def test_the_level_encloses_the_molecule(tmp_path: Path) -> None:
    noise = torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    ball = (radius_grid(32, 3) < 8).numpy()
    volume = ball + 0.1 * noise
    for name in ("map.mrc", "half1.mrc", "half2.mrc"):
        write_volume(tmp_path / name, volume, 5.0)
    write_chimerax_script(tmp_path)
    script = (tmp_path / "view.cxc").read_text()
    levels = {float(level) for level in re.findall(r"level (\S+)", script)}
    (level,) = levels
    assert abs((read_volume(tmp_path / "map.mrc")[0] > level).mean() / ball.mean() - 1) < 0.02
    assert re.findall(r"open (\S+) id (\d)", script) == [("map.mrc", "1"), ("half1.mrc", "2"), ("half2.mrc", "3")]
    assert "hide #2,3 models" in script
    assert "32 voxels of 5 Å" in script


def test_noise_outside_the_mask_does_not_count(tmp_path: Path) -> None:
    volume = np.zeros((32, 32, 32))
    volume[12:20, 12:20, 12:20] = 1.0
    volume[:3] = 30.0
    write_volume(tmp_path / "map.mrc", volume, 5.0)
    write_volume(tmp_path / "mask.mrc", volume == 1.0, 5.0)
    write_chimerax_script(tmp_path)
    script = (tmp_path / "view.cxc").read_text()
    assert 0 <= float(re.findall(r"level (\S+)", script)[0]) < 1
    assert "hide" not in script


def test_the_surface_has_the_colours_of_local_resolution_where_that_differs(tmp_path: Path) -> None:
    volume = np.zeros((16, 16, 16), np.float32)
    volume[4:12, 4:12, 4:12] = 1.0
    for name in ("map.mrc", "half1.mrc", "half2.mrc", "mask.mrc"):
        write_volume(tmp_path / name, volume, 5.0)
    write_volume(tmp_path / "local_resolution.mrc", 8 - np.linspace(0, 2, 16**3).reshape(16, 16, 16), 5.0)
    write_chimerax_script(tmp_path)
    script = (tmp_path / "view.cxc").read_text()
    assert "open local_resolution.mrc id 4" in script
    finest, middle, coarsest = (float(number) for number in re.findall(r"(\d+\.\d+),#", script))
    assert 6 < finest < middle < coarsest < 8
    assert "color sample #1 map #4 palette " in script
    assert "hide #2,3,4 models" in script
    write_volume(tmp_path / "local_resolution.mrc", np.full((16, 16, 16), 7.0), 5.0)
    write_chimerax_script(tmp_path)
    assert "color sample" not in (tmp_path / "view.cxc").read_text()
