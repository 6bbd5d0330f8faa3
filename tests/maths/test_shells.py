"""Shells and balls of Fourier space: every coefficient once, and nothing moved."""

from __future__ import annotations

import pytest
import torch

from hoarfrost.maths.ball import half_ball, values_at, volume_of
from hoarfrost.maths.fourier import fft3_centred, radius_grid
from hoarfrost.maths.shells import filter_shells, shell_means, shells_of_half_spectrum, shells_of_spectrum


@pytest.mark.parametrize("box", [9, 10])
def test_shells_are_those_of_the_frequencies_of_the_transform(box: int) -> None:
    k = torch.fft.fftfreq(box, 1 / box, dtype=torch.float64)
    radii = torch.linalg.vector_norm(torch.cartesian_prod(k, k, k), dim=1).reshape(box, box, box)
    assert torch.equal(shells_of_spectrum(box), radii.round().long())
    assert torch.equal(shells_of_half_spectrum(box), radii[..., : box // 2 + 1].round().long())


def test_the_mean_of_a_function_of_the_shell_is_that_function() -> None:
    shells = shells_of_spectrum(11)
    means = shell_means(shells.double().square(), shells)
    torch.testing.assert_close(means, torch.arange(len(means), dtype=torch.float64).square())
    assert shell_means(torch.ones(2), torch.tensor([0, 2])).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("box", [9, 10])
def test_a_filter_of_shells_multiplies_each(box: int) -> None:
    volume = torch.randn(box, box, box, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factors = torch.linspace(1, 2, box // 2 + 1, dtype=torch.float64)
    shell = radius_grid(box, 3).round().long()
    every = torch.cat([factors, torch.zeros(int(shell.max()))])
    found = fft3_centred(filter_shells(volume, factors))
    torch.testing.assert_close(found, fft3_centred(volume) * every[shell])


def test_the_ball_holds_each_pair_once() -> None:
    points = half_ball(10, 4.5)
    both = {tuple(k) for k in torch.cat([points, -points]).tolist()}
    axis = range(-4, 5)
    assert len(both) == sum(x * x + y * y + z * z <= 20.25 for x in axis for y in axis for z in axis)
    assert len(both) == 2 * len(points) - 1
    with pytest.raises(ValueError, match="holds no frequencies"):
        half_ball(10, 5)


@pytest.mark.parametrize("box", [9, 10])
def test_a_volume_is_made_of_its_coefficients_in_the_ball(box: int) -> None:
    volume = torch.randn(box, box, box, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = half_ball(box, 4.0)
    spectrum = fft3_centred(volume)
    found = fft3_centred(volume_of(points, values_at(spectrum, points), box))
    torch.testing.assert_close(found, spectrum * (radius_grid(box, 3) <= 4))
