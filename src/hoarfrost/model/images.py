"""Images as the likelihood takes them: packed in the disc, divided by the noise, with their CTFs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rows import Rows


@dataclass(frozen=True)
class WhitenedImages(Rows):
    """Packed images divided by the noise: `data` y complex (b, K), `ctf` c real (b, K), `log_constant` (b,).

    `log_constant` is −‖y‖² − Σ weight · log(π σ²), the part of the log-likelihood that no pose changes; float64. DC is
    real, as that of any image: sums over poses pay no heed to an imaginary part there.
    """

    data: Tensor
    ctf: Tensor
    log_constant: Tensor

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def tempered(self, temperature: float) -> "WhitenedImages":
        """The images as if their noise had so many times its variance, so that all poses are more alike."""
        if temperature == 1:
            return self
        root = math.sqrt(temperature)
        return WhitenedImages(self.data / root, self.ctf / root, self.log_constant)

    def in_precision(self, dtype: torch.dtype) -> "WhitenedImages":
        """The same numbers as float32 or float64, and complex numbers of as many digits."""
        return WhitenedImages(self.data.to(dtype.to_complex()), self.ctf.to(dtype), self.log_constant)


def whiten(packed: Tensor, ctf: Tensor, noise_variance: Tensor, disc: FourierDisc) -> WhitenedImages:
    """Prepare packed images (b, K) with CTFs (b, K) and noise variance σ² per coefficient, (K,) or (b, K)."""
    weights = disc.weights.to(packed.device)
    scale = whitening_scale(noise_variance, disc)
    data = packed * scale
    log_noise = (weights * (math.pi * noise_variance).log()).sum(-1)
    log_constant = -data.abs().square().sum(-1, dtype=torch.float64) - log_noise
    dtype = packed.real.dtype
    return WhitenedImages(data.to(packed.dtype), (ctf * scale).to(dtype), log_constant.to(torch.float64))


def whitening_scale(noise_variance: Tensor, disc: FourierDisc) -> Tensor:
    """What coefficients of the disc are multiplied by, given their noise variance σ²: (…, K)."""
    return (disc.weights.to(noise_variance.device) / noise_variance).sqrt()
