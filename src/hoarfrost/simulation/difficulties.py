"""What makes simulated particles as difficult as real ones: mixtures, uneven signal, preferred views, junk.

Each is drawn from a generator of its own, so that none disturbs the other choices of the same seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.maths.seeds import named_generator
from hoarfrost.simulation.options import Difficulties

SMALLEST_SCALE, LARGEST_SCALE = 0.2, 2.0
SHARES_TOLERANCE = 0.01


def check_shares(shares: Sequence[float] | None, n_structures: int) -> None:
    """Raise UsageError for shares that are not one for each structure, positive, with a sum of 1."""
    if shares is None:
        return
    text = " ".join(f"{share:g}" for share in shares)
    if len(shares) != n_structures:
        raise UsageError(f"each of {n_structures} structures needs a share, and {len(shares)} are given")
    if not all(0 < share <= 1 for share in shares) or abs(sum(shares) - 1) > SHARES_TOLERANCE:
        raise UsageError(f"the shares of the structures must be positive and add up to 1, not {text}")


@dataclass(frozen=True)
class Contents:
    """What n images hold: `classes` int64 (n,) from 0, `scales` float64 (n,), `noise` and `wrong` bool (n,).

    A scale multiplies the projection of the image's structure, and is 0 for both kinds of junk: `noise` alone, and
    `wrong` objects.
    """

    classes: Tensor
    scales: Tensor
    noise: Tensor
    wrong: Tensor

    @property
    def junk(self) -> Tensor:
        """Which images hold no particle: bool (n,)."""
        return self.noise | self.wrong


def draw_contents(n: int, n_structures: int, difficulties: Difficulties, seed: int) -> Contents:
    """What n images hold: structures by their shares, scales, and junk, half of it noise (one more if odd)."""
    noise, wrong = _draw_junk(n, difficulties.junk, seed)
    scales = draw_scales(n, difficulties.scale_sigma, seed)
    scales[noise | wrong] = 0
    return Contents(_draw_classes(n, n_structures, difficulties.shares, seed), scales, noise, wrong)


def draw_scales(n: int, sigma: float, seed: int) -> Tensor:
    """n numbers of the normal distribution (1, σ) truncated to [0.2, 2], (n,) float64, by inversion."""
    if sigma == 0:
        return torch.ones(n, dtype=torch.float64)
    ends = torch.tensor([SMALLEST_SCALE - 1, LARGEST_SCALE - 1], dtype=torch.float64) / sigma
    low, high = torch.special.ndtr(ends)
    uniform = torch.rand(n, generator=named_generator(seed, "scales"), dtype=torch.float64)
    deviates = torch.special.ndtri(low + (high - low) * uniform)
    scales: Tensor = (1 + sigma * deviates).clamp(SMALLEST_SCALE, LARGEST_SCALE)
    return scales


def _draw_classes(n: int, n_structures: int, shares: Sequence[float] | None, seed: int) -> Tensor:
    if n_structures == 1:
        return torch.zeros(n, dtype=torch.int64)
    weights = torch.tensor([1.0] * n_structures if shares is None else list(shares), dtype=torch.float64)
    return torch.multinomial(weights, n, replacement=True, generator=named_generator(seed, "classes"))


def _draw_junk(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    n_junk = round(share * n)
    order = torch.randperm(n, generator=named_generator(seed, "junk"))[:n_junk]
    noise, wrong = torch.zeros(2, n, dtype=torch.bool)
    noise[order[: (n_junk + 1) // 2]] = True
    wrong[order[(n_junk + 1) // 2 :]] = True
    return noise, wrong
