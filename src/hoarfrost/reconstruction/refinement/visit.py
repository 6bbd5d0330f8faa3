"""Particles visited in refinement: their posterior over classes and poses, a batch at a time, and what is kept of it.

A class that holds hardly any of an image's posterior is looked at again only when its poses are searched everywhere,
so that several classes take little longer than one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.model.all_poses.mixture import log_shares_of
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.mode_memory import ModeMemory
from hoarfrost.model.few_poses.modes import Modes
from hoarfrost.model.few_poses.statistics import LocalStatistics
from hoarfrost.model.images import WhitenedImages
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.estimate.junk import Junk, JunkEvidence
from hoarfrost.reconstruction.refinement.e_step import LocalEStep, LocalPosterior
from hoarfrost.reconstruction.watch.matches import Matches

KEPT_MODES = 4
LEAST_CLASS_PROBABILITY = 1e-3


@final
@dataclass(frozen=True)
class Known:
    """What is known of n particles: the `modes` of each under each of C classes, and their class `probability`.

    `probability` is (n, C) float64, 1 before the first visit, and `log_shares` (C,) the log of the share of each class
    among the particles. Visits write into modes and probabilities.
    """

    modes: tuple[ModeMemory, ...]
    probability: Tensor
    log_shares: Tensor

    @classmethod
    def nothing(cls, n: int, log_shares: Tensor, device: torch.device | str) -> Known:
        """Before the first visit, with the shares (C,) of the classes."""
        classes = len(log_shares)
        memories = tuple(ModeMemory.empty(n, KEPT_MODES, device) for _ in range(classes))
        return cls(memories, torch.ones(n, classes, dtype=torch.float64), log_shares)

    @classmethod
    def near(cls, rotations: Tensor, shifts_px: Tensor, log_shares: Tensor, device: torch.device | str) -> Known:
        """With one pose of each of n particles, (n, 3, 3) and (n, 2), of a single class."""
        known = cls.nothing(len(rotations), log_shares, device)
        modes = Modes.none(len(rotations), 1, device)
        modes.rotations[:, 0], modes.shifts_px[:, 0], modes.log_mass[:, 0] = rotations, shifts_px, 0.0
        known.modes[0][torch.arange(len(rotations))] = modes
        return known

    def with_shares(self, probability: Tensor) -> Known:
        """With shares set by the class probabilities (n, C) of particles (EM)."""
        return dataclasses.replace(self, log_shares=log_shares_of(probability.mean(dim=0)))

    def matches(self, members: Tensor, pixel_size_A: float) -> Matches:
        """Those of the particles `members` (m,) whose poses are known, with the best one."""
        class_probability, classes = self.probability[members].max(dim=1)
        found: list[Matches] = []
        for c, memory in enumerate(self.modes):
            indices = members[classes == c]
            modes = memory[indices]
            seen = modes.log_mass[:, 0].isfinite().cpu()
            probability = modes.share()[:, 0].cpu().double() * class_probability[classes == c]
            shifts_A = modes.shifts_px[:, 0].cpu() * pixel_size_A
            of_class = torch.full_like(indices, c)
            found.append(Matches(indices, of_class, modes.rotations[:, 0].cpu(), shifts_A, probability)[seen])
        return Matches.joined(found)


@dataclass(frozen=True)
class ClassView:
    """Of a batch under one class: which `rows` of the process's images were looked at, and their posterior."""

    rows: Tensor
    posterior: LocalPosterior


@dataclass(frozen=True)
class OfAll:
    """What is known of all images of a batch, (n, …) float64, whichever process visited them.

    `joint` (n, C) is log π_c p(Ĩ | V_c), −∞ for classes that were not looked at; `squares` (n, C) the sum over modes of
    their squared shares; `elsewhere` (n, C) is `LocalPosterior.found_elsewhere`; `log_constant` (n,) is log p(Ĩ | 0)
    and `log_junk` (n,) log p(Ĩ | junk) less that.
    """

    joint: Tensor
    squares: Tensor
    elsewhere: Tensor
    log_constant: Tensor
    log_junk: Tensor

    @property
    def probability(self) -> Tensor:
        """Class probabilities, (n, C)."""
        return self.joint.softmax(dim=1)

    @property
    def log_evidence(self) -> Tensor:
        """log p(Ĩ | V) over classes, (n,)."""
        return self.joint.logsumexp(dim=1)

    @property
    def ess(self) -> Tensor:
        """Effective number of modes, (n,)."""
        return 1 / (self.probability.square() * self.squares).sum(dim=1)

    @property
    def found_elsewhere(self) -> Tensor:
        """`elsewhere` of the particles that were searched for again, under the class that each is most likely in."""
        of_class = self.elsewhere.gather(1, self.joint.argmax(dim=1, keepdim=True)).squeeze(1)
        return of_class[~of_class.isnan()]

    @property
    def lead(self) -> Tensor:
        """log p(Ĩ | V) − log p(Ĩ | junk), (n,)."""
        return self.log_evidence - self.log_constant - self.log_junk


