"""The sharpened map, and the line that it is sharpened by."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from hoarfrost.evaluation.half_maps import HalfMapFSC, compare_half_maps
from hoarfrost.evaluation.sharpen import fit_line, sharpen
from hoarfrost.io.guinier_star import GuinierCurves, read_b_factor_A2, write_guinier
from hoarfrost.maths.fourier import fourier_resize, soft_sphere
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.seeds import named_generator
from hoarfrost.maths.shells import filter_shells

BOX, PIXEL_SIZE_A, R_MAX = 64, 2.5, 30.0
LENGTH_A = BOX * PIXEL_SIZE_A
SQUARED = (torch.arange(BOX // 2 + 1, dtype=torch.float64) / LENGTH_A).square()


def white_map() -> torch.Tensor:
    """Points in a ball: amplitudes that are flat."""
    noise = torch.randn(BOX, BOX, BOX, generator=named_generator(1, "points"), dtype=torch.float64)
    return fourier_resize(noise, BOX, R_MAX) * soft_sphere(BOX, 0.6 * BOX, 3)


def half_maps(truth: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    seeds = named_generator(2, "first"), named_generator(3, "second")
    first, second = (truth + noise * torch.randn(truth.shape, generator=g, dtype=torch.float64) for g in seeds)
    return fourier_resize(first, BOX, R_MAX), fourier_resize(second, BOX, R_MAX)


def compared(first: torch.Tensor, second: torch.Tensor) -> HalfMapFSC:
    return compare_half_maps(first, second, PIXEL_SIZE_A, R_MAX, named_generator(4, "phases"))


@pytest.mark.parametrize("b_factor_A2", [50.0, 200.0, 600.0])
def test_the_b_factor_is_found_and_taken_off(b_factor_A2: float) -> None:
    truth = white_map()
    faded = filter_shells(truth, torch.exp(-b_factor_A2 * SQUARED / 4))
    first, second = half_maps(faded, 1e-3)
    halves = compared(first, second)
    found = sharpen(first, second, halves)
    assert found is not None
    # Noise and the chance of a shell's coefficients are what is left.
    assert found.guinier.b_factor_A2 == pytest.approx(b_factor_A2, abs=15)
    last = math.floor(LENGTH_A / halves.resolution_A)
    assert float(fourier_shell_correlation(found.volume, truth)[2:last].min()) > 0.9
    shells = torch.arange(len(SQUARED))
    amplitudes = [
        torch.tensor([float(filter_shells(volume, (shells == s).double()).norm()) for s in (12, 16, 20)])
        for volume in (found.volume, truth)
    ]
    assert float((amplitudes[0] / amplitudes[1]).std() / (amplitudes[0] / amplitudes[1]).mean()) < 0.1


def test_noise_beyond_the_resolution_is_not_raised() -> None:
    faded = filter_shells(white_map(), torch.exp(-400.0 * SQUARED / 4))
    first, second = half_maps(faded, 0.05)
    halves = compared(first, second)
    found = sharpen(first, second, halves)
    assert found is not None
    last = LENGTH_A / halves.resolution_A
    assert 20 < last < 28
    beyond = (torch.arange(len(SQUARED)) > last + 2).double()
    assert float(filter_shells(found.volume, beyond).norm()) < 1e-6 * float(found.volume.norm())


def test_a_coarse_map_is_left_as_it_is() -> None:
    flat = torch.ones(len(SQUARED), dtype=torch.float64)
    assert fit_line(SQUARED, flat, flat, 8.2) is None
    assert fit_line(SQUARED, flat, flat, 7.0) is not None


def test_the_line_goes_into_a_file_and_comes_back(tmp_path: Path) -> None:
    line = fit_line(SQUARED, torch.exp(3.0 - 120.0 * SQUARED / 4), torch.ones_like(SQUARED), 6.0)
    assert line is not None
    assert line.intercept == pytest.approx(3.0)
    curves = {name: getattr(line, name).numpy() for name in ("squared", "log_amplitude", "weighted")}
    path = tmp_path / "guinier.star"
    write_guinier(path, GuinierCurves(**curves, intercept=line.intercept, b_factor_A2=line.b_factor_A2))
    assert read_b_factor_A2(path) == pytest.approx(120.0, abs=1e-4)
    assert "-120.0" in path.read_text(encoding="utf-8")
