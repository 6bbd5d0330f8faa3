"""Beam tilt and Zernike polynomials: known forms, and what they amount to."""

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.aberrations import Aberrations, zernike
from hoarfrost.model.ctf import CTFParameters, electron_wavelength_A, evaluate_ctf

DOUBLE = torch.float64


def frequencies(n: int = 200) -> Tensor:
    return (torch.rand(n, 2, generator=named_generator(0, "frequencies"), dtype=DOUBLE) - 0.5) * 0.5


def ctf(n: int = 2) -> CTFParameters:
    def each(value: float) -> Tensor:
        return torch.full((n,), value, dtype=DOUBLE)

    return CTFParameters(*map(each, (14000.0, 13000.0, 30.0, 300.0, 2.7, 0.1, 0.0)))


def aberrations(**told: list[float]) -> Aberrations:
    """Of two groups, of which the second has what is told."""
    found = {"beam_tilt_mrad": [0.0, 0.0], "odd": [], "even": []} | told
    rows = {name: torch.tensor([[0.0] * len(row), row], dtype=DOUBLE).view(2, -1) for name, row in found.items()}
    return Aberrations(torch.tensor([1, 0]), **rows)


def test_polynomials_have_their_known_forms() -> None:
    k = frequencies()
    x, y = k.unbind(1)
    r2 = x**2 + y**2
    for (n, m), expected in {
        (0, 0): torch.ones_like(x),
        (1, 1): x,
        (1, -1): y,
        (2, 0): 2 * r2 - 1,
        (2, 2): x**2 - y**2,
        (2, -2): 2 * x * y,
        (3, 1): (3 * r2 - 2) * x,
        (3, 3): x**3 - 3 * x * y**2,
        (3, -3): 3 * x**2 * y - y**3,
        (4, 0): 6 * r2**2 - 6 * r2 + 1,
    }.items():
        torch.testing.assert_close(zernike(n, m, k), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", range(7))
def test_polynomials_of_one_disc_are_orthogonal(n: int) -> None:
    axis = torch.linspace(-1, 1, 401, dtype=DOUBLE)
    k = torch.cartesian_prod(axis, axis)
    k = k[k.norm(dim=1) <= 1]
    rows = torch.stack([zernike(n, m, k) for m in range(-n, n + 1, 2)] + [zernike(n + 2, n % 2, k)])
    product = rows @ rows.T / len(k)
    assert float((product - torch.diag(product.diagonal())).abs().max()) < 0.01


def test_the_tilt_of_a_beam_is_coma_and_a_shift() -> None:
    k, particles = frequencies(), torch.tensor([0, 1])
    tilted = aberrations(beam_tilt_mrad=[1.5, -0.4]).image_phase(particles, ctf(), k)
    strength = 2 * math.pi * 2.7e7 * float(electron_wavelength_A(torch.tensor(300.0))) ** 2 * 1e-3 / 3
    # ρ³ cos φ = (Z₃¹ + 2 Z₁¹) / 3; coefficients in the order Z₁⁻¹, Z₁¹, Z₃⁻³, Z₃⁻¹, Z₃¹.
    x, y = -1.5 * strength, 0.4 * strength
    same = aberrations(odd=[2 * y, 2 * x, 0.0, y, x]).image_phase(particles, ctf(), k)
    torch.testing.assert_close(tilted, same, rtol=0, atol=1e-4)
    assert not bool(tilted[1].any())
    assert float(tilted[0].abs().max()) > 1


def test_a_round_even_polynomial_is_defocus_and_a_phase_shift() -> None:
    k, particles, c = frequencies(), torch.tensor([0, 1]), 30.0
    found = evaluate_ctf(ctf(), k, aberrations(even=[0.0, 0.0, c]).ctf_phase(particles, k))
    wavelength_A = float(electron_wavelength_A(torch.tensor(300.0, dtype=DOUBLE)))
    less_A = 2 * c / (math.pi * wavelength_A)
    columns = vars(ctf())
    moved = CTFParameters(**columns | {
        "defocus_u_A": columns["defocus_u_A"] - less_A,
        "defocus_v_A": columns["defocus_v_A"] - less_A,
        "phase_shift_deg": columns["phase_shift_deg"] + math.degrees(c),
    })  # fmt: skip
    torch.testing.assert_close(found[0], evaluate_ctf(moved, k)[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(found[1], evaluate_ctf(ctf(), k)[1])


def test_without_any_nothing_is_asked_for() -> None:
    none = aberrations()
    assert not none.has_odd
    assert not none.has_even
    assert not bool(none.image_phase(torch.tensor([0, 1]), ctf(), frequencies()).any())