@dataclass(frozen=True)
class Visit:
    """A batch of particles `everyone` (n,) after its E-step: the process's share of it, and what is known `of_all`.

    `indices`, `images` and `own_log_evidence` (b, C), as `OfAll.joint`, are of the share, and `own_junk` tells how well
    junk explains it. `views` has what each class was seen by, None where no image of the share was looked at;
    `looked_at` counts the images of all processes by class.
    """

    everyone: Tensor
    of_all: OfAll
    indices: Tensor
    images: WhitenedImages
    own_log_evidence: Tensor
    views: list[ClassView | None]
    looked_at: tuple[int, ...]
    own_junk: JunkEvidence

    @property
    def own_gain(self) -> Tensor:
        """log p(Ĩ | V) − log p(Ĩ | 0) of the process's share, (b,) float64."""
        return self.own_log_evidence.logsumexp(dim=1) - self.images.log_constant

    def draws(self, weights: Tensor) -> list[tuple[Tensor, Draws] | None]:
        """Of each class the rows of the share that were looked at and their poses; an image counts `weights` (b, C)."""
        return [
            None if view is None else (view.rows, view.posterior.draws.weighted(weights[view.rows, c]))
            for c, view in enumerate(self.views)
        ]


def add_draws(
    statistics: list[LocalStatistics],
    e_steps: list[LocalEStep],
    images: WhitenedImages,
    draws: list[tuple[Tensor, Draws] | None],
) -> None:
    """Add poses drawn for some rows of a batch's images to the statistics of each class."""
    for of_class, e_step, added in zip(statistics, e_steps, draws, strict=True):
        if added is not None:
            rows, of_rows = added
            of_class.add(e_step.model, images[rows], of_rows)


@dataclass(frozen=True)
class Batch:
    """Particles `everyone` (n,) to visit, which of them are `searched` everywhere, and the process's images."""

    everyone: Tensor
    searched: Tensor
    images: WhitenedImages


def visit_batch(e_steps: list[LocalEStep], known: Known, batch: Batch, team: Team, junk: Junk) -> Visit:
    """E-step on a batch of particles under all classes; brings `known` up to date."""
    everyone, images = batch.everyone, batch.images
    first, last = team.bounds(len(everyone))
    indices = everyone[first:last]
    views: list[ClassView | None] = []
    own, squares, elsewhere, counts = [], [], [], []
    for c, e_step in enumerate(e_steps):
        looked_at = (known.probability[everyone, c] > LEAST_CLASS_PROBABILITY) | batch.searched
        counts.append(int(looked_at.sum()))
        e_step.skip(int(looked_at[:first].sum()))
        view, log_evidence, found = _view(e_step, known.modes[c], batch, indices, looked_at[first:last], first)
        e_step.skip(int(looked_at[last:].sum()))
        views.append(view)
        own.append(log_evidence + known.log_shares[c].to(log_evidence.device))
        modes = known.modes[c][indices]
        squares.append(modes.share().square().sum(dim=1).to(torch.float64))
        elsewhere.append(found)
        known.modes[c][everyone] = team.gather_rows(modes, len(everyone))
    own_junk = junk.evidence(images, e_steps[0].model.disc)
    joint, of_squares, of_searches = (torch.stack(each, dim=1) for each in (own, squares, elsewhere))
    of_share = OfAll(joint, of_squares, of_searches, images.log_constant, own_junk.log_ratio)
    of_all = team.gather_rows(of_share, len(everyone))
    known.probability[everyone] = of_all.probability.cpu()
    return Visit(everyone, of_all, indices, images, of_share.joint, views, tuple(counts), own_junk)


def _view(
    e_step: LocalEStep, memory: ModeMemory, batch: Batch, indices: Tensor, looked_at: Tensor, first: int
) -> tuple[ClassView | None, Tensor, Tensor]:
    """Those of the share (b,) that are `looked_at` under a class, log p(Ĩ | V_c) (b,), and what searches found (b,).

    The second is −∞ of the others, the third not a number.
    """
    device = batch.images.data.device
    log_evidence = torch.full((len(indices),), -math.inf, dtype=torch.float64, device=device)
    elsewhere = torch.full_like(log_evidence, math.nan)
    rows = looked_at.nonzero().squeeze(1)
    if not len(rows):
        return None, log_evidence, elsewhere
    chosen, here = indices[rows], rows.to(device)
    searched = batch.searched[first : first + len(indices)][rows].to(device)
    posterior: LocalPosterior = e_step(batch.images[here], memory[chosen], searched)
    memory[chosen] = posterior.modes
    log_evidence[here] = posterior.log_evidence.to(device)
    elsewhere[here] = posterior.found_elsewhere.to(device)
    return ClassView(here, posterior), log_evidence, elsewhere
