"""Where in a map detail is signal: bands of its frequencies are let through where folds agree, held back where not.

The FSC of half maps tells how far each shell of a map is to be trusted, the same everywhere. A flexible arm or a
detergent belt is not what the core of a molecule is. With v₋ᵢ the map without fold i of n, kept to a band, v̄ their mean
and w a normal window,

    N(x) = w ∗ (n − 1) / n Σᵢ (v₋ᵢ − v̄)²        P(x) = w ∗ v̄²        ρ(x) = P / N − 1

are the noise of v̄ about x (the jackknife: Efron & Stein 1981, Ann. Statist. 9, 586), its power, and signal over noise.
The best linear estimate is ρ / (1 + ρ) of v̄ there (Wiener). It is taken in proportion to what the FSC grants the whole
band. ρ varies by chance, and is drawn to that of the whole band by as much as its variance is no more than that.
"""

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from hoarfrost.maths.fourier import radius_grid, smoothed
from hoarfrost.parallel.threads import wide

# The frequency below which a window is as wide as the particle, in Fourier pixels, and the ratio of each band's to the
# one before.
FIRST_SHELL, STEP = 8.0, 1.35
# The standard deviation of the window, in wavelengths, and that of log P / N of noise in it.
WINDOW_LENGTHS, CHANCE = 1.0, 0.1
# Grid points for each Fourier pixel of a band's end: squares have twice its frequency, and less than that is smoothed.
POINTS_PER_PIXEL = 2.5


def locally_weighted(without: Tensor, fsc: Tensor, particle: Tensor, r_max: float) -> Tensor:
    """Maps without each of their folds (n, box, box, box) with each band times its local gain, whose mean is one.

    `fsc` (shells,) is how far the maps' shells are trusted everywhere, to be applied apart. `particle` is of a map's
    shape, 1 where the particle is and 0 in the solvent.
    """
    box = without.shape[-1]
    with wide(box**3):
        spectra = [torch.fft.rfftn(volume) for volume in without]
        found = [spectrum.clone() for spectrum in spectra]
        for before, centre, after in local_bands(r_max):
            end = min(after, r_max)
            side = min(box, 2 * int(next_fast_len(math.ceil(POINTS_PER_PIXEL * end / 2), real=True)))
            passed = _passed(side, before, centre, after).to(without)
            rows = torch.fft.fftfreq(side, 1 / side, device=without.device).round().long() % box
            place = rows[:, None, None], rows[None, :, None], torch.arange(side // 2 + 1, device=without.device)
            parts = torch.stack([torch.fft.irfftn(s[place] * passed, s=(side,) * 3) for s in spectra])
            shells = torch.arange(len(fsc), device=fsc.device)
            of_shells = _hat(shells.double(), before, centre, after) * (shells <= r_max)
            gain = local_gain(parts, fsc, of_shells, _shrunk(particle, side), WINDOW_LENGTHS * side / centre)
            for total, part in zip(found, parts, strict=True):
                total[place] += torch.fft.rfftn(part * (gain - 1))
        return torch.stack([torch.fft.irfftn(total, s=without.shape[1:]) for total in found])


def local_bands(r_max: float) -> list[tuple[float, float, float]]:
    """The bands that have a local gain: the centre of the one before, its own, and that of the one after.

    In Fourier pixels. The last is at r_max; without one after it, whose centre is infinite then.
    """
    if r_max < FIRST_SHELL * STEP:
        return []
    n = round(math.log(r_max / FIRST_SHELL) / math.log(STEP))
    centres = [FIRST_SHELL * (r_max / FIRST_SHELL) ** (i / n) for i in range(n + 1)]
    return list(zip(centres[:-1], centres[1:], [*centres[2:], math.inf], strict=True))


def local_gain(parts: Tensor, fsc: Tensor, of_shells: Tensor, particle: Tensor, sigma_voxels: float) -> Tensor:
    """The gain of what maps without each fold hold in one band, (n, side, side, side): real (side, side, side).

    `of_shells` (shells,) are the band's weights of the shells of `fsc`.
    """
    n, mean = len(parts), parts.mean(dim=0)
    noise = smoothed((parts - mean).square().sum(dim=0) * ((n - 1) / n), sigma_voxels)
    power = smoothed(mean.square(), sigma_voxels)
    inside = particle > 0.5
    trusted = fsc.clamp(0, 1)
    whole = float((trusted * of_shells).sum() / of_shells.sum())
    total = float(power[inside].sum() / noise[inside].sum().clamp(min=1e-30))
    if not (total > 1 and 0 < whole < 1):
        return torch.ones_like(mean)
    log_ratio = (power / noise.clamp(min=1e-6 * float(noise[inside].mean()))).clamp(min=1).log()
    by_chance = min(1.0, CHANCE**2 / max(float(log_ratio[inside].var()), 1e-12))
    log_ratio = by_chance * math.log(total) + (1 - by_chance) * log_ratio
    # Signal over noise, in proportion to what the FSC tells of the whole.
    ratio = torch.expm1(log_ratio) * (whole / (1 - whole) / (total - 1))
    most = 1 / float(trusted[of_shells > 0].max())
    return (ratio / (1 + ratio) / whole).clamp(max=most)


def _hat(radii: Tensor, before: float, centre: float, after: float) -> Tensor:
    """1 at the centre of a band and 0 at those of its neighbours, linear in log |k|; bands add up to one."""
    place = radii.clamp(min=1e-6).log()
    rise = (place - math.log(before)) / math.log(centre / before)
    fall = torch.ones_like(rise) if math.isinf(after) else (math.log(after) - place) / math.log(after / centre)
    return torch.minimum(rise, fall).clamp(0, 1)


def _passed(side: int, before: float, centre: float, after: float) -> Tensor:
    """The band's weights of a half spectrum on a grid of `side` points an axis."""
    radii = torch.fft.ifftshift(radius_grid(side, 3))[..., : side // 2 + 1]
    return _hat(radii, before, centre, after)


def _shrunk(particle: Tensor, side: int) -> Tensor:
    return torch.nn.functional.interpolate(particle[None, None], size=(side,) * 3, mode="nearest")[0, 0]
