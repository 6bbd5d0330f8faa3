"""A pass over particles, each seen under the map of its half without its fold, and the sums of what they show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.seeds import generator_at
from hoarfrost.model.few_poses.statistics import LocalStatistics, middle_of
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.model.sphere import Spheres
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FoldMaps, FoldSums
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.refinement.drawn import Drawn, RowsAndDraws
from hoarfrost.reconstruction.refinement.e_step import LocalEStep
from hoarfrost.reconstruction.refinement.refining import Refining, batches_of
from hoarfrost.reconstruction.refinement.visit import Visit, add_draws
from hoarfrost.reconstruction.schedule import LARGEST_PORTION
from hoarfrost.symmetry.point_group import PointGroup

Look = Callable[[list[LocalEStep], Visit, list[RowsAndDraws | None]], None]
"""Is shown the E-steps of a batch's portion, the visit, and the draws of each class with their weights."""


@final
@dataclass(frozen=True)
class FoldPass:
    """A pass over the particles `members` (m,) under `maps` up to `r_max`; its statistics are for maps of `box` voxels.

    The maps that are solved for are empty outside a ball as wide as the share `reach` of their box.
    Particles come in portions, each of one fold. `sums` has the portions that are done, `drawn` what the one under way
    has come to, and `refining` has its generator as it was when that portion began. Unless the pass `is_for_maps` it
    has no statistics, and is there for whoever looks on.
    """

    maps: FoldMaps
    r_max: float
    box: int
    reach: float
    members: Tensor
    refining: Refining
    drawn: Drawn
    sums: FoldSums = FoldSums()
    is_for_maps: bool = True

    @classmethod
    def begin(
        cls,
        env: Env,
        maps: FoldMaps,
        r_max: float,
        box: int,
        members: Tensor,
        refining: Refining,
        reach: float | None = None,
    ) -> FoldPass:
        """Before the first batch; the maps to come are as wide as others are, unless their `reach` is given."""
        covering = refining.covering(env, FourierDisc(env.settings.box, r_max))
        drawn = Drawn.none(env.settings.classes)
        return cls(maps, r_max, box, env.reach if reach is None else reach, members, covering, drawn)

    def is_over(self, env: Env) -> bool:
        """Whether all portions are summed."""
        return self.sums.portions == len(self._portions(env))

    def step(self, env: Env, look: Look | None = None) -> tuple[FoldPass, Visit]:
        """Visit the next batch, and add it up; `look` on, where that is given."""
        half, fold, members = self.portion(env)
        portion = env.memo.get("portion", (self.refining.generator, self.sums.portions), lambda: _Portion(self, env))
        if portion.n_visited != len(self.drawn.batches):
            env.memo.drop("portion")
            return self.step(env)
        visit = portion.next_visit()
        weights, junk = _weights(env, visit, self.refining.junk, portion.disc)
        draws = visit.draws(weights)
        if look is not None:
            look(portion.e_steps, visit, draws)
        if self.is_for_maps:
            add_draws(portion.statistics, portion.e_steps, visit.images, draws)
        first, _ = env.team.bounds(len(visit.everyone))
        drawn = self.drawn.plus(draws, visit.looked_at, first, visit.images.data, env.team)
        searches = self.refining.searches.counting(visit.of_all.found_elsewhere)
        refining = dataclasses.replace(self.refining, junk=junk, searches=searches)
        if len(drawn.batches) < len(batches_of(env, members)):
            return dataclasses.replace(self, refining=refining, drawn=drawn), visit
        sizes = torch.bincount(env.folds.half[self.members], minlength=2).tolist()
        found = portion.quadratics(sizes[half])
        for quadratic in found:
            env.team.sum_(quadratic.linear, quadratic.kernel)
        after = dataclasses.replace(
            self,
            refining=dataclasses.replace(refining, generator=portion.generator),
            drawn=Drawn.none(env.settings.classes),
            sums=self.sums.plus(half, fold, found),
        )
        env.memo.drop("portion")
        return after, visit

    def explained(self, env: Env, visit: Visit) -> Tensor:
        """How well a visit's particles are explained, which are in none of the maps they are seen against: (n, 3).

        Their NLL under these maps, empty ones, and the maps' spherical averages.
        """
        half, fold, _ = self.portion(env)
        disc, known = FourierDisc(env.settings.box, self.r_max), self.refining.known
        volumes, prior, like = self.maps.without(half, fold), env.pose_prior, visit.images.ctf
        key = (self.maps.volumes, known.log_shares, half, fold, self.r_max)
        spheres = env.memo.get("spheres", key, lambda: Spheres.of(volumes, known.log_shares, disc, prior, like))
        sphere = env.team.gather(-spheres.log_evidence(visit.images)[:, None], len(visit.everyone))
        seen = -torch.stack([visit.of_all.log_evidence, visit.of_all.log_constant], dim=1)
        return torch.cat([seen, sphere], dim=1).cpu()

    def portion(self, env: Env) -> tuple[int, int, Tensor]:
        """Half, fold and particles of the portion that is under way."""
        return self._portions(env)[self.sums.portions]

    def _portions(self, env: Env) -> list[tuple[int, int, Tensor]]:
        return env.memo.get("portions", (self.members,), lambda: env.folds.portions(self.members, LARGEST_PORTION))

    def coarse_slices(self, env: Env, half: int) -> list[Tensor]:
        """To find poses any map is good; what is found is judged by the map without the fold."""
        return env.memo.get(
            "coarse slices",
            (self.maps.volumes, half),
            lambda: self.refining.coarse_slices(env, self.maps.of_half(half), self.r_max),
        )


