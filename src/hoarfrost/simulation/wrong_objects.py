"""Images of what is not a particle: an aggregate of a few balls, another in each image.

A ball of radius r (px) at c has a projection whose transform is known in closed form,

    B(k) ∝ r³ · 3 (sin x − x cos x) / x³ · exp(−2πi k·c / N)          x = 2π |k| r / N.
"""

import math

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc

N_BALLS = (3, 8)
RADIUS = (0.05, 0.14)  # of the box
SPREAD = 0.10  # deviation of the centres along x and y, of the box
FARTHEST = 0.25
EDGE_PX = 1.0  # deviation of the Gaussian that softens a ball


def wrong_objects(n: int, disc: FourierDisc, generator: torch.Generator) -> Tensor:
    """The transforms of n aggregates without CTF, in arbitrary units: complex64 (n, K), packed as in `disc`."""
    low, high = N_BALLS
    count = torch.randint(low, high + 1, (n, 1), generator=generator)
    present = torch.arange(high) < count
    radii = (RADIUS[0] + (RADIUS[1] - RADIUS[0]) * torch.rand(n, high, generator=generator)) * disc.box
    centres = torch.randn(n, high, 2, generator=generator) * SPREAD
    centres = centres.clamp(-FARTHEST, FARTHEST) * disc.box
    frequencies = disc.coordinates.to(torch.float32) / disc.box
    total = torch.zeros(n, disc.size, dtype=torch.complex64)
    for ball in range(high):
        x = (2 * math.pi) * radii[:, ball, None] * frequencies.norm(dim=-1)
        # The limit at 0 is 1 − x²/10.
        safe = x.clamp(min=0.1)
        form = torch.where(x < 0.1, 1 - x.square() / 10, 3 * (safe.sin() - safe * safe.cos()) / safe**3)
        weight = present[:, ball, None] * radii[:, ball, None] ** 3
        angle = (-2 * math.pi) * (centres[:, ball] @ frequencies.T)
        total += torch.polar(torch.ones_like(angle), angle) * (weight * form)
    edge = torch.exp(-2 * (math.pi * EDGE_PX) ** 2 * frequencies.square().sum(-1))
    return total * edge
