"""Images that a program has masked already: how far out they are as recorded, and what noise they have.

Outside a circle such an image has one value, mostly zero. What is left around the particle is then too narrow for a
spectrum of the background, so the noise is told from the signal by the CTF. In a shell, over images and coefficients,

    E |Ĩ|² = C² S + σ²

S is the power of the particles. Where C² hardly varies, at the coarsest detail, σ² is taken from the shells beyond.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.fourier import radius_grid

# Of a ring's pixels, so many have the value of the image's corner where it is masked.
MASKED_SHARE = 0.999
# Corners that begin further out, in half box sides, are of no concern.
FARTHEST = 1.2
# A mask's soft edge is taken to be so wide at most, in box sides; it begins where it has taken a fifth of the power.
WIDEST_EDGE, LEAST_POWER = 0.12, 0.8
# Of C² in a shell, the deviation over its mean square that tells noise from signal.
LEAST_SPREAD = 0.5


def untouched_radius_px(images: Tensor) -> float | None:
    """Up to where images (b, box, box) that were masked about their middle are as recorded; None where none were.

    Pixels are compared with the corner's: exactly, as noise never repeats. The soft edge of the mask does not count.
    """
    box = images.shape[-1]
    ring = radius_grid(box, 2).round().long().flatten()
    size = torch.bincount(ring).to(torch.float64)
    apart = (images - images[:, :1, :1]).to(torch.float64).flatten(1)
    is_masked = torch.bincount(ring, (apart == 0).to(torch.float64).mean(dim=0)) / size >= MASKED_SHARE
    if bool(is_masked.all()) or not bool(is_masked[-1]):
        return None
    last = int((~is_masked).nonzero()[-1])
    if last > FARTHEST * box / 2:
        return None
    power = torch.bincount(ring, apart.square().mean(dim=0)) / size
    before = max(last - round(WIDEST_EDGE * box), 0)
    return float(before + int((power[before : last + 1] >= LEAST_POWER * power[before]).nonzero()[-1]))


def common_radius_px(radii_px: Sequence[float | None]) -> float | None:
    """The least of `untouched_radius_px` of several sets of images, or None unless all of them are masked."""
    masked = [radius for radius in radii_px if radius is not None]
    return min(masked) if len(masked) == len(radii_px) > 0 else None


def told_of_mask(untouched_A: float) -> str:
    """What the user is told of a mask that leaves images as recorded within a circle of that diameter."""
    return (
        f"A program has masked the images: outside a circle of {untouched_A:.0f} Å they have one value. The noise is "
        "told from the particles by their CTFs; particles that are not masked would do better"
    )


def power_moments(power: Tensor, ctf: Tensor, shells: Tensor, n_shells: int) -> Tensor:
    """Means by shell of C², |Ĩ|², C⁴ and C²|Ĩ|² over images and coefficients: (4, n_shells) float64.

    Of images with `power` |Ĩ|² and `ctf`, (b, K) each, whose coefficients are in `shells` (K,).
    """
    x, y = ctf.to(torch.float64).square(), power.to(torch.float64)
    each = torch.stack([column.mean(dim=0) for column in (x, y, x.square(), x * y)])
    sums = torch.zeros(len(each), n_shells, dtype=torch.float64).index_add_(1, shells, each)
    means: Tensor = sums / torch.bincount(shells, minlength=n_shells).clamp(min=1)
    return means


def noise_beside_signal(moments: Tensor, first_usable: int) -> Tensor:
    """σ² by shell, (n_shells,) float64, from `power_moments`: a straight line through power against C².

    Only shells from `first_usable` on in which C² varies tell; those between have values between, those before and
    beyond that of the nearest. Where none tells all power counts as noise.
    """
    x, y, xx, xy = moments.unbind()
    variance = (xx - x.square()).clamp(min=0)
    signal = ((xy - x * y) / variance.clamp(min=1e-12)).clamp(min=0)
    noise = y - signal * x
    told = (variance.sqrt() > LEAST_SPREAD * x) & (noise > 0) & (torch.arange(len(x)) >= first_usable)
    if not bool(told.any()):
        return y
    known = told.nonzero().squeeze(1).numpy()
    filled = np.interp(np.arange(len(x)), known, noise.numpy()[known])
    return torch.from_numpy(filled).minimum(y)
