"""The normal operator within a support is the whole one, seen there."""

from __future__ import annotations

import pytest
import torch

from hoarfrost.maths.fourier import FourierDisc, centred_window, radius_grid
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.slices.normal import SupportedNormal
from hoarfrost.model.slices.operator import SliceOperator, apply_normal, transform_normal_kernel

BOX = 18


def supports() -> dict[str, torch.Tensor]:
    ball = (radius_grid(BOX, 3) <= 0.3 * BOX).to(torch.float64)
    rod = torch.zeros(BOX, BOX, BOX, dtype=torch.float64)
    rod[1:17, 8:11, 5:9] = 1
    corners = torch.zeros_like(rod)
    corners[0, 0, 0] = corners[-1, -1, -1] = 1
    return {
        "ball": ball,
        "rod": rod,
        "corners": corners,
        "all": torch.ones_like(rod),
        "moved": ball.roll((3, -2), (0, 2)),
    }


@pytest.mark.parametrize("name", list(supports()))
def test_it_is_the_normal_operator_inside_the_support(name: str) -> None:
    support, generator = supports()[name], named_generator(0, "normal")
    disc = FourierDisc(24, 6.2)
    operator = SliceOperator(disc, BOX, random_rotations(20, generator), dtype=torch.float64)
    kernel = operator.normal_kernel(torch.rand(20, disc.size, generator=generator, dtype=torch.float64))
    volume = torch.randn(BOX, BOX, BOX, generator=generator, dtype=torch.float64) * support
    expected = apply_normal(transform_normal_kernel(kernel), volume) * support
    found = SupportedNormal(kernel, support)(volume) * support
    assert float((found - expected).norm()) < 1e-12 * float(expected.norm())


def test_a_kernel_need_be_known_as_far_as_the_support_is_wide() -> None:
    support, generator = supports()["ball"], named_generator(0, "normal")
    disc = FourierDisc(24, 6.2)
    operator = SliceOperator(disc, BOX, random_rotations(20, generator), dtype=torch.float64)
    kernel = operator.normal_kernel(torch.rand(20, disc.size, generator=generator, dtype=torch.float64))
    volume = torch.randn(BOX, BOX, BOX, generator=generator, dtype=torch.float64) * support
    expected = SupportedNormal(kernel, support)(volume)
    # The ball is 11 voxels wide.
    found = SupportedNormal(centred_window(kernel, 24), support)(volume)
    assert float((found - expected).norm()) < 1e-12 * float(expected.norm())
    with pytest.raises(ValueError, match="11 voxels is wider than the kernel reaches, 10"):
        SupportedNormal(centred_window(kernel, 20), support)


def test_of_nothing_there_is_nothing() -> None:
    nothing = torch.zeros(BOX, BOX, BOX)
    assert not SupportedNormal(torch.ones(2 * BOX, 2 * BOX, 2 * BOX), nothing)(nothing).any()
