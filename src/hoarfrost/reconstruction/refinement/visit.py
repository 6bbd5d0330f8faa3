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

from hoarfrost.model.all_poses.mixture import log_shares_of
from hoarfrost.model.few_poses.importance import Draws
from hoarfrost.model.few_poses.mode_memory import ModeMemory
from hoarfrost.model.few_poses.modes import Modes
from hoarfrost.model.few_poses.statistics import LocalStatistics
from hoarfrost.model.images import WhitenedImages
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.estimate.junk import Junk, JunkEvidence
from hoarfrost.reconstruction.refinement.e_step import LocalEStep, LocalPosterior
from hoarfrost.reconstruction.state.checkpoints import State

KEPT_MODES = 4
LEAST_CLASS_PROBABILITY = 1e-3

Added = tuple[Tensor, Draws]
"""What a batch added to the statistics of a class: the rows of the images that were looked at, and poses of these."""


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

    def state(self) -> State:
        """All that is known, for `restore`."""
        modes = [of_class.state() for of_class in self.modes]
        return {"modes": modes, "probability": self.probability, "log_shares": self.log_shares}

    def restore(self, state: State) -> None:
        """Take over what is known of as many particles, where nothing is known yet."""
        for memory, modes in zip(self.modes, state["modes"], strict=True):
            memory.restore(modes)
        self.probability, self.log_shares = state["probability"], state["log_shares"]


@dataclass(frozen=True)
class Visit:
    """A batch of particles after its E-step: this process's share of it, and what is known of the whole.

    `indices`, `images`, `own_log_evidence` (b, C) are of the share: log π_c p(Ĩ | V_c), −∞ for classes that were not
    looked at. `posteriors` has, of each class, which of the images were looked at and their posterior, None without
    any. `everyone` (n,) are the indices of all, with their `log_evidence` over classes, `log_constant` and effective
    number of modes `ess`, (n,) float64, and class `probability` (n, C); `looked_at` counts them by class. How well junk
    explains the share is in `own_junk`, and log p(Ĩ | V) − log p(Ĩ | junk) of all is `lead` (n,).
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
    looked_at: list[int]
    own_junk: JunkEvidence
    lead: Tensor

    @property
    def own_gain(self) -> Tensor:
        """log p(Ĩ | V) − log p(Ĩ | 0) of the process's share, (b,) float64."""
        return self.own_log_evidence.logsumexp(dim=1) - self.images.log_constant

    def add_to(
        self, statistics: list[LocalStatistics], e_steps: list[LocalEStep], weights: Tensor
    ) -> list[Added | None]:
        """Add the images to the statistics of each class, an image counting `weights` (b, C); tells what was added."""
        added: list[Added | None] = []
        for c, looked_at in enumerate(self.posteriors):
            if looked_at is None:
                added.append(None)
            else:
                rows, posterior = looked_at
                added.append((rows, posterior.draws.weighted(weights[rows, c])))
        add_draws(statistics, e_steps, self.images, added)
        return added


def add_draws(
    statistics: list[LocalStatistics], e_steps: list[LocalEStep], images: WhitenedImages, added: list[Added | None]
) -> None:
    """Add poses drawn for some of a batch's images to the statistics of each class."""
    for of_class, e_step, looked_at in zip(statistics, e_steps, added, strict=True):
        if looked_at is not None:
            rows, draws = looked_at
            of_class.add(e_step.model, images[rows], draws)


def visit_batch(
    e_steps: list[LocalEStep],
    known: Known,
    everyone: Tensor,
    searched: Tensor,
    images: WhitenedImages,
    team: Team,
    junk: Junk,
) -> Visit:
    """E-step on a batch of particles `everyone` (n,), `images` being the process's share; brings `known` up to date.

    Where `searched` (n,) poses are looked for everywhere, under all classes.
    """
    first, last = team.bounds(len(everyone))
    indices, device = everyone[first:last], images.data.device
    posteriors: list[tuple[Tensor, LocalPosterior] | None] = []
    columns, counts = [], []
    for c, e_step in enumerate(e_steps):
        looked_at = (known.probability[everyone, c] > LEAST_CLASS_PROBABILITY) | searched
        rows = looked_at[first:last].nonzero().squeeze(1)
        log_evidence = torch.full((len(indices),), -math.inf, dtype=torch.float64, device=device)
        counts.append(int(looked_at.sum()))
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
    of_junk = junk.evidence(images, e_steps[0].model.disc)
    of_images = torch.stack([images.log_constant, of_junk.log_ratio], dim=1)
    gathered = team.gather(torch.cat([of_images, *columns], dim=1), len(everyone))
    parts = gathered[:, 2:].chunk(len(e_steps), dim=1)
    for memory, part in zip(known.modes, parts, strict=True):
        memory[everyone] = Modes.unpacked(part[:, 2:].reshape(-1, *shape))
    joint, squares = (torch.stack([part[:, i] for part in parts], dim=1) for i in (0, 1))
    probability = joint.softmax(dim=1)
    known.probability[everyone] = probability.cpu()
    ess = 1 / (probability.square() * squares).sum(dim=1)
    log_evidence, log_constant = joint.logsumexp(dim=1), gathered[:, 0]
    lead = log_evidence - log_constant - gathered[:, 1]
    return Visit(
        indices,
        images,
        own,
        posteriors,
        everyone,
        log_evidence,
        log_constant,
        ess,
        probability,
        counts,
        of_junk,
        lead,
    )
