"""The resolution about each voxel of two half maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost.evaluation.local_resolution import (
    FILE,
    bands,
    local_correlation,
    local_resolution,
    read_spread,
    spread_in,
)
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.fourier import radius_grid, soft_sphere
from hoarfrost.maths.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.maths.seeds import named_generator
from hoarfrost.maths.shells import filter_shells

BOX, PIXEL_A, R_MAX = 80, 2.0, 36.0
LENGTH_A = BOX * PIXEL_A


def noise(name: str) -> Tensor:
    white = torch.randn(BOX, BOX, BOX, generator=named_generator(3, name))
    return filter_shells(white, (torch.arange(BOX // 2 + 1) <= R_MAX).float())


def to_shell(volume: Tensor, last: float) -> Tensor:
    """A signal that fades over three shells about the last one."""
    return filter_shells(volume, ((last - torch.arange(BOX // 2 + 1)) / 3 + 0.5).clamp(0, 1).float())


def halves(signal: Tensor, level: float = 0.5) -> tuple[Tensor, Tensor]:
    return signal + level * noise("one"), signal + level * noise("other")


def inner() -> Tensor:
    return radius_grid(BOX, 3) < 0.3 * BOX


def test_two_parts_of_a_map_have_a_resolution_each() -> None:
    fine, coarse = to_shell(noise("signal"), 26), to_shell(noise("signal"), 13)
    x = torch.arange(BOX) - BOX // 2
    right = torch.sigmoid(x / 2.0)
    found = local_resolution(*halves(right * fine + (1 - right) * coarse, 1.2), PIXEL_A, R_MAX)
    # Away from the border, and from the faces, beyond which lies the other part.
    left, right_part = found[:, :, 16:24], found[:, :, 56:64]
    assert float(left.median()) == pytest.approx(LENGTH_A / 13, rel=0.12)
    assert float(right_part.median()) == pytest.approx(LENGTH_A / 26, rel=0.08)


@pytest.mark.parametrize("last", [10, 18, 28])
def test_where_all_is_alike_it_is_the_resolution_of_the_map(last: int) -> None:
    pair = halves(to_shell(noise("signal"), last), 0.3)
    fsc = fourier_shell_correlation(*(half.double() for half in pair))
    found = local_resolution(*pair, PIXEL_A, R_MAX)[inner()]
    assert float(found.median()) == pytest.approx(resolution_A(fsc, BOX, PIXEL_A, 0.143), rel=0.1)
    low, high = found.quantile(torch.tensor([0.1, 0.9])).tolist()
    assert high / low < 1.25


def test_noise_has_no_resolution() -> None:
    found = local_resolution(noise("one"), noise("other"), PIXEL_A, R_MAX)
    assert float((found > 0.8 * LENGTH_A / bands(R_MAX)[0]).double().mean()) > 0.9


def test_what_is_the_same_in_both_reaches_the_band_limit_and_no_further() -> None:
    signal = noise("signal")
    found = local_resolution(signal, signal, PIXEL_A, R_MAX)
    torch.testing.assert_close(found, torch.full_like(found, LENGTH_A / R_MAX))
    assert spread_in(found.numpy(), np.ones((BOX,) * 3, np.float32)).is_even


def test_neither_scale_nor_order_nor_sign_matters() -> None:
    one, other = halves(to_shell(noise("signal"), 18))
    found = local_resolution(one, other, PIXEL_A, R_MAX)
    torch.testing.assert_close(local_resolution(-7 * other, -7 * one, PIXEL_A, R_MAX), found, rtol=1e-3, atol=1e-2)


def test_noise_has_the_same_small_correlation_in_each_band() -> None:
    # Of the windows that differ.
    for shell in (8.0, 16.0, 30.0):
        correlation = local_correlation(noise("one"), noise("other"), shell)
        assert 0.04 < float(correlation.std()) < 0.12


def test_an_empty_surrounding_is_no_trouble() -> None:
    signal = to_shell(noise("signal"), 18) * soft_sphere(BOX, 0.4 * BOX, 4).float()
    found = local_resolution(signal, signal + 1e-3 * noise("other"), PIXEL_A, R_MAX)
    assert bool(found.isfinite().all())
    assert bool((local_correlation(torch.zeros_like(signal), signal, 8.0) == 0).all())


def test_half_maps_that_are_too_coarse_are_refused() -> None:
    with pytest.raises(ValueError, match="hold no band"):
        local_resolution(noise("one"), noise("other"), PIXEL_A, 4.0)


def test_the_spread_is_that_of_the_particle(tmp_path: Path) -> None:
    local_A = np.full((20, 20, 20), 50.0, np.float32)
    local_A[5:15, 5:15, 5:15] = np.linspace(5, 6, 1000).reshape(10, 10, 10)
    mask = np.zeros_like(local_A)
    mask[5:15, 5:15, 5:15] = 1
    assert read_spread(tmp_path) is None
    write_volume(tmp_path / FILE, local_A, 2.0)
    write_volume(tmp_path / "mask.mrc", mask, 2.0)
    found = read_spread(tmp_path)
    assert found is not None
    assert str(found) == "5.1 Å in the finest tenth of the particle, 5.9 Å in the coarsest"
    assert str(spread_in(np.full_like(local_A, 7.0), mask)) == "7.0 Å throughout the particle"
