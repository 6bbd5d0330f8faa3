"""The noise of simulated images: white, or with the spectrum of the background of real ones.

White noise w of deviation 1 a pixel is filtered in Fourier space,

    ñ(k) = √S(|k|) · w̃(k)          mean of S over all N² coefficients = 1,

so that the mean variance of a pixel stays 1. S depends on the frequency relative to Nyquist, whatever the pixel size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hoarfrost.errors import DataError
from hoarfrost.maths.fourier import radius_grid
from hoarfrost.maths.seeds import named_generator
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack

SMALLEST_BOX = 16
DIAMETER = 0.85  # of the box, beyond which there is background, as by default in reconstruct


@dataclass(frozen=True)
class NoiseSpectrum:
    """σ²(|k|) at frequencies relative to Nyquist, in ascending order: both (m,) float64."""

    of_nyquist: Tensor
    variance: Tensor


def read_noise_spectrum(path: str | Path, seed: int) -> NoiseSpectrum:
    """The spectrum of the background of up to 500 particles of a STAR file, a value a shell of their box.

    Raises DataError where the particles cannot be read, or their background is empty.
    """
    stack = ParticleStack.open(path)
    if stack.box < SMALLEST_BOX:
        raise DataError(path, expected=f"a box of {SMALLEST_BOX} pixels or more", found=f"{stack.box}")
    preprocessor = Preprocessor(stack.box, DIAMETER * stack.box, 0.0)
    generator = named_generator(seed, "noise-from")
    source = ParticleSource(stack, preprocessor, torch.arange(stack.n_images), generator)
    if source.preprocessor.untouched_px is not None:
        raise DataError(path, expected="images with noise around the particle", found="images that are masked")
    spectrum = source.noise_spectrum
    return NoiseSpectrum(2 * torch.arange(len(spectrum), dtype=torch.float64) / stack.box, spectrum)


class NoiseFilter:
    """Gives white noise of images of `box` pixels, even, a spectrum up to a factor.

    `power` is S in the layout of `torch.fft.rfft2`: (box, box // 2 + 1) float64. It is linear between the spectrum's
    frequencies, and constant beyond the last.
    """

    def __init__(self, spectrum: NoiseSpectrum, box: int) -> None:
        of_nyquist = torch.fft.ifftshift(radius_grid(box, 2)) / (box / 2)
        known, variance = spectrum.of_nyquist.numpy(), spectrum.variance.numpy()
        power = torch.from_numpy(np.interp(of_nyquist.numpy(), known, variance))
        self.power = (power / power.mean())[:, : box // 2 + 1]

    def __call__(self, white: Tensor) -> Tensor:
        """Images float32 (b, box, box) of white noise, filtered."""
        spectrum = torch.fft.rfft2(white) * self.power.sqrt().to(torch.float32)
        images: Tensor = torch.fft.irfft2(spectrum, s=white.shape[-2:])
        return images
