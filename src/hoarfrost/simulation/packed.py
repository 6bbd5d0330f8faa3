"""Images simulated straight into a packed Fourier disc, where the stack is not needed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.parameters import draw_poses

IMAGES_FOR_SCALE = 1000
IMAGES_PER_CHUNK = 2000


@dataclass(frozen=True)
class PackedParticles:
    """Packed images complex64 (n, K) with white noise of variance 1, and what they were made of.

    `ctf` real (n, K); `scale` multiplies the volume to reach the SNR; `rotations` (n, 3, 3) float64.
    """

    images: Tensor
    ctf: Tensor
    scale: float
    rotations: Tensor


def simulate_packed(
    volume: Tensor, pixel_size_A: float, disc: FourierDisc, ctf: CTFParameters, snr: float, seed: int
) -> PackedParticles:
    """As many images of a volume (N, N, N) as there are CTFs, at uniform orientations and without shifts.

    The SNR is that of `simulate`: var(CTF-modulated projection over the box) / var(noise), with noise of deviation 1.
    """
    n = len(ctf.defocus_u_A)
    rotations, shifts_A = draw_poses(n, 0.0, seed)
    formation = ImageFormation(volume, pixel_size_A)
    first = slice(0, min(n, IMAGES_FOR_SCALE))
    variance = formation.variance(formation.packed(rotations[first], shifts_A[first], ctf[first])).mean()
    scale = float((snr / variance).sqrt())
    in_disc = ImageFormation(volume, pixel_size_A, disc)
    transfer = in_disc.transfer(ctf)
    noise = named_generator(seed, "noise")
    parts = []
    for first_row in range(0, n, IMAGES_PER_CHUNK):
        chunk = slice(first_row, first_row + IMAGES_PER_CHUNK)
        slices = in_disc.slices(rotations[chunk]) * scale
        parts.append(slices * transfer[chunk].to(torch.float32) + white_noise(len(slices), disc, noise))
    return PackedParticles(torch.cat(parts), transfer.to(torch.float32), scale, rotations)


def white_noise(n: int, disc: FourierDisc, generator: torch.Generator) -> Tensor:
    """Packed white noise of deviation 1 a pixel: complex64 (n, K) of variance 1, DC real."""
    real, imaginary = torch.randn(2, n, disc.size, generator=generator)
    noise = torch.complex(real, imaginary) / 2**0.5
    noise[:, 0] = real[:, 0].to(noise.dtype)
    return noise
