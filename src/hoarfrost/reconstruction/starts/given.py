"""What refinement begins with in place of random starts: maps that particles make at given poses, or a given map.

At their poses the particles of each half add up to a map of its own, which knows no more of the other half than the
poses do. A given map is the same for both; its scale, which a file does not tell, is the one that images are explained
by best.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from hoarfrost.evaluation.align import resample
from hoarfrost.evaluation.evaluate import read_map
from hoarfrost.maths.fourier import FourierDisc, centred_window, fourier_resize
from hoarfrost.model.all_poses.band import BandModel, box_of
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.statistics import LocalStatistics
from hoarfrost.model.quadratic import Mixture
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.diameter import LEAST_OF_DIAMETER, diameter_of_map
from hoarfrost.reconstruction.estimate.folds import FoldSums
from hoarfrost.reconstruction.estimate.m_step import MStep, solve_each
from hoarfrost.reconstruction.starts.agreement import StartMaps
from hoarfrost.reconstruction.starts.initial_map import with_power_of
from hoarfrost.reconstruction.state.phase import News, Tally
from hoarfrost.symmetry.axes import correlation_about
from hoarfrost.symmetry.point_group import PointGroup

# Particles that are added up in a step: statistics are made of each portion, which takes as long as hundreds.
PORTION = 5000
IMAGES_AT_ONCE = 200
# The scale of a given map: it is looked for within this factor of that by which images have the map's power.
MOST_OFF, IMAGES_TO_SCALE, SCALE_TOLERANCE = 8.0, 60, 0.05


@final
@dataclass(frozen=True)
class Given:
    """Maps of given poses or of a file: `maps`, of which the held-out particles have not been asked, then the `result`.

    `sums` has the particles that were added up at their poses so far. `diameter_A` is the particle's, where the maps
    have told it, and `correlation` that of a given map with itself about the axes of the point group.
    """

    sums: FoldSums = FoldSums()
    maps: StartMaps | None = None
    result: StartMaps | None = None
    diameter_A: float | None = None
    correlation: float | None = None
    news: tuple[News, ...] = ()

    def step(self, env: Env, tally: Tally) -> Given:
        """Some particles added up; or the maps; or how well they explain the held-out particles."""
        if self.maps is not None:
            return self._judged(env, self.maps)
        if env.settings.initial == "map":
            return self._read(env)
        portions = env.folds.portions(env.training, PORTION)
        if self.sums.portions < len(portions):
            return self._added_up(env, portions)
        return self._solved(env)

    def _added_up(self, env: Env, portions: list[tuple[int, int, Tensor]]) -> Given:
        half, fold, members = portions[self.sums.portions]
        poses, s, r_max = env.source.stack.poses, env.settings, initial_r_max(env)
        assert poses is not None
        rotations, shifts_px = poses[0], poses[1] / s.pixel_size_A
        box, disc = box_of(r_max), FourierDisc(s.box, r_max)
        model = LocalModel(torch.zeros(box, box, box, device=s.device), disc, env.pose_prior)
        statistics = LocalStatistics(box, s.box, s.device, PointGroup(s.symmetry))
        for some in torch.split(env.team.share(members), IMAGES_AT_ONCE):
            of_some = rotations[some].to(s.device, torch.float32), shifts_px[some].to(s.device, torch.float32)
            each = torch.arange(len(some), device=s.device)
            draws = Draws(each, *of_some, torch.ones(len(some), device=s.device))
            statistics.add(model, env.source.images(some, disc), draws)
        n_of_half = int((env.folds.half[env.training] == half).sum())
        found = statistics.quadratic(n_of_half)
        env.team.sum_(found.linear, found.kernel)
        sums = self.sums.plus(half, fold, [found])
        done = sums.portions / len(portions)
        return dataclasses.replace(self, sums=sums, news=(News(last_stage(env), r_max, done),))

    def _solved(self, env: Env) -> Given:
        box = box_of(initial_r_max(env))
        support = env.support(box)
        nothing = torch.zeros_like(support)
        solve = MStep(support, positive=False)
        halves = env.team.once(
            lambda: solve_each(
                lambda half: solve(self.sums.of_half(half, 0), nothing), range(2), box, support.device
            ).unsqueeze(1),
            torch.zeros(2, 1, box, box, box, device=support.device),
        )
        return self._measured(env, halves.mean(dim=0), halves)

    def _read(self, env: Env) -> Given:
        s, r_max, group = env.settings, initial_r_max(env), PointGroup(env.settings.symmetry)
        assert s.initial_map is not None
        volume = given_volume(env, s.initial_map, box_of(r_max), r_max)
        told = self
        news: tuple[News, ...] = ()
        if group.order > 1:
            turn, centre = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
            correlation = correlation_about(volume, group, r_max, turn, centre)
            told = dataclasses.replace(self, correlation=env.team.once_number(lambda: correlation))
            message = f"Turned about the axes of {group.name}, the given map correlates by {correlation:.2f}"
            news = (News(last_stage(env), r_max, message=message),)
        volume = (group(volume) * env.support(len(volume)).cpu()).to(s.device)
        searched = env.search_band(r_max, s.symmetry, 0)
        scale = env.team.once_number(partial(scale_of, env, searched, volume))
        after = told._measured(env, scale * volume[None], None)
        return dataclasses.replace(after, news=(*news, *after.news))

    def _measured(self, env: Env, volumes: Tensor, halves: Tensor | None) -> Given:
        """With maps, and the diameter of the particle that they show, where only images have told it."""
        log_shares = torch.zeros(1, dtype=torch.float64, device=volumes.device)
        maps = StartMaps(Mixture(volumes, log_shares), last_stage(env), -math.inf, True, halves)
        after = dataclasses.replace(self, sums=FoldSums(), maps=maps, news=())
        if env.settings.sources["diameter_A"] != "data":
            return after
        before_A = env.settings.diameter_A
        share = env.team.once_number(lambda: diameter_of_map(volumes[0]))
        diameter_A = min(max(share * env.length_A, LEAST_OF_DIAMETER * before_A), before_A)
        message = f"The map to begin with is {diameter_A:.0f} Å wide: the mask is as wide from now on"
        news = News(last_stage(env), initial_r_max(env), 1.0, message=message)
        return dataclasses.replace(after, diameter_A=diameter_A, news=(news,))

    def _judged(self, env: Env, maps: StartMaps) -> Given:
        """With how well the held-out particles are explained, by sums over all poses at the band limit of searches."""
        band = env.search_band(initial_r_max(env), env.settings.symmetry, 0)
        judged = env.judge(band, maps.maps.resized(band.box).volumes, maps.maps.log_shares)
        news = News(last_stage(env), band.r_max, 1.0, judged=judged)
        return dataclasses.replace(self, result=dataclasses.replace(maps, gain=judged.gain), news=(news,))


def last_stage(env: Env) -> int:
    """The number of the last stage of random starts, which the maps take the place of."""
    return len(env.settings.stages_r_max) - 1


def initial_r_max(env: Env) -> float:
    """The band limit of the maps, in Fourier pixels."""
    return env.refined_from(last_stage(env))


def given_volume(env: Env, path: str, box: int, r_max: float) -> Tensor:
    """The map of a file up to r_max, over the length of the images: float32 (box, box, box).

    Raises DataError for a file that is no map.
    """
    given = read_map(path)
    n = len(given.volume)
    # Twice as fine as r_max asks for, so that a window of it cuts nothing.
    voxel_A = env.length_A / (2 * box)
    given_A = n * given.pixel_size_A
    cropped = fourier_resize(given.volume, min(n, 2 * math.ceil(r_max * given_A / env.length_A + 3)))
    long_box = max(2 * box, 2 * math.ceil(given_A / voxel_A / 2 - 1e-6))
    turn, shift = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    volume = resample(cropped, turn, shift, mirrored=False, box=long_box, scale=given_A / (long_box * voxel_A))
    return fourier_resize(centred_window(volume, 2 * box), box, r_max).to(torch.float32)


def scale_of(env: Env, band: BandModel, volume: Tensor) -> float:
    """The factor by which a map (n, n, n), up to the band limit of `band`, explains images best."""
    images = env.sample(band.disc, IMAGES_TO_SCALE)
    coarse = fourier_resize(volume, band.box)
    scaled = with_power_of(images, coarse, band)
    log_shares = torch.zeros(1, dtype=torch.float64, device=volume.device)

    def nll(log_factor: float) -> float:
        volumes = math.exp(log_factor) * scaled[None]
        return -float(band.mixture(volumes, images, log_shares).log_evidence.mean())

    most = math.log(MOST_OFF)
    found = minimize_scalar(nll, bounds=(-most, most), method="bounded", options={"xatol": SCALE_TOLERANCE})
    return math.exp(found.x) * float(scaled.norm() / coarse.norm())
