"""Particles visited in refinement: their posterior over classes and poses, a batch at a time, and what is kept of it.

A class that holds hardly any of an image's posterior is looked at again only when its poses are searched everywhere,
so that several classes take little longer than one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.model.likelihood import WhitenedImages
from hoarfrost.model.local_statistics import LocalStatistics
from hoarfrost.model.mixture import log_shares_of
from hoarfrost.model.mode_memory import ModeMemory
from hoarfrost.model.modes import Modes
from hoarfrost.reconstruct.distribution import Team
from hoarfrost.reconstruct.local_e_step import LocalEStep, LocalPosterior

KEPT_MODES = 4
LEAST_CLASS_PROBABILITY = 1e-3


@final
class Known:
    """What is known of n particles: the modes of each under each of C classes, and their class probabilities.

    `modes` has one ModeMemory a class, `probability` is (n, C) float64, 1 before the first visit, and `log_shares` (C,)
    the log of the share of each class among the particles.
    """

    def __init__(self, n: int, classes: int, device: torch.device | str) -> None:
        self.modes = [ModeMemory(n, KEPT_MODES, device) for _ in range(classes)]
        self.probability = torch.ones(n, classes, dtype=torch.float64)
        self.log_shares = torch.full((classes,), -math.log(classes), dtype=torch.float64)

    def learn_shares(self, probability: Tensor) -> None:
        """Set the shares by the class probabilities (n, C) of particles (EM)."""
        self.log_shares = log_shares_of(probability.mean(dim=0))


@dataclass(frozen=True)
class Visit:
    """A batch of particles after its E-step: this process's share of it, and what is known of the whole.

    `indices`, `images`, `own_log_evidence` (b, C) are of the share: log π_c p(Ĩ | V_c), −∞ for classes that were not
    looked at. `posteriors` has, of each class, which of the images were looked at and their posterior, None without
    any. `everyone` (n,) are the indices of all, with their `log_evidence` over classes, `log_constant` and effective
    number of modes `ess`, (n,) float64, and class `probability` (n, C).
    """

    indices: Tensor
    images: WhitenedImages
    own_log_evidence: Tensor
    posteriors: list[tuple[Tensor, LocalPosterior] | None]
    everyone: Tensor
    log_evidence: Tensor
    log_constant: Tensor
    ess: Tensor
    probability: Tensor

    def add_to(self, statistics: list[LocalStatistics], e_steps: list[LocalEStep], weights: Tensor) -> None:
        """Add the images to the statistics of each class, an image counting `weights` (b, C)."""
        for c, (of_class, e_step, looked_at) in enumerate(zip(statistics, e_steps, self.posteriors, strict=True)):
            if looked_at is not None:
                rows, posterior = looked_at
                of_class.add(e_step.model, self.images[rows], posterior.draws.weighted(weights[rows, c]))


def visit_batch(
    e_steps: list[LocalEStep], known: Known, everyone: Tensor, searched: Tensor, images: WhitenedImages, team: Team
) -> Visit:
    """E-step on a batch of particles `everyone` (n,), `images` being the process's share; brings `known` up to date.

    Where `searched` (n,) poses are looked for everywhere, under all classes.
    """
    first, last = team.bounds(len(everyone))
    indices, device = everyone[first:last], images.data.device
    posteriors: list[tuple[Tensor, LocalPosterior] | None] = []
    columns = []
    for c, e_step in enumerate(e_steps):
        looked_at = (known.probability[everyone, c] > LEAST_CLASS_PROBABILITY) | searched
        rows = looked_at[first:last].nonzero().squeeze(1)
        log_evidence = torch.full((len(indices),), -math.inf, dtype=torch.float64, device=device)
        e_step.skip(int(looked_at[:first].sum()))
        memory = known.modes[c]
        if len(rows):
            chosen, here = indices[rows], rows.to(device)
            posterior = e_step(images[here], memory[chosen], searched[first:last][rows].to(device))
            memory[chosen] = posterior.modes
            log_evidence[here] = posterior.log_evidence.to(device) + known.log_shares[c].to(device)
            posteriors.append((here, posterior))
        else:
            posteriors.append(None)
        e_step.skip(int(looked_at[last:].sum()))
        kept = memory[indices]
        squares = kept.share().square().sum(dim=1).to(torch.float64)
        columns.append(torch.cat([torch.stack([log_evidence, squares], dim=1), kept.packed().flatten(1)], dim=1))
    shape = kept.packed().shape[1:]
    own = torch.stack([column[:, 0] for column in columns], dim=1)
    gathered = team.gather(torch.cat([images.log_constant.unsqueeze(1), *columns], dim=1), len(everyone))
    parts = gathered[:, 1:].chunk(len(e_steps), dim=1)
    for memory, part in zip(known.modes, parts, strict=True):
        memory[everyone] = Modes.unpacked(part[:, 2:].reshape(-1, *shape))
    joint, squares = (torch.stack([part[:, i] for part in parts], dim=1) for i in (0, 1))
    probability = joint.softmax(dim=1)
    known.probability[everyone] = probability.cpu()
    ess = 1 / (probability.square() * squares).sum(dim=1)
    return Visit(indices, images, own, posteriors, everyone, joint.logsumexp(dim=1), gathered[:, 0], ess, probability)
