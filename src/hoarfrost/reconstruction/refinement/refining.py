"""What refinement knows of the particles, and how hard it looks: common to its sweeps and the final passes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.seeds import generator_at
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.estimate.sum_error import SumError
from hoarfrost.reconstruction.refinement.e_step import Effort, LocalEStep, coarse_slices_of
from hoarfrost.reconstruction.refinement.searches import Searches
from hoarfrost.reconstruction.refinement.visit import Batch, Known, OfAll, Visit, visit_batch
from hoarfrost.reconstruction.schedule import sweep_size

BATCH_SIZE = 100
# A spot check looks at so many particles, each searched for everywhere, with hardly a mode dropped.
SPOT_CHECKED = 16
THOROUGH = Effort(most_modes=48, least_share=1e-5, n_points=128, points_per_mode=128)


@final
@dataclass(frozen=True)
class Refining:
    """What is `known` of the particles and of `junk`, the `effort` of E-steps, and all that is drawn at random.

    `generator` (bytes,) is the state that draws follow from, `queue` (m,) holds the particles whose turn is next,
    `symmetry` the point group of the maps. Quadratures are turned as for random start `start`. `searches` tells how
    many known particles are searched for again.
    """

    known: Known
    junk: Junk
    generator: Tensor
    queue: Tensor
    symmetry: str
    start: int
    effort: Effort = Effort()
    searches: Searches = Searches()

    @classmethod
    def begin(cls, env: Env, log_shares: Tensor, symmetry: str, start: int) -> Refining:
        """Before the first visit, with the shares (C,) of the classes."""
        poses, s = env.given_poses, env.settings
        if poses is None:
            known = Known.nothing(s.n_particles, log_shares, s.device)
        else:
            rotations, shifts_A = poses
            known = Known.near(rotations, shifts_A / s.pixel_size_A, log_shares, s.device)
        generator = env.generator("refinement").get_state()
        return cls(known, Junk(env.source.mask_power), generator, env.training[:0], symmetry, start)

    def covering(self, env: Env, disc: FourierDisc) -> Refining:
        """With the spectrum of junk in all shells of the disc."""
        if self.junk.covers(disc):
            return self
        return dataclasses.replace(self, junk=self.junk.covering(env.sample(disc), disc))

    def coarse_slices(self, env: Env, volumes: Tensor, r_max: float) -> list[Tensor]:
        """Slices of maps (C, box, box, box) on the quadrature that all poses are searched on."""
        coarse = env.search_band(r_max, self.symmetry, self.start)
        return [coarse_slices_of(volume, coarse) for volume in volumes]

    def e_steps(
        self, env: Env, volumes: Tensor, r_max: float, generator: torch.Generator, slices: list[Tensor]
    ) -> list[LocalEStep]:
        """The posterior under the map of each class (C, box, box, box) up to r_max; poses are searched by `slices`."""
        disc = FourierDisc(env.settings.box, r_max)
        coarse = env.search_band(r_max, self.symmetry, self.start)
        return [
            LocalEStep(volume, disc, coarse, env.pose_prior, self.effort, generator, of_class, env.reach)
            for volume, of_class in zip(volumes, slices, strict=True)
        ]

    def visits(
        self, env: Env, e_steps: list[LocalEStep], members: Tensor, searched: Tensor, first_batch: int = 0
    ) -> Generator[Visit]:
        """E-step over the particles `members`, a batch for each process at a time, from one of the batches on.

        Those `searched` (m,) are looked for everywhere. What is known of the particles is brought up to date.
        """
        batches = batches_of(env, members)
        parts = searched.tensor_split(len(batches))
        left = batches[first_batch:]
        stream = env.source.stream([env.team.share(batch) for batch in left], e_steps[0].model.disc)
        for everyone, of_batch, (_, images) in zip(left, parts[first_batch:], stream, strict=True):
            yield visit_batch(e_steps, self.known, Batch(everyone, of_batch, images), env.team, self.junk)

    def judged(self, env: Env, volumes: Tensor, r_max: float) -> tuple[Refining, HeldOut]:
        """How well maps (C, box, box, box) explain the held-out particles, whose poses are searched everywhere."""
        after, nll, empty = self.held_out_nll(env, volumes, r_max)
        sphere = env.sphere_nll(FourierDisc(env.settings.box, r_max), volumes, self.known.log_shares)
        return after, HeldOut.of(nll, empty, sphere, env.team)

    def held_out_nll(self, env: Env, volumes: Tensor, r_max: float) -> tuple[Refining, Tensor, Tensor]:
        """NLL of each held-out particle under maps, and under an empty one: (m,) each."""
        after, found = self._looked_at(env, volumes, r_max, env.held_out)
        nll = torch.cat([-of_all.log_evidence for of_all in found])
        return after, nll, torch.cat([-of_all.log_constant for of_all in found])

    def spot_checked(self, env: Env, volumes: Tensor, r_max: float, share: float) -> tuple[Refining, SumError]:
        """The error of a sweep's sums on random training particles, of which a `share` is searched everywhere.

        A sweep that misses too much tries harder next.
        """
        generator = generator_at(self.generator)
        order = torch.randperm(len(env.training), generator=generator)
        members = env.training[order[:SPOT_CHECKED]]
        after = dataclasses.replace(self, generator=generator.get_state())
        after, found = after._looked_at(env, volumes, r_max, members, share)
        thorough = dataclasses.replace(after, effort=THOROUGH)
        thorough, sure = thorough._looked_at(env, volumes, r_max, members)
        error = SumError.of(*(torch.cat([of_all.log_evidence for of_all in each]) for each in (found, sure)))
        effort = self.effort.doubled() if error.exceeds_budget else self.effort
        return dataclasses.replace(thorough, effort=effort), error

    def _looked_at(
        self, env: Env, volumes: Tensor, r_max: float, members: Tensor, share: float = 1.0
    ) -> tuple[Refining, list[OfAll]]:
        after = self.covering(env, FourierDisc(env.settings.box, r_max))
        generator = generator_at(self.generator)
        e_steps = after.e_steps(env, volumes, r_max, generator, after.coarse_slices(env, volumes, r_max))
        searched = torch.rand(len(members), generator=generator) < share
        found = [visit.of_all for visit in after.visits(env, e_steps, members, searched)]
        return dataclasses.replace(after, generator=generator.get_state()), found

    def learnt(self) -> Refining:
        """After a pass, with what it tells of junk and of searches."""
        return dataclasses.replace(self, junk=self.junk.learnt(), searches=self.searches.learnt())

    def next_members(self, env: Env) -> tuple[Refining, Tensor]:
        """The particles of the next sweep: all there are to train on, or as many as a sweep takes of those left."""
        size, queue, generator = sweep_size(len(env.training)), self.queue, generator_at(self.generator)
        if len(queue) < size:
            order = torch.randperm(len(env.training), generator=generator)
            queue = torch.cat([queue, env.training[order]])
        return dataclasses.replace(self, queue=queue[size:], generator=generator.get_state()), queue[:size]


def batches_of(env: Env, members: Tensor) -> tuple[Tensor, ...]:
    """Particles `members` (m,) in batches, of which each process takes its share."""
    return members.tensor_split(math.ceil(len(members) / (BATCH_SIZE * env.team.size)))
