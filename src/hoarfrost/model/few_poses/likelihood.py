"""The likelihood of images at poses of their own, and its climb to the nearest best pose.

    log p(Ĩ, R, t | V) = −‖y‖² + 2 Re⟨c S_t* y , P_R V⟩ − ⟨c² , |P_R V|²⟩ + log p(R) p(t)

with y and c as in `model.all_poses.marginal`. Orientations are uniform, with density 1 / 8π² per cubic radian near
any one; shifts are normal, and not cut off as those of the quadrature are. A pose is moved by (ω, s), R → R exp([ω]×),
t → t + s; with p the sampled frequency and g the gradient of V̂ there,

    ∂V̂(p)/∂ω = −p × g      ∂S_t/∂t = −(2πi k / N) S_t      Hessian of −log p ≈ 2 Re JᴴJ   (Gauss–Newton)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import rotations_from_vectors
from hoarfrost.maths.rows import Rows
from hoarfrost.model.few_poses.draws import POSE_SIZE
from hoarfrost.model.few_poses.frequencies import SliceFrequencies
from hoarfrost.model.few_poses.kernels import PoseKernels, kernels_for
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.parallel.threads import each

# Derivatives of V̂ need a tap more than V̂ itself.
KERNEL_WIDTH = 4
SMALLEST_SHIFT_SIGMA_PX = 0.01
# Softness of the edge of the shifts: a sharp one could leave all samples about a pose without any probability.
WALL_PX = 0.25
# No step of a climb is much longer than this, and no pose is spread wider.
LARGEST_TURN_DEG = 8.0
FIRST_DAMPING = 1e-2
# A step that promises a smaller rise of log p, in nats, is taken without evaluating log p where it leads.
SMALL_RISE = 0.3


@dataclass(frozen=True)
class Peaks(Rows):
    """Poses at maxima of the posterior: `rotations` (m, 3, 3) and `shifts_px` (m, 2) float64.

    `log_density` (m,) is log p(Ĩ, R, t | V) less the image's constant, per cubic radian and square pixel; `precision`
    (m, 5, 5) the Hessian of its negative in (ω, s).
    """

    rotations: Tensor
    shifts_px: Tensor
    log_density: Tensor
    precision: Tensor

    def log_mass(self) -> Tensor:
        """Log of the integral over each peak by Laplace's approximation, (m,)."""
        return self.log_density + POSE_SIZE / 2 * math.log(2 * math.pi) - torch.logdet(self.precision) / 2


class LocalModel:
    """Images up to the band limit of `disc` as a function of their poses, given a volume (n, n, n).

    The volume spans the length of the images, n > 2 r_max, and is taken for empty outside the `middle` of its box, so
    many voxels wide. `kernels` are those for its device unless given.
    """

    def __init__(
        self,
        volume: Tensor,
        disc: FourierDisc,
        prior: PosePrior,
        kernels: PoseKernels | None = None,
        middle: int | None = None,
    ) -> None:
        # Compiled code trusts that all frequencies lie on its grids.
        assert volume.shape[0] > 2 * disc.r_max
        self.disc = disc
        self._spectrum = SpectrumSampler(volume[None] / disc.box, width=KERNEL_WIDTH, reach=disc.r_max, middle=middle)
        self.frequencies = SliceFrequencies.of(disc, volume.device)
        self._kernels = kernels or kernels_for(self.frequencies.k)
        self._extent_px = prior.shift_extent_px
        self._sigma_px = max(min(prior.shift_sigma_px, self._extent_px), SMALLEST_SHIFT_SIGMA_PX)
        self._log_prior = -math.log(8 * math.pi**2) - math.log(2 * math.pi * self._sigma_px**2)

    def slices(self, rotations: Tensor, shifts_px: Tensor) -> Tensor:
        """S_t P_R V at poses (m, 3, 3) and (m, 2): what images would show without a CTF, complex64 (m, K)."""
        points = self.frequencies.points(rotations)
        sampled = self._spectrum(points.flatten(0, 1)).view(points.shape[:2])
        return sampled * self.frequencies.phases(shifts_px)

    def log_density(self, images: WhitenedImages, rotations: Tensor, shifts_px: Tensor) -> Tensor:
        """log p(Ĩ, R, t | V) less the image's constant at poses (b, m, 3, 3) and (b, m, 2) of b images: (b, m)."""
        parts = self._parts(*rotations.shape[:2])
        if len(parts) > 1:

            def of_part(p: slice) -> Tensor:
                return self.log_density(images[p], rotations[p], shifts_px[p])

            return torch.cat(each(of_part, parts, images.data.device))
        gain = self._kernels.score(self._spectrum, self.frequencies, images, rotations, shifts_px)
        return gain + self._log_shift_density(shifts_px)

    def _parts(self, b: int, m: int) -> list[slice]:
        """Parts of b images of m poses each, one for a worker at a time."""
        at_once = max(1, self._kernels.COEFFICIENTS_AT_ONCE // (m * self.disc.size))
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

            return Peaks.cat(each(of_part, parts, images.data.device))
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
        gain, slope, hessian = self._kernels.expand(self._spectrum, self.frequencies, images, rotations, shifts_px)
        slope[:, 3:] -= shifts_px.to(torch.float32) / self._sigma_px**2
        hessian.diagonal(dim1=1, dim2=2)[:, 3:] += 1 / self._sigma_px**2
        return gain + self._log_shift_density(shifts_px), slope, hessian
