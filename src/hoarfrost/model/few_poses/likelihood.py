"""The likelihood of images at poses of their own, and its climb to the nearest best pose.

    log p(Ĩ, R, t | V) = −‖y‖² + 2 Re⟨c S_t* y , P_R V⟩ − ⟨c² , |P_R V|²⟩ + log p(R) p(t)

with y and c as in `model.all_poses.marginal`. Orientations are uniform, with density 1 / 8π² per cubic radian near
any one; shifts are normal, and not cut off as those of the quadrature are. A pose is moved by (ω, s), R → R exp([ω]×),
t → t + s; with p the sampled frequency and g the gradient of V̂ there,

    ∂V̂(p)/∂ω = −p × g      ∂S_t/∂t = −(2πi k / N) S_t      Hessian of −log p ≈ 2 Re JᴴJ   (Gauss–Newton)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.compiled import is_compiled
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import rotations_from_vectors
from hoarfrost.model.few_poses.pose_kernel import expand_poses, score_poses
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.parallel.threads import each

POSE_SIZE = 5  # three angles, two shifts
# With this derivatives of V̂ come to 0.7 % of their root mean square, with a tap less to 7 %.
KERNEL_WIDTH = 4
SMALLEST_SHIFT_SIGMA_PX = 0.01
# A sharp edge could leave all samples about a pose without any probability.
WALL_PX = 0.25
# Of a climb: no step is much longer than this, nor is a pose that the images leave open spread wider.
LARGEST_TURN_DEG = 8.0
FIRST_DAMPING = 1e-2
# A step that promises a smaller rise of log p, in nats, is taken without a look at what comes of it, which is half as
# much again as promised at the median: log p at a pose is noise in part, and curves less than Gauss and Newton say. On
# simulated polymerase that spares 37 % of all looks, and the sums come out the same to 0.01 nats an image.
SMALL_RISE = 0.3
# Poses are looked at so many coefficients of theirs at a time. A climb takes about 200 bytes for each: on the CPU those
# of each worker are to stay in its cache.
COEFFICIENTS_AT_ONCE, COEFFICIENTS_ON_CPU = 1 << 20, 1 << 16


@dataclass(frozen=True)
class Peaks:
    """Poses at maxima of the posterior: `rotations` (m, 3, 3) and `shifts_px` (m, 2) float64.

    `log_density` (m,) is log p(Ĩ, R, t | V) less the image's constant, per cubic radian and square pixel; `precision`
    (m, 5, 5) the Hessian of its negative in (ω, s).
    """

    rotations: Tensor
    shifts_px: Tensor
    log_density: Tensor
    precision: Tensor

    @staticmethod
    def of(parts: list[Peaks]) -> Peaks:
        """Several as one."""
        columns = zip(*((p.rotations, p.shifts_px, p.log_density, p.precision) for p in parts), strict=True)
        return Peaks(*(torch.cat(column) for column in columns))

    def log_mass(self) -> Tensor:
        """Log of the integral over each peak by Laplace's approximation, (m,)."""
        return self.log_density + POSE_SIZE / 2 * math.log(2 * math.pi) - torch.logdet(self.precision) / 2


