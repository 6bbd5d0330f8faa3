"""Fits of defocus and aberrations, on images whose poses are known: they find what is there, and nothing else."""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.aberrations import Aberrations
from hoarfrost.model.ctf import CTFParameters, electron_wavelength_A, evaluate_ctf
from hoarfrost.model.few_poses.stretch import StretchQuadratics
from hoarfrost.model.few_poses.transfer import TransferEvidence
from hoarfrost.model.magnification import Magnification
from hoarfrost.reconstruction.optics.defocus import about, changes_A, fit_defocus, log_likelihood, posterior_mean_A
from hoarfrost.reconstruction.optics.even import EvenQuadratics, even_basis, fit_even
from hoarfrost.reconstruction.optics.fitted import FittedOptics
from hoarfrost.reconstruction.optics.odd import OddSums, fit_odd, odd_basis
from hoarfrost.reconstruction.optics.stretch import fit_stretch
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.phantom import make_phantom

BOX, PIXEL_A, FINEST_A = 48, 2.0, 5.0
N, MICROGRAPHS = 240, 12
DOUBLE = torch.float64
DISC = FourierDisc(BOX, BOX * PIXEL_A / FINEST_A)
FREQUENCIES = DISC.coordinates.to(DOUBLE) / (BOX * PIXEL_A)
EDGE_PER_A = DISC.r_max / (BOX * PIXEL_A)
MICROGRAPH = torch.arange(N) % MICROGRAPHS
HALF = torch.arange(N) // 2 % 2
ONE_GROUP = torch.zeros(N, dtype=torch.int64)


def normal(name: str, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=named_generator(7, name), dtype=DOUBLE)


def told() -> FittedOptics:
    """What a file tells of the particles."""
    defocus_A = 12000 + 2000 * normal("defocus", MICROGRAPHS)[MICROGRAPH]
    same = torch.ones(N, dtype=DOUBLE)
    ctf = CTFParameters(defocus_A + 200, defocus_A - 200, 35 * same, 300 * same, 2.7 * same, 0.1 * same, 0 * same)
    nothing = torch.zeros(1, 2, dtype=DOUBLE)
    even = Magnification(ONE_GROUP, torch.eye(2, dtype=DOUBLE)[None])
    return FittedOptics(ctf, Aberrations(ONE_GROUP, nothing, nothing[:, :0], nothing[:, :0]), even)


def transfer(optics: FittedOptics, turned_rad: float = 0.0) -> Tensor:
    phase = optics.aberrations.ctf_phase(torch.arange(N), FREQUENCIES) + turned_rad
    return evaluate_ctf(optics.ctf, FREQUENCIES, phase)


@lru_cache
def phantom_slices() -> Tensor:
    """P_R V of each particle, complex128 (N, K); flat, so that there is signal to the band limit."""
    formation = ImageFormation(make_phantom(BOX, seed=3, n_blobs=60), PIXEL_A, DISC)
    slices = formation.slices(random_rotations(N, named_generator(7, "poses")))
    return (slices / slices.abs().square().mean(dim=0).sqrt()).to(torch.complex128)


class Seen:
    """Images of a phantom recorded with optics `true`, as those who believe the `told` ones see them."""

    def __init__(self, true: FittedOptics, believed: FittedOptics, snr: float = 2.0) -> None:
        slices = phantom_slices()
        noise = torch.view_as_complex(normal("noise", N, DISC.size, 2)) / math.sqrt(2) / math.sqrt(snr)
        phase = true.aberrations.image_phase(torch.arange(N), true.ctf, FREQUENCIES)
        images = torch.polar(torch.ones_like(phase), phase) * transfer(true) * slices + noise
        believed_phase = believed.aberrations.image_phase(torch.arange(N), believed.ctf, FREQUENCIES)
        images = images * torch.polar(torch.ones_like(phase), -believed_phase)
        self._scale = math.sqrt(snr)
        self.images, self.slices = images * self._scale, slices
        self.ctf, self.slope = (transfer(believed, turned) * self._scale for turned in (0.0, math.pi / 2))
        self.evidence = TransferEvidence(self.images * slices.conj(), slices.abs().square())

    def log_likelihood(self, optics: FittedOptics) -> Tensor:
        """−‖y − c P V‖² of each image by other CTFs, from its definition: (n,)."""
        return -(self.images - self._scale * transfer(optics) * self.slices).abs().square().sum(dim=1)


