"""A map averaged over a point group, about the axes that it has, moved to where docs/conventions.md puts them.

With R and c of `hoarfrost.symmetry.axes`, W(x) = V(Rᵀ x + c) the map in the group's frame,

    (S W)^(k) = 1/|G| Σ_g V̂( Rᵀ gᵀ k ) exp(2πi (gᵀ k)·R c / n)

each term by the non-uniform FFT of the map itself, so that it is interpolated only once.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.evaluation.align import one_thread
from hoarfrost.evaluation.evaluate import read_map
from hoarfrost.evaluation.options import SymmetriseOptions
from hoarfrost.io.folders import check_file
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.ball import half_ball, volume_of
from hoarfrost.maths.fourier import fourier_resize, soft_sphere
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.symmetry.axes import Axes, correlation_about, find_axes
from hoarfrost.symmetry.point_group import PointGroup

# Fourier pixels by which axes are placed, unless the user says; time grows with the cube.
LARGEST_R_MAX = 20.0
EDGE_VOXELS = 3.0
# A map that has the axes correlates with itself, turned about them, by more than this.
DOUBTFUL = 0.75
WIDTH = 5


@dataclass(frozen=True)
class Symmetrised:
    """What `symmetrise` found and wrote.

    `correlation` is that of the input with itself, turned about the axes, up to 6 Fourier pixels or `compared_to_A`.
    `axes` says how the map was moved.
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
    points = half_ball(n, n / 2 - 1e-3)
    sampler = SpectrumSampler(volume.to("cpu", torch.float32).unsqueeze(0), width=WIDTH)
    values = torch.zeros(len(points), dtype=torch.complex64)
    for rotation in group.rotations:
        turned = points @ rotation  # rows (gᵀ k)ᵀ
        angle = 2 * math.pi / n * (turned @ (axes.rotation @ axes.centre))
        sampled = sampler((turned @ axes.rotation).to(torch.float32))[:, 0]
        values += sampled * torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
    values /= group.order
    averaged = volume_of(points, values, n)
    return (averaged * soft_sphere(n, n - 2 * EDGE_VOXELS, EDGE_VOXELS)).to(torch.float32)


def symmetrise(map_path: str | Path, symmetry: str, output: str | Path, options: SymmetriseOptions) -> Symmetrised:
    """The verb `hoarfrost.symmetrise`, which documents arguments and errors."""
    output = Path(output)
    group, max_resolution_A = PointGroup(symmetry), options.max_resolution_A
    if group.order == 1:
        raise UsageError("C1 is no symmetry: name a group like C4, D7, T, O or I")
    check_file(output, [map_path], overwrite=options.overwrite)
    source = read_map(map_path, options.pixel_size_A)
    n = source.volume.shape[0]
    length_A = n * source.pixel_size_A
    finest_A, coarsest_A = 2 * source.pixel_size_A, length_A / 2
    if max_resolution_A is not None and not finest_A < max_resolution_A < coarsest_A:
        bounds = f"between {finest_A:.1f} and {coarsest_A:.1f} Å"
        raise UsageError(f"--max-resolution must lie {bounds}, found {max_resolution_A:g}")
    r_max = LARGEST_R_MAX if max_resolution_A is None else length_A / max_resolution_A
    r_max = min(r_max, n / 2 - 2)
    # The search is at a few Fourier pixels, whatever the box.
    small = min(n, 2 * math.ceil(r_max + 4))
    coarse = fourier_resize(source.volume, small)
    if options.aligned:
        turn, centre = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        axes = Axes(turn, centre, correlation_about(coarse, group, r_max, turn, centre))
    else:
        with one_thread():
            axes = find_axes(coarse, group, r_max)
        axes = dataclasses.replace(axes, centre=axes.centre * (n / small))
    averaged = average_about(source.volume, group, axes)
    write_volume(output, averaged.numpy(), source.pixel_size_A)
    return Symmetrised(output, group, axes, axes.correlation, length_A / min(r_max, 6.0))