class LocalModel:
    """Images up to the band limit of `disc` as a function of their poses, given a volume (n, n, n).

    The volume spans the length of the images, n > 2 r_max. `frequencies` (K, 2) are those of the disc, whole numbers.
    """

    def __init__(self, volume: Tensor, disc: FourierDisc, prior: PosePrior) -> None:
        # Compiled code trusts that all frequencies lie on its grids.
        assert volume.shape[0] > 2 * disc.r_max
        self.disc = disc
        self._spectrum = SpectrumSampler(volume[None] / disc.box, width=KERNEL_WIDTH, reach=disc.r_max)
        self.frequencies = disc.coordinates.to(volume.device, torch.float32)
        self._lower = torch.tril_indices(POSE_SIZE, POSE_SIZE)
        self._extent_px = prior.shift_extent_px
        self._sigma_px = max(min(prior.shift_sigma_px, self._extent_px), SMALLEST_SHIFT_SIGMA_PX)
        self._log_prior = -math.log(8 * math.pi**2) - math.log(2 * math.pi * self._sigma_px**2)

    def points(self, rotations: Tensor) -> Tensor:
        """Where the slices at rotations (m, 3, 3) sample V̂: (m, K, 3), (x, y, z) in Fourier pixels."""
        return torch.einsum("kc,mcx->mkx", self.frequencies, rotations[:, :2].to(torch.float32))

    def phases(self, shifts_px: Tensor) -> Tensor:
        """S_t(k) of shifts (m, 2): complex64 (m, K)."""
        angle = (shifts_px.to(torch.float32) @ self.frequencies.T) * (-2 * math.pi / self.disc.box)
        return torch.complex(angle.cos(), angle.sin())

    def log_density(self, images: WhitenedImages, rotations: Tensor, shifts_px: Tensor) -> Tensor:
        """log p(Ĩ, R, t | V) less the image's constant at poses (b, m, 3, 3) and (b, m, 2) of b images: (b, m)."""
        parts = self._parts(*rotations.shape[:2])
        if len(parts) > 1:

            def of_part(p: slice) -> Tensor:
                return self.log_density(images[p], rotations[p], shifts_px[p])

            return torch.cat(each(of_part, parts, images.data.device))
        b, m = rotations.shape[:2]
        if is_compiled(images.ctf):
            gain = torch.empty(b * m, dtype=torch.float64)
            image = torch.arange(b).repeat_interleave(m)
            poses = rotations.flatten(0, 1).float(), shifts_px.flatten(0, 1).float()
            score_poses(
                self.frequencies, self.disc.box, image, torch.view_as_real(images.data), images.ctf, *poses,
                self._spectrum.grid, self._spectrum.table, gain,
            )  # fmt: skip
            return gain.view(b, m).float() + self._log_shift_density(shifts_px)
        slices = self._spectrum(self.points(rotations.flatten(0, 1)).flatten(0, 1)).view(b, m, -1)
        back = (images.ctf * images.data)[:, None] * self.phases(shifts_px.flatten(0, 1)).view(b, m, -1).conj()
        match = (torch.view_as_real(back) * torch.view_as_real(slices)).flatten(2).sum(dim=-1)
        power = torch.einsum("bk,bmk->bm", images.ctf.square(), slices.real.square() + slices.imag.square())
        return 2 * match - power + self._log_shift_density(shifts_px)

    def _parts(self, b: int, m: int) -> list[slice]:
        """Parts of b images of m poses each, one for a worker at a time."""
        most = COEFFICIENTS_ON_CPU if self.frequencies.device.type == "cpu" else COEFFICIENTS_AT_ONCE
        at_once = max(1, most // (m * self.disc.size))
        return [slice(first, first + at_once) for first in range(0, b, at_once)]

    def _log_shift_density(self, shifts_px: Tensor) -> Tensor:
        length = shifts_px.to(torch.float32).norm(dim=-1)
        beyond = (length - self._extent_px).clamp(min=0)
        misfit = (length / self._sigma_px).square() + (beyond / WALL_PX).square()
        log_density: Tensor = self._log_prior - misfit / 2
        return log_density

    def climb(self, images: WhitenedImages, rotations: Tensor, shifts_px: Tensor, steps: int) -> Peaks:
        """The local maxima near poses (m, 3, 3), (m, 2), one image each, by Levenberg–Marquardt steps.

        So many at most, and a last small one.
        """
        parts = self._parts(len(images), 1)
        if len(parts) > 1:

            def of_part(p: slice) -> Peaks:
                return self.climb(images[p], rotations[p], shifts_px[p], steps)

            return Peaks.of(each(of_part, parts, images.data.device))
        log_density, slope, precision = self._expand(images, rotations, shifts_px)
        rotations, shifts_px = rotations.clone(), shifts_px.clone()
        damping = torch.full_like(log_density, FIRST_DAMPING)
        climbing = torch.arange(len(images), device=images.data.device)
        for left in reversed(range(steps + 1)):
            diagonal = precision[climbing].diagonal(dim1=1, dim2=2) * damping[climbing, None]
            curvature = self.bounded(precision[climbing]) + torch.diag_embed(diagonal)
            step = torch.linalg.solve(curvature, slope[climbing])
            promise = (step * slope[climbing]).sum(dim=1) / 2
            turned = rotations[climbing] @ rotations_from_vectors(step[:, :3].to(torch.float64))
            moved = shifts_px[climbing] + step[:, 3:].to(torch.float64)
            is_small = promise <= SMALL_RISE
            there = climbing[is_small]
            rotations[there], shifts_px[there] = turned[is_small], moved[is_small]
            log_density[there] += promise[is_small]
            climbing, turned, moved = climbing[~is_small], turned[~is_small], moved[~is_small]
            if left == 0 or len(climbing) == 0:
                break
            expansion = self._expand(images[climbing], turned, moved)
            better = expansion[0] > log_density[climbing]
            up = climbing[better]
            rotations[up], shifts_px[up] = turned[better], moved[better]
            log_density[up], slope[up], precision[up] = (column[better] for column in expansion)
            damping[climbing] *= torch.where(better, 1 / 5, 10.0)
        return Peaks(rotations, shifts_px, log_density, self.bounded(precision))

    @staticmethod
    def bounded(precision: Tensor) -> Tensor:
        """The precision (m, 5, 5), no angle less certain than `LARGEST_TURN_DEG`."""
        floor = torch.zeros(POSE_SIZE, device=precision.device)
        floor[:3] = 1 / math.radians(LARGEST_TURN_DEG) ** 2
        return precision + torch.diag(floor)

    def _expand(self, images: WhitenedImages, rotations: Tensor, shifts_px: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log density (m,), its gradient (m, 5) and minus its Gauss–Newton Hessian (m, 5, 5)."""
        gain, slope, hessian = self._expand_gain(images, rotations, shifts_px)
        slope[:, 3:] -= shifts_px.to(torch.float32) / self._sigma_px**2
        hessian.diagonal(dim1=1, dim2=2)[:, 3:] += 1 / self._sigma_px**2
        return gain + self._log_shift_density(shifts_px), slope, hessian

    def _expand_gain(
        self, images: WhitenedImages, rotations: Tensor, shifts_px: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same without the prior of the shifts."""
        if is_compiled(images.ctf):
            found = torch.empty(len(images), 1 + POSE_SIZE + len(self._lower[0]), dtype=torch.float64)
            expand_poses(
                self.frequencies, self.disc.box, torch.view_as_real(images.data), images.ctf,
                rotations.float(), shifts_px.float(), self._spectrum.grid, self._spectrum.table, found,
            )  # fmt: skip
            found = found.float()
            hessian = torch.empty(len(images), POSE_SIZE, POSE_SIZE)
            rows, columns = self._lower
            hessian[:, rows, columns] = hessian[:, columns, rows] = found[:, 1 + POSE_SIZE :]
            return found[:, 0], found[:, 1 : 1 + POSE_SIZE], hessian
        points = self.points(rotations)
        sampled = self._spectrum.expand(points.flatten(0, 1)).view(*points.shape[:2], 4)
        phase = self.phases(shifts_px) * images.ctf
        predicted = sampled[..., 0] * phase
        jacobian = torch.cat(
            [
                torch.linalg.cross(points.to(sampled.dtype), sampled[..., 1:]) * -phase.unsqueeze(-1),
                self.frequencies * (predicted * (-2j * math.pi / self.disc.box)).unsqueeze(-1),
            ],
            dim=-1,
        )
        j = torch.view_as_real(jacobian.transpose(1, 2).contiguous()).flatten(2)
        residual = images.data - predicted
        slope = 2 * torch.bmm(j, torch.view_as_real(residual).flatten(1).unsqueeze(-1)).squeeze(-1)
        hessian = 2 * torch.bmm(j, j.transpose(1, 2))
        gain = (images.data.abs().square() - residual.abs().square()).sum(dim=-1)
        return gain, slope, hessian
