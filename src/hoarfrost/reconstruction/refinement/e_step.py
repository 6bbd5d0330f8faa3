"""The E-step where no sum over all poses can go: coarse to fine, down to the few poses that matter.

All poses are scored at a low band limit on a coarse quadrature (`all_poses`). The modes that hold its posterior
climb, at ever higher band limits, to the nearest best pose (`few_poses`); after each climb modes that meet are
merged, and those that hold less than a stated share of the mass are dropped. What is left is summed by importance
sampling. An image whose modes are remembered starts from them, and may go without a search.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.model.all_poses.band import BandModel, box_of
from hoarfrost.model.all_poses.marginal import likely_poses
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.importance import PoseSampler
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.modes import Modes, modes_of_quadrature, pose_differences
from hoarfrost.model.few_poses.statistics import middle_of
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior

BAND_GROWTH = 1.6
# A pose found at one band limit is off by about its standard deviation there, which is within reach of the next.
STEPS_FROM_NODE = 4
# Voxels beyond their support that a filter may spread maps to.
EDGE_VOXELS = 4
STEPS_FROM_BAND = 3


@dataclass(frozen=True)
class Effort:
    """How much of the posterior is followed: modes taken from the quadrature, and the least share that keeps one.

    Up to `n_points` poses are sampled for each image, `points_per_mode` for each of its modes, of which `n_drawn` make
    the statistics.
    """

    most_modes: int = 16
    least_share: float = 1e-3
    n_points: int = 16
    n_drawn: int = 4
    points_per_mode: int = 16

    def thorough(self) -> Effort:
        """With all points for the statistics."""
        return dataclasses.replace(self, n_drawn=self.n_points)

    def sparing(self) -> Effort:
        """With few points for the statistics."""
        return dataclasses.replace(self, n_drawn=min(self.n_drawn, Effort.n_drawn))

    def doubled(self) -> Effort:
        """Twice as many modes, and half the share that keeps one; the points that are spread over them grow along."""
        return Effort(2 * self.most_modes, self.least_share / 2, 2 * self.n_points, self.n_drawn)


@dataclass(frozen=True)
class LocalPosterior:
    """Of b images: `modes`, best first; `log_evidence` (b,) float64; `draws` from their posteriors.

    `found_elsewhere` (b,) float64 is 1 where a search found a better pose than those known, 0 where it did not, and not
    a number where there was none, or nothing was known.
    """

    modes: Modes
    log_evidence: Tensor
    draws: Draws
    found_elsewhere: Tensor


class LocalEStep:
    """The posterior of images under one map (box, box, box), of the images' length, up to the disc's band limit.

    The map's support is as wide as the share `reach` of its box.
    `coarse_slices` are those of the map, or of one like it, that poses are looked for with: see `coarse_slices_of`.
    """

    def __init__(
        self,
        volume: Tensor,
        disc: FourierDisc,
        coarse: BandModel,
        prior: PosePrior,
        effort: Effort,
        generator: torch.Generator,
        coarse_slices: Tensor | None = None,
        reach: float = 1.0,
    ) -> None:
        self._coarse, self._effort = coarse, effort
        self._coarse_slices = coarse_slices_of(volume, coarse) if coarse_slices is None else coarse_slices
        self._levels = [
            _model_of(volume, FourierDisc(disc.box, r), prior, reach) for r in climbing_bands(coarse.r_max, disc.r_max)
        ]
        self._sampler = PoseSampler(effort.n_points, effort.n_drawn, generator, coarse.group, effort.points_per_mode)

    @property
    def model(self) -> LocalModel:
        """The likelihood at the full band limit."""
        return self._levels[-1]

    def __call__(self, images: WhitenedImages, known: Modes, search: Tensor) -> LocalPosterior:
        """Of b images with modes `known`; where `search` (b,) or where none is known, poses are looked for everywhere.

        What is known takes part in a search too, so that no search makes an image worse off.
        """
        is_known = known.log_mass.isfinite().any(dim=1)
        again, search = search & is_known, search | ~is_known
        modes = known
        found = search.nonzero().squeeze(1)
        if len(found):
            new = self._climbed_to_last(images[found], self._searched(images[found]))
            empty = Modes.none(len(images), new.log_mass.shape[1], images.data.device)
            empty[found] = new
            modes = known.joined(empty)
        modes = self._climb(self._levels[-1], images, modes, STEPS_FROM_BAND)
        log_evidence, draws = self._sampler(self.model, images, modes)
        elsewhere = torch.full_like(modes.log_mass[:, 0], math.nan, dtype=torch.float64)
        elsewhere[again] = self._are_elsewhere(known[again], modes[again]).to(elsewhere)
        return LocalPosterior(modes, log_evidence, draws, elsewhere)

    def skip(self, n_images: int) -> None:
        """Pass over the random numbers of so many images, whose posterior is found elsewhere."""
        self._sampler.skip(n_images)

    def _are_elsewhere(self, known: Modes, modes: Modes) -> Tensor:
        """Whether the best of the modes is more than a step of the quadrature away from all known ones, (b,)."""
        rotations, shifts_px = modes.rotations[:, :1], modes.shifts_px[:, :1]
        group, step_deg = self._coarse.group, self._coarse.poses.orientations.angular_step_deg
        apart = pose_differences(known.rotations, known.shifts_px, rotations, shifts_px, group)
        is_far = torch.linalg.vector_norm(apart[:, :, 0, :3], dim=-1) > math.radians(step_deg)
        return torch.all(is_far | ~known.log_mass.isfinite(), dim=1)

    def _searched(self, images: WhitenedImages) -> Modes:
        poses = self._coarse.poses
        coarse = _narrowed(images, poses.disc)
        likely = likely_poses(coarse, self._coarse_slices, poses, self._effort.least_share)
        most, group = self._effort.most_modes, self._coarse.group
        return modes_of_quadrature(likely, len(images), poses.orientations, poses.shifts, most, group)

    def _climbed_to_last(self, images: WhitenedImages, modes: Modes) -> Modes:
        """Modes of the quadrature, after the climbs at all band limits but the last."""
        steps = STEPS_FROM_NODE
        for level in self._levels[:-1]:
            modes = self._climb(level, _narrowed(images, level.disc), modes, steps)
            steps = STEPS_FROM_BAND
        return modes

    def _climb(self, model: LocalModel, images: WhitenedImages, modes: Modes, steps: int) -> Modes:
        image, place = modes.log_mass.isfinite().nonzero().unbind(1)
        peaks = model.climb(images[image], modes.rotations[image, place], modes.shifts_px[image, place], steps)
        return modes.with_peaks(image, place, peaks).tidied(self._effort.least_share, self._coarse.group)


def _model_of(volume: Tensor, disc: FourierDisc, prior: PosePrior, reach: float) -> LocalModel:
    box = box_of(disc.r_max)
    middle = min(box, middle_of(box, reach) + 2 * EDGE_VOXELS)
    return LocalModel(fourier_resize(volume, box), disc, prior, middle=middle)


def coarse_slices_of(volume: Tensor, coarse: BandModel) -> Tensor:
    """The slices of a map (box, box, box) on the quadrature that all poses are scored on."""
    return coarse.operator.slices(fourier_resize(volume, box_of(coarse.r_max)))


def climbing_bands(first: float, last: float) -> list[float]:
    """Band limits of the climbs, from a step above the quadrature's to the last, in nearly even ratios."""
    n = max(1, round(math.log(last / first) / math.log(BAND_GROWTH)))
    return [first * (last / first) ** ((i + 1) / n) for i in range(n - 1)] + [last]


def _narrowed(images: WhitenedImages, disc: FourierDisc) -> WhitenedImages:
    """The images' coefficients in a smaller disc, which come first; the constant is that of the larger."""
    return WhitenedImages(images.data[:, : disc.size], images.ctf[:, : disc.size], images.log_constant)
