"""The interpolation window of all non-uniform FFTs here, and its transform (β after Beatty 2005)."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# Entries of a window's table: its Bessel function would take most of the time, so it is looked up.
TABLE_SIZE = 61440  # a multiple of every width up to 6


@dataclass(frozen=True)
class KaiserBessel:
    """The interpolation window φ(u) = I₀(β √(1 − (2u/w)²)) / w of w grid steps, for an oversampled grid."""

    width: int
    oversampling: float
    chosen_beta: float | None = None

    @property
    def beta(self) -> float:
        """Shape parameter; unless chosen, that of least worst error for this width and oversampling (Beatty 2005)."""
        if self.chosen_beta is not None:
            return self.chosen_beta
        w, s = self.width, self.oversampling
        return math.pi * math.sqrt((w / s) ** 2 * (s - 0.5) ** 2 - 0.8)

    def __call__(self, offset: Tensor) -> Tensor:
        """φ at offsets in grid steps, zero outside ± w/2."""
        inside = (1 - (2 * offset / self.width) ** 2).clamp(min=0)
        values: Tensor = torch.special.i0(self.beta * inside.sqrt()) / self.width
        return values

    def slope(self, offset: Tensor) -> Tensor:
        """dφ/du at offsets within ± w/2: −4β u I₁(β s) / (w³ s), s = √(1 − (2u/w)²)."""
        root = (1 - (2 * offset / self.width) ** 2).clamp(min=1e-12).sqrt()
        slopes: Tensor = -4 * self.beta * offset * torch.special.i1(self.beta * root) / (self.width**3 * root)
        return slopes

    def transform(self, frequency: Tensor) -> Tensor:
        """∫ φ(u) exp(−2πi f u) du at f in cycles per grid step: sinh(√(β² − (π w f)²)) / √(…)."""
        argument = self.beta**2 - (math.pi * self.width * frequency) ** 2
        root = argument.abs().sqrt().clamp(min=1e-12)
        return torch.where(argument > 0, torch.sinh(root) / root, torch.sin(root) / root)


@lru_cache(maxsize=16)
def tabulate(window: KaiserBessel) -> tuple[Tensor, Tensor]:
    """The window and its derivative at its taps, by how far the first one is off: float64 (entries + 1, w) each.

    The nearest entry is off by 3e-5 of the window at most.
    """
    first = torch.linspace(0, 1, TABLE_SIZE // window.width + 1, dtype=torch.float64).unsqueeze(1) - window.width / 2
    offsets = first + torch.arange(window.width, dtype=torch.float64)
    return window(offsets), window.slope(offsets)


@dataclass(frozen=True)
class WindowedGrid:
    """A cubic grid that is summed under `window`: `side` points an axis, the origin at side // 2.

    `steps_per_pixel` is the number of grid steps in a Fourier pixel.
    """

    side: int
    steps_per_pixel: float
    window: KaiserBessel

    def holds(self, r_max: float) -> bool:
        """Whether no window about a frequency up to r_max reaches beyond the grid."""
        return r_max * self.steps_per_pixel + self.window.width / 2 + 1 <= self.side // 2
