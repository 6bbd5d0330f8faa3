from __future__ import annotations

import pytest
import torch

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


def test_nothing_is_known_beyond_nyquist() -> None:
    sampler = SpectrumSampler(torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0)))
    points = torch.tensor([[4.0, 0, 0], [0, -5, 0], [0, 0, 9], [3.9, -3.9, 3.9]], dtype=torch.float64)
    assert (sampler(points)[:, 0] == 0).tolist() == [True, True, True, False]
