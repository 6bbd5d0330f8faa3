"""What a run's steps work with and do not change: settings, particles, processes, and models that follow from these."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.aberrations import Aberrations
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.magnification import Magnification
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.sphere import Spheres
from hoarfrost.parallel.team import Team
from hoarfrost.particles.sampling import split_held_out
from hoarfrost.particles.source import ParticleSource
from hoarfrost.reconstruction.estimate.folds import Folds
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.schedule import WARM_SHARE, last_stage_of_starts, search_r_max
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.settings.supports import DEFAULT_DIAMETER, refined_share, widest_share
from hoarfrost.symmetry.point_group import PointGroup

# Training particles, always the same, that give scales, spectra and base steps.
SAMPLE = 300
Made = TypeVar("Made")


@final
class Memo:
    """The latest value under each name that follows from others, made anew where these have changed.

    A value with a method `close` is closed when another takes its place.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[object, ...], Any]] = {}

    def get(self, name: str, of: tuple[object, ...], make: Callable[[], Made]) -> Made:
        """The value that follows `of` these: tensors are the same if they are one object, all else if it is equal."""
        kept = self._kept.get(name)
        if kept is not None and len(kept[0]) == len(of) and all(map(_is_same, kept[0], of)):
            found: Made = kept[1]
            return found
        self.drop(name)
        made = make()
        self._kept[name] = of, made
        return made

    def drop(self, name: str) -> None:
        """Forget a value, whose memory is wanted."""
        _, old = self._kept.pop(name, ((), None))
        if hasattr(old, "close"):
            old.close()

    def close(self) -> None:
        """Forget everything."""
        for name in [*self._kept]:
            self.drop(name)


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return one is other
    return bool(one == other)


