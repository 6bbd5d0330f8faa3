"""Transforms of images off the grid against the Fourier sum itself, and on the grid against the FFT."""

from __future__ import annotations

import pytest
import torch

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.nufft.images import spectra_at


@pytest.mark.parametrize("box", [15, 16])
def test_it_is_the_fourier_sum(box: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, box, box, generator=generator)
    # Beyond Nyquist too, where a slightly larger magnification takes the last frequencies.
    frequencies = (torch.rand(200, 2, generator=generator, dtype=torch.float64) - 0.5) * 1.2 * box
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack([x, y], dim=-1).reshape(-1, 2)
    kernel = torch.exp(-2j * torch.pi / box * (frequencies @ places.T))
    exact = (kernel @ images.reshape(3, -1).T.to(kernel.dtype)).T / box
    found = spectra_at(images, frequencies)
    assert found.dtype == torch.complex64
    assert float((found - exact).norm() / exact.norm()) < 2e-4


def test_on_the_grid_it_is_the_packed_disc() -> None:
    images, disc = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(1)), FourierDisc(32, 12.0)
    expected = disc.pack(images)
    found = spectra_at(images, disc.coordinates)
    assert float((found - expected).norm() / expected.norm()) < 2e-4
