"""What is compiled does what torch does, and derivatives are those of what interpolation gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.rotations import rotations_from_vectors
from hoarfrost.maths.seeds import named_generator
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.nufft.window import KaiserBessel

BOX = 14


@pytest.fixture
def volume() -> Tensor:
    return torch.randn(1, BOX, BOX, BOX, generator=named_generator(0, "window test"))


def some_points(n: int, reach: float) -> Tensor:
    """Float32 (n, 3), some beyond the reach."""
    uniform = torch.rand(n, 3, generator=named_generator(1, "window test"))
    return 2.2 * reach * (uniform - 0.5)


@pytest.mark.parametrize("width", [2, 3, 4, 6])
@pytest.mark.parametrize("reach", [math.inf, 5.0])
def test_compiled_sums_are_those_of_torch(volume: Tensor, width: int, reach: float) -> None:
    """Torch is asked in double precision, which is not compiled."""
    sampler = SpectrumSampler(volume, width=width, reach=reach)
    points = some_points(500, min(reach, BOX / 2))
    scale = float(sampler(points).abs().max())
    torch.testing.assert_close(sampler(points), sampler(points.double()), rtol=0, atol=2e-4 * scale)
    assert 0.1 < float((sampler(points) == 0).double().mean()) < 0.9
    expanded = sampler.expand(points)
    assert expanded.shape == (500, 4)
    torch.testing.assert_close(expanded[:, :1], sampler(points), rtol=0, atol=2e-4 * scale)


def test_a_short_reach_changes_nothing_within_it(volume: Tensor) -> None:
    turn = rotations_from_vectors(torch.tensor([[0.3, -0.8, 0.5]], dtype=torch.float64))[0].float()
    points = torch.cat([some_points(300, 2.5), 5 * turn])
    near, far = SpectrumSampler(volume, width=3, reach=5.0), SpectrumSampler(volume, width=3)
    torch.testing.assert_close(near(points), far(points), rtol=0, atol=1e-5 * float(far(points).abs().max()))
    assert bool((near(points) != 0).all())


@pytest.mark.parametrize("double", [False, True])
def test_derivatives_are_those_of_what_interpolation_gives(volume: Tensor, double: bool) -> None:
    sampler = SpectrumSampler(volume, width=4)
    points = 0.8 * some_points(200, BOX / 2).double()
    # Where a window takes in another grid point the interpolant has a kink.
    on_grid = 2 * points
    points = points[((on_grid - on_grid.round()).abs() > 0.03).all(dim=1)]
    found = sampler.expand(points if double else points.float())[:, 1:]
    step = 0.01
    for axis in range(3):
        off = step * torch.eye(3, dtype=torch.float64)[axis]
        difference = (sampler(points + off) - sampler(points - off))[:, 0] / (2 * step)
        torch.testing.assert_close(found[:, axis], difference, rtol=0, atol=3e-3 * float(difference.abs().max()))


def test_the_slope_of_the_window_is_its_derivative() -> None:
    window = KaiserBessel(4, 2)
    offsets = torch.linspace(-1.99, 1.99, 101, dtype=torch.float64)
    difference = (window(offsets + 1e-5) - window(offsets - 1e-5)) / 2e-5
    torch.testing.assert_close(window.slope(offsets), difference, rtol=1e-6, atol=1e-8)
