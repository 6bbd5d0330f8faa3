"""How often two maps give a particle the same orientation, against how often chance would.

With pᵢ and qᵢ the posteriors of particle i over the orientations of a quadrature, under two maps in one frame,

    Aᵢ = Σ_R Σ_R′ pᵢ(R) qᵢ(R′) [ R and R′ are at most 10° apart ]

and by chance the same with qⱼ, of another particle. A map that fits particles by their outline alone gives them
orientations that another such map does not.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.rows import Rows
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import likely_poses
from hoarfrost.reconstruction.env import Env

WITHIN_DEG = 10.0
# Orientations that hold less of a posterior are left out.
LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class Oriented(Rows):
    """Orientations that hold much of the posteriors of n particles under some maps, m in all.

    `particle` (m,) numbers the particles from 0, `of_class` (m,) the maps, `flat` (m, 9) are the rotations and
    `weight` (m,) their share of the posterior, float64.
    """

    particle: Tensor
    of_class: Tensor
    flat: Tensor
    weight: Tensor

    def agreement(self, other: "Oriented", n: int, step: int = 0) -> Tensor:
        """A of each of n particles, or with a `step` that of each with the one so many places on: (n,) float64."""
        least = 1 + 2 * math.cos(math.radians(WITHIN_DEG))
        found = torch.zeros(n, dtype=torch.float64)
        for i in range(n):
            mine, theirs = self[self.particle == i], other[other.particle == (i + step) % n]
            # The trace of Rᵀ R′ is 1 + 2 cos of the angle between them.
            near = mine.flat @ theirs.flat.T >= least
            near &= mine.of_class[:, None] == theirs.of_class
            found[i] = mine.weight @ near.double() @ theirs.weight
        return found


def share_alike(env: Env, one: Oriented, other: Oriented, step: int = 0) -> float:
    """Mean A over the held-out particles, of which each process has its share; with a `step` that by chance."""
    mine = one.agreement(other, len(env.team.share(env.held_out)), step)
    return float(env.team.gather(mine[:, None], len(env.held_out)).mean())


def orientations_of(env: Env, band: BandModel, volumes: Tensor, log_shares: Tensor) -> Oriented:
    """Those of the process's share of the held-out particles under maps (C, box, box, box) with shares."""
    images = env.held_out_images(band.disc)
    probability = band.mixture(volumes, images, log_shares).probability.cpu()
    rotations = band.poses.orientations.rotations().flatten(1)
    parts = []
    for c, volume in enumerate(volumes):
        likely = likely_poses(images, band.operator.slices(volume), band.poses, LEAST_SHARE).each_once()
        weight = likely.probability.double() * probability[likely.image, c]
        parts.append(Oriented(likely.image, torch.full_like(likely.image, c), rotations[likely.node], weight))
    return Oriented.cat(parts)
