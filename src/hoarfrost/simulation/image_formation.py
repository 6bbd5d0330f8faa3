"""From a volume to particle images: the forward model, without noise.

    Ĩ(k) = exp(−2πi k·t / N) · C_θ(k) · V̂( Rᵀ (kx, ky, 0) ) / N          |k| < N / 2

with t in pixels, moving the particle by +t. Images are periodic.
"""

import math

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.ctf import CTFParameters, evaluate_ctf
from hoarfrost.nufft.sampler import SpectrumSampler


class ImageFormation:
    """Makes noiseless images, (N, N), of a volume of N³ voxels of `pixel_size_A`; its transform is taken once.

    The disc of coefficients, unless given, goes up to Nyquist, exclusive. Memory is that of two volumes of twice the
    box. Accurate to 1e-4 of the slices' root mean square.
    """

    def __init__(self, volume: Tensor, pixel_size_A: float, disc: FourierDisc | None = None) -> None:
        self.box = volume.shape[-1]
        self.disc = FourierDisc(self.box, self.box / 2 - 1e-3) if disc is None else disc
        self._sampler = SpectrumSampler(volume.to(torch.float32).unsqueeze(0), width=5)
        self._plane = self.disc.coordinates.to(torch.float64)
        self._pixel_size_A = pixel_size_A

    def slices(self, rotations: Tensor) -> Tensor:
        """P_R V for rotations (n, 3, 3), reference → image frame: complex64 (n, K)."""
        points = torch.einsum("kc,ncx->nkx", self._plane, rotations.to(torch.float64)[:, :2, :])
        values = self._sampler(points.reshape(-1, 3)) / self.box
        return values.reshape(len(rotations), self.disc.size)

    def packed(self, rotations: Tensor, shifts_A: Tensor, ctf: CTFParameters) -> Tensor:
        """S_t C P_R V of n poses and CTFs, the shifts (n, 2) in Å: complex64 (n, K), packed as in `disc`."""
        length_A = self.box * self._pixel_size_A
        angle = (-2 * math.pi / length_A) * (shifts_A.to(torch.float64) @ self._plane.T)
        factor = self.transfer(ctf) * torch.polar(torch.ones_like(angle), angle)
        return self.slices(rotations) * factor.to(torch.complex64)

    def transfer(self, ctf: CTFParameters) -> Tensor:
        """C of n CTFs, real: float64 (n, K)."""
        return evaluate_ctf(ctf, self._plane / (self.box * self._pixel_size_A))

    def images(self, rotations: Tensor, shifts_A: Tensor, ctf: CTFParameters) -> Tensor:
        """The same as real images: float32 (n, N, N)."""
        return self.disc.unpack(self.packed(rotations, shifts_A, ctf))

    def variance(self, packed: Tensor) -> Tensor:
        """Variance of each image over its whole box, (n,) float64, by Parseval."""
        return 2 * packed[:, 1:].abs().square().sum(-1, dtype=torch.float64) / self.box**2
