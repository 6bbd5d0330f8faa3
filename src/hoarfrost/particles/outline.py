"""How wide particles are: the mean power of their images by distance from the middle.

Each image is divided by its CTF as far as noise allows, so that rings of the CTF do not widen the particle. Where the
neighbours of a crowded micrograph come in, the power rises again: the particle ends before that.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.model.ctf import CTFParameters, evaluate_ctf
from hoarfrost.particles.masked import untouched_radius_px
from hoarfrost.particles.preprocess import remove_dust
from hoarfrost.particles.stack import ParticleStack

MOST_IMAGES = 500
SMALLEST_BOX = 16
PIXELS_AT_ONCE = 1 << 20
# Fourier pixels: shells that hold a particle's outline and more of it than of the noise. Below the first, what the
# normalisation by the corners leaves differs from the middle to the corners.
OUTLINE_BAND = (2.0, 12.0)
# Added to C², where images are divided by their CTFs.
WIENER = 0.3
# Of the power that the brightest ring has more than the gap around the particle: the particle's last bright ring, and
# where it ends. Of five models in boxes of 1.1 to 2.3 times their width the end is 12 % below to 19 % above the width.
BRIGHT, EDGE = 0.2, 0.05
# Or, where that is more, so many standard errors of a ring's mean, and what noise hides then is made up for. Above the
# second share of the peak nothing is told.
CHANCES, UNCLEAR = 2.5, 0.25
# Of the gap's power, what the brightest ring has more in any case: less is within what uneven noise does.
LEAST_EXCESS = 0.1
# Of the half box: rings beyond are those that filters spread from one side of an image to the other.
OUTERMOST = 0.98
# Corners with less than this share of the outermost ring's power were filled by a program.
FILLED = 0.5


def measure_diameter_A(stack: ParticleStack) -> float | None:
    """The particles' width in Å from up to 500 images, evenly spread; None where they do not tell.

    They do not where a program has masked them. Images that cannot be used are passed over. Raises DataError where a
    file cannot be read.
    """
    if stack.box < SMALLEST_BOX:
        return None
    n = min(stack.n_images, MOST_IMAGES)
    rows = torch.linspace(0, stack.n_images - 1, n, dtype=torch.float64).round().long()
    outline = _Outline(stack.box, stack.pixel_size_A)
    for chunk in torch.split(rows, max(2, PIXELS_AT_ONCE // stack.box**2)):
        images = stack.read_unchecked(chunk)
        flat = images.flatten(1)
        usable = flat.isfinite().all(dim=1) & (flat.amin(dim=1) < flat.amax(dim=1))
        if not bool(usable.any()):
            continue
        if untouched_radius_px(images[usable]) is not None:
            return None
        outline.add(images[usable], stack.ctf[chunk[usable]])
    diameter_px = outline.diameter_px()
    return None if diameter_px is None else diameter_px * stack.pixel_size_A


class _Outline:
    """The mean power of band-passed images around their middle, in two halves that can be compared."""

    def __init__(self, box: int, pixel_size_A: float) -> None:
        low, high = OUTLINE_BAND
        self._box = box
        self._disc = FourierDisc(box, min(high, box / 2 - 1))
        self._frequencies_per_A = self._disc.coordinates / (box * pixel_size_A)
        self._kept = (self._disc.radii >= low).to(torch.float32)
        self._ring = radius_grid(box, 2).round().long().flatten()
        self._n_rings = int(OUTERMOST * box / 2)
        self._power = torch.zeros(2, box * box, dtype=torch.float64)
        self._count = [0, 0]

    def add(self, images: Tensor, ctf: CTFParameters) -> None:
        """Take note of images (b, box, box) with their CTFs."""
        clean = remove_dust(images)
        clean = clean - clean.mean(dim=(1, 2), keepdim=True)
        clean = clean / clean.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-12)
        c = evaluate_ctf(ctf, self._frequencies_per_A)
        filtered = self._disc.pack(clean) * (c / (c.square() + WIENER) * self._kept).to(torch.float32)
        power = self._disc.unpack(filtered).flatten(1).square()
        start = sum(self._count) % 2
        for half in (0, 1):
            part = power[(half - start) % 2 :: 2]
            self._power[half] += part.sum(dim=0, dtype=torch.float64)
            self._count[half] += len(part)

    def diameter_px(self) -> float | None:
        """The diameter in pixels, or None where the particles do not stand out from what chance does to the noise."""
        if min(self._count) == 0:
            return None
        size = torch.bincount(self._ring)
        means = [power / count for power, count in zip(self._power, self._count, strict=True)]
        halves = torch.stack([(torch.bincount(self._ring, mean) / size)[: self._n_rings] for mean in means]).numpy()
        chance = float(np.sqrt(np.mean((halves[0] - halves[1]) ** 2))) / 2
        corners = float(torch.stack(means)[:, self._ring >= self._box // 2].mean())
        return _end_of_particle(halves.mean(axis=0), corners, chance)


def _end_of_particle(power: npt.NDArray[np.float64], corners: float, chance: float) -> float | None:
    """Twice the radius at which the particle ends; `power` (rings,) is known to `chance`, one standard error."""
    smooth = np.convolve(np.pad(power, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    gap = float(smooth[len(smooth) // 2 :].min())
    if corners > FILLED * smooth[-1]:
        gap = min(gap, corners)
    excess = smooth - gap
    peak = float(excess.max())
    level = max(EDGE * peak, CHANCES * chance)
    if level > UNCLEAR * peak or not peak > LEAST_EXCESS * gap:
        return None
    # A hollow particle has a dip within; its last bright ring is its outermost wall.
    ring = int(np.flatnonzero(excess > max(BRIGHT * peak, level))[-1])
    while ring + 1 < len(excess) and level < excess[ring + 1] < excess[ring]:
        ring += 1
    if ring + 1 == len(excess) or excess[ring + 1] >= excess[ring]:
        return 2.0 * ring
    here, beyond = excess[ring], excess[ring + 1]
    hidden = (level - EDGE * peak) / peak
    return 2.0 * (ring + float((here - level) / (here - beyond))) * (1 + hidden)
