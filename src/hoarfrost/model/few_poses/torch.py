"""The likelihood of poses, its expansion about them, and their statistics, by torch: see `kernels.PoseKernels`."""

import math

import torch
from torch import Tensor

from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.frequencies import SliceFrequencies
from hoarfrost.model.images import WhitenedImages
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.nufft.torch import WindowTaps

# A climb takes about 200 bytes of memory for each.
COEFFICIENTS_AT_ONCE = 1 << 20


def score(
    spectrum: SpectrumSampler,
    frequencies: SliceFrequencies,
    images: WhitenedImages,
    rotations: Tensor,
    shifts_px: Tensor,
) -> Tensor:
    """As `PoseKernels.score`."""
    b, m = rotations.shape[:2]
    slices = spectrum(frequencies.points(rotations.flatten(0, 1)).flatten(0, 1)).view(b, m, -1)
    back = (images.ctf * images.data)[:, None] * frequencies.phases(shifts_px.flatten(0, 1)).view(b, m, -1).conj()
    match = (torch.view_as_real(back) * torch.view_as_real(slices)).flatten(2).sum(dim=-1)
    power = torch.einsum("bk,bmk->bm", images.ctf.square(), slices.real.square() + slices.imag.square())
    gain: Tensor = 2 * match - power
    return gain


def expand(
    spectrum: SpectrumSampler,
    frequencies: SliceFrequencies,
    images: WhitenedImages,
    rotations: Tensor,
    shifts_px: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `PoseKernels.expand`."""
    points = frequencies.points(rotations)
    sampled = spectrum.expand(points.flatten(0, 1)).view(*points.shape[:2], 4)
    phase = frequencies.phases(shifts_px) * images.ctf
    predicted = sampled[..., 0] * phase
    by_rotation = torch.linalg.cross(points.to(sampled.dtype), sampled[..., 1:]) * -phase.unsqueeze(-1)
    by_shift = frequencies.k * (predicted * (-2j * math.pi / frequencies.box)).unsqueeze(-1)
    jacobian = torch.cat([by_rotation, by_shift], dim=-1)
    j = torch.view_as_real(jacobian.transpose(1, 2).contiguous()).flatten(2)
    residual = images.data - predicted
    slope = 2 * torch.bmm(j, torch.view_as_real(residual).flatten(1).unsqueeze(-1)).squeeze(-1)
    hessian = 2 * torch.bmm(j, j.transpose(1, 2))
    gain = (images.data.abs().square() - residual.abs().square()).sum(dim=-1)
    return gain, slope, hessian


def spread(
    taps: WindowTaps,
    frequencies: SliceFrequencies,
    images: WhitenedImages,
    draws: Draws,
    grids: tuple[Tensor, Tensor],
) -> None:
    """As `PoseKernels.spread`."""
    at_once = max(1, COEFFICIENTS_AT_ONCE // len(frequencies.k))
    for first in range(0, len(draws.image), at_once):
        some = draws[first : first + at_once]
        seen = images[some.image]
        points = frequencies.points(some.rotations).flatten(0, 1)
        scale = seen.ctf * some.share.to(torch.float32).unsqueeze(-1)
        data = (scale * seen.data * frequencies.phases(some.shifts_px).conj()).flatten()
        taps.spread(points, data, (scale * seen.ctf).flatten(), grids)