def per_A() -> Tensor:
    return math.pi * electron_wavelength_A(told().ctf.voltage_kV) / (BOX * PIXEL_A) ** 2


def curves_of(seen: Seen, grid_A: Tensor) -> Tensor:
    return log_likelihood(seen.evidence, seen.ctf, seen.slope, DISC, per_A(), grid_A)


def test_the_curve_of_defocus_is_the_likelihood() -> None:
    seen, grid_A = Seen(told(), told()), torch.tensor([-400.0, 0.0, 150.0], dtype=DOUBLE)
    found = curves_of(seen, grid_A).sum(dim=1)
    at_zero = seen.log_likelihood(told())
    for column, change_A in enumerate(grid_A.tolist()):
        expected = seen.log_likelihood(told().with_defocus(torch.full((N,), change_A, dtype=DOUBLE))) - at_zero
        torch.testing.assert_close(found[:, column].to(DOUBLE), expected, rtol=1e-4, atol=1e-2)


def test_the_mean_of_defocus_is_that_of_its_normal_model() -> None:
    # With parabolas for curves the posterior is normal, and its mean known.
    grid_A = torch.arange(-1000.0, 1001.0, 10.0, dtype=DOUBLE)
    peak_A, error_A, micrograph = 300 * normal("peaks", 6), 40.0, torch.tensor([0, 0, 0, 1, 1, 2])
    curves = -((grid_A - peak_A[:, None]) ** 2) / (2 * error_A**2)
    between_A, within_A = 200.0, 100.0
    covariance = between_A**2 * (micrograph[:, None] == micrograph) + within_A**2 * torch.eye(6, dtype=DOUBLE)
    expected = covariance @ torch.linalg.solve(covariance + error_A**2 * torch.eye(6, dtype=DOUBLE), peak_A)
    found = posterior_mean_A(curves, grid_A, micrograph, between_A, within_A)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.5)


@pytest.mark.parametrize(("between_A", "within_A"), [(0.0, 200.0), (200.0, 0.0), (250.0, 100.0)])
def test_each_particles_defocus_is_found(between_A: float, within_A: float) -> None:
    change_A = between_A * normal("between", MICROGRAPHS)[MICROGRAPH] + within_A * normal("within", N)
    grid_A = changes_A(FINEST_A, told().ctf.voltage_kV)
    fit = fit_defocus(curves_of(Seen(told().with_defocus(change_A), told()), grid_A), grid_A, MICROGRAPH)
    assert fit.gain.is_sure
    left = (fit.change_A - change_A).square().mean().sqrt()
    assert float(left) < 0.15 * float(change_A.square().mean().sqrt())


def test_a_micrographs_defocus_is_known_better_than_that_of_each_particle() -> None:
    change_A = 200 * normal("between", MICROGRAPHS)[MICROGRAPH]
    grid_A = changes_A(FINEST_A, told().ctf.voltage_kV)
    curves = curves_of(Seen(told().with_defocus(change_A), told(), snr=0.05), grid_A)
    alone = posterior_mean_A(curves.sum(dim=1), grid_A, torch.arange(N), 200.0, 0.0)
    fit = fit_defocus(curves, grid_A, MICROGRAPH)
    assert float((fit.change_A - change_A).norm()) < 0.5 * float((alone - change_A).norm())


@pytest.mark.parametrize("snr", [0.02, 2.0])
def test_where_there_is_nothing_to_find_nothing_is_found(snr: float) -> None:
    seen, grid_A = Seen(told(), told(), snr), changes_A(FINEST_A, told().ctf.voltage_kV)
    assert not bool(fit_defocus(curves_of(seen, grid_A), grid_A, MICROGRAPH).change_A.any())
    quadratics = EvenQuadratics.of(seen.evidence, seen.ctf, seen.slope, even_basis(DISC))
    assert not bool(fit_even(quadratics, MICROGRAPH, ONE_GROUP, HALF).coefficients.any())
    assert not bool(fit_odd(sums_of(seen), 0, odd_basis(DISC), FINEST_A).coefficients.any())


def sums_of(seen: Seen) -> OddSums:
    sums = OddSums.none(1, DISC.size)
    for part in torch.arange(N).split(100):
        sums.add(seen.evidence[part], seen.ctf[part], ONE_GROUP[part], HALF[part])
    return sums


