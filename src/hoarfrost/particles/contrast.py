"""The sign of the contrast: whether particles are white or dark in their images, from their coarsest Fourier shells.

Density is positive. Averaged over orientations, density at a distance r from the centre of a particle adds sinc(2|k| r)
to its transform. Within a diameter D, r ≤ D/2, that is not negative up to |k| = 1/D. So for a particle of any shape

    E[ V̂(k) ] > 0                           for 0 < |k| ≤ 1/D.

Offsets and filters only weaken it. Beyond 1/D the sign depends on the shape (hollow particles turn negative first), and
a mask would mix that in, so images are not masked. White particles have on average, and dark ones have not,

    s = Σ C(k) Re Ĩ(k)  >  0                sum over 0 < |k| ≤ 1/D.

DC is left out, because normalisation decides it. The s of many images are judged by their ranks (Wilcoxon's signed-rank
test), which a few images of something else do not turn round. Where the result is not clear, the user is told, and
particles are taken for white, as most programs leave them. docs/mathematics.md has what was measured.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.options import ContrastChoice

ContrastName = Literal["white", "black"]
"""What particles are in their images."""

# Noise alone goes beyond this once in 16,000 times; particles read 9 to 19 from 500 images, also of a high-pass filter.
CLEAR_Z = 4.0
# Of normalised images, whose noise has a deviation of about 1 in a coefficient. Less is what rounding leaves after a
# filter that took these shells out, and depends on where in memory an image lies: it has been seen to give z = −4.5.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Contrast:
    """What the particles are taken for, `name`, and whether that was the user's choice.

    `z` is how surely the images show white particles, from `signed_rank_z`; below 0, dark ones. `has_signs`: the file
    told the sign of its images, by which they were multiplied before.
    """

    name: ContrastName
    z: float
    chosen: bool
    has_signs: bool = False

    @staticmethod
    def decide(choice: ContrastChoice, z: float, *, has_signs: bool = False) -> "Contrast":
        """The user's `choice`; if that is auto, what a clear `z` says, and white where it is not clear."""
        if choice == "auto":
            return Contrast("black" if z <= -CLEAR_Z else "white", z, chosen=False, has_signs=has_signs)
        return Contrast(choice, z, chosen=True, has_signs=has_signs)

    @property
    def sign(self) -> int:
        """What to multiply images by: 1, or −1 for dark particles."""
        return -1 if self.name == "black" else 1

    @property
    def is_clear(self) -> bool:
        """Whether the images tell."""
        return abs(self.z) >= CLEAR_Z

    @property
    def message(self) -> str | None:
        """One line to tell the user, None where particles are white and nobody doubts it."""
        seen = f"z = {self.z:.1f}"
        if not self.is_clear and self.has_signs and not self.chosen:
            return f"The particles are white on dark by the signs that the file tells; the images do not tell ({seen})"
        if not self.is_clear:
            if self.chosen:
                return f"Particles are taken for {_LOOKS[self.name]}, as asked for; the images do not tell ({seen})"
            return (
                f"The images do not tell whether particles are white on dark or dark on light ({seen}): they are taken "
                "for white. If the map looks hollow, try --contrast black"
            )
        if self.z * self.sign < 0:
            other = _LOOKS["white" if self.z > 0 else "black"]
            return f"Particles are taken for {_LOOKS[self.name]}, as asked for, but they look {other} ({seen})"
        if self.name == "black" and self.has_signs:
            return (
                f"By the signs that the file tells the particles would be dark on light ({seen}): the signs seem to be "
                "the wrong way round, and the images are inverted once more"
            )
        if self.name == "black":
            return f"The particles are dark on light ({seen}); the images are inverted"
        return None


_LOOKS = {"white": "white on dark", "black": "dark on light"}


def central_disc(box: int, diameter_px: float) -> FourierDisc:
    """The coefficients up to 1/D, the nearest to DC in any case, of images of `box` pixels; D = `diameter_px`."""
    # The diameter's last digits must not decide about a coefficient at 1/D.
    return FourierDisc(box, min(max(1.0, box / diameter_px + 1e-6), box / 2 - 0.51))


def central_signals(packed: Tensor, ctf: Tensor) -> Tensor:
    """s = Σ C(k) Re Ĩ(k) over all coefficients but DC, of images (b, K) with CTFs (b, K): (b,) float64.

    Zero where it is no more than rounding.
    """
    signals = (packed.real.to(torch.float64) * ctf)[:, 1:].sum(dim=1)
    return torch.where(signals.abs() < ROUNDING, 0.0, signals)


def signed_rank_z(values: Tensor) -> float:
    """Wilcoxon's signed-rank statistic of values (n,), in standard deviations: N(0, 1) where signs are random.

    z = Σ sign(s) rank|s| / √(n (n + 1)(2 n + 1) / 6); its size is at most √(¾ n), as one sign throughout gives it.
    −s gives −z, to the last bit.
    """
    n = len(values)
    ranks = torch.argsort(torch.argsort(values.abs(), stable=True)).to(torch.float64) + 1
    return float((values.sign() * ranks).sum()) / math.sqrt(n * (n + 1) * (2 * n + 1) / 6)