class _Portion:
    """What follows from a portion that is under way: E-steps, sums on their grids, and images that are read ahead."""

    def __init__(self, of: FoldPass, env: Env) -> None:
        half, fold, members = of.portion(env)
        generator = generator_at(of.refining.generator)
        volumes, slices = of.maps.without(half, fold), of.coarse_slices(env, half)
        self.e_steps = of.refining.e_steps(env, volumes, of.r_max, generator, slices)
        self.disc = self.e_steps[0].model.disc
        searched = torch.rand(len(members), generator=generator) < of.refining.searches.share
        self.generator = generator.get_state()
        group = PointGroup(of.refining.symmetry)
        self.statistics = []
        if of.is_for_maps:
            middle = middle_of(of.box, of.reach, group)
            self.statistics = [
                LocalStatistics(of.box, env.settings.box, v.device, group, middle=middle) for v in volumes
            ]
        self.n_visited = len(of.drawn.batches)
        self._replay(of.drawn, env, members)
        self._visits = of.refining.visits(env, self.e_steps, members, searched, self.n_visited)

    def _replay(self, drawn: Drawn, env: Env, members: Tensor) -> None:
        """Add what was drawn before, and pass over its random numbers."""
        done = batches_of(env, members)[: len(drawn.batches)]
        stream = env.source.stream([env.team.share(batch) for batch in done], self.disc)
        for number, (batch, (_, images)) in enumerate(zip(done, stream, strict=True)):
            draws = drawn.of_batch(number, *env.team.bounds(len(batch)))
            if self.statistics:
                add_draws(self.statistics, self.e_steps, images, draws)
        for e_step, n_images in zip(self.e_steps, drawn.looked_at, strict=True):
            e_step.skip(n_images)

    def next_visit(self) -> Visit:
        """The E-step of the next batch."""
        self.n_visited += 1
        return next(self._visits)

    def quadratics(self, n_images: int) -> list[Quadratic]:
        """What was added up, of each class, for each of so many images; to be asked for once."""
        found = []
        while self.statistics:
            # Taken from the list, or the grids of all classes would be in memory to the end.
            found.append(self.statistics.pop(0).quadratic(n_images))
        return found

    def close(self) -> None:
        """End the reading ahead."""
        self._visits.close()


def _weights(env: Env, visit: Visit, junk: Junk, disc: FourierDisc) -> tuple[Tensor, Junk]:
    """How much each of a visit's images counts for each class, (b, C): the probability that it shows it.

    Also what is known of junk with these images counted.
    """
    probability = junk.probability(visit.own_gain, visit.own_junk)
    sums = junk.sums_over(visit.images, disc, probability, visit.own_junk)
    env.team.sum_(sums)
    weights = visit.own_log_evidence.softmax(dim=1) * (1 - probability)[:, None]
    return weights, junk.counting(sums, visit.of_all.lead)