@final
@dataclass(frozen=True)
class Env:
    """Settings, source of particles and team of a run, with what follows from them alone.

    All processes of the team are in the same state, and read their share of the particles. `started` is the time by
    `time.monotonic` at which the run would have begun had it never been interrupted.
    """

    settings: Settings
    source: ParticleSource
    team: Team = field(default_factory=Team)
    started: float = field(default_factory=time.monotonic)
    memo: Memo = field(default_factory=Memo)

    def generator(self, name: str, start: int = 0) -> torch.Generator:
        """The run's random generator for one purpose, of a random start where there are several."""
        return named_generator(self.settings.seed, f"{name} of start {start}" if start else name)

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        s = self.settings
        return split_held_out(s.n_particles, s.held_out, s.seed)

    @property
    def held_out(self) -> Tensor:
        """Indices of the held-out particles."""
        return self._split[0]

    @property
    def training(self) -> Tensor:
        """Indices of the particles to train on."""
        return self._split[1]

    def half_of_start(self, start: int) -> int | None:
        """The half of the particles that a random start is trained on: they take turns. None where it is on both.

        What starts of different halves have in common is then no noise, and no mistake that a random map has led to.
        """
        return None if self.settings.starts == 1 or self.settings.method != "auto" else start % 2

    def training_of_start(self, start: int) -> Tensor:
        """Indices of the particles that a random start is trained on."""
        half = self.half_of_start(start)
        return self.training if half is None else self.training[self.folds.half[self.training] == half]

    @cached_property
    def folds(self) -> Folds:
        """Half and fold of each particle; halves are those of its file where the run begins with what these know."""
        stack = self.source.stack
        first = torch.from_numpy(stack.first_of_image)
        dealt = Folds.deal(self.settings.n_particles, self.generator("halves"), first)
        halves = None if self.settings.initial == "random" else stack.halves
        return dealt if halves is None else dataclasses.replace(dealt, half=halves[first])

    @property
    def given_poses(self) -> tuple[Tensor, Tensor] | None:
        """Rotations (n, 3, 3) and shifts_A (n, 2) of the particle file, where refinement first looks near these."""
        return self.source.stack.poses if self.settings.search == "near" else None

    @property
    def diameter(self) -> float:
        """The particle's diameter as a share of the box."""
        return self.settings.diameter_A / self.length_A

    def narrowed(self, diameter_A: float | None) -> Env:
        """The same run with a narrower mask for a particle of that diameter; as it is where that is None."""
        if diameter_A is None or diameter_A == self.settings.diameter_A:
            return self

        def make() -> Env:
            self.memo.close()  # what followed from the wider mask takes hundreds of megabytes
            settings = self.settings.model_copy(update={"diameter_A": diameter_A})
            source = self.source.narrowed(diameter_A / settings.pixel_size_A)
            return dataclasses.replace(self, settings=settings, source=source, memo=Memo())

        return self.memo.get("narrowed", (diameter_A,), make)

    def with_optics(self, ctf: CTFParameters, aberrations: Aberrations, magnification: Magnification) -> Env:
        """The same run of particles that were recorded with other optics than their file tells."""

        def make() -> Env:
            self.memo.close()  # what followed from other CTFs
            source = self.source.with_optics(self.source.stack.with_optics(ctf, aberrations, magnification))
            return dataclasses.replace(self, source=source, memo=Memo())

        key = ctf.defocus_u_A, ctf.defocus_angle_deg, aberrations.group, magnification.matrices
        return self.memo.get("with optics", key, make)

    def close(self) -> None:
        """Let go of all that was made."""
        self.memo.close()

    @property
    def length_A(self) -> float:
        """Side of the images and of the maps."""
        return self.settings.box * self.settings.pixel_size_A

    @property
    def pose_prior(self) -> PosePrior:
        """What is known of the poses beforehand."""
        s = self.settings
        return PosePrior(s.shift_sigma_A / s.pixel_size_A, s.shift_extent_A / s.pixel_size_A)

    @property
    def first_symmetry(self) -> str:
        """The point group that starts keep to: `auto` begins without, and imposes it later."""
        return "C1" if self.settings.method == "auto" else self.settings.symmetry

    @property
    def final_stage(self) -> int:
        """The number of the final passes, as a stage."""
        return len(self.settings.stages_r_max) + len(self.settings.refined_r_max)

    def r_max_of(self, stage: int) -> float:
        """The band limit of a stage; of the final passes, which have none of their own, that of the last before."""
        limits = self.settings.stages_r_max + self.settings.refined_r_max
        return limits[min(stage, len(limits) - 1)]

    def refined_from(self, stage: int) -> float:
        """The band limit of the maps that refinement begins with: that of a stage of the starts, unless given."""
        return self.settings.initial_r_max or self.settings.stages_r_max[stage]

    def band(self, stage: int, symmetry: str, *, start: int = 0, draw: int = 0, is_warm: bool = False) -> BandModel:
        """The model at a stage's band limit, turned at random by start and `draw`; coarser where `is_warm`."""
        s = self.settings
        name = "warm band" if is_warm else "turned band" if draw else "band"

        def make() -> BandModel:
            rotation = random_rotations(1, self.generator(f"grid {stage} {draw}", start))[0]
            return BandModel(
                s.box,
                s.stages_r_max[stage],
                self.pose_prior,
                rotation,
                group=PointGroup(symmetry),
                diameter=self.diameter,
                device=s.device,
                quadrature_r_max=WARM_SHARE * s.stages_r_max[stage] if is_warm else None,
            )

        return self.memo.get(name, (stage, symmetry, start, draw, is_warm), make)

    def search_band(self, r_max: float, symmetry: str, start: int) -> BandModel:
        """The model on whose quadrature refinement at a band limit searches all poses."""
        s, group = self.settings, PointGroup(symmetry)
        searched_r_max = search_r_max(s.stages_r_max, r_max, group.order if group.permutes_axes else 1, self.diameter)

        def make() -> BandModel:
            rotation = random_rotations(1, self.generator("grid of searches", start))[0]
            return BandModel(
                s.box, searched_r_max, self.pose_prior, rotation, group=group, diameter=self.diameter, device=s.device
            )

        return self.memo.get("band of a search", (searched_r_max, symmetry, start), make)

    def support(self, box: int) -> Tensor:
        """A ball of ones of the particle's diameter: real (box, box, box)."""
        return self._ball("support", box, self.diameter)

    def support_with_room(self, box: int) -> Tensor:
        """A ball of ones with room for what the first map, whose diameter it was, did not show."""
        return self._ball("support with room", box, self.reach)

    def wide_support(self, box: int) -> Tensor:
        """A ball of ones in which there is solvent around the particle, whatever its diameter."""
        return self._ball("wide support", box, DEFAULT_DIAMETER)

    def _ball(self, name: str, box: int, diameter: float) -> Tensor:
        def make() -> Tensor:
            inside = radius_grid(box, 3) <= diameter * box / 2
            return inside.to(self.settings.device, torch.float32)

        return self.memo.get(name, (box,), make)

    @property
    def reach(self) -> float:
        """How wide refined maps are at most, as a share of the box."""
        return refined_share(self.diameter)

    @property
    def wide_reach(self) -> float:
        """How wide any maps are at most that are solved for, as a share of the box."""
        return widest_share(self.diameter)

    @property
    def coarse_r_max(self) -> float:
        """The band limit that the sums over all poses go to before refinement."""
        s = self.settings
        return s.stages_r_max[last_stage_of_starts(s.stages_r_max, s.refined_r_max)]

    @cached_property
    def _sample(self) -> Tensor:
        order = torch.randperm(len(self.training), generator=self.generator("scale"))
        return self.training[order[:SAMPLE]]

    def sample(self, disc: FourierDisc, most: int = SAMPLE) -> WhitenedImages:
        """Some of the training particles, always the same."""
        return self.source.images(self._sample[:most], disc)

    def held_out_images(self, disc: FourierDisc) -> WhitenedImages:
        """The process's share of the held-out particles."""
        return self.memo.get(
            "held out", (disc.r_max,), lambda: self.source.images(self.team.share(self.held_out), disc)
        )

    def judge(self, band: BandModel, volumes: Tensor, log_shares: Tensor) -> HeldOut:
        """How well maps (C, box, box, box) explain the held-out particles, summed over all poses."""
        images = self.held_out_images(band.disc)
        log_evidence = band.mixture(volumes, images, log_shares).log_evidence
        each = torch.stack([-log_evidence, -images.log_constant], dim=1)
        nll, empty = self.team.gather(each, len(self.held_out)).unbind(1)
        return HeldOut.of(nll, empty, self.sphere_nll(band.disc, volumes, log_shares), self.team)

    def sphere_nll(self, disc: FourierDisc, volumes: Tensor, log_shares: Tensor) -> Tensor:
        """NLL of each held-out particle under the spherical averages of maps (C, box, box, box): (m,)."""
        images = self.held_out_images(disc)
        log_evidence = Spheres.of(volumes, log_shares, disc, self.pose_prior, images.ctf).log_evidence(images)
        return self.team.gather(-log_evidence[:, None], len(self.held_out))[:, 0]

    def is_out_of_epochs(self, since_start: int) -> bool:
        """Whether the image gradients that the user allows a start, and what follows from it, are spent."""
        limit = self.settings.epochs
        return limit is not None and since_start >= limit * len(self.training)
