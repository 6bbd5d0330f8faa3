"""The sum over poses near a few modes, by importance sampling, and poses drawn from the posterior.

Each image's posterior is sampled from a mixture of normals about its modes, q(x) = Σ_c α_c N(x; x_c, s² Σ_c) with Σ_c
the inverse of the precision there and α_c its share of the mass. With M points x_m of a scrambled Sobol sequence,

    p(Ĩ | V) ≈ (1/M) Σ_m w_m      w_m = p(Ĩ, x_m | V) / q(x_m)

is unbiased (Kahn 1955; the mixture in the denominator after Owen & Zhou 2000), and the points with shares w_m / Σ w_m
have the statistics of the posterior. A few of them make the M-step's statistics: a part of the sequence chosen at
random, with its own weights. A draw by weight would be no more accurate, and would turn rounding errors into other
poses, so that no two machines would agree.
"""

import dataclasses
import math

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import rotations_from_vectors
from hoarfrost.model.few_poses.draws import POSE_SIZE, Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.modes import Modes, pose_differences
from hoarfrost.model.images import WhitenedImages
from hoarfrost.symmetry.point_group import PointGroup

# s: wider than the normal approximation, so that no part of the posterior is seen too rarely; but as wide where it is
# sharp, as there it is normal.
SPREAD = 1.2
# Poses of a posterior that is sharp: one mode, in which slices move by less than half a Fourier pixel, and phases by
# less than half a radian, at the band limit.
SHARE_OF_POINTS, FEWEST_DRAWN, ONE_MODE, SHARP = 1 / 4, 2, 0.99, 0.5


