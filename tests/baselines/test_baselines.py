"""The baselines against brute force, and on images whose truth is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hoarfrost.baselines import batch_em, projection_matching
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import marginalise_with_statistics
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.slices.operator import SliceOperator, apply_normal, transform_normal_kernel
from hoarfrost.reconstruction.estimate.m_step import conjugate_gradients
from hoarfrost.simulation.packed import white_noise

IMAGE_BOX, R_MAX = 32, 3.2


def make_band(shift_sigma_px: float = 0.0) -> BandModel:
    rotation = random_rotations(1, named_generator(0, "baselines"))[0]
    return BandModel(IMAGE_BOX, R_MAX, PosePrior(shift_sigma_px, 3 * shift_sigma_px), rotation)


def make_truth(band: BandModel) -> Tensor:
    generator = named_generator(1, "baselines")
    return torch.rand(band.box, band.box, band.box, generator=generator) * band.support(0.6)


def make_images(band: BandModel, truth: Tensor, n: int, noise: float, assumed: float | None = None) -> WhitenedImages:
    """Images at nodes of the quadrature, with noise of deviation `noise`, whitened for a deviation `assumed`."""
    generator = named_generator(2, "baselines")
    slices = band.operator.slices(truth)
    chosen = torch.randint(len(slices), (n,), generator=generator)
    ctf = 0.4 + 0.6 * torch.rand(n, 1, generator=generator).expand(-1, band.disc.size)
    images = slices[chosen] * ctf + noise * white_noise(n, band.disc, generator)
    deviation = noise if assumed is None else assumed
    return whiten(images, ctf, torch.full((band.disc.size,), deviation**2, dtype=torch.float64), band.disc)


def similarity(a: Tensor, b: Tensor) -> float:
    return float(fourier_shell_correlation(a, b)[1 : int(R_MAX) + 1].min())


def test_projection_matching_picks_the_pose_that_brute_force_picks() -> None:
    band = make_band(shift_sigma_px=3.0)
    truth = make_truth(band)
    images = make_images(band, truth, 6, noise=0.5)
    volume = torch.rand(truth.shape, generator=named_generator(3, "baselines")) * band.support(0.6)
    slices = band.operator.slices(volume)
    numerator, weight = torch.zeros_like(slices), torch.zeros_like(slices.real)
    projection_matching._assign(images, slices, band.poses, numerator, weight)

    phases = band.poses.conjugate_phases
    signs = torch.complex(torch.zeros(8, band.disc.size), band.poses.conjugate_sign)
    expected_numerator, expected_weight = torch.zeros_like(numerator), torch.zeros_like(weight)
    for y, c in zip(images.data, images.ctf, strict=True):
        best, found = -float("inf"), None
        for g in range(8):
            permutation, sign = band.poses.permutation[g], signs[g].imag
            power = c.square()[permutation]
            length = (power @ slices.abs().square().T).sqrt()
            for phase in phases:
                z = (c * y * phase)[permutation]
                z = torch.complex(z.real, z.imag * sign)
                correlation = (z.conj() * slices).real.sum(dim=1) / length
                if float(correlation.max()) > best:
                    best, found = float(correlation.max()), (int(correlation.argmax()), z, power)
        assert found is not None
        expected_numerator[found[0]] += found[1]
        expected_weight[found[0]] += found[2]
    torch.testing.assert_close(weight, expected_weight)
    torch.testing.assert_close(numerator, expected_numerator, rtol=1e-4, atol=1e-4)


def test_projection_matching_keeps_the_truth_once_it_has_it() -> None:
    band = make_band()
    truth = make_truth(band)
    images = make_images(band, truth, 2000, noise=0.3)
    found = projection_matching.iterate(band, images, truth, band.support(0.85))
    assert similarity(found, truth) > 0.93
    assert float(found.norm() / truth.norm()) == pytest.approx(1, abs=0.3)
    assert float(found[band.support(0.85) == 0].abs().max()) == 0


def test_batch_em_keeps_the_truth_once_it_has_it_and_finds_the_noise() -> None:
    band = make_band()
    truth = make_truth(band)
    # Whitened as if the noise had four times the variance that it has.
    images = make_images(band, truth, 2000, noise=0.3, assumed=0.6)
    state = batch_em.start(band, truth)
    for _ in range(4):
        state = batch_em.iterate(band, images, state, band.support(0.85))
    assert similarity(state.volume, truth) > 0.9
    torch.testing.assert_close(state.noise_ratio, torch.full_like(state.noise_ratio, 0.25), rtol=0.15, atol=0)


def test_images_rescaled_are_images_whitened_for_that_noise() -> None:
    band = make_band()
    truth = make_truth(band)
    ratio = 0.5 + torch.rand(band.disc.size, generator=named_generator(4, "baselines"), dtype=torch.float64)
    old = make_images(band, truth, 5, noise=1.0)
    packed = old.data / band.disc.weights.sqrt()
    new = whiten(packed, old.ctf / band.disc.weights.sqrt(), ratio, band.disc)
    rescaled = batch_em.rescale(old, ratio, band)
    torch.testing.assert_close(rescaled.data, new.data.to(torch.complex64))
    torch.testing.assert_close(rescaled.ctf, new.ctf.to(torch.float32))
    torch.testing.assert_close(rescaled.log_constant, new.log_constant, rtol=1e-5, atol=1e-3)


def test_the_m_step_of_batch_em_is_the_minimum_of_likelihood_and_prior() -> None:
    # Against conjugate gradients on the same quadratic, with white τ², for which the prior is diagonal in real space.
    band = make_band()
    truth = make_truth(band)
    images = make_images(band, truth, 30, noise=1.0)
    slices = band.operator.slices(truth)
    _, statistics = marginalise_with_statistics(images, slices, band.poses)
    power = 40.0
    sums = torch.full_like(
        band.operator.grid_radii(), band.disc.box**2 * band.operator.sum_at_unit_density / power, dtype=torch.float32
    )
    found = band.operator.average(statistics.numerator, statistics.weight, lambda _: sums)
    # The average takes in the whole box, which the band's own quadratic does not.
    operator = SliceOperator(band.disc, band.box, band.poses.orientations.base_rotations, kernel_width=3)
    linear, kernel = operator.adjoint_and_kernel(statistics.numerator, statistics.weight)
    spectrum = transform_normal_kernel(kernel)
    # ½ Σ |V̂|²/τ² over n³ coefficients is n³ |V|² / (2 τ²).
    ridge = band.box**3 / (2 * power)
    exact = conjugate_gradients(
        lambda v: apply_normal(spectrum, v) + ridge * v, linear, torch.zeros_like(linear), lambda v: v, iterations=300
    )
    fsc = fourier_shell_correlation(found, exact)[: int(R_MAX)]
    assert float(fsc.min()) > 0.97
    scale = float((found * exact).sum() / exact.square().sum())
    assert scale == pytest.approx(1, abs=0.25)  # an average over a window is not the solution itself


def test_the_prior_on_the_grid_follows_the_power_of_the_shells() -> None:
    band = make_band()
    volume = make_truth(band)
    sums, power = batch_em.prior_sums(band, volume), batch_em.shell_power(volume)
    origin = sums.shape[0] // 2
    steps = sums.shape[0] // band.box
    for shell in (0, 1, 3):
        found = float(sums[origin, origin + shell * steps, origin])
        assert found * float(power[shell]) == pytest.approx(IMAGE_BOX**2 * band.operator.sum_at_unit_density)


def test_the_power_of_a_shell_is_its_mean() -> None:
    volume = torch.randn(6, 6, 6, generator=named_generator(6, "baselines"), dtype=torch.float64)
    power = batch_em.shell_power(volume)
    assert float(power[0]) == pytest.approx(float(volume.sum()) ** 2)
    frequencies = torch.fft.fftfreq(6, 1 / 6)
    radius = torch.cartesian_prod(frequencies, frequencies, frequencies).norm(dim=1).round().reshape(6, 6, 6)
    spectrum = torch.fft.fftn(volume).abs().square()
    for shell in (1, 2):
        assert float(power[shell]) == pytest.approx(float(spectrum[radius == shell].mean()))
