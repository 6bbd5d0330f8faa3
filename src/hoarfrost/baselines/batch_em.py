"""Batch expectation–maximisation in the manner of RELION: all images an iteration, a Wiener-like regularised M-step.

    V̂(k) = B(k) / (H(k) + 1/τ²(|k|)),      τ² the power of the current map in each shell,
    σ²(s)  = the expected power of the residual Ĩ − S C P V in each shell, under the posteriors

Scheres (2012), J. Mol. Biol. 415, 406. An iteration costs one image gradient an image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.shells import nearest_shell, shell_means, shells_of_spectrum
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import marginalise_with_statistics
from hoarfrost.model.images import WhitenedImages

MINIBATCH = 100


@dataclass(frozen=True)
class EMState:
    """The map (box, box, box) and, for each coefficient of the disc, σ² as a multiple of what the images came with."""

    volume: Tensor
    noise_ratio: Tensor


def start(band: BandModel, volume: Tensor) -> EMState:
    """The state before the first iteration."""
    return EMState(volume, torch.ones(band.disc.size, dtype=torch.float64, device=band.device))


def iterate(band: BandModel, images: WhitenedImages, state: EMState, support: Tensor) -> EMState:
    """One E-step over all images and one M-step; the map stays zero outside `support`."""
    slices = band.operator.slices(state.volume)
    numerator, weight = torch.zeros_like(slices), torch.zeros_like(slices.real)
    power = torch.zeros(band.disc.size, dtype=torch.float64, device=band.device)
    for first in range(0, len(images), MINIBATCH):
        batch = rescale(images[first : first + MINIBATCH], state.noise_ratio, band)
        _, statistics = marginalise_with_statistics(batch, slices, band.poses)
        numerator += statistics.numerator
        weight += statistics.weight
        power += batch.data.abs().square().sum(dim=0, dtype=torch.float64)
    prior = prior_sums(band, state.volume)
    volume = band.operator.average(numerator, weight, lambda _: prior) * support
    residual = power + _residual_minus_power(numerator, weight, slices)
    expected = len(images) * band.disc.weights.to(band.device)
    ratio = _mean_over_shells(residual, band) / _mean_over_shells(expected, band)
    return EMState(volume, state.noise_ratio * ratio.clamp(min=1e-3))


def rescale(images: WhitenedImages, noise_ratio: Tensor, band: BandModel) -> WhitenedImages:
    """Images whitened for a noise variance `noise_ratio` (K,) times the one that they were whitened with."""
    root = noise_ratio.sqrt().to(images.ctf.dtype)
    data = images.data / root
    ctf = images.ctf / root
    before, after = (x.abs().square().sum(-1, dtype=torch.float64) for x in (images.data, data))
    log_noise = (band.disc.weights.to(band.device) * noise_ratio.log()).sum()
    return WhitenedImages(data, ctf, images.log_constant + before - after - log_noise)


def prior_sums(band: BandModel, volume: Tensor) -> Tensor:
    """N² / τ² as a sum on the operator's grid, to be added to Σ φ w: real (G, G, G).

    NLL has |V̂|²/N² times the density of weights, a frequency and its opposite together; the prior has |V̂|²/τ², with
    τ² the power of the current map in the shell.
    """
    power = shell_power(volume)
    shells = nearest_shell(band.operator.grid_radii()).clamp(max=len(power) - 1)
    sums = band.disc.box**2 * band.operator.sum_at_unit_density / power
    return sums[shells].to(volume.dtype)


def shell_power(volume: Tensor) -> Tensor:
    """The mean |V̂|² of each shell of a map (n, n, n), float64, none of them quite zero."""
    power = torch.fft.fftn(volume).abs().square().to(torch.float64)
    mean = shell_means(power, shells_of_spectrum(volume.shape[0], volume.device))
    return mean.clamp(min=1e-12 * float(power.max()) + 1e-30)


def _residual_minus_power(numerator: Tensor, weight: Tensor, slices: Tensor) -> Tensor:
    """Σ_ij γ (‖y − c P V‖² − ‖y‖²) at each coefficient, (K,) float64, up to permutations within a shell."""
    cross = (numerator.conj() * slices).real.sum(dim=0, dtype=torch.float64)
    return (weight * slices.abs().square()).sum(dim=0, dtype=torch.float64) - 2 * cross


def _mean_over_shells(values: Tensor, band: BandModel) -> Tensor:
    shells = band.disc.shells.to(values.device)
    return shell_means(values, shells)[shells]
