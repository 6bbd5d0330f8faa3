"""What maps are solved for from: sums and means of it, halves of its kernel, and other boxes."""

from __future__ import annotations

import torch

from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.slice_bank import Statistics
from hoarfrost.model.quadratic import Mixture, Quadratic, mean_of, sum_of
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.slices.operator import apply_normal, transform_normal_kernel

GENERATOR = named_generator(0, "quadratics")


def some_quadratics(n: int) -> list[Quadratic]:
    """As images at random poses make them."""
    band = BandModel(16, 3.1, PosePrior(0.0, 0.0), random_rotations(1, GENERATOR)[0], dtype=torch.float64)
    found = []
    for _ in range(n):
        weight = torch.rand(band.operator.n_slices, band.disc.size, generator=GENERATOR, dtype=torch.float64)
        data = torch.randn(weight.shape, generator=GENERATOR, dtype=torch.complex128)
        found.append(band.quadratic(Statistics(weight * data, weight), 1))
    return found


def value(quadratic: Quadratic, volume: torch.Tensor) -> float:
    """Vᵀ T V − 2 bᵀ V."""
    image = apply_normal(transform_normal_kernel(quadratic.kernel), volume)
    return float((volume * image - 2 * quadratic.linear * volume).sum())


def test_the_value_of_a_sum_is_the_sum_of_values() -> None:
    parts = some_quadratics(3)
    volume = torch.randn(parts[0].linear.shape, generator=GENERATOR, dtype=torch.float64)
    total = sum(value(part, volume) for part in parts)
    for found, expected in (
        (parts[0] + parts[1] + parts[2], total),
        (sum_of(parts), total),
        (mean_of(parts), total / 3),
        (sum_of(parts) / 5, total / 5),
        (sum_of(parts[:1]), value(parts[0], volume)),
    ):
        torch.testing.assert_close(value(found, volume), expected)


def test_half_of_the_kernel_gives_the_same_value() -> None:
    [quadratic] = some_quadratics(1)
    halved = quadratic.halved()
    assert halved.kernel.numel() < 0.6 * quadratic.kernel.numel()
    assert halved.linear is quadratic.linear
    # Two voxels are never a whole doubled box apart, so that the planes without a partner are of no consequence.
    inside = slice(1, None), slice(1, None), slice(1, None)
    torch.testing.assert_close(halved.whole().kernel[inside], quadratic.kernel[inside], atol=1e-5, rtol=1e-4)


def test_each_class_is_resized_for_itself_and_comes_back() -> None:
    parts = some_quadratics(2)
    both = Quadratic(torch.stack([p.linear for p in parts]), torch.stack([p.kernel for p in parts]))
    box = both.linear.shape[-1]
    wider = both.resized(box + 6)
    assert wider.linear.shape == (2, *(box + 6,) * 3)
    assert wider.kernel.shape == (2, *(2 * (box + 6),) * 3)
    for c in range(2):
        alone = Quadratic(both.linear[c : c + 1], both.kernel[c : c + 1]).resized(box + 6)
        assert torch.equal(wider[c].linear, alone[0].linear)
        assert torch.equal(wider[c].kernel, alone[0].kernel)
    again = wider.resized(box)
    same_box = both.resized(box)
    torch.testing.assert_close(again.linear, same_box.linear)
    torch.testing.assert_close(again.kernel, same_box.kernel)


def test_maps_are_resized_and_shares_stay() -> None:
    volumes, log_shares = torch.randn(2, 8, 8, 8, generator=GENERATOR), torch.tensor([0.25, 0.75]).double().log()
    mixture = Mixture(volumes, log_shares)
    wider = mixture.resized(12)
    assert wider.volumes.shape == (2, 12, 12, 12)
    assert wider.log_shares is log_shares
    torch.testing.assert_close(wider.resized(8).volumes, mixture.resized(8).volumes)
