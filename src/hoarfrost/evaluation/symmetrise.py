"""A map averaged over a point group, about the axes that it has, moved to where docs/conventions.md puts them.

With R and c of `hoarfrost.symmetry.axes`, W(x) = V(Rᵀ x + c) the map in the group's frame,

    (S W)^(k) = 1/|G| Σ_g V̂( Rᵀ gᵀ k ) exp(2πi (gᵀ k)·R c / n)

each term by the non-uniform FFT of the map itself, so that it is interpolated once and takes no more memory than that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.evaluation.align import one_thread
from hoarfrost.evaluation.evaluate import read_map
from hoarfrost.evaluation.search import ball
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.fourier import fourier_resize, ifft3_centred, soft_sphere
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.symmetry.axes import Axes, correlation_about, find_axes
from hoarfrost.symmetry.point_group import PointGroup

# Fourier pixels by which axes are placed, unless told; beyond, time grows with the cube.
LARGEST_R_MAX = 20.0
EDGE_VOXELS = 3.0
# Maps turned about axes that they have correlate by 0.93 (β-galactosidase, reconstructed in C1) to 1.0, about the best
# axes of groups that they have not by 0.3 to 0.64.
DOUBTFUL = 0.75
WIDTH = 5


@dataclass(frozen=True)
class Symmetrised:
    """What `symmetrise` found and wrote.

    `correlation` is that of the map before with itself, turned about the axes, over what is coarser than the sixth
    Fourier pixel; `axes` tells how the map was moved.
    """

    path: Path
    group: PointGroup
    axes: Axes
    correlation: float
    compared_to_A: float

    @property
    def is_doubtful(self) -> bool:
        """Whether the map does not look as if it had the symmetry."""
        return self.correlation < DOUBTFUL


def average_about(volume: Tensor, group: PointGroup, axes: Axes) -> Tensor:
    """S W of a real volume (n, n, n): float32, zero beyond the ball within the box."""
    n = volume.shape[-1]
    points = ball(n, n / 2 - 1e-3)
    sampler = SpectrumSampler(volume.to("cpu", torch.float32).unsqueeze(0), width=WIDTH)
    values = torch.zeros(len(points), dtype=torch.complex64)
    for rotation in group.rotations:
        turned = points @ rotation  # rows (gᵀ k)ᵀ
        angle = 2 * math.pi / n * (turned @ (axes.rotation @ axes.centre))
        sampled = sampler((turned @ axes.rotation).to(torch.float32))[:, 0]
        values += sampled * torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
    values /= group.order
    spectrum = torch.zeros((n, n, n), dtype=torch.complex64)
    for k, value in ((points, values), (-points, values.conj())):
        ix, iy, iz = (k.round().to(torch.int64) + n // 2).unbind(-1)
        spectrum[iz, iy, ix] = value
    averaged = ifft3_centred(spectrum).real
    return (averaged * soft_sphere(n, n - 2 * EDGE_VOXELS, EDGE_VOXELS)).to(torch.float32)


def symmetrise(
    map_path: str | Path,
    group: str,
    output: str | Path,
    *,
    aligned: bool = False,
    max_resolution_A: float | None = None,
    overwrite: bool = False,
) -> Symmetrised:
    """The verb `hoarfrost.symmetrise`, which documents arguments and errors."""
    output = Path(output)
    point_group = PointGroup(group)
    if point_group.order == 1:
        raise UsageError("C1 is no symmetry: name a group like C4, D7, T, O or I")
    if output.exists() and (output.samefile(map_path) if Path(map_path).exists() else False):
        raise UsageError(f"{output} is the input; choose another output")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; choose another name or give --overwrite")
    volume, pixel_size_A = read_map(map_path)
    n = volume.shape[0]
    length_A = n * pixel_size_A
    if max_resolution_A is not None and not 2 * pixel_size_A < max_resolution_A < length_A / 2:
        raise UsageError(
            f"--max-resolution must lie between {2 * pixel_size_A:.1f} and {length_A / 2:.1f} Å, found "
            f"{max_resolution_A:g}"
        )
    r_max = LARGEST_R_MAX if max_resolution_A is None else length_A / max_resolution_A
    r_max = min(r_max, n / 2 - 2)
    # The search is at a few Fourier pixels, whatever the box.
    small = min(n, 2 * math.ceil(r_max + 4))
    coarse = fourier_resize(volume, small)
    if aligned:
        still = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        axes = Axes(*still, correlation_about(coarse, point_group, r_max, *still))
    else:
        with one_thread():
            found = find_axes(coarse, point_group, r_max)
        axes = Axes(found.rotation, found.centre * (n / small), found.correlation)
    write_volume(output, average_about(volume, point_group, axes).numpy(), pixel_size_A)
    return Symmetrised(output, point_group, axes, axes.correlation, length_A / min(r_max, 6.0))
