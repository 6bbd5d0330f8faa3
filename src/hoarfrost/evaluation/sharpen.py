"""A map with the contrast of its fine detail restored: divided by the fall-off of its amplitudes (a B-factor).

Beyond about 10 Å the amplitudes of a protein are flat, so that in a Guinier plot what is left is a line,

    ln( F(s) C(s) ) = a − B s² / 4        C = √( 2 FSC / (1 + FSC) )

with s = 1/d, F the root mean square of the mean of the half maps in a shell, and C the expected correlation of that
mean with the truth. The sharpened map is the mean of the half maps times C exp(B s² / 4), up to the resolution
(Rosenthal & Henderson 2003, J. Mol. Biol. 333, 721).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.evaluation.half_maps import HalfMapFSC
from hoarfrost.maths.shells import filter_shells, shell_means, shells_of_half_spectrum

# The line is fitted from the first on to the resolution, which is to be as fine as the second at least: coarser shells
# show the shape of the molecule, and a few of them no line.
GUINIER_FROM_A, GUINIER_TO_A, LEAST_SHELLS = 10.0, 8.0, 5
# Shells over which the map fades beyond its resolution.
EDGE_SHELLS = 2


@dataclass(frozen=True)
class Guinier:
    """The line of a Guinier plot. By shell, (shells,) float64: `squared` s² in 1/Å², `log_amplitude` ln F, `weighted`.

    `weighted` is ln(F C); both are −∞ where nothing is left. `intercept` is a, `b_factor_A2` B.
    """

    squared: Tensor
    log_amplitude: Tensor
    weighted: Tensor
    intercept: float
    b_factor_A2: float


@dataclass(frozen=True)
class Sharpened:
    """A sharpened map (box, box, box) in the units of the half maps, and the line it was sharpened by."""

    volume: Tensor
    guinier: Guinier


def sharpen(first: Tensor, second: Tensor, halves: HalfMapFSC) -> Sharpened | None:
    """The map of two half maps (box, box, box), sharpened; None where detail is too coarse for that."""
    mean = ((first + second) / 2).to(torch.float64)
    length_A = halves.box * halves.pixel_size_A
    squared = (torch.arange(halves.box // 2 + 1, dtype=torch.float64) / length_A).square()
    fsc = halves.corrected.clamp(min=0)
    correlation = (2 * fsc / (1 + fsc)).sqrt()
    # The shell that the band limit goes through is not whole.
    last_whole_A = length_A / (halves.r_max - 0.5)
    guinier = fit_line(squared, _amplitudes(mean), correlation, max(halves.resolution_A, last_whole_A))
    if guinier is None:
        return None
    gain = correlation * torch.exp(guinier.b_factor_A2 * squared / 4) * _up_to(length_A / halves.resolution_A, squared)
    return Sharpened(filter_shells(mean, gain), guinier)


def fit_line(squared: Tensor, amplitude: Tensor, correlation: Tensor, resolution_A: float) -> Guinier | None:
    """The line through shells from 10 Å to the resolution, by least squares; None where that is not 8 Å or finer.

    `squared` s², `amplitude` F and `correlation` C are by shell, (shells,) float64.
    """
    weighted = (amplitude * correlation).log()
    fitted = (squared >= GUINIER_FROM_A**-2) & (squared <= resolution_A**-2) & weighted.isfinite()
    if resolution_A > GUINIER_TO_A or int(fitted.sum()) < LEAST_SHELLS:
        return None
    x, y = squared[fitted], weighted[fitted]
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    return Guinier(squared, amplitude.log(), weighted, float(y.mean()) - slope * float(x.mean()), -4 * slope)


def _amplitudes(volume: Tensor) -> Tensor:
    """The root mean square of the Fourier coefficients in shells 0 … box // 2."""
    box = volume.shape[-1]
    power = torch.fft.rfftn(volume).abs().square()
    return shell_means(power, shells_of_half_spectrum(box))[: box // 2 + 1].sqrt()


def _up_to(last: float, like: Tensor) -> Tensor:
    """Ones up to shell `last`, zeros a few shells beyond, and half a cosine in between."""
    beyond = ((torch.arange(len(like), dtype=like.dtype) - last) / EDGE_SHELLS).clamp(0, 1)
    return 0.5 * (1 + torch.cos(math.pi * beyond))