def nothing(size: int) -> Tensor:
    return torch.zeros(1, size, dtype=DOUBLE)


def test_beam_tilt_and_trefoil_are_found() -> None:
    true = told()
    odd = torch.tensor([[0.0, 0.0, -40.0, 0.0, 0.0, 60.0]], dtype=DOUBLE)
    tilt_mrad = torch.tensor([[0.8, -0.5]], dtype=DOUBLE)
    true = dataclasses.replace(
        true, aberrations=dataclasses.replace(true.aberrations, beam_tilt_mrad=tilt_mrad, odd=odd)
    )
    fit = fit_odd(sums_of(Seen(true, told())), 0, odd_basis(DISC), FINEST_A)
    assert fit.gain.is_sure
    found = told().with_aberrations(ONE_GROUP, fit.coefficients[None], nothing(5), EDGE_PER_A).aberrations
    torch.testing.assert_close(found.beam_tilt_mrad, tilt_mrad, rtol=0, atol=0.05)
    torch.testing.assert_close(found.odd[:, [2, 5]], odd[:, [2, 5]], rtol=0, atol=4.0)
    # What is left of a shift is the poses' to find.
    assert not bool(found.odd[:, [0, 1, 3, 4]].any())


def test_the_gain_of_an_odd_fit_is_of_particles_it_has_not_seen() -> None:
    seen = Seen(told(), told(), snr=0.02)
    fit = fit_odd(sums_of(seen), 0, odd_basis(DISC), FINEST_A)
    # Fitted to noise it is a loss for others, of about half a nat for each coefficient and half.
    assert -0.2 < fit.gain.mean < 0.02


@pytest.mark.parametrize("term", range(7))
def test_quadratics_are_the_likelihoods_expansion(term: int) -> None:
    seen = Seen(told(), told())
    basis = even_basis(DISC)
    quadratics = EvenQuadratics.of(seen.evidence, seen.ctf, seen.slope, basis)
    step = 1e-3

    def at(sign: float) -> Tensor:
        ctf = seen.ctf * torch.cos(sign * step * basis[term]) + seen.slope * torch.sin(sign * step * basis[term])
        return -(seen.images - ctf * seen.slices).abs().square().sum(dim=1)

    slope = (at(1.0) - at(-1.0)) / (2 * step)
    torch.testing.assert_close(quadratics.slope[:, term], slope, rtol=1e-3, atol=1e-2)
    bend = -(at(1.0) - 2 * at(0.0) + at(-1.0)).sum() / step**2
    # Gauss and Newton's, which is the mean over the noise.
    assert float(quadratics.curvature[:, term, term].sum()) == pytest.approx(float(bend), rel=0.05)


def test_astigmatism_and_even_aberrations_are_found() -> None:
    true = told().with_defocus(20 * normal("within", N))
    coefficients = torch.zeros(N, 7, dtype=DOUBLE)
    coefficients[:, :2] = 0.2 * normal("astigmatism", MICROGRAPHS, 2)[MICROGRAPH]
    of_group = torch.tensor([[0.3, 0.0, 0.0, -0.2, 0.1]], dtype=DOUBLE)
    true = true.with_astigmatism(coefficients, EDGE_PER_A).with_aberrations(ONE_GROUP, nothing(6), of_group, EDGE_PER_A)
    seen = Seen(true, told())
    quadratics = EvenQuadratics.of(seen.evidence, seen.ctf, seen.slope, even_basis(DISC))
    fit = fit_even(quadratics, MICROGRAPH, ONE_GROUP, HALF)
    assert fit.gain.is_sure
    torch.testing.assert_close(fit.coefficients[0, 2:], of_group[0], rtol=0, atol=0.08)
    torch.testing.assert_close(fit.coefficients[:, :2], coefficients[:, :2], rtol=0, atol=0.15)


