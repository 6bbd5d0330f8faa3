from __future__ import annotations

import pytest
import torch

from hoarfrost.maths.fourier import centred_window
from hoarfrost.nufft.sampler import SpectrumSampler


@pytest.mark.parametrize("box", [15, 16])
@pytest.mark.parametrize(
    ("width", "oversampling", "error"), [(2, 3, 0.1), (3, 2, 1e-2), (4, 2, 2e-3), (5, 2, 5e-4), (6, 2, 2e-4)]
)
def test_it_is_the_fourier_sum(box: int, width: int, oversampling: int, error: float) -> None:
    generator = torch.Generator().manual_seed(0)
    volumes = torch.randn(2, box, box, box, generator=generator)
    points = (torch.rand(200, 3, generator=generator, dtype=torch.float64) - 0.5) * 0.99 * box
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    kernel = torch.exp(-2j * torch.pi / box * (points @ places.T))
    exact = kernel @ volumes.reshape(2, -1).T.to(kernel.dtype)
    found = SpectrumSampler(volumes, width=width, oversampling=oversampling)(points)
    assert found.dtype == torch.complex64
    assert float((found - exact).norm() / exact.norm()) < error


@pytest.mark.parametrize("box", [31, 32])
@pytest.mark.parametrize("middle", [14, 17])
def test_a_volume_that_is_empty_outside_its_middle_needs_a_coarser_grid_only(box: int, middle: int) -> None:
    generator = torch.Generator().manual_seed(0)
    volumes = centred_window(torch.randn(2, middle, middle, middle, generator=generator), box)
    points = (torch.rand(300, 3, generator=generator, dtype=torch.float64) - 0.5) * 0.9 * box
    whole = SpectrumSampler(volumes, width=6)(points)
    sampler = SpectrumSampler(volumes, middle=middle)
    assert len(sampler.values) < 0.5 * len(SpectrumSampler(volumes).values)
    assert float((sampler(points) - whole).norm() / whole.norm()) < 2e-3
    # Its derivatives are by Fourier pixels of the box, whatever the grid.
    one = SpectrumSampler(volumes[:1], middle=middle)
    slopes, exact = (s.expand(points.float())[:, 1:] for s in (one, SpectrumSampler(volumes[:1], width=6)))
    assert float((slopes - exact).norm() / exact.norm()) < 2e-2


def test_nothing_is_known_beyond_nyquist() -> None:
    sampler = SpectrumSampler(torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0)))
    points = torch.tensor([[4.0, 0, 0], [0, -5, 0], [0, 0, 9], [3.9, -3.9, 3.9]], dtype=torch.float64)
    assert (sampler(points)[:, 0] == 0).tolist() == [True, True, True, False]
