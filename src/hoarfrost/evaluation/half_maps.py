"""What two half maps tell of the resolution: their FSC as they are, within a mask, and without what the mask adds.

A mask leaves out the noise of the solvent. It also smears Fourier coefficients into each other, in both maps alike,
which looks like agreement. To measure that, the phases beyond some shell are replaced by random ones, in each map its
own, before the mask is put on. The FSC that is left there comes from the mask alone:

    FSC_corrected = (FSC_masked − FSC_random) / (1 − FSC_random)

Chen et al. (2013), Ultramicroscopy 135, 24. As in RELION, phases are random from the first shell where the FSC without
mask is below 0.8. The correction begins with that shell; RELION begins two shells later.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hoarfrost.evaluation.particle_mask import make_particle_mask
from hoarfrost.maths.fsc import fourier_shell_correlation, last_resolution_A, resolution_A
from hoarfrost.maths.shells import shells_of_half_spectrum

# The usual threshold for half maps of equal noise (Rosenthal & Henderson 2003).
FSC_THRESHOLD = 0.143
RANDOM_BELOW_FSC = 0.8
# One draw leaves the coarse shells, which have few coefficients, with a correction as noisy as they are.
N_DRAWS = 4
# The mask is drawn about what both halves surely show, and no finer than this.
MASK_FSC = 0.5
MASK_R_LOW = (3.0, 12.0)


@dataclass(frozen=True)
class HalfMapFSC:
    """FSC curves of two half maps in shells 0 … box // 2, each (box // 2 + 1,) float64, zero beyond the band limit.

    `unmasked`: the maps as they are. `masked`: both times `mask` (box, box, box). `randomised`: the same with random
    phases. `corrected`: `masked` without what the mask adds.
    """

    unmasked: Tensor
    masked: Tensor
    randomised: Tensor
    corrected: Tensor
    mask: Tensor
    pixel_size_A: float
    r_max: float

    @property
    def box(self) -> int:
        """Voxels along each side."""
        return self.mask.shape[-1]

    @property
    def band_limit_A(self) -> float:
        """The finest detail that the maps can hold, in Å."""
        return self.box * self.pixel_size_A / self.r_max

    def resolution_of_A(self, curve: Tensor) -> float:
        """Where one of the curves falls below 0.143, in Å, never finer than the band limit."""
        return max(resolution_A(curve, self.box, self.pixel_size_A, FSC_THRESHOLD), self.band_limit_A)

    @cached_property
    def unmasked_A(self) -> float:
        """Where `unmasked` falls below 0.143 for the last time, in Å, never finer than the band limit.

        The noise of the solvent hides what agrees in a valley of the spectrum. `corrected_A` is the first fall, so that
        a claim needs a curve in the mask without a gap.
        """
        found_A = last_resolution_A(self.unmasked, self.box, self.pixel_size_A, FSC_THRESHOLD)
        return max(found_A, self.band_limit_A)

    @cached_property
    def corrected_A(self) -> float:
        """Resolution of `corrected`, in Å."""
        return self.resolution_of_A(self.corrected)

    @property
    def resolution_A(self) -> float:
        """The coarser of `unmasked_A` and `corrected_A`: what can be claimed for the map as it is, not a part of it."""
        return max(self.unmasked_A, self.corrected_A)

    @property
    def is_reached(self) -> bool:
        """Whether the FSC falls below 0.143 within the band: else `resolution_A` is the band limit, and no claim."""
        return self.resolution_A > self.band_limit_A

    @property
    def is_from_unmasked(self) -> bool:
        """Whether `resolution_A` was read off the curve without mask."""
        return self.unmasked_A >= self.corrected_A


def compare_half_maps(
    first: Tensor, second: Tensor, pixel_size_A: float, r_max: float, generator: torch.Generator
) -> HalfMapFSC:
    """The FSC curves of two half maps (box, box, box) that hold nothing beyond r_max, in Fourier pixels.

    `generator` draws the random phases, on the CPU. Raises ValueError where the shapes differ or are not cubic.
    """
    shells = torch.arange(first.shape[-1] // 2 + 1)
    in_band = (shells <= r_max).to(torch.float64)
    unmasked = fourier_shell_correlation(first, second) * in_band
    mask = make_particle_mask((first + second) / 2, _first_below(unmasked, MASK_FSC, MASK_R_LOW))
    masked = fourier_shell_correlation(first, second, mask) * in_band
    random_from = _first_below(unmasked, RANDOM_BELOW_FSC, (1, r_max + 1))
    randomised = masked.clone()
    if random_from <= r_max:
        draws = [
            fourier_shell_correlation(
                randomise_phases(first, random_from, generator), randomise_phases(second, random_from, generator), mask
            )
            for _ in range(N_DRAWS)
        ]
        randomised = torch.stack(draws).mean(dim=0) * in_band
    corrected = correct_for_mask(masked, randomised, random_from)
    return HalfMapFSC(unmasked, masked, randomised, corrected, mask, pixel_size_A, r_max)


def correct_for_mask(masked: Tensor, randomised: Tensor, first_shell: float) -> Tensor:
    """(FSC_masked − FSC_random) / (1 − FSC_random) from `first_shell` on, not below zero; FSC_masked before.

    Both curves have shells 0, 1, …; where random phases already explain all agreement, none is left.
    """
    added = randomised.clamp(min=0)
    true = ((masked - added) / (1 - added).clamp(min=1e-9)).clamp(min=0)
    return torch.where(torch.arange(len(masked)) < first_shell, masked, true)


def randomise_phases(volume: Tensor, first_shell: float, generator: torch.Generator) -> Tensor:
    """A real volume (n, n, n) float64 with the amplitudes of `volume`, and from a shell on the phases of white noise.

    Shells are as in the FSC, round(|k|).
    """
    spectrum = torch.fft.rfftn(volume.cpu().to(torch.float64))
    # The phases of a real volume, so that the result is real too.
    noise = torch.fft.rfftn(torch.randn(volume.shape, generator=generator, dtype=torch.float64))
    random = torch.polar(spectrum.abs(), noise.angle())
    is_kept = shells_of_half_spectrum(volume.shape[-1]) < first_shell
    result: Tensor = torch.fft.irfftn(torch.where(is_kept, spectrum, random), s=volume.shape)
    return result


def _first_below(fsc: Tensor, threshold: float, bounds: tuple[float, float]) -> float:
    """The first shell after DC where the FSC is below `threshold`, within bounds; the upper one if there is none."""
    below = (fsc[1:] < threshold).nonzero()
    return bounds[1] if len(below) == 0 else min(max(float(below[0]) + 1, bounds[0]), bounds[1])
