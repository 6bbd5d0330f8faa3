"""How fine a map is at each of its voxels, from the correlation of its half maps nearby, in bands of frequency.

With h₁ and h₂ the half maps, kept to a band about the frequency s, and a normal window w about a voxel,

    C(s, x) = w ∗ h₁ h₂ / √( w ∗ h₁²  w ∗ h₂² )

is the FSC of what is within the window. It is as wide as it takes for the same number of independent coefficients in
each band, so that noise alone has the same small correlation everywhere. The local resolution is where C falls below
0.143 for the first time, as the resolution of the whole map is where its FSC does.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.fft import next_fast_len
from torch import Tensor

from hoarfrost.evaluation.half_maps import FSC_THRESHOLD
from hoarfrost.io.mrc import read_volume
from hoarfrost.maths.fourier import fourier_resize, radius_grid, smoothed

FILE = "local_resolution.mrc"
"""Its name in the folder of a run, where mask.mrc tells the particle."""
# Band limits below this tell nothing that the FSC does not, as windows are as wide as the particle.
LEAST_R_MAX = 12.0
# Shells of the first band, below which any two halves agree, and the ratio of each band's frequency to the one before.
FIRST_SHELL, STEP = 4.0, 1.1
# Of its frequency, the width of a band; and of its wavelength, the standard deviation of the window. Noise has a
# correlation of 0.08 then.
BAND_WIDTH, WINDOW_LENGTHS = 0.2, 1.5
# Tenths of the particle that differ by no more are told as one.
EVEN = 1.02


def local_resolution(first: Tensor, second: Tensor, pixel_size_A: float, r_max: float) -> Tensor:
    """The resolution about each voxel of two half maps (n, n, n) that hold nothing beyond r_max: float32 in Å.

    No finer than r_max and no coarser than the first band. Raises ValueError where that is beyond r_max.
    """
    if r_max <= FIRST_SHELL:
        raise ValueError(f"half maps to r_max {r_max:g} hold no band beyond shell {FIRST_SHELL:g}")
    n = first.shape[-1]
    # Windows are wider than its voxels by far.
    m = min(n, _fast(2 * r_max))
    first, second = (fourier_resize(half.to(torch.float32), m) for half in (first, second))
    reached = torch.zeros(m, m, m)
    goes_on = torch.ones(m, m, m, dtype=torch.bool)
    before, at = torch.ones(m, m, m), FIRST_SHELL
    for shell in bands(r_max):
        coarse = local_correlation(first, second, shell)
        # What keeps the sums of a map changes its values.
        correlation = fourier_resize(coarse, m) * (m / len(coarse)) ** 3
        # Where the line between two bands crosses the threshold.
        share = ((before - FSC_THRESHOLD) / (before - correlation).clamp(min=1e-6)).clamp(0, 1)
        ends = goes_on & (correlation < FSC_THRESHOLD)
        reached = torch.where(ends, at + share * (shell - at), reached)
        goes_on &= ~ends
        before, at = correlation, shell
    reached[goes_on] = r_max  # where the last band ends
    # Lines between voxels: of what has steps an FFT would ring.
    offset = m // 2 - (n // 2) * m / n
    fine = ndimage.affine_transform(reached.numpy(), np.full(3, m / n), offset, (n, n, n), order=1, mode="nearest")
    return n * pixel_size_A / torch.from_numpy(fine)


@dataclass(frozen=True)
class Spread:
    """The resolution that a tenth of the particle's voxels exceed, and the one that nine tenths reach, in Å."""

    finest_A: float
    coarsest_A: float

    @property
    def is_even(self) -> bool:
        """Whether the two hardly differ."""
        return self.coarsest_A < EVEN * self.finest_A

    @property
    def short(self) -> str:
        """Like "6.0 to 7.0 Å"."""
        return f"{self.finest_A:.1f} Å" if self.is_even else f"{self.finest_A:.1f} to {self.coarsest_A:.1f} Å"

    def __str__(self) -> str:
        """Like "6.0 Å in the finest tenth of the particle, 7.0 Å in the coarsest"."""
        if self.is_even:
            return f"{self.finest_A:.1f} Å throughout the particle"
        return f"{self.finest_A:.1f} Å in the finest tenth of the particle, {self.coarsest_A:.1f} Å in the coarsest"


def spread_in(resolution_A: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]) -> Spread:
    """How the local resolution (n, n, n) differs where a mask of the particle, of the same shape, is over a half."""
    inside = resolution_A[mask > 0.5] if bool((mask > 0.5).any()) else resolution_A
    finest_A, coarsest_A = np.quantile(inside, [0.1, 0.9])
    return Spread(float(finest_A), float(coarsest_A))


def read_spread(folder: Path) -> Spread | None:
    """That of a run's map, None where there is no such file. Raises DataError for one that is no map."""
    if not ((folder / FILE).is_file() and (folder / "mask.mrc").is_file()):
        return None
    return spread_in(read_volume(folder / FILE)[0], read_volume(folder / "mask.mrc")[0])


def bands(r_max: float) -> list[float]:
    """The frequencies of the bands in Fourier pixels, in even ratios from the first to where the last ends at r_max."""
    last = max(r_max / (1 + BAND_WIDTH / 2), FIRST_SHELL)
    n = max(1, math.ceil(math.log(last / FIRST_SHELL) / math.log(STEP)))
    return [FIRST_SHELL * (last / FIRST_SHELL) ** (i / n) for i in range(n + 1)]


def local_correlation(first: Tensor, second: Tensor, shell: float) -> Tensor:
    """C(s, x) of two half maps (n, n, n) about the frequency `shell`, float32 on a grid that is fine enough for it.

    The grid (m, m, m) spans the same length; C is at most 1, and 0 where a map is empty.
    """
    n, width = first.shape[-1], BAND_WIDTH * shell
    # Products have twice the frequency.
    box = min(n, _fast(4 * (shell + width / 2) + 4))
    one, other = (_in_band(half, shell, width, box) for half in (first, second))
    sigma_voxels = WINDOW_LENGTHS * box / shell
    together, of_one, of_other = (smoothed(product, sigma_voxels) for product in (one * other, one**2, other**2))
    norm = (of_one.clamp(min=0) * of_other.clamp(min=0)).sqrt()
    least = 1e-6 * float(norm.max())
    return torch.where(norm > least, together / norm.clamp(min=max(least, 1e-30)), 0.0).clamp(-1, 1)


def _fast(least: float) -> int:
    """An even number of points that FFTs are fast of."""
    return 2 * int(next_fast_len(math.ceil(least / 2), real=True))


def _in_band(volume: Tensor, shell: float, width: float, box: int) -> Tensor:
    """What a map holds in a band, by half a period of a cosine, on a grid (box, box, box)."""
    small = fourier_resize(volume, box)
    radii = torch.fft.ifftshift(radius_grid(box, 3))[..., : box // 2 + 1]
    gain = torch.cos(((radii - shell) / width).clamp(-0.5, 0.5) * math.pi).to(torch.float32)
    kept: Tensor = torch.fft.irfftn(torch.fft.rfftn(small) * gain, s=small.shape)
    return kept