class PoseSampler:
    """Draws up to `n_points` points about the modes of each image, of which up to `n_drawn` go on as `Draws`.

    Both are powers of two, or the Sobol sequence would lose its balance. An image whose posterior has a few modes takes
    `points_per_mode` for each of them, a power of two, unless that is None: the first points of its block of the
    sequence, which are balanced too. Where an image's only mode is sharp it takes `SHARE_OF_POINTS` of these, and
    `FEWEST_DRAWN` go on.

    Of a map with the symmetry of `group` each mode stands for as many as the group has rotations. The proposal is the
    mean over all of them: they do not overlap, so that near a mode it is q over their number, and one of them is
    sampled for all.
    """

    def __init__(
        self,
        n_points: int,
        n_drawn: int,
        generator: torch.Generator,
        group: PointGroup | None = None,
        points_per_mode: int | None = None,
    ) -> None:
        self.n_points, self.n_drawn = n_points, n_drawn
        self._points_per_mode = points_per_mode or n_points
        self._group = group or PointGroup()
        seeds = torch.randint(2**31, (2,), generator=generator).tolist()
        self._generator = torch.Generator().manual_seed(seeds[0])
        self._sobol = SobolEngine(POSE_SIZE, scramble=True, seed=seeds[1])  # type: ignore[no-untyped-call]

    def skip(self, n_images: int) -> None:
        """Pass over the random numbers of so many images, which are sampled elsewhere.

        Those of an image depend on how many came before it, and not on how they were split into calls.
        """
        self._uniform(n_images)
        if n_images > 0:
            self._sobol.fast_forward(n_images * self.n_points)  # type: ignore[no-untyped-call]

    def __call__(self, model: LocalModel, images: WhitenedImages, modes: Modes) -> tuple[Tensor, Draws]:
        """log p(Ĩ | V) of b images, (b,) float64, and draws from their posteriors. Each needs one mode at least."""
        b, device = len(images), images.data.device
        uniform, normals = self._uniform(b).to(device), self._normals(b).to(device)
        are_sharp = _are_sharp(modes, model.disc)
        n_points = self._points_for(modes.share())
        n_points = torch.where(are_sharp, (SHARE_OF_POINTS * n_points).ceil().to(n_points), n_points)
        n_drawn = torch.where(are_sharp, FEWEST_DRAWN, self.n_drawn).clamp(max=self.n_drawn)
        n_drawn = torch.minimum(n_drawn, n_points)
        log_evidence = torch.empty(b, dtype=torch.float64, device=device)
        draws = []
        kinds = torch.stack([n_points, n_drawn, are_sharp.to(torch.int64)], dim=1)
        for kind in torch.unique(kinds, dim=0):
            rows = (kinds == kind).all(dim=1).nonzero().squeeze(1)
            m, n, is_sharp = kind.tolist()
            spread = 1.0 if is_sharp else SPREAD
            log_evidence[rows], of_rows = self._sampled(
                model, images[rows], modes[rows], uniform[rows], spread * normals[rows, :m], n, spread
            )
            draws.append(dataclasses.replace(of_rows, image=rows[of_rows.image]))
        return log_evidence, Draws.cat(draws)

    def _points_for(self, share: Tensor) -> Tensor:
        """Points for each image, (b,) int64: a power of two, by the effective number of its modes (b, c)."""
        wanted = self._points_per_mode / share.square().sum(dim=1)
        # Rounding is not to double the points of an image with one mode.
        return torch.exp2((wanted.log2() - 1e-3).ceil()).to(torch.int64).clamp(max=self.n_points)

    def _sampled(
        self,
        model: LocalModel,
        images: WhitenedImages,
        modes: Modes,
        uniform: Tensor,
        normals: Tensor,
        n_drawn: int,
        spread: float,
    ) -> tuple[Tensor, Draws]:
        """The same of images that take m points each, from deviates (b, 2) and (b, m, 5) with s = `spread`."""
        (b, m, _), device, share = normals.shape, images.data.device, modes.share()
        # Every mode gets points in proportion to its mass, a random remainder decided by one number an image.
        first, second = torch.split(uniform, 1, dim=1)
        # Dealt out so that any `n_drawn` points that follow each other see all modes; odd, so that none comes twice.
        strata = torch.arange(m, device=device) * (m // n_drawn | 1) % m
        steps = (strata + first.to(share.dtype)) / m
        chosen = torch.searchsorted(share.cumsum(dim=1).contiguous(), steps).clamp(max=share.shape[1] - 1)
        rows = torch.arange(b, device=device).unsqueeze(1)
        root = torch.linalg.cholesky(torch.linalg.inv(modes.precision))
        step = torch.einsum("bmxy,bmy->bmx", root[rows, chosen], normals)
        turn = rotations_from_vectors(step[..., :3].reshape(-1, 3).to(torch.float64)).view(b, m, 3, 3)
        rotations = modes.rotations[rows, chosen] @ turn
        shifts_px = modes.shifts_px[rows, chosen] + step[..., 3:].to(torch.float64)
        log_target = model.log_density(images, rotations, shifts_px).to(torch.float64)
        log_weight = log_target - self._log_proposal(modes, root, share, rotations, shifts_px, spread)
        log_evidence = images.log_constant + torch.logsumexp(log_weight, dim=1) - math.log(m)
        return log_evidence, _drawn(log_weight, rotations, shifts_px, second, n_drawn)

    def _uniform(self, b: int) -> Tensor:
        """Two uniform deviates an image, (b, 2) float64."""
        return torch.rand(b, 2, generator=self._generator, dtype=torch.float64)

    def _normals(self, b: int) -> Tensor:
        """Standard normal deviates, (b, M, 5) float32: consecutive blocks of the sequence, one an image."""
        uniform: Tensor = self._sobol.draw(b * self.n_points, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        normal: Tensor = torch.special.ndtri(uniform).to(torch.float32)
        return normal.view(b, self.n_points, POSE_SIZE)

    def _log_proposal(
        self, modes: Modes, root: Tensor, share: Tensor, rotations: Tensor, shifts_px: Tensor, spread: float
    ) -> Tensor:
        """log q at points (b, M): float64."""
        apart = pose_differences(modes.rotations, modes.shifts_px, rotations, shifts_px, self._group)
        squared = torch.einsum("bcmx,bcxy,bcmy->bcm", apart, modes.precision / spread**2, apart)
        log_scale = (spread * root.diagonal(dim1=-2, dim2=-1)).log().sum(-1) + POSE_SIZE / 2 * math.log(2 * math.pi)
        parts = (share.log() - log_scale).unsqueeze(2) - squared / 2
        return torch.logsumexp(parts.to(torch.float64), dim=1) - math.log(self._group.order)


def _are_sharp(modes: Modes, disc: FourierDisc) -> Tensor:
    """Whether an image has one mode, so narrow that at the band limit all its poses see the same, (b,) bool."""
    variance = torch.linalg.inv(modes.precision[:, 0]).diagonal(dim1=1, dim2=2)
    turned_px = variance[:, :3].sum(dim=1).sqrt() * disc.r_max
    phase = variance[:, 3:].sum(dim=1).sqrt() * (2 * math.pi * disc.r_max / disc.box)
    are_sharp: Tensor = (modes.share()[:, 0] > ONE_MODE) & (turned_px < SHARP) & (phase < SHARP)
    return are_sharp


def _drawn(log_weight: Tensor, rotations: Tensor, shifts_px: Tensor, chance: Tensor, n: int) -> Draws:
    """The n points of one part of the sequence for each image; `chance` (b, 1) says which."""
    (b, m), device = log_weight.shape, log_weight.device
    part = (chance * (m // n)).long()
    point = (part * n + torch.arange(n, device=device)).flatten()
    image = torch.arange(b, device=device).repeat_interleave(n)
    share = torch.softmax(log_weight[image, point].view(b, n), dim=1).flatten()
    return Draws(image, rotations[image, point], shifts_px[image, point], share.to(torch.float32))
