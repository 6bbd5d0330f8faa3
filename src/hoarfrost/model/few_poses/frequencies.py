"""The frequencies of images' slices on a device, and what poses do there."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc


@dataclass(frozen=True)
class SliceFrequencies:
    """Frequencies k (K, 2) float32 of images of `box` pixels, whole numbers of Fourier pixels up to `r_max`."""

    k: Tensor
    box: int
    r_max: float

    @staticmethod
    def of(disc: FourierDisc, device: torch.device) -> "SliceFrequencies":
        """Those of a disc."""
        return SliceFrequencies(disc.coordinates.to(device, torch.float32), disc.box, disc.r_max)

    def points(self, rotations: Tensor) -> Tensor:
        """Where the slices at rotations (m, 3, 3) sample V̂: (m, K, 3), (x, y, z) in Fourier pixels."""
        return torch.einsum("kc,mcx->mkx", self.k, rotations[:, :2].to(torch.float32))

    def phases(self, shifts_px: Tensor) -> Tensor:
        """S_t(k) of shifts (m, 2): complex64 (m, K)."""
        angle = (shifts_px.to(torch.float32) @ self.k.T) * (-2 * math.pi / self.box)
        return torch.complex(angle.cos(), angle.sin())