def test_what_is_found_goes_into_ctfs_as_the_phase_it_is() -> None:
    coefficients = normal("coefficients", N, 7)
    coefficients[:, 2:] = coefficients[:1, 2:]
    after = told().with_astigmatism(coefficients, EDGE_PER_A)
    after = after.with_aberrations(ONE_GROUP, nothing(6), coefficients[:1, 2:], EDGE_PER_A)
    moved = coefficients @ even_basis(DISC)[1:]
    expected = evaluate_ctf(told().ctf, FREQUENCIES, moved)
    torch.testing.assert_close(transfer(after), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cs_mm", [0.0, 2.7])
def test_odd_coefficients_become_the_phase_that_they_are(cs_mm: float) -> None:
    before = told()
    before = dataclasses.replace(before, ctf=dataclasses.replace(before.ctf, cs_mm=cs_mm + 0 * before.ctf.cs_mm))
    coefficients = normal("odd", 1, 6)
    after = before.with_aberrations(ONE_GROUP, coefficients, nothing(5), EDGE_PER_A)
    found = after.aberrations.image_phase(torch.arange(N), after.ctf, FREQUENCIES)
    expected = coefficients[0, 2:] @ odd_basis(DISC)[2:]
    torch.testing.assert_close(found, expected.repeat(N, 1), rtol=0, atol=1e-9)


def test_fits_of_groups_are_added_to_what_each_particle_had() -> None:
    before = told()
    had = Aberrations(
        torch.arange(N) % 3,
        torch.tensor([[0.1, 0.0], [0.2, 0.0], [0.3, 0.1]], dtype=DOUBLE),
        normal("had", 3, 2),
        normal("had", 3, 0),
    )
    before = dataclasses.replace(before, aberrations=had)
    group = torch.arange(N) // (N // 2)
    fits = torch.tensor([[0.0] * 6, [0, 0, 0.1, 0, 0.2, 0]], dtype=DOUBLE)
    after = before.with_aberrations(group, fits, torch.zeros(2, 5, dtype=DOUBLE), EDGE_PER_A)
    everyone = torch.arange(N)
    added = after.aberrations.image_phase(everyone, after.ctf, FREQUENCIES) - had.image_phase(
        everyone, before.ctf, FREQUENCIES
    )
    expected = (fits[:, 2:] @ odd_basis(DISC)[2:])[group]
    torch.testing.assert_close(added, expected, rtol=0, atol=1e-9)


def test_a_fit_from_where_another_ended_is_one_from_what_was_told() -> None:
    change_A, first_A = 200 * normal("within", N), 150 * normal("first", N)
    grid_A = changes_A(FINEST_A, told().ctf.voltage_kV)
    true = told().with_defocus(change_A)
    from_told = fit_defocus(curves_of(Seen(true, told()), grid_A), grid_A, MICROGRAPH)
    seen = Seen(true, told().with_defocus(first_A))
    again = fit_defocus(about(curves_of(seen, grid_A), grid_A, first_A), grid_A, MICROGRAPH)
    assert again.gain.mean == pytest.approx(from_told.gain.mean, rel=0.05)
    left, before = (float((fit.change_A - change_A).norm()) for fit in (again, from_told))
    assert left < 1.1 * before


def test_without_astigmatism_defocus_stays_as_it_is_written() -> None:
    before = told()
    # The larger defocus last, as some programs write it.
    swapped = dataclasses.replace(before.ctf, defocus_u_A=before.ctf.defocus_v_A, defocus_v_A=before.ctf.defocus_u_A)
    before = dataclasses.replace(before, ctf=swapped)
    assert before.with_astigmatism(torch.zeros(N, 7, dtype=DOUBLE), EDGE_PER_A).ctf is swapped


def quadratics(true: Tensor, error: float) -> StretchQuadratics:
    """Of particles that are stretched by `true` (2,), each of which knows its own stretch to that error."""
    seen = true + error * normal("stretch", N, 2)
    curvature = (torch.eye(2, dtype=DOUBLE) / error**2).expand(N, 2, 2)
    return StretchQuadratics(seen / error**2, curvature)


def test_the_stretch_of_a_group_is_found() -> None:
    true = torch.tensor([0.012, -0.005], dtype=DOUBLE)
    fit = fit_stretch(quadratics(true, 0.02), HALF)
    assert fit.gain.is_sure
    # 240 of them know it to 0.0013, and the prior draws it in by a hundredth.
    torch.testing.assert_close(fit.stretch, true, rtol=0, atol=0.004)


def test_no_stretch_is_found_where_there_is_none() -> None:
    assert not bool(fit_stretch(quadratics(torch.zeros(2, dtype=DOUBLE), 0.02), HALF).stretch.any())
    assert not fit_stretch(StretchQuadratics.none(0), HALF[:0]).gain.is_sure
