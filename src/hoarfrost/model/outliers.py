"""Images of something else than the map: the likelihood of a signal of which only the spectrum is known.

Other objects have power where particles have it, and fit no projection of the map. Their signal s is taken for random,

    Ĩ(k) = C(k) s(k) + noise        s(k) ~ complex normal of mean m(|k|) and variance S(|k|)

with y, c and the weight w of a coefficient as in `model.all_poses.marginal`, and a the share of noise that a mask
leaves,

    log p(Ĩ | other) − log p(Ĩ | 0) = Σ_k |y|² − |y − c m|² / (1 + x) − a w log(1 + x)        x = c² S / (a w)

A mask makes neighbouring coefficients alike: of K of them a K are independent, which is what a stands for here.
m and S are found from sums over images by shell, to first order in x, where it is the maximum of the likelihood.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.images import WhitenedImages

N_MOMENTS = 5


def n_shells(disc: FourierDisc) -> int:
    """Shells of width 1 about whole numbers that the disc reaches."""
    return int(disc.shells[-1]) + 1


def moments(images: WhitenedImages, disc: FourierDisc, share: Tensor, mask_power: float) -> Tensor:
    """The sums by shell that a spectrum is found from, image i counting `share` (b,): (5, shells) float64."""
    y, c = images.data, images.ctf
    noise = (mask_power * disc.weights).to(c)
    real, power = y.real, c.square()
    columns = (
        c * real,
        power,
        power * (y.abs().square() - noise),
        power.square(),
        power * c * real,
    )
    each = torch.stack([share.to(torch.float64) @ column.to(torch.float64) for column in columns])
    sums = torch.zeros(N_MOMENTS, n_shells(disc), dtype=torch.float64, device=each.device)
    return sums.index_add_(1, disc.shells.to(each.device), each).cpu()


@dataclass(frozen=True)
class Outliers:
    """The spectrum of other objects: `mean` m and `variance` S by shell, (shells,) float64."""

    mean: Tensor
    variance: Tensor

    @staticmethod
    def of(sums: Tensor) -> "Outliers":
        """From `moments` (5, shells), of some images at least."""
        cy, c2, c2y2, c4, c3y = sums
        mean = cy / c2
        variance = (c2y2 - 2 * mean * c3y + mean.square() * c4) / c4
        return Outliers(mean.nan_to_num(), variance.nan_to_num().clamp(min=0))

    def extended(self, other: "Outliers") -> "Outliers":
        """With the shells of another spectrum beyond the last of this one."""
        n = len(self.mean)
        return Outliers(torch.cat([self.mean, other.mean[n:]]), torch.cat([self.variance, other.variance[n:]]))

    def log_ratio(self, images: WhitenedImages, disc: FourierDisc, mask_power: float) -> Tensor:
        """log p(Ĩ | other) − log p(Ĩ | 0), (b,) float64; the spectrum is to have all shells of the disc."""
        y, c = images.data, images.ctf
        shell = disc.shells
        mean, variance = self.mean[shell].to(c), self.variance[shell].to(c)
        noise = (mask_power * disc.weights).to(c)
        excess = c.square() * variance / noise
        misfit = (y - c * mean).abs().square() / (1 + excess)
        return (y.abs().square() - misfit - noise * excess.log1p()).to(torch.float64).sum(dim=1)
