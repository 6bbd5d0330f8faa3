"""Eight views of an image from few products: coordinates, and the sweeps that lead to them and back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import plane_symmetries
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses import cpu
from hoarfrost.model.all_poses import torch as by_torch
from hoarfrost.model.all_poses.cpu import AT_ONCE
from hoarfrost.model.all_poses.kernels import kernels_for
from hoarfrost.model.all_poses.plane_harmonics import HALF_OF_SYMMETRIES, PlaneHarmonics

BOX = 32
R_MAX = [1.0, 2.3, 6.0, 9.2, 14.0]


def harmonics(r_max: float, dtype: torch.dtype = torch.float64) -> tuple[FourierDisc, PlaneHarmonics]:
    disc = FourierDisc(BOX, r_max)
    return disc, PlaneHarmonics(disc, dtype, "cpu")


def coefficients(disc: FourierDisc, n: int, seed: int) -> Tensor:
    """Of images, whose DC is real."""
    drawn = torch.randn(n, disc.size, dtype=torch.complex128, generator=named_generator(seed, "harmonics test"))
    drawn.imag[:, 0] = 0
    return drawn


def seen(z: Tensor, disc: FourierDisc, symmetry: int) -> Tensor:
    """z(g k)."""
    index, conjugate = disc.permutation(plane_symmetries()[symmetry][:2, :2])
    return torch.where(conjugate, z[..., index].conj(), z[..., index])


@pytest.mark.parametrize("r_max", R_MAX)
def test_nothing_is_lost(r_max: float) -> None:
    disc, basis = harmonics(r_max)
    torch.testing.assert_close(basis.even.T @ basis.even, torch.eye(disc.size, dtype=torch.float64))
    but_dc = torch.eye(disc.size, dtype=torch.float64)
    but_dc[0] = 0
    torch.testing.assert_close(basis.odd.T @ basis.odd, but_dc)
    assert len(basis.even) == sum(basis.sizes)
    assert len(basis.odd) == 2 * basis.odd_size
    assert all(size % 8 == 0 for size in (*basis.sizes, basis.odd_size))
    assert not basis.even[basis.sizes[0] - 1].any()
    # Filled up by no more than it takes.
    assert max(basis.sizes) <= math.ceil((disc.size / 4 + 2 * r_max + 1) / 8) * 8


@pytest.mark.parametrize("r_max", R_MAX)
def test_few_products_give_all_views(r_max: float) -> None:
    disc, basis = harmonics(r_max)
    z, x = coefficients(disc, 3, 0), coefficients(disc, 5, 1)
    kinds = zip(*(torch.split(part.real @ basis.even.T, basis.sizes, dim=1) for part in (z, x)), strict=True)
    even = torch.stack([a @ b.T for a, b in kinds])
    (u, w), (ux, wx) = ((part.imag @ basis.odd.T).chunk(2, dim=1) for part in (z, x))
    odd = torch.stack([u @ ux.T, w @ ux.T, u @ wx.T, w @ wx.T])
    scores = torch.empty(2, 3, 4, 1, 5, dtype=torch.float64)
    kernels_for(scores).scores_of_products(torch.stack([even, odd]), basis, scores)
    for g, symmetry in enumerate(HALF_OF_SYMMETRIES):
        view = seen(z, disc, symmetry)
        torch.testing.assert_close(scores[0, :, g, 0], view.real @ x.real.T)
        torch.testing.assert_close(scores[1, :, g, 0], view.imag @ x.imag.T)
        # Half a turn more conjugates: the other four views.
        turned = seen(z, disc, symmetry + 2)
        torch.testing.assert_close(scores[0, :, g, 0] - scores[1, :, g, 0], (turned.conj() @ x.T).real)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [AT_ONCE - 3, 2 * AT_ONCE + 5])
def test_slices_and_statistics_are_laid_out_for_matrix_products(n: int, dtype: torch.dtype) -> None:
    disc, basis = harmonics(4.0, dtype)
    slices = coefficients(disc, n, 2)
    log_weights = torch.randn(n, generator=named_generator(3, "harmonics test"), dtype=dtype)
    pairs = torch.view_as_real(slices).to(dtype)
    joint, odd = (torch.full((n, size), math.nan, dtype=dtype) for size in (basis.joint_size, 2 * basis.odd_size))
    kernels = kernels_for(joint)
    kernels.arrange_slices(pairs, log_weights, basis, joint, odd)
    real, power = (torch.cat([joint[:, of_kind[i]] for of_kind in basis.joint_slices()], dim=1) for i in range(2))
    close = {"rtol": 2e-6, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(real, 2 * pairs[..., 0] @ basis.even.T, **close)
    torch.testing.assert_close(odd, 2 * pairs[..., 1] @ basis.odd.T, **close)
    expected = -pairs.square().sum(dim=2) @ basis.even.T
    expected[:, basis.sizes[0] - 1] = log_weights
    torch.testing.assert_close(power, expected, **close)
    numerator, weight = torch.empty(n, disc.size, 2, dtype=dtype), torch.empty(n, disc.size, dtype=dtype)
    kernels.arrange_statistics(joint.T.contiguous(), odd.T.contiguous(), basis, numerator, weight)
    torch.testing.assert_close(numerator, 2 * pairs, **close)
    torch.testing.assert_close(weight, -pairs.square().sum(dim=2), **close)


@pytest.mark.parametrize("n_shifts", [1, 3])
def test_compiled_sweeps_are_those_of_torch_and_adjoint(n_shifts: int) -> None:
    b, width = 4, 21
    generator = named_generator(4, "harmonics test")
    _, basis = harmonics(2.3, torch.float32)
    _, exact = harmonics(2.3)
    products = torch.randn(2, 4, b * n_shifts, width, generator=generator)
    found = torch.empty(2, b, 4, n_shifts, width)
    cpu.scores_of_products(products, basis, found)
    expected = torch.empty(found.shape, dtype=torch.float64)
    by_torch.scores_of_products(products.double(), exact, expected)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)

    likelihoods, scale = torch.rand(found.shape, generator=generator), torch.rand(b, generator=generator)
    chosen = torch.randperm(b * n_shifts, generator=generator)[:-1].sort().values
    results = []
    for kernels, dtype, of in ((cpu, torch.float32, basis), (by_torch, torch.float64, exact)):
        sums = torch.empty(2, 4, len(chosen), width, dtype=dtype)
        kernels.products_of_likelihoods(likelihoods.to(dtype), scale.to(dtype), chosen, of, sums)
        results.append(sums.double())
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)
    # ⟨scores of products, likelihoods⟩ = ⟨products, products of likelihoods⟩, over what was chosen.
    of_chosen = torch.zeros(b * n_shifts, dtype=torch.float64)
    of_chosen[chosen] = 1
    weights = (of_chosen.view(b, n_shifts) * scale[:, None])[None, :, None, :, None]
    left = float((expected * likelihoods * weights).sum())
    right = float((products.double()[:, :, chosen] * results[1]).sum())
    assert left == pytest.approx(right, rel=1e-9)
